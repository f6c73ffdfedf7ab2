//! A client inside the test: HTTP/1 and, by rustls, TLS, with hellos of one segment and of two.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use rustls::{
    ClientConfig, ClientConnection, Error, NamedGroup, RootCertStore,
    client::Resumption,
    crypto::{
        ActiveKeyExchange, SharedSecret, SupportedKxGroup,
        ring::{default_provider, kx_group::X25519},
    },
    pki_types::{CertificateDer, ServerName},
};

use crate::witness::Authority;

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3), which come before the X25519
/// share in a hybrid one (draft-ietf-tls-ecdhe-mlkem, 4.1).
const ENCAPSULATION_KEY_BYTES: usize = 1_184;
/// Protocol names that fill a hello up, and bytes of each.
const FILLERS: u8 = 10;
const FILLER_BYTES: usize = 40;

/// How long a client pauses that sends in pieces: each gets a segment of its own.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a hello or request head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// At least 500 bytes: one segment.
    Short,
    /// At least 1,800 bytes, a hello with a post-quantum key: two segments.
    Long,
}

impl Length {
    /// Bytes at least.
    pub fn bytes_min(self) -> usize {
        match self {
            Self::Short => 500,
            Self::Long => 1_800,
        }
    }
}

/// Opens a connection from this address and port; reads and writes end after `limit`.
///
/// # Errors
/// If there is no connection within `limit`.
pub fn open(from: SocketAddr, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let stream = TcpStream::from(fd);
    // The limit of writing is also that of connecting.
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    bind(stream.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks a [`Witness`](crate::witness::Witness) for `/` of this name, twice on one connection; both
/// answers.
///
/// # Errors
/// If the connection ends, or nothing comes in time.
pub fn ask_http(mut stream: TcpStream, name: &str, length: Length) -> io::Result<String> {
    ask(&mut stream, name, length.bytes_min())
}

/// As [`ask_http`], over TLS.
///
/// # Errors
/// As there; also if the handshake fails.
pub fn ask_tls(mut stream: TcpStream, name: &str, config: Arc<ClientConfig>) -> io::Result<String> {
    let mut connection = greeting(name, config);
    ask(
        &mut rustls::Stream::new(&mut connection, &mut stream),
        name,
        0,
    )
}

/// As [`ask_tls`], what it sends in pieces of so many bytes, with a pause behind each.
///
/// # Errors
/// As there.
pub fn ask_tls_in_pieces(
    stream: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
    bytes: usize,
) -> io::Result<String> {
    let mut connection = greeting(name, config);
    let mut stream = InPieces { stream, bytes };
    ask(
        &mut rustls::Stream::new(&mut connection, &mut stream),
        name,
        0,
    )
}

/// A stream that writes in pieces.
struct InPieces {
    stream: TcpStream,
    bytes: usize,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(&bytes[..bytes.len().min(self.bytes)])?;
        std::thread::sleep(PAUSE);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn ask(stream: &mut (impl Read + Write), name: &str, filler: usize) -> io::Result<String> {
    let request = |connection| {
        let filler = "x".repeat(filler);
        format!(
            "GET / HTTP/1.1\r\nX-Filler: {filler}\r\nHost: {name}\r\nConnection: {connection}\r\n\r\n"
        )
    };
    stream.write_all(request("keep-alive").as_bytes())?;
    let mut answers = Vec::new();
    let mut buffer = [0; 4_096];
    let body = format!("served {name}\n");
    while !answers.ends_with(body.as_bytes()) {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answers.extend_from_slice(&buffer[..read]);
    }
    stream.write_all(request("close").as_bytes())?;
    stream.read_to_end(&mut answers)?;
    Ok(String::from_utf8_lossy(&answers).into_owned())
}

fn greeting(name: &str, config: Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(config, name).expect("a hello")
}

/// A configuration whose hellos have this length and that trusts this authority.
pub fn tls_config(authority: &Authority, length: Length) -> Arc<ClientConfig> {
    Arc::new(with_protocols(authority, length, Vec::new()))
}

/// As [`tls_config`], for real servers: HTTP/1.1 is what it speaks, and no session is resumed.
pub fn http1_config(authority: &Authority, length: Length) -> Arc<ClientConfig> {
    let mut config = with_protocols(authority, length, vec![b"http/1.1".to_vec()]);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn with_protocols(
    authority: &Authority,
    length: Length,
    mut protocols: Vec<Vec<u8>>,
) -> ClientConfig {
    let mut provider = default_provider();
    if length == Length::Long {
        provider.kx_groups.insert(0, &HybridShare);
    }
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(authority.der.clone()))
        .expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    protocols.extend((0..FILLERS).map(|number| vec![b'a' + number; FILLER_BYTES]));
    config.alpn_protocols = protocols;
    config
}

/// Offers X25519MLKEM768 with a key that nobody can answer, and X25519 beside it: to a server
/// without ML-KEM the hello is that of a post-quantum client.
#[derive(Debug)]
struct HybridShare;

impl SupportedKxGroup for HybridShare {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        let mut share = vec![0x5A; ENCAPSULATION_KEY_BYTES];
        share.extend_from_slice(classical.pub_key());
        Ok(Box::new(HybridExchange { classical, share }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct HybridExchange {
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for HybridExchange {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Err(Error::General("a server took the share of nobody".into()))
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(peer)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_are_as_long_as_they_say() {
        let authority = crate::witness::Authority::new().1;
        for (length, below) in [(Length::Short, 1_300), (Length::Long, 2_600)] {
            let mut hello = Vec::new();
            greeting("allowed.example", tls_config(&authority, length))
                .write_tls(&mut hello)
                .expect("written to memory");
            assert!(
                (length.bytes_min()..below).contains(&hello.len()),
                "{length:?}: {}",
                hello.len()
            );
        }
    }
}
