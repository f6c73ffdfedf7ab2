//! A server that only writes down what its application receives.

use std::{
    collections::HashMap,
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use super::listener::{Listener, Stop};
use crate::net::Namespace;

type Streams = Arc<Mutex<HashMap<SocketAddr, Vec<u8>>>>;

/// A listening recorder. Dropping it ends it.
#[derive(Debug)]
pub struct Recorder {
    streams: Streams,
    _listener: Listener,
}

impl Recorder {
    /// Listens on this port of every address of both families.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let streams = Streams::default();
        let listener = Listener::start(namespace, "recorder", port, {
            let streams = Arc::clone(&streams);
            move |stream, from, stop| record(stream, from, &streams, stop)
        });
        Self {
            streams,
            _listener: listener,
        }
    }

    /// What was received from this client so far.
    pub fn received(&self, from: SocketAddr) -> Vec<u8> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.get(&from).cloned().unwrap_or_default()
    }
}

fn record(mut stream: TcpStream, from: SocketAddr, streams: &Streams, stop: &Stop) {
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(from)
                .or_default()
                .extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
