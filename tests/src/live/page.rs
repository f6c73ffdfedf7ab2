//! The page by which a browser is told what to ask for, and tells what it got.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Wanted;
use crate::net::{Namespace, report};

const PAGE: &str = include_str!("clients/page.html");
/// Where it is in the browser's own namespace.
pub(super) const URL: &str = "http://127.0.0.1:8000/";
const PORT: u16 = 8_000;

/// How often it is looked whether something has come.
const POLL: Duration = Duration::from_millis(10);
/// Longest time that a browser takes to send a request when it is connected.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Longest request.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A server of this page. Dropping it ends it.
pub(super) struct Page {
    served: Arc<Mutex<Option<Vec<String>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    /// Listens in the browser's namespace.
    pub(super) fn start(namespace: &Namespace, wanted: &[Wanted]) -> Self {
        let listener = namespace
            .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)))
            .unwrap_or_else(|e| panic!("listen on {URL}: {e}"));
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let wanted: Vec<_> = wanted.iter().map(Wanted::argument).collect();
        let wanted = wanted.join("\n");
        let served = Arc::<Mutex<Option<Vec<String>>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = thread::spawn({
            let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
            move || {
                thread::scope(|scope| {
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((stream, _)) = listener.accept() else {
                            thread::sleep(POLL);
                            continue;
                        };
                        let (wanted, served) = (&wanted, &served);
                        // A browser opens connections that it may never use.
                        scope.spawn(move || drop(answer(stream, wanted, served)));
                    }
                });
            }
        });
        Self {
            served,
            stop,
            thread: Some(thread),
        }
    }

    /// The names that the browser got, when it has told; `None` if it does not within `limit`.
    pub(super) fn served(&self, limit: Duration) -> Option<Vec<String>> {
        let deadline = Instant::now() + limit;
        loop {
            let served = self
                .served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if served.is_some() || Instant::now() > deadline {
                return served;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            report("page", &["its thread panicked".to_owned()]);
        }
    }
}

fn answer(
    mut stream: TcpStream,
    wanted: &str,
    served: &Mutex<Option<Vec<String>>>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    let (head, body) = request(&mut stream)?;
    let (kind, text) = match head.split(' ').nth(1) {
        Some("/") => ("text/html", PAGE),
        Some("/wanted") => ("text/plain", wanted),
        Some("/served") => {
            let names = body.lines().map(str::to_owned).collect();
            *served.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
            ("text/plain", "")
        }
        // Browsers ask for an icon.
        Some(_) | None => ("text/plain", ""),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Head and body of one request.
fn request(stream: &mut TcpStream) -> io::Result<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 || bytes.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}
