//! A server that only writes down what its application receives.

use std::{
    collections::HashMap,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::net::Namespace;

const POLL: Duration = Duration::from_millis(50);

type Streams = Arc<Mutex<HashMap<SocketAddr, Vec<u8>>>>;

/// A listening recorder. Dropping it ends it.
#[derive(Debug)]
pub struct Recorder {
    streams: Streams,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Listens on this port of every address of both families.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let listener = namespace.run(|| TcpListener::bind(("::", port)).expect("a free port"));
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let streams = Streams::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (streams, stop) = (Arc::clone(&streams), Arc::clone(&stop));
            move || serve(&listener, &streams, &stop)
        });
        Self {
            streams,
            stop,
            thread: Some(thread),
        }
    }

    /// What was received from this client so far.
    pub fn received(&self, from: SocketAddr) -> Vec<u8> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.get(&from).cloned().unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            crate::net::report("recorder", &["its thread panicked".to_owned()]);
        }
    }
}

fn serve(listener: &TcpListener, streams: &Streams, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((stream, from)) = listener.accept() else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            scope.spawn(move || record(stream, from, streams, stop));
        }
    });
}

fn record(mut stream: TcpStream, from: SocketAddr, streams: &Streams, stop: &AtomicBool) {
    let set = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(POLL)));
    if set.is_err() {
        return;
    }
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
