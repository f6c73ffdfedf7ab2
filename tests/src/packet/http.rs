//! HTTP/1 request heads, well-formed or not.

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Request {
    start: String,
    headers: Vec<String>,
    line_end: &'static str,
    body: Vec<u8>,
}

impl Request {
    /// `GET / HTTP/1.1` without headers.
    pub fn get() -> Self {
        Self::line("GET / HTTP/1.1")
    }

    /// Any request line.
    pub fn line(start: &str) -> Self {
        Self {
            start: start.to_owned(),
            headers: Vec::new(),
            line_end: "\r\n",
            body: Vec::new(),
        }
    }

    /// `GET /` for this host, as a browser sends it.
    pub fn to(host: &str) -> Self {
        Self::get()
            .header(&format!("Host: {host}"))
            .header("User-Agent: kit")
            .header("Accept: */*")
    }

    /// Adds a header line exactly as given.
    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Ends lines with a bare line feed.
    pub fn bare_lf(mut self) -> Self {
        self.line_end = "\n";
        self
    }

    /// Bytes behind the head.
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// The request's bytes, with the empty line.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.start.clone().into_bytes();
        bytes.extend_from_slice(self.line_end.as_bytes());
        for header in &self.headers {
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(self.line_end.as_bytes());
        }
        bytes.extend_from_slice(self.line_end.as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
