//! The TLS handshake: the certificate for the name, HTTP/1.1, and nothing that outlives the connection.

use std::{io, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};

use crate::{certificates::Certificates, socket::Socket, stats::Counter};

/// A record with the fatal alert `unrecognized_name` (RFC 6066, 3): an alert (21) of version 3.3,
/// two bytes long: fatal (2), 112.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// The only protocols offered. Over HTTP/2 a browser would send requests for other names of a
/// wildcard certificate over this connection, and they belong to the real server.
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// A handshake that did not end well.
pub(crate) struct Failure {
    /// What it is counted as.
    pub(crate) counter: Counter,
    /// Still open if an alert is on its way.
    pub(crate) socket: Option<Socket>,
}

/// The implementation of the cryptography.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// What a server with this certificate does. No session tickets and no resumption: a visitor must
/// not come back to the real server with a secret of this one. No early data.
///
/// # Errors
/// If the library finds no version that it can speak.
pub(crate) fn config(key: Arc<CertifiedKey>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chosen(key)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Reads the hello and shakes hands, with a certificate for the name asked for, or for the address
/// if the client sends no name.
pub(crate) async fn handshake(
    socket: Socket,
    certificates: &Certificates,
    address: IpAddr,
) -> Result<TlsStream<Socket>, Failure> {
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket);
    let start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => return Err(failure(&error, acceptor.take_io())),
    };
    let Some(config) = choose(&start, certificates, address) else {
        let mut socket = start.io;
        let told = socket.write_all(&UNRECOGNIZED_NAME).await;
        return Err(Failure {
            counter: Counter::HandshakeNoCertificate,
            socket: told.is_ok().then_some(socket),
        });
    };
    let handshake = start.into_stream(config).into_fallible().await;
    handshake.map_err(|(error, socket)| failure(&error, Some(socket)))
}

fn choose(
    start: &StartHandshake<Socket>,
    certificates: &Certificates,
    address: IpAddr,
) -> Option<Arc<ServerConfig>> {
    let hello = start.client_hello();
    let (now, schemes) = (Timestamp::now(), hello.signature_schemes());
    match hello.server_name() {
        Some(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            certificates.server_for_name(&name, schemes, now)
        }
        None => certificates.server_for_address(address, schemes, now),
    }
}

fn failure(error: &io::Error, socket: Option<Socket>) -> Failure {
    let of_tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    let counter = match of_tls {
        None => Counter::HandshakeAborted,
        Some(rustls::Error::NoApplicationProtocol) => Counter::HandshakeNoProtocol,
        Some(rustls::Error::PeerIncompatible(_)) => Counter::HandshakeIncompatible,
        Some(rustls::Error::AlertReceived(_)) => Counter::HandshakeRefusedByClient,
        Some(_) => Counter::HandshakeMalformed,
    };
    Failure {
        counter,
        socket: socket.filter(|_| of_tls.is_some()),
    }
}

/// The certificate that was chosen before.
#[derive(Debug)]
struct Chosen(Arc<CertifiedKey>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
