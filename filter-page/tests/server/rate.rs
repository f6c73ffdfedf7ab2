//! How much work a visitor is. Printed, not judged: the machine may be busy with something else.
//! `cargo test --release -p filter-page --test server rate -- --nocapture`

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, Stream,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version,
};

use crate::kit::{BLOCKED, Served};

/// How many, where the code is fast and where it is not.
const VISITS: u32 = if cfg!(debug_assertions) { 200 } else { 20_000 };

/// Clients at a time.
const CLIENTS: u32 = 4;

#[test]
fn full_handshakes_and_pages_per_second_and_core() {
    let served = Served::start_with(|config| config.limits.connections_per_client = 1000);
    let config = client();
    visit(&served, &config);
    let mut report = Vec::new();
    for (what, act) in [
        ("handshakes", shake_hands as Act),
        ("handshakes with a page", visit as Act),
    ] {
        let (work, start) = (served.work(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..VISITS / CLIENTS).for_each(|_| act(&served, &config)));
            }
        });
        let (work, took) = (served.work() - work, start.elapsed());
        let each = |time: Duration| time.as_secs_f64() / f64::from(VISITS);
        report.push(format!(
            "{what}: {:.0} µs of work each, {:.0} per second and core; {:.0} per second as measured",
            each(work) * 1e6,
            1.0 / each(work),
            1.0 / each(took),
        ));
    }
    println!("TLS 1.3, ECDSA P-256, no resumption\n{}", report.join("\n"));
}

type Act = fn(&Served, &Arc<ClientConfig>);

fn shake_hands(served: &Served, config: &Arc<ClientConfig>) {
    let (mut tls, mut tcp) = connect(served, config);
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp).expect("a handshake");
    }
}

fn visit(served: &Served, config: &Arc<ClientConfig>) {
    let (mut tls, mut tcp) = connect(served, config);
    let mut stream = Stream::new(&mut tls, &mut tcp);
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a handshake");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 451 "), "{answer}");
}

fn connect(served: &Served, config: &Arc<ClientConfig>) -> (ClientConnection, TcpStream) {
    let name = ServerName::try_from(BLOCKED).expect("a name");
    let tls = ClientConnection::new(config.clone(), name).expect("a good configuration");
    let tcp = served.connect();
    tcp.set_nodelay(true).expect("a socket");
    (tls, tcp)
}

fn client() -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Trusts everybody, so that the server has the cores to itself.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
