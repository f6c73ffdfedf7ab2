//! Sockets of connections that were taken over, where the kernel makes none: one is put together by
//! `TCP_REPAIR` (linux/tcp.h) as if it had been there from the client's SYN on.
//!
//! Done by a process in the page's namespace, in which every address is local. It needs `CAP_NET_ADMIN` there, and
//! `CAP_NET_BIND_SERVICE` for ports below 1,024.
//!
//! What a socket does not get, since nobody knows it: the client's own segment size and scale of windows
//! ([`PAGE_MSS_V4`], [`PAGE_WINDOW_SCALE`]), and selective acknowledgement. The kernel's own way lacks the same.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapData, RingBuf};
use filter_common::{
    abi::{FlowKey, Handover},
    limits::{PAGE_MSS_V4, PAGE_MSS_V6, PAGE_WINDOW_SCALE, STAMP_AHEAD},
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use super::{DatapathError, error::map_error, object::HANDOVERS};

/// Socket options of linux/tcp.h.
const TCP_REPAIR: libc::c_int = 19;
const TCP_REPAIR_QUEUE: libc::c_int = 20;
const TCP_QUEUE_SEQ: libc::c_int = 21;
const TCP_REPAIR_OPTIONS: libc::c_int = 22;
const TCP_TIMESTAMP: libc::c_int = 24;
const TCP_REPAIR_WINDOW: libc::c_int = 29;

/// Values of `TCP_REPAIR`.
const ON: libc::c_int = 1;
/// Without asking the client for its window, which is known.
const OFF_WITHOUT_PROBE: libc::c_int = -1;

/// Values of `TCP_REPAIR_QUEUE`.
const NO_QUEUE: libc::c_int = 0;
const RECEIVED: libc::c_int = 1;
const SENT: libc::c_int = 2;

/// Kinds of TCP options (RFC 9293, section 3.1; RFC 7323).
const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const OPTION_TIMESTAMPS: u32 = 8;

/// Window that the client is taken to know of.
const WINDOW_BYTES: u32 = 65_535;

/// `struct tcp_repair_opt`.
#[repr(C)]
struct RepairOption {
    code: u32,
    value: u32,
}

/// `struct tcp_repair_window`.
#[repr(C)]
struct RepairWindow {
    snd_wl1: u32,
    snd_wnd: u32,
    max_window: u32,
    rcv_wnd: u32,
    rcv_wup: u32,
}

/// Connections that sockets are to be made of. There is one consumer.
pub struct HandoverRing {
    ring: RingBuf<MapData>,
}

impl HandoverRing {
    /// The ring buffer that [`super::Root::attach_sink`] gave.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn new(ring: OwnedFd) -> Result<Self, DatapathError> {
        let map_error = map_error(HANDOVERS);
        let map = MapData::from_fd(ring)
            .and_then(Map::from_map_data)
            .map_err(map_error)?;
        Ok(Self {
            ring: map.try_into().map_err(map_error)?,
        })
    }

    /// The next connection, if there is one. Records of another size are skipped: they are not ours.
    pub fn next_handover(&mut self) -> Option<Box<Handover>> {
        loop {
            let item = self.ring.next()?;
            if item.len() >= size_of::<Handover>() {
                // SAFETY: the length was checked, and every bit pattern is a valid `Handover`.
                return Some(unsafe { Box::new(std::ptr::read_unaligned(item.as_ptr().cast())) });
            }
        }
    }
}

impl AsFd for HandoverRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Whether this process can put sockets into repair.
pub(super) fn is_possible() -> bool {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Inet, SockType::Stream, flags, None);
    made.is_ok_and(|socket| set(&socket, libc::SOL_TCP, TCP_REPAIR, &ON).is_ok())
}

/// Makes the established socket of a connection, not blocking, with the hello to be read. The calling thread is
/// in the page's namespace.
///
/// # Errors
///
/// Of the kernel; `AddrNotAvailable` if there is this socket already. Nothing is left, and nobody hears of it.
pub fn make_socket(handover: &Handover) -> io::Result<TcpStream> {
    let (client, server) = ends(&handover.key);
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    // What follows sends nothing: a socket that is closed in repair is just gone.
    set(&socket, libc::SOL_TCP, TCP_REPAIR, &ON)?;
    match server {
        // The address is local by a route only.
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::IpTransparent, &true)?,
        SocketAddr::V6(_) => {
            set::<libc::c_int>(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, &1)?
        }
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
    for (queue, seq) in [(SENT, handover.ack), (RECEIVED, handover.start)] {
        set(&socket, libc::SOL_TCP, TCP_REPAIR_QUEUE, &queue)?;
        set(&socket, libc::SOL_TCP, TCP_QUEUE_SEQ, &seq)?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(client))?;
    set_options(&socket, handover, server.ip())?;

    let hello = handover
        .hello
        .get(..usize::from(handover.len))
        .ok_or(io::ErrorKind::InvalidData)?;
    // The queue is still that of what was received.
    let mut stream = TcpStream::from(socket);
    stream.write_all(hello)?;
    let next = handover.start.wrapping_add(u32::from(handover.len));
    let window = u32::from(handover.window) << PAGE_WINDOW_SCALE;
    let windows = RepairWindow {
        snd_wl1: next,
        snd_wnd: window,
        max_window: window,
        rcv_wnd: WINDOW_BYTES,
        rcv_wup: next,
    };
    set(&stream, libc::SOL_TCP, TCP_REPAIR_WINDOW, &windows)?;
    set(&stream, libc::SOL_TCP, TCP_REPAIR_QUEUE, &NO_QUEUE)?;
    set(&stream, libc::SOL_TCP, TCP_REPAIR, &OFF_WITHOUT_PROBE)?;
    Ok(stream)
}

/// Closes a socket without a word to its client, which will try again.
pub fn forget_socket(stream: TcpStream) {
    // If that fails the client is reset, which is as good an end.
    let _ = set(&stream, libc::SOL_TCP, TCP_REPAIR, &ON);
}

fn set_options(socket: &OwnedFd, handover: &Handover, server: IpAddr) -> io::Result<()> {
    let mss = match server {
        IpAddr::V4(_) => PAGE_MSS_V4,
        IpAddr::V6(_) => PAGE_MSS_V6,
    };
    let option = |code, value| RepairOption { code, value };
    let known = [
        option(OPTION_MSS, u32::from(mss)),
        // Scale of the client's windows; the upper half is that of ours, 0.
        option(OPTION_WINDOW_SCALE, u32::from(PAGE_WINDOW_SCALE)),
    ];
    set(socket, libc::SOL_TCP, TCP_REPAIR_OPTIONS, &known)?;
    if handover.flags & Handover::TIMESTAMPS != 0 {
        let stamps = option(OPTION_TIMESTAMPS, 0);
        set(socket, libc::SOL_TCP, TCP_REPAIR_OPTIONS, &stamps)?;
        let [_, echo] = handover.timestamps;
        let now = echo.wrapping_add(STAMP_AHEAD);
        set(socket, libc::SOL_TCP, TCP_TIMESTAMP, &now)?;
    }
    Ok(())
}

/// Client and server.
fn ends(key: &FlowKey) -> (SocketAddr, SocketAddr) {
    let end = |address: Ipv6Addr, port| match address.to_ipv4_mapped() {
        Some(address) => SocketAddr::new(address.into(), port),
        None => SocketAddr::new(address.into(), port),
    };
    (
        end(key.src_addr(), key.src_port),
        end(key.dst_addr(), key.dst_port),
    )
}

fn set<T>(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which is made of integers.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
