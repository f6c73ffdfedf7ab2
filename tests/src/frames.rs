//! Whole frames in and out of an interface through AF_PACKET, for what no socket can send.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use crate::net::Namespace;

/// Times that a frame is sent again, a millisecond apart, when there was no room for it.
const ROOM_TRIES_MAX: usize = 1_000;

/// Room for frames that arrive faster than they are read.
const ROOM_BYTES: libc::c_int = 16 << 20;

/// A packet socket bound to one interface: sends frames as they are, receives everything.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
}

impl FrameSocket {
    /// Opens one.
    ///
    /// # Panics
    /// If the interface does not exist.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        namespace
            .run(|| Self::bind(interface))
            .unwrap_or_else(|e| panic!("packet socket on {interface}: {e}"))
    }

    fn bind(interface: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; a negative result is an error and handled.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let index = nix::net::if_::if_nametoindex(interface)?;
        // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address lives through the call and its length is right.
        let bound = unsafe {
            libc::bind(
                descriptor,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// As [`FrameSocket::open`], without the frames that this machine sends out of the interface.
    ///
    /// # Panics
    /// If the interface does not exist, or the kernel is older than 4.20.
    pub fn receiving(namespace: &Namespace, interface: &str) -> Self {
        let opened = Self::open(namespace, interface);
        opened.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
        opened.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM_BYTES);
        opened
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
        // SAFETY: pointer and length are those of a live value.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        let error = io::Error::last_os_error();
        assert_eq!(
            result, 0,
            "option {level}/{option} of a packet socket: {error}"
        );
    }

    /// Sends a frame; waits while the interface has no room for it.
    ///
    /// # Panics
    /// If the interface refuses it.
    pub fn send(&self, frame: &[u8]) {
        for _ in 0..ROOM_TRIES_MAX {
            // SAFETY: pointer and length are those of a live slice.
            let sent = unsafe {
                libc::send(
                    self.socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                )
            };
            let error = io::Error::last_os_error();
            if sent < 0 && error.raw_os_error() == Some(libc::ENOBUFS) {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            assert_eq!(usize::try_from(sent), Ok(frame.len()), "{error}");
            return;
        }
        panic!("the interface has had no room for {ROOM_TRIES_MAX} ms");
    }

    /// The next received frame for which `wanted` holds; `None` after `limit`.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let mut poll = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid `pollfd`.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32 + 1) };
            if ready <= 0 {
                continue;
            }
            // SAFETY: pointer and length are those of a live buffer.
            let read = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            let Ok(read) = usize::try_from(read) else {
                continue;
            };
            if wanted(&buffer[..read]) {
                buffer.truncate(read);
                return Some(buffer);
            }
        }
    }
}
