//! A server inside the test: a listening socket, and a thread for each connection.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::net::Namespace;

/// How long one read waits before the thread looks whether it is to end.
const POLL: Duration = Duration::from_millis(50);

/// Whether the server is to end.
pub(super) type Stop = AtomicBool;

/// A listening server. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Listener {
    name: &'static str,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on this port of every address of both families, and calls `serve` for each client.
    /// Reads of its stream end after a while with [`std::io::ErrorKind::WouldBlock`].
    ///
    /// # Panics
    /// If the port is taken.
    pub(super) fn start(
        namespace: &Namespace,
        name: &'static str,
        port: u16,
        serve: impl Fn(TcpStream, SocketAddr, &Stop) + Send + Sync + 'static,
    ) -> Self {
        let listener = namespace.run(|| TcpListener::bind(("::", port)).expect("a free port"));
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || accept(&listener, &stop, &serve)
        });
        Self {
            name,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|result| result.is_err()) {
            crate::net::report(self.name, &["its thread panicked".to_owned()]);
        }
    }
}

fn accept(
    listener: &TcpListener,
    stop: &Stop,
    serve: &(impl Fn(TcpStream, SocketAddr, &Stop) + Sync),
) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((stream, from)) = listener.accept() else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            let set = stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_read_timeout(Some(POLL)));
            if set.is_ok() {
                scope.spawn(move || serve(stream, from, stop));
            }
        }
    });
}
