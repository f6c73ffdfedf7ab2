//! Connections of this machine with itself, in a namespace of their own, for frames that belong to one.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};
use filter_tests::{
    net::Namespace,
    packet::{Packet, flag},
};

use crate::cases::{SERVED, padded};

/// Two connections to the address on which names are read.
pub(crate) struct Connections {
    /// The server has had data on it.
    pub(crate) in_use: Connection,
    /// It has not.
    pub(crate) fresh: Connection,
    _listener: TcpListener,
}

/// One of them, as its next segment has to know it.
pub(crate) struct Connection {
    client: TcpStream,
    _server: TcpStream,
    seq: u32,
    ack: u32,
}

impl Connections {
    /// Opens them in `namespace`.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self> {
        namespace.address("lo", &format!("{SERVED}/32"));
        namespace.run(|| {
            let listener = TcpListener::bind((SERVED, 443)).context("cannot listen")?;
            Ok(Self {
                in_use: Connection::open(&listener, b"what came before")?,
                fresh: Connection::open(&listener, b"")?,
                _listener: listener,
            })
        })
    }
}

impl Connection {
    fn open(listener: &TcpListener, data: &[u8]) -> Result<Self> {
        let mut client = TcpStream::connect((SERVED, 443)).context("cannot connect")?;
        let (mut server, _) = listener.accept().context("cannot accept")?;
        client.write_all(data).context("cannot send")?;
        server
            .read_exact(&mut vec![0; data.len()])
            .context("cannot receive")?;
        let [seq, ack] = next_numbers(&server).context("cannot read sequence numbers")?;
        Ok(Self {
            client,
            _server: server,
            seq,
            ack,
        })
    }

    /// The client's next segment.
    pub(crate) fn segment(&self, payload: Vec<u8>) -> Vec<u8> {
        let port = self.client.local_addr().map_or(0, |local| local.port());
        let packet = Packet::tcp(&format!("{SERVED}:{port}"), &format!("{SERVED}:443"));
        let packet = packet.seq(self.seq).ack(self.ack);
        padded(packet.flags(flag::ACK | flag::PSH).payload(payload).build())
    }
}

/// The sequence numbers of the next byte to be received and to be sent.
fn next_numbers(stream: &TcpStream) -> std::io::Result<[u32; 2]> {
    const RECEIVED: libc::c_int = 1;
    const SENT: libc::c_int = 2;
    /// Without a probe of the window.
    const REPAIR_OFF: libc::c_int = -1;
    set(stream, libc::TCP_REPAIR, 1)?;
    let number = |queue| {
        set(stream, libc::TCP_REPAIR_QUEUE, queue)?;
        get(stream, libc::TCP_QUEUE_SEQ)
    };
    let numbers = [number(RECEIVED)?, number(SENT)?];
    set(stream, libc::TCP_REPAIR, REPAIR_OFF)?;
    Ok(numbers)
}

fn set(stream: &TcpStream, option: libc::c_int, value: libc::c_int) -> std::io::Result<()> {
    // SAFETY: an option of four bytes, and as many of them.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    checked(result)
}

fn get(stream: &TcpStream, option: libc::c_int) -> std::io::Result<u32> {
    let mut value = 0u32;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: an option of four bytes, and room for as many.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    checked(result).map(|()| value)
}

fn checked(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
