//! A TLS server on rustls, inside the test.

use std::{
    collections::HashMap,
    io::Write as _,
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer, server::Acceptor,
};

use super::{
    ALLOWED, BLOCKED, NEUTRAL,
    listener::{Listener, Stop},
};
use crate::net::Namespace;

type Names = Arc<Mutex<HashMap<u16, Vec<String>>>>;

/// A listening server. Dropping it ends it.
#[derive(Debug)]
pub struct RustlsServer {
    names: Names,
    _listener: Listener,
}

impl RustlsServer {
    /// Listens on this port of every address of both families.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let names = Names::default();
        let config = Arc::new(config());
        let listener = Listener::start(namespace, "rustls server", port, {
            let names = Arc::clone(&names);
            move |stream, from, stop| serve(stream, from.port(), &names, stop, Arc::clone(&config))
        });
        Self {
            names,
            _listener: listener,
        }
    }

    /// The server names that it saw from this client port.
    pub fn names_from(&self, port: u16) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&port).cloned().unwrap_or_default()
    }
}

fn config() -> ServerConfig {
    let names = [ALLOWED, BLOCKED, NEUTRAL].map(str::to_owned);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).expect("a self-signed certificate");
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .expect("a certificate that fits its key")
}

/// Reads one hello, writes its name down and answers.
fn serve(mut stream: TcpStream, port: u16, names: &Names, stop: &Stop, config: Arc<ServerConfig>) {
    let mut acceptor = Acceptor::default();
    let mut connection = loop {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match acceptor.read_tls(&mut stream) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().unwrap_or_default().to_owned();
                let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                names.entry(port).or_default().push(name);
                match accepted.into_connection(config) {
                    Ok(connection) => break connection,
                    Err((_, mut alert)) => {
                        drop(alert.write_all(&mut stream));
                        return;
                    }
                }
            }
            Ok(None) => {}
            Err((_, mut alert)) => {
                drop(alert.write_all(&mut stream));
                return;
            }
        }
    };
    while !stop.load(Ordering::Relaxed) {
        while connection.wants_write() {
            if connection.write_tls(&mut stream).is_err() || stream.flush().is_err() {
                return;
            }
        }
        match connection.read_tls(&mut stream) {
            Ok(0) => return,
            Ok(_) if connection.process_new_packets().is_err() => {
                drop(connection.write_tls(&mut stream));
                return;
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
