//! ClientHellos (RFC 8446, 4.1.2), well-formed or not, and their records.

/// Extension number of server_name (RFC 6066, 3).
const SERVER_NAME: u16 = 0;
/// Extension number of ALPN (RFC 7301).
const ALPN: u16 = 16;
/// Extension number of padding (RFC 7685).
const PADDING: u16 = 21;

/// A ClientHello in the making: extensions are sent in the order in which they were added.
#[derive(Clone, Debug)]
pub struct ClientHello {
    legacy_version: u16,
    session_id: Vec<u8>,
    ciphers: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
    extensions_block: bool,
}

impl Default for ClientHello {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientHello {
    /// A TLS 1.3 hello as OpenSSL's, without a server name.
    pub fn new() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: vec![0xA5; 32],
            ciphers: vec![0x1301, 0x1302, 0x1303, 0xC02F],
            extensions: Vec::new(),
            extensions_block: true,
        }
        .extension(43, &[4, 0x03, 0x04, 0x03, 0x03])
        .extension(10, &[0, 2, 0, 0x1D])
        .extension(13, &[0, 4, 0x08, 0x04, 0x04, 0x03])
    }

    /// A hello with nothing but this name, which ends the message.
    pub fn named(name: &str) -> Self {
        Self::new().sni(name)
    }

    /// Adds a server_name extension with one host name.
    pub fn sni(self, name: &str) -> Self {
        self.sni_list(&[(0, name.as_bytes())])
    }

    /// Adds a server_name extension with this list of (name type, name).
    pub fn sni_list(self, names: &[(u8, &[u8])]) -> Self {
        let mut list = Vec::new();
        for (name_type, name) in names {
            list.push(*name_type);
            list.extend_from_slice(&(name.len() as u16).to_be_bytes());
            list.extend_from_slice(name);
        }
        let mut body = (list.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(&list);
        self.extension(SERVER_NAME, &body)
    }

    /// Adds any extension.
    pub fn extension(mut self, number: u16, body: &[u8]) -> Self {
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// Adds an ALPN extension.
    pub fn alpn(self, protocols: &[&str]) -> Self {
        let mut list = Vec::new();
        for protocol in protocols {
            list.push(protocol.len() as u8);
            list.extend_from_slice(protocol.as_bytes());
        }
        let mut body = (list.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(&list);
        self.extension(ALPN, &body)
    }

    /// Adds a padding extension of this many bytes.
    pub fn padding(self, bytes: usize) -> Self {
        self.extension(PADDING, &vec![0; bytes])
    }

    /// Adds GREASE values (RFC 8701) as Chromium does: a cipher suite in front and an extension.
    pub fn grease(mut self) -> Self {
        self.ciphers.insert(0, 0x1A1A);
        self.extension(0x2A2A, &[])
    }

    /// Length of the legacy session id in bytes; more than 32 is an error.
    pub fn session_id(mut self, bytes: u8) -> Self {
        self.session_id = vec![0xA5; usize::from(bytes)];
        self
    }

    /// Number of cipher suites.
    pub fn ciphers(mut self, count: usize) -> Self {
        self.ciphers = vec![0x1301; count];
        self
    }

    /// Leaves out the extensions and even their length, as old clients do.
    pub fn without_extensions(mut self) -> Self {
        self.extensions.clear();
        self.extensions_block = false;
        self
    }

    /// Leaves out all extensions but a server_name.
    pub fn without_extensions_but_sni(mut self, name: &str) -> Self {
        self.extensions.clear();
        self.sni(name)
    }

    /// The handshake message with its four-byte header.
    pub fn handshake(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend_from_slice(&[0x5A; 32]);
        body.push(self.session_id.len() as u8);
        body.extend_from_slice(&self.session_id);
        body.extend_from_slice(&((self.ciphers.len() * 2) as u16).to_be_bytes());
        for cipher in &self.ciphers {
            body.extend_from_slice(&cipher.to_be_bytes());
        }
        body.extend_from_slice(&[1, 0]);
        if self.extensions_block {
            let length: usize = self.extensions.iter().map(|(_, body)| 4 + body.len()).sum();
            body.extend_from_slice(&(length as u16).to_be_bytes());
        }
        for (number, extension) in &self.extensions {
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&(extension.len() as u16).to_be_bytes());
            body.extend_from_slice(extension);
        }
        let mut message = vec![1];
        message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend_from_slice(&body);
        message
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        record(22, &self.handshake())
    }

    /// The message in records that each carry at most this many bytes of it.
    pub fn records_of(&self, bytes: usize) -> Vec<u8> {
        self.handshake()
            .chunks(bytes)
            .flat_map(|chunk| record(22, chunk))
            .collect()
    }

    /// The message in two records, split after this many bytes.
    pub fn records_split_at(&self, bytes: usize) -> Vec<u8> {
        let message = self.handshake();
        let (first, second) = message.split_at(bytes);
        [record(22, first), record(22, second)].concat()
    }
}

/// One TLS record with version 0x0301.
pub fn record(content_type: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![content_type, 0x03, 0x01];
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}
