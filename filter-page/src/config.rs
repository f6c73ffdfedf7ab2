//! What the server is given.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::PathBuf,
    time::Duration,
};

use tokio::sync::mpsc;

/// Where things are, and the limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of certificates; see [`crate::certificates`]. It may be missing: then no TLS
    /// connection is served, and the statistics say so.
    pub certificates: PathBuf,
    /// File of rules, replaced atomically by the controller; see [`crate::decisions`].
    pub decisions: PathBuf,
    /// Directory that replaces the page's template, style or texts. Read once, at the start.
    pub theme: Option<PathBuf>,
    /// How often files are looked at for changes.
    pub reload_every: Duration,
    /// Bounds on what visitors can take.
    pub limits: Limits,
}

impl Config {
    /// The two places that are needed, and the defaults for the rest.
    pub fn new(certificates: impl Into<PathBuf>, decisions: impl Into<PathBuf>) -> Self {
        Self {
            certificates: certificates.into(),
            decisions: decisions.into(),
            theme: None,
            reload_every: Duration::from_secs(1),
            limits: Limits::default(),
        }
    }
}

/// Sockets, bound and listening. They are made by somebody with the privileges for that.
#[derive(Debug)]
pub struct Listeners {
    /// For visitors, of either family. Each takes TLS and plain HTTP: the first byte tells which,
    /// since a blocked name may be asked for on any port, in either way.
    pub visitors: Vec<TcpListener>,
    /// Whoever connects here gets the statistics as one line of JSON.
    pub stats: Option<UnixListener>,
    /// Connections of visitors that somebody else has accepted.
    pub handed: Option<mpsc::Receiver<Handed>>,
}

/// What who accepts connections for the server has to say.
#[derive(Debug)]
pub enum Handed {
    /// A visitor's connection, not blocking.
    Visitor(TcpStream),
    /// So many that were to be accepted were not.
    Lost(u64),
}

/// Bounds on what visitors can take. Beyond each, the outcome in its description is counted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; bounds the memory, at some 400 KiB each at the very worst, the kernel's
    /// buffers included. One more is reset.
    pub connections: usize,
    /// Connections at once of one IPv4 address or IPv6 /64; several visitors behind one
    /// translator are many connections. One more is reset.
    pub connections_per_client: usize,
    /// From the accepted connection to the end of the TLS handshake. Then: closed.
    pub handshake: Duration,
    /// From the end of the handshake or of the previous answer to the end of a request's head.
    /// Then: closed; without an answer, since nobody is known to listen.
    pub request_head: Duration,
    /// Bytes of answers that the kernel keeps of a connection for a visitor to take, as for
    /// `SO_SNDBUF`. Beyond: writing waits, for as long as the next limit says.
    pub send_buffer_bytes: usize,
    /// How long a visitor may take nothing of an answer. Then: reset.
    pub write: Duration,
    /// A connection as a whole, which also bounds who takes a byte now and then. Then: reset.
    pub lifetime: Duration,
    /// Bytes of a request's head. Beyond: `431` and close.
    pub head_bytes: usize,
    /// Header fields of a request. Beyond: `431` and close.
    pub headers: usize,
    /// Requests on one connection. The answer to the last says `Connection: close`.
    pub requests: u32,
    /// Bytes of a request's body that are thrown away so that the answer arrives: closing on unread
    /// bytes resets the connection, and the answer with it. Beyond: closed nevertheless.
    pub drain_bytes: usize,
    /// How long they are waited for.
    pub drain: Duration,
    /// How long connections may go on after the server was told to stop.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_client: 256,
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            send_buffer_bytes: 64 * 1024,
            write: Duration::from_secs(10),
            lifetime: Duration::from_secs(60),
            head_bytes: 16 * 1024,
            headers: 100,
            requests: 100,
            drain_bytes: 64 * 1024,
            drain: Duration::from_secs(2),
            stop: Duration::from_secs(5),
        }
    }
}
