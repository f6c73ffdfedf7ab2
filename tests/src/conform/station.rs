//! A TCP client of its own: addresses that the client namespace's kernel does not own, so that
//! nobody but the test answers, acknowledges or resets.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    frames::FrameSocket,
    net::{Direct, Namespace, Routed, mac_of},
    packet::Packet,
};

/// IPv4 address of the station, which the kernel of its namespace does not have.
pub const STATION_V4: &str = "198.51.100.77";
/// IPv6 address of the station, which the kernel of its namespace does not have.
pub const STATION_V6: &str = "2001:db8:1::77";
/// First source port; each connection has one of its own.
const FIRST_PORT: u16 = 20_000;
/// How often the receiving thread looks whether it is to end.
const POLL: Duration = Duration::from_millis(100);

/// What a server sent: one segment, or several that segmentation offload joined.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// Value of its timestamp option.
    pub(super) timestamp: Option<u32>,
    pub(super) payload: Vec<u8>,
}

type Inboxes = Arc<Mutex<HashMap<u16, Sender<Reply>>>>;

/// Sends and receives whole frames on a visitor's interface for any number of connections.
#[derive(Debug)]
pub struct Station {
    socket: Arc<FrameSocket>,
    macs: ([u8; 6], [u8; 6]),
    inboxes: Inboxes,
    next_port: AtomicU16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Station {
    /// One beside the visitor of a server.
    pub fn direct(net: &Direct) -> Self {
        Self::new(&net.visitor, &net.edge, Direct::EDGE_IF)
    }

    /// One beside the visitor of a router.
    pub fn routed(net: &Routed) -> Self {
        Self::new(&net.visitor, &net.edge, Routed::VISITOR_SIDE)
    }

    fn new(visitor: &Namespace, gateway: &Namespace, gateway_if: &str) -> Self {
        let mac = mac_of(visitor, Direct::VISITOR_IF);
        let lladdr = mac.map(|byte| format!("{byte:02x}")).join(":");
        // Nobody answers ARP or neighbour solicitations for the station.
        for address in [STATION_V4, STATION_V6] {
            gateway.ip(&[
                "neigh", "add", address, "lladdr", &lladdr, "dev", gateway_if,
            ]);
        }
        let socket = Arc::new(FrameSocket::open(visitor, Direct::VISITOR_IF));
        let inboxes = Inboxes::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (socket, inboxes, stop) =
                (Arc::clone(&socket), Arc::clone(&inboxes), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(frame) = socket.receive(POLL, |_| true) else {
                        continue;
                    };
                    deliver(&inboxes, &frame);
                }
            }
        });
        Self {
            socket,
            macs: (mac, mac_of(gateway, gateway_if)),
            inboxes,
            next_port: AtomicU16::new(FIRST_PORT),
            stop,
            thread: Some(thread),
        }
    }

    /// A source address towards `remote` with a port that no connection had before, and where
    /// replies to it arrive.
    pub(super) fn port(&self, remote: SocketAddr) -> (SocketAddr, Receiver<Reply>) {
        let address = match remote.ip() {
            IpAddr::V4(_) => STATION_V4,
            IpAddr::V6(_) => STATION_V6,
        };
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        lock(&self.inboxes).insert(port, sender);
        let address = address.parse().expect("the station's address");
        (SocketAddr::new(address, port), receiver)
    }

    pub(super) fn close(&self, local: SocketAddr) {
        lock(&self.inboxes).remove(&local.port());
    }

    /// A segment on its way to the gateway.
    pub(super) fn packet(&self, local: SocketAddr, remote: SocketAddr) -> Packet {
        Packet::tcp(&local.to_string(), &remote.to_string()).macs(self.macs.0, self.macs.1)
    }

    pub(super) fn send(&self, frame: &[u8]) {
        self.socket.send(frame);
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            crate::net::report("station", &["its thread panicked".to_owned()]);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deliver(inboxes: &Inboxes, frame: &[u8]) {
    let Some((port, reply)) = parse(frame) else {
        return;
    };
    if let Some(inbox) = lock(inboxes).get(&port) {
        // A connection that has just ended takes nothing any more.
        drop(inbox.send(reply));
    }
}

/// Destination port and contents of a TCP segment to the station.
fn parse(frame: &[u8]) -> Option<(u16, Reply)> {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let to: IpAddr = match sliced.net.as_ref()? {
        etherparse::NetSlice::Ipv4(v4) => v4.header().destination_addr().into(),
        etherparse::NetSlice::Ipv6(v6) => v6.header().destination_addr().into(),
        _ => return None,
    };
    if to.to_string() != STATION_V4 && to.to_string() != STATION_V6 {
        return None;
    }
    let Some(etherparse::TransportSlice::Tcp(tcp)) = &sliced.transport else {
        return None;
    };
    let timestamp = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::Timestamp(value, _)) => Some(value),
        _ => None,
    });
    let flags = tcp.slice()[13];
    let reply = Reply {
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        flags,
        timestamp,
        payload: tcp.payload().to_vec(),
    };
    Some((tcp.destination_port(), reply))
}
