//! A web server inside the test that remembers for which names it was asked: TLS by rustls on
//! port 443, HTTP/1 on port 80. It answers every request with the
//! name, and closes after one that says so.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle, Scope},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer, server::Acceptor,
};

use crate::net::Namespace;

/// Port of TLS.
pub const TLS_PORT: u16 = 443;
/// Port of HTTP.
pub const HTTP_PORT: u16 = 80;

/// How often a waiting connection looks whether it is to end.
const POLL: Duration = Duration::from_millis(50);
/// How often the listeners look for connections.
const ACCEPT_POLL: Duration = Duration::from_millis(1);
/// Longest request head.
const HEAD_BYTES_MAX: usize = 65_536;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Witness {
    names: Arc<Mutex<Vec<String>>>,
    authority: Authority,
    stop: Arc<AtomicBool>,
    handed: Sender<TcpStream>,
    thread: Option<JoinHandle<()>>,
}

/// Who signed the server's certificate.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its certificate, as PEM.
    pub pem: String,
    /// The same, as DER.
    pub der: Vec<u8>,
}

impl Witness {
    /// Listens on every address of the namespace, with a certificate for these names and all
    /// directly under them.
    ///
    /// # Panics
    /// If a port is taken.
    pub fn start(namespace: &Namespace, names: &[&str]) -> Self {
        Self::listen(namespace, names, false)
    }

    /// As [`Witness::start`], for any address that is routed to the namespace as local.
    ///
    /// # Panics
    /// As there.
    pub fn start_for_any_address(namespace: &Namespace, names: &[&str]) -> Self {
        Self::listen(namespace, names, true)
    }

    fn listen(namespace: &Namespace, names: &[&str], any_address: bool) -> Self {
        let listeners = [TLS_PORT, HTTP_PORT].map(|port| {
            let bound = namespace.run(|| TcpListener::bind(("::", port)));
            let listener = bound.unwrap_or_else(|e| panic!("listen on port {port}: {e}"));
            if any_address {
                setsockopt(&listener, sockopt::IpTransparent, &true)
                    .expect("a listener that answers from any address");
            }
            listener
                .set_nonblocking(true)
                .expect("a listener that does not block");
            listener
        });
        let (config, authority) = certified(names);
        let serving = Serving {
            config: Arc::new(config),
            names: Arc::default(),
            stop: Arc::default(),
        };
        let (names, stop) = (Arc::clone(&serving.names), Arc::clone(&serving.stop));
        let (handed, accepted) = channel();
        let thread = thread::spawn(move || serving.run(&listeners, &accepted));
        Self {
            names,
            authority,
            stop,
            handed,
            thread: Some(thread),
        }
    }

    /// The names of all hellos and requests so far, in their order; empty where there was none.
    pub fn names(&self) -> Vec<String> {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes connections that somebody else has accepted.
    pub fn handed(&self) -> Sender<TcpStream> {
        self.handed.clone()
    }

    /// Who signed its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            crate::net::report("witness", &["its thread panicked".to_owned()]);
        }
    }
}

impl Authority {
    /// A new one, and what signs in its name.
    pub(crate) fn new() -> (Issuer<'static, KeyPair>, Self) {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Witness");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("an authority");
        let authority = Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
        };
        (Issuer::new(params, key), authority)
    }
}

/// A key and a certificate for these names, signed by an authority made for it.
fn certified(names: &[&str]) -> (ServerConfig, Authority) {
    let (issuer, authority) = Authority::new();
    let names = names
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("*.{name}")]);
    let params = CertificateParams::new(names.collect::<Vec<_>>()).expect("names");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("a certificate that fits its key");
    (config, authority)
}

/// What a connection is for.
enum Service {
    Tls,
    Http,
    /// What its port says.
    OfPort,
}

struct Serving {
    config: Arc<ServerConfig>,
    names: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Serving {
    fn run(&self, listeners: &[TcpListener; 2], handed: &Receiver<TcpStream>) {
        let [tls, http] = listeners;
        thread::scope(|scope| {
            while !self.stop.load(Ordering::Relaxed) {
                let tls = tls.accept().map(|(stream, _)| stream);
                let http = http.accept().map(|(stream, _)| stream);
                let accepted = [
                    tls.ok().map(|stream| (stream, Service::Tls)),
                    http.ok().map(|stream| (stream, Service::Http)),
                    handed
                        .try_recv()
                        .ok()
                        .map(|stream| (stream, Service::OfPort)),
                ];
                if accepted.iter().all(Option::is_none) {
                    thread::sleep(ACCEPT_POLL);
                }
                for (stream, service) in accepted.into_iter().flatten() {
                    self.serve(scope, stream, service);
                }
            }
        });
    }

    fn serve<'scope, 'a: 'scope>(
        &'a self,
        scope: &'scope Scope<'scope, 'a>,
        stream: TcpStream,
        service: Service,
    ) {
        let is_tls = match service {
            Service::Tls => true,
            Service::Http => false,
            Service::OfPort => stream.local_addr().is_ok_and(|it| it.port() == TLS_PORT),
        };
        scope.spawn(move || {
            let prepared = stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_read_timeout(Some(POLL)))
                .and_then(|()| stream.set_write_timeout(Some(POLL)))
                .and_then(|()| stream.set_nodelay(true));
            let mut patient = Patient {
                stream,
                stop: &self.stop,
            };
            // What goes wrong on a connection is the client's to notice.
            drop(prepared.and_then(|()| match is_tls {
                true => self.tls(&mut patient),
                false => self.http(&mut patient),
            }));
        });
    }

    fn tls(&self, stream: &mut Patient<'_>) -> io::Result<()> {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            if acceptor.read_tls(stream)? == 0 {
                return Ok(());
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err((_, mut alert)) => return alert.write_all(stream),
            }
        };
        let name = accepted
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        self.note(&name);
        let mut connection = match accepted.into_connection(Arc::clone(&self.config)) {
            Ok(connection) => connection,
            Err((_, mut alert)) => return alert.write_all(stream),
        };
        let mut tls = rustls::Stream::new(&mut connection, stream);
        while !is_last(&read_head(&mut tls)?) {
            tls.write_all(answer(&name, "keep-alive").as_bytes())?;
        }
        tls.write_all(answer(&name, "close").as_bytes())?;
        connection.send_close_notify();
        while connection.wants_write() {
            connection.write_tls(stream)?;
        }
        stream.close()
    }

    fn http(&self, stream: &mut Patient<'_>) -> io::Result<()> {
        loop {
            let head = read_head(stream)?;
            let name = field(&head, "host").unwrap_or_default();
            self.note(name);
            if is_last(&head) {
                stream.write_all(answer(name, "close").as_bytes())?;
                return stream.close();
            }
            stream.write_all(answer(name, "keep-alive").as_bytes())?;
        }
    }

    fn note(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name.to_owned());
    }
}

/// Whether the connection ends after the answer to this request.
fn is_last(head: &str) -> bool {
    head.contains("HTTP/1.0")
        || field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

/// The value of a header field.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn answer(name: &str, connection: &str) -> String {
    let body = format!("served {name}\n");
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Access-Control-Allow-Origin: *\r\nConnection: {connection}\r\n\r\n{body}",
        body.len()
    )
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4_096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut buffer)?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..read]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A stream that waits until the server ends.
struct Patient<'a> {
    stream: TcpStream,
    stop: &'a AtomicBool,
}

impl Patient<'_> {
    fn wait<T>(
        &mut self,
        mut attempt: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(&mut self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Closes after the client has: a socket closed with something unread resets the connection.
    fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        while self.read(&mut [0; 4_096])? > 0 {}
        Ok(())
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|stream| stream.read(buffer))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
