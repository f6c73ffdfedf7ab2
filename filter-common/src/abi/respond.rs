//! What the program that answers (`respond`), the programs at the block page's end of the path
//! (`sink_in`, `sink_out`) and the controller share.

use super::FlowKey;
use crate::limits::{RULES_MAX, TAKEN_HELLO_BYTES_MAX};

/// Values of [`super::Rule::redirect_index`]: smaller ones are keys of the map of devices.
pub mod redirect {
    /// To the block page.
    pub const PAGE: u32 = u32::MAX;
    /// With this bit, and without [`PAGE`]: the rest indexes the map of [`super::NextHop`]s.
    pub const NEXT_HOP: u32 = 1 << 31;

    /// Whether the frame must be changed before it is sent, which is what `respond` does.
    #[inline(always)]
    pub const fn needs_response(index: u32) -> bool {
        index & NEXT_HOP != 0
    }
}

/// Bits of [`super::Rule::flags`].
pub mod rule_flag {
    /// QUIC long headers that the rule hits get a Version Negotiation packet (RFC 9000, section 6).
    pub const QUIC: u16 = 1 << 0;
}

/// What the deciding program knows of a frame that is to be answered: one per CPU, written just before
/// the tail call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Response {
    /// The packet's addresses and ports, as the packet has them: for TCP segments of clients that is
    /// the flow's key.
    pub key: FlowKey,
    /// Sequence number of the first byte of the hello or request, see [`Response::NAMED`].
    pub start: u32,
    /// End of what the server has been let have: its next byte.
    pub next: u32,
    /// Sequence number of the segment.
    pub seq: u32,
    /// Acknowledgement number of the segment.
    pub ack: u32,
    /// Version of the slot's rule.
    pub slot_version: u32,
    /// The rule's [`super::Rule::redirect_index`].
    pub redirect_index: u32,
    /// Slot of the deciding rule, or [`super::NO_SLOT`].
    pub slot: u16,
    /// [`super::Verdict`] discriminant.
    pub verdict: u8,
    /// [`crate::reason::Reason`] discriminant: tells what was hit.
    pub reason: u8,
    /// [`super::Protocol`] discriminant.
    pub protocol: u8,
    /// Bits below.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl Response {
    /// A name in a TCP stream was hit: `start` and `next` are known.
    pub const NAMED: u8 = 1 << 0;
    /// The segment belongs to a connection of which both directions' numbers are known, and has them:
    /// nobody can have made it up who does not see the connection.
    pub const VERIFIED: u8 = 1 << 1;
    /// The server has sent, or is about to send, what the client has not acknowledged.
    pub const IN_FLIGHT: u8 = 1 << 2;
    /// What the stream had before `start` was answered, or there was nothing.
    pub const CLEAN: u8 = 1 << 3;
    /// QUIC long headers are to be answered with a Version Negotiation packet.
    pub const QUIC: u8 = 1 << 4;
    /// The server is on this host.
    pub const LOCAL: u8 = 1 << 5;

    /// Whether all bits of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// States of a [`Taken`] connection.
pub mod taken {
    /// The client was refused: what it still sends is answered likewise.
    pub const REFUSED: u8 = 1;
    /// The block page answers in the server's place.
    pub const PAGE: u8 = 2;
    /// The block page answers for a blocked address; there is no server.
    pub const ORIGIN: u8 = 3;

    /// Bits of [`super::Taken::flags`].
    pub mod flag {
        /// The server's half was reset.
        pub const SERVER_RESET: u8 = 1 << 0;
        /// The server is on this host: a reset to it is not lost.
        pub const LOCAL: u8 = 1 << 1;
        /// A later SYN was seen; `reopened_at` is valid.
        pub const REOPENED: u8 = 1 << 2;
        /// The frames carry one VLAN tag, `tag`.
        pub const TAGGED: u8 = 1 << 3;
        /// The client was sent an RST.
        pub const CLIENT_RESET: u8 = 1 << 4;
        /// The client has acknowledged something of the page: its hello opens nothing any more.
        pub const HEARD: u8 = 1 << 5;
    }
}

/// A connection that is answered in the server's place, by the key of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Taken {
    /// One of [`taken`].
    pub state: u8,
    /// [`super::Protocol`] discriminant.
    pub protocol: u8,
    /// Bits of [`taken::flag`].
    pub flags: u8,
    /// Resets that the controller sent to the server.
    pub late_resets: u8,
    /// Slot of the rule.
    pub slot: u16,
    /// Zero.
    pub reserved_middle: u16,
    /// Version of the slot's rule.
    pub slot_version: u32,
    /// Sequence number of the first byte that the page's server reads.
    pub start: u32,
    /// Sequence number of the segment that was blocked.
    pub seq: u32,
    /// Sequence number of the server's next byte of the client: what an RST to it needs.
    pub next: u32,
    /// Acknowledgement number of the segment that was blocked.
    pub ack: u32,
    /// Sequence number after a later SYN on the same ports.
    pub reopened_at: u32,
    /// Index of the interface that the client's frames come in on.
    pub interface: u32,
    /// Type and control information of the frames' VLAN tag.
    pub tag: u32,
    /// The frames' source, where answers go.
    pub client_mac: [u8; 6],
    /// The frames' destination, where answers come from.
    pub edge_mac: [u8; 6],
    /// When it was last used, in seconds of CLOCK_MONOTONIC: what the controller's sweep goes by.
    pub used: u32,
    /// When it was answered first, likewise.
    pub since: u32,
    /// Zero.
    pub reserved_end: u32,
}

impl Taken {
    /// A connection that is answered from the segment of `response` on, in this state.
    #[inline(always)]
    pub const fn of(response: &Response, state: u8, now: u32) -> Self {
        Self {
            state,
            protocol: response.protocol,
            flags: if response.has(Response::LOCAL) {
                taken::flag::LOCAL
            } else {
                0
            },
            late_resets: 0,
            slot: response.slot,
            reserved_middle: 0,
            slot_version: response.slot_version,
            start: response.start,
            seq: response.seq,
            next: response.next,
            ack: response.ack,
            reopened_at: 0,
            interface: 0,
            tag: 0,
            client_mac: [0; 6],
            edge_mac: [0; 6],
            used: now,
            since: now,
            reserved_end: 0,
        }
    }
}

/// The way to the block page: the one element of its map, which the controller writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sink {
    /// One of [`sink`].
    pub state: u32,
    /// One of [`method`].
    pub method: u32,
    /// Address of the interface in the page's namespace.
    pub sink_mac: [u8; 6],
    /// Address of its peer, on the edge's side.
    pub edge_mac: [u8; 6],
    /// Port on which the page's server listens for this host's own proxies, on the addresses of
    /// [`local_page_address`]; 0 if it does not.
    pub local_port: u32,
    /// Resets that the controller sent to servers, see [`crate::respond::counted::Answer::LateReset`].
    pub late_resets: u64,
}

/// IPv4 address, in host byte order, to which a connection of a local proxy is led so that the page's server
/// knows which rule blocks its origin: `127.64.0.1` and on, `slot` times 256 from there. All of `127.0.0.0/8`
/// is the host's own.
#[inline(always)]
pub const fn local_page_address(slot: u16) -> u32 {
    const FIRST: u32 = 0x7f40_0001;
    const SLOT_MASK: u32 = RULES_MAX as u32 - 1;
    FIRST | (slot as u32 & SLOT_MASK) << 8
}

const _: () = assert!(RULES_MAX <= 1 << 14);

/// States of the [`Sink`].
pub mod sink {
    /// Nobody answers: what leads to the page is refused.
    pub const DOWN: u32 = 0;
    /// The page is served.
    pub const UP: u32 = 1;
    /// It is there, but does not keep up: who has it keeps it, others are refused.
    pub const BUSY: u32 = 2;
}

/// How an established connection is handed to the page's server.
pub mod method {
    /// It is not.
    pub const NONE: u32 = 0;
    /// By `bpf_sk_assign_tcp_reqsk` (Linux 6.9).
    pub const KFUNC: u32 = 1;
    /// By a process in the page's namespace that makes a socket of what it is told, see
    /// [`super::Handover`].
    pub const REPAIR: u32 = 2;
}

/// A connection for whose client a socket is to be made: the record of a ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Handover {
    /// The client's flow, as the packet has it.
    pub key: FlowKey,
    /// Sequence number of the first byte of the hello.
    pub start: u32,
    /// What the client has acknowledged: the sequence number of the next byte to it.
    pub ack: u32,
    /// The client's timestamp and the one that it gives back, under [`Handover::TIMESTAMPS`].
    pub timestamps: [u32; 2],
    /// The client's window, not scaled.
    pub window: u16,
    /// Length of the hello.
    pub len: u16,
    /// Bits below.
    pub flags: u32,
    /// The hello; behind its length there is anything.
    pub hello: [u8; TAKEN_HELLO_BYTES_MAX as usize],
}

impl Handover {
    /// The client uses timestamps.
    pub const TIMESTAMPS: u32 = 1 << 0;
}

/// Where frames go that a rule sends to a next hop; the controller keeps it fresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NextHop {
    /// Key of the map of devices.
    pub device: u32,
    /// Nonzero if the addresses are known.
    pub resolved: u32,
    /// Address of the next hop.
    pub dst_mac: [u8; 6],
    /// Address of the interface it is reached by.
    pub src_mac: [u8; 6],
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Response>() == 72);
    assert!(size_of::<Taken>() == 64);
    assert!(size_of::<Sink>() == 32);
    assert!(size_of::<Handover>() == 64 + TAKEN_HELLO_BYTES_MAX as usize);
    assert!(size_of::<NextHop>() == 24);
};
