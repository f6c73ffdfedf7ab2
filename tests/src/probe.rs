//! Small UDP conversations: whether a packet gets through, and which of a numbered stream did.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::net::Namespace;

/// How long an echo over a veth may take, on a busy machine.
const ECHO_MAX: Duration = Duration::from_millis(150);

/// Whether an [`crate::echo::Echo`] at `to` answers a datagram sent from `from`. Tried twice, so
/// that one lost datagram on a busy machine does not count as blocked.
pub fn answers(namespace: &Namespace, from: &str, to: &str) -> bool {
    let from = SocketAddr::new(from.parse().expect("an address"), 0);
    let to: SocketAddr = to.parse().expect("address:port");
    namespace.run(|| (0..2).any(|_| echo(from, to).unwrap_or(false)))
}

fn echo(from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind(from)?;
    socket.set_read_timeout(Some(ECHO_MAX))?;
    socket.connect(to)?;
    socket.send(b"probe")?;
    let mut buffer = [0; 16];
    Ok(socket.recv(&mut buffer)? == 5)
}

/// Sends numbered datagrams at a steady rate until stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Stream {
    /// Starts one from an address of the namespace.
    pub fn start(namespace: &Namespace, from: &str, to: &str, every: Duration) -> Self {
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        let to: SocketAddr = to.parse().expect("address:port");
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = namespace.spawn(move || {
            let socket = UdpSocket::bind(from).expect("a socket");
            socket.connect(to).expect("a connected socket");
            let start = Instant::now();
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                socket.send(&number.to_be_bytes()).expect("a sent datagram");
                number += 1;
                counter.store(number, Ordering::Release);
                let due = every.saturating_mul(u32::try_from(number).expect("a short test"));
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
        });
        Self { stop, sent, thread }
    }

    /// How many were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Stops it; returns how many were sent.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender does not panic");
        self.sent.load(Ordering::Acquire)
    }
}

/// Numbers received, by the sender's address, in order of arrival.
pub type Received = BTreeMap<IpAddr, Vec<u64>>;

/// Receives numbered datagrams until stopped.
#[derive(Debug)]
pub struct Collector {
    stop: Arc<AtomicBool>,
    received: Arc<Mutex<Received>>,
    thread: JoinHandle<()>,
}

impl Collector {
    /// Starts one on an address of the namespace, with room for seconds of traffic.
    pub fn start(namespace: &Namespace, at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("address:port");
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(Mutex::new(Received::new()));
        let socket = namespace.run(|| UdpSocket::bind(at).expect("a socket"));
        widen(&socket);
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a read timeout");
        let (stopped, into) = (Arc::clone(&stop), Arc::clone(&received));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 8];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((8, peer)) => {
                        let number = u64::from_be_bytes(buffer);
                        let mut received = into.lock().expect("an unpoisoned lock");
                        received.entry(peer.ip()).or_default().push(number);
                    }
                    Ok(_) => {}
                    // Ends only once everything that had arrived is read.
                    Err(_) if stopped.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        Self {
            stop,
            received,
            thread,
        }
    }

    /// How many arrived from this address so far.
    pub fn count(&self, from: &str) -> usize {
        let from: IpAddr = from.parse().expect("an address");
        self.received
            .lock()
            .expect("an unpoisoned lock")
            .get(&from)
            .map_or(0, Vec::len)
    }

    /// Stops it once the socket is empty; returns what arrived.
    pub fn finish(self) -> Received {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the receiver does not panic");
        std::mem::take(&mut *self.received.lock().expect("an unpoisoned lock"))
    }
}

/// Gives a socket 64 MiB to receive into, whatever the machine's limit.
fn widen(socket: &UdpSocket) {
    let bytes: libc::c_int = 64 << 20;
    // SAFETY: the option's value is a live integer of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_RCVBUFFORCE: {}", io::Error::last_os_error());
}
