//! Real clients, run inside a namespace.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use crate::net::Namespace;

/// How long a client waits for an answer that a filter may have swallowed.
pub const PATIENCE: Duration = Duration::from_millis(1_500);

/// `curl`'s exit status for a timeout.
pub const CURL_TIMEOUT: i32 = 28;

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit status of the client, -1 if a signal ended it.
    pub status: i32,
    /// What it printed.
    pub body: String,
    /// Its complaints.
    pub errors: String,
}

impl Answer {
    /// Whether the site served this name.
    pub fn is_served(&self, name: &str) -> bool {
        self.status == 0 && self.body.contains(&format!("served {name}"))
    }
}

/// Fetches `url` with curl, its host name resolved to `address`, certificate unchecked.
pub fn curl(namespace: &Namespace, url: &str, address: &str) -> Answer {
    curl_with(namespace, url, address, &[])
}

/// As [`curl`], with more arguments.
pub fn curl_with(namespace: &Namespace, url: &str, address: &str, more: &[&str]) -> Answer {
    let rest = url.split_once("://").expect("a URL with scheme").1;
    let authority = rest.split('/').next().expect("an authority");
    let host = authority.split(':').next().expect("a host");
    let address: IpAddr = address.parse().expect("an address");
    let address = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let mut command = namespace.command("curl");
    command
        .args(["--silent", "--show-error", "--insecure", "--noproxy", "*"])
        .args(["--max-time", &PATIENCE.as_secs_f32().to_string()])
        .arg("--resolve")
        .arg(format!("{host}:80:{address}"))
        .arg("--resolve")
        .arg(format!("{host}:443:{address}"))
        .args(more)
        .arg(url);
    answer("curl", command)
}

/// Opens a TLS connection with `openssl s_client` and sends nothing; served if a certificate
/// came back. `name`: the server name to send, or none.
pub fn s_client(namespace: &Namespace, address: &str, name: Option<&str>) -> Answer {
    s_client_within(namespace, address, name, PATIENCE)
}

/// As [`s_client`], for so long at most.
pub fn s_client_within(
    namespace: &Namespace,
    address: &str,
    name: Option<&str>,
    limit: Duration,
) -> Answer {
    let mut command = namespace.command("timeout");
    let authority = SocketAddr::new(address.parse().expect("an address"), 443).to_string();
    command.arg(limit.as_secs_f32().to_string());
    command.args(["openssl", "s_client", "-connect", &authority]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    answer("openssl", command)
}

fn answer(what: &str, mut command: std::process::Command) -> Answer {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("run {what}: {e}"));
    Answer {
        status: output.status.code().unwrap_or(-1),
        body: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Connects, writes `bytes` and reads one answer; an error means that nothing came in time.
pub fn exchange(namespace: &Namespace, to: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(bytes)?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer)?;
        answer.truncate(read);
        Ok(answer)
    })
}
