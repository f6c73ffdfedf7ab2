//! Resets to servers whose client was answered in their place, and that have not heard of it.
//!
//! The kernel programs make the server's reset of a segment of the client: of the one that a connection is
//! taken over with, or of the one behind a refusal. A client that vanishes sends none, and on the way to a
//! server behind a router the only one can be lost. Here it is sent through a raw socket (`CAP_NET_RAW`), with
//! exactly the sequence number that the server expects.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use aya::maps::MapError;
use filter_common::{
    abi::{FlowKey, Taken, taken},
    checksum, flow,
    wire::{IPV4_LEN, IPV6_LEN, TCP, TCP_LEN},
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use super::{
    DatapathError, Root,
    error::map_error,
    object::TAKEN,
    pod::Raw,
    sink::LATE_RESETS_AT,
    taken::{Connections, monotonic_s},
};

/// Seconds after which a server has a reset, if its client has brought none, and between two resets.
const AFTER_S: u32 = 1;

/// Resets that are sent to a server that is not on this host: the kernel programs' only one can be lost, and so
/// can these.
const RESETS_MAX: u8 = 2;

/// `BPF_EXIST` of linux/bpf.h: an entry that was evicted does not come back.
const EXISTING: u64 = 2;

/// Hops that a reset may take.
const HOPS_MAX: u8 = 64;

const RESET_BYTES_MAX: usize = (IPV6_LEN + TCP_LEN) as usize;

impl Root {
    /// Resets the servers that are due; how many. To be called every second.
    ///
    /// # Errors
    ///
    /// The maps could not be read, or the kernel lets nothing be sent.
    pub fn reset_servers(&self) -> Result<usize, DatapathError> {
        let mut connections = self.taken_map()?;
        let due = due(&connections, monotonic_s())?;
        if due.is_empty() {
            return Ok(0);
        }
        let mut sockets = Sockets::default();
        for (key, entry) in &due {
            sockets.reset(key, entry.next).map_err(failed)?;
            note(&mut connections, key, *entry);
        }
        if let Some(count) = self.sink_map()?.words().get(LATE_RESETS_AT) {
            count.fetch_add(due.len() as u64, Ordering::Relaxed);
        }
        Ok(due.len())
    }
}

fn failed(source: io::Error) -> DatapathError {
    DatapathError::Kernel {
        action: "reset a server by a raw socket (this needs CAP_NET_RAW)".to_owned(),
        source,
    }
}

fn due(connections: &Connections, now: u32) -> Result<Vec<(FlowKey, Taken)>, DatapathError> {
    let mut due = Vec::new();
    for entry in connections.iter() {
        let (key, entry) = match entry {
            Ok(entry) => entry,
            // Evicted while they were listed: the rest is for the next time.
            Err(MapError::KeyNotFound) => break,
            Err(error) => return Err(map_error(TAKEN)(error)),
        };
        if is_due(&entry.0, now) {
            due.push((key.0, entry.0));
        }
    }
    Ok(due)
}

/// Whether the server has to be reset now.
fn is_due(entry: &Taken, now: u32) -> bool {
    let has = |flag| entry.flags & flag != 0;
    // The ports may be another connection's by now.
    if entry.state == taken::ORIGIN || has(taken::flag::REOPENED) {
        return false;
    }
    let most = match (has(taken::flag::LOCAL), has(taken::flag::SERVER_RESET)) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => RESETS_MAX,
    };
    let wait = AFTER_S * (1 + u32::from(entry.late_resets));
    entry.late_resets < most && now.wrapping_sub(entry.since).cast_signed() >= wait.cast_signed()
}

fn note(connections: &mut Connections, key: &FlowKey, entry: Taken) {
    let noted = Taken {
        flags: entry.flags | taken::flag::SERVER_RESET,
        late_resets: entry.late_resets.saturating_add(1),
        ..entry
    };
    // Evicted meanwhile.
    let _ = connections.insert(Raw(*key), Raw(noted), EXISTING);
}

/// Raw sockets, made when they are needed.
#[derive(Default)]
struct Sockets {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

impl Sockets {
    /// Sends a reset in the name of a flow's client.
    fn reset(&mut self, key: &FlowKey, seq: u32) -> io::Result<()> {
        let mut bytes = [0; RESET_BYTES_MAX];
        let (packet, server) = packet(&mut bytes, key, seq);
        let (socket, family) = match server {
            IpAddr::V4(_) => (&mut self.v4, AddressFamily::Inet),
            IpAddr::V6(_) => (&mut self.v6, AddressFamily::Inet6),
        };
        let socket = match socket {
            Some(socket) => socket,
            None => socket.insert(raw(family)?),
        };
        // The port is no part of such an address.
        let to = SockaddrStorage::from(SocketAddr::new(server, 0));
        match sendto(socket.as_raw_fd(), packet, &to, MsgFlags::MSG_DONTWAIT) {
            // Of this one: no way to it, a full queue, a firewall. It counts as lost.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn raw(family: AddressFamily) -> io::Result<OwnedFd> {
    // With this protocol the sender writes the IP header.
    let protocol = SockProtocol::Raw;
    Ok(socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?)
}

/// Writes a reset of a flow's client: its bytes, and to whom.
fn packet<'a>(to: &'a mut [u8; RESET_BYTES_MAX], key: &FlowKey, seq: u32) -> (&'a [u8], IpAddr) {
    let (client, server) = (key.src_addr(), key.dst_addr());
    let (start, server) = match (client.to_ipv4_mapped(), server.to_ipv4_mapped()) {
        (Some(client), Some(server)) => {
            // Length, number and checksum are the kernel's.
            to[0] = 0x45;
            to[6] = 0x40;
            to[8] = HOPS_MAX;
            to[9] = TCP;
            to[12..16].copy_from_slice(&client.octets());
            to[16..20].copy_from_slice(&server.octets());
            (IPV4_LEN as usize, IpAddr::V4(server))
        }
        _ => {
            to[0] = 0x60;
            to[5] = TCP_LEN as u8;
            to[6] = TCP;
            to[7] = HOPS_MAX;
            to[8..24].copy_from_slice(&client.octets());
            to[24..40].copy_from_slice(&server.octets());
            (IPV6_LEN as usize, IpAddr::V6(server))
        }
    };
    let end = start + TCP_LEN as usize;
    let tcp = &mut to[start..end];
    tcp[0..2].copy_from_slice(&key.src_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&key.dst_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[12] = (TCP_LEN as u8 / 4) << 4;
    tcp[13] = flow::flags::RST;
    // Addresses, protocol and length are summed as well, and the addresses are the header's end.
    let addresses = match server {
        IpAddr::V4(_) => 12..IPV4_LEN as usize,
        IpAddr::V6(_) => 8..IPV6_LEN as usize,
    };
    let sum = checksum::sum(&to[addresses], u32::from(TCP) + TCP_LEN);
    let checksum = !(checksum::sum(&to[start..end], sum) as u16);
    to[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
    (&to[..end], server)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_000;

    fn entry(state: u8, flags: u8, age_s: u32, late_resets: u8) -> Taken {
        Taken {
            state,
            flags,
            late_resets,
            since: NOW - age_s,
            ..Taken::default()
        }
    }

    #[test]
    fn a_server_is_reset_when_it_has_none_or_may_have_lost_it() {
        use taken::{
            ORIGIN, PAGE, REFUSED,
            flag::{LOCAL, REOPENED, SERVER_RESET},
        };
        for (state, flags, age_s, late, expected) in [
            (REFUSED, LOCAL, 0, 0, false),
            (REFUSED, LOCAL, 1, 0, true),
            (REFUSED, LOCAL | SERVER_RESET, 1, 0, false),
            (REFUSED, LOCAL | SERVER_RESET, 9, 1, false),
            (PAGE, LOCAL | SERVER_RESET, 9, 0, false),
            (PAGE, SERVER_RESET, 1, 0, true),
            (PAGE, SERVER_RESET, 1, 1, false),
            (PAGE, SERVER_RESET, 2, 1, true),
            (PAGE, SERVER_RESET, 9, RESETS_MAX, false),
            (REFUSED, SERVER_RESET | REOPENED, 9, 0, false),
            (ORIGIN, 0, 9, 0, false),
        ] {
            let entry = entry(state, flags, age_s, late);
            assert_eq!(is_due(&entry, NOW), expected, "{entry:?}");
        }
    }
}
