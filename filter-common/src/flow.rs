//! Hellos over several segments: what is kept of an undecided TCP stream, and what a segment
//! means for it.
//!
//! The rule behind every line: decide when the byte that completes the hello arrives (no server
//! can act on less, so partial data may pass), and let nothing ambiguous through before the
//! verdict. An entry exists only while a connection is undecided; established traffic finds none,
//! except on HTTP connections to this host, where it says where the next request starts.

mod accept;
mod compare;
mod held;
mod read;
mod reverse;
mod socket;
mod stream;

pub use self::{
    accept::{OptionWalk, Options, Stamps, options_at, stamps},
    compare::{
        COMPARE_BYTES, COMPARE_STEPS_MAX, Comparison, begin_comparison, compare_step,
        finish_comparison,
    },
    held::forget_known,
    reverse::{Course, between, course, matters, settle, watch},
    stream::{inspect, judge, plan},
};
use crate::{
    abi::{FlowKey, Protocol, feature},
    hit::Hit,
    reason::Reason,
    wire::TCP,
};

/// Where a stream stands.
pub mod state {
    /// A SYN was seen: the stream starts at `next`.
    pub const OPENED: u32 = 1;
    /// Part of a hello was seen: its bytes up to `next` are kept.
    pub const READING: u32 = 2;
    /// The hello was allowed, but the server's answer is not yet acknowledged.
    pub const ALLOWED: u32 = 3;
    /// As [`ALLOWED`], of a request or of another protocol, in a stream that passes through.
    pub const PASSED: u32 = 4;
    /// Never stored: a segment is read by itself, and the stream's entry stays as it is.
    pub const BESIDE: u32 = 5;
    /// Requests to this host were allowed, and the next one starts at `next`, behind the last one's body
    /// if it has one. The heads of those before have `kept` bytes from `start` on, and are kept if
    /// several segments brought them.
    pub const BETWEEN: u32 = 6;
    /// The server has a request that was allowed, of a stream that passes through. What comes next is judged as if
    /// there were no entry; it only tells whether that belongs to the connection, so that it can be answered.
    pub const KNOWN: u32 = 7;
}

/// An undecided stream in the table. One direction writes one half of it, so that both may be under
/// way at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// What the client sent.
    pub flow: Flow,
    /// What the server sent.
    pub answers: Answers,
}

/// What was seen of the server's direction of a connection that passes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answers {
    /// Nonzero once a SYN-ACK has confirmed [`Flow::connection`].
    pub seen: u32,
    /// Sequence number of the server's first byte.
    pub start: u32,
    /// Sequence number of the server's next byte.
    pub next: u32,
    /// Sequence number of the byte that the server expects next of the client.
    pub acked: u32,
}

/// What the stream tables have of a connection, as far as this packet knows: what they have not need not be
/// deleted.
pub mod known {
    /// An entry.
    pub const ENTRY: u32 = 1;
    /// Bytes of a hello.
    pub const HELLO: u32 = 2;
}

/// What is kept of an undecided stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// One of [`state`].
    pub state: u32,
    /// Sequence number of the first byte of what is read.
    pub start: u32,
    /// Sequence number of the connection's first byte, where the host knows it or a SYN said it:
    /// ties the entry to its connection.
    pub connection: u32,
    /// Sequence number of the next byte.
    pub next: u32,
    /// Acknowledgement number that came with the first segment.
    pub ack: u32,
    /// Bytes from `start` on that are kept, see also [`state::BETWEEN`].
    pub kept: u32,
    /// Sequence number after a later SYN on the same ports; valid if `reopened`.
    pub reopened_at: u32,
    /// Nonzero if a later SYN was seen.
    pub reopened: u32,
    /// Nonzero if `start` is known to be the start of the connection.
    pub certain: u16,
    /// Bits of [`mark`].
    pub marks: u16,
    /// Timestamp last accepted, where the server's direction is seen; 0 if timestamps are off.
    pub ts_recent: u32,
    /// Interface that the client's SYN came in on.
    pub interface: u32,
    /// Nonzero if payload behind `next` has passed before the server had the bytes up to there. In
    /// [`state::READING`] without a certain start: if a blocked name was read, and dropped.
    pub beyond: u32,
}

/// What else is known of an undecided stream.
pub mod mark {
    /// This is a later request, and what the client sent before it is known to be answered.
    pub const CLEAN: u16 = 1 << 0;
    /// One segment brought what is kept behind a verdict: another may take its place as long as the server has
    /// no part of it.
    pub const SINGLE: u16 = 1 << 1;
    /// The client has sent an RST that the host may take, but has not received yet.
    pub const ENDED: u16 = 1 << 2;
    /// The verdict was given on a request: others may follow once the server has this one.
    pub const ASKED: u16 = 1 << 3;
    /// Other bytes may have reached the host's connection: they passed when another could still be opened.
    pub const STRAY: u16 = 1 << 4;
}

/// A blocked connection: void in another generation, and when the rule is not in force.
/// Kept apart from [`Flow`], so that evicting those cannot reopen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Blocked {
    /// Low half of the number of the generation that decided.
    pub generation: u32,
    /// Slot of the rule.
    pub slot: u16,
    /// Length of the name that hit, for comparing rules.
    pub specificity: u16,
    /// As [`Flow::start`].
    pub start: u32,
    /// As [`Flow::connection`].
    pub connection: u32,
    /// Sequence number of the segment that was blocked.
    pub seq: u32,
    /// Sequence number after a later SYN on the same ports; valid if `reopened`.
    pub reopened_at: u32,
    /// Nonzero if a later SYN was seen.
    pub reopened: u16,
    /// [`Protocol`] discriminant.
    pub protocol: u16,
}

/// TCP flags.
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Deliver now.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// What the host itself knows of a connection (server role), or what both directions have shown of it
/// (router role).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// One of [`peer`].
    pub kind: u32,
    /// Sequence number of the stream's first byte.
    pub start: u32,
    /// Sequence number of the next byte that the host expects. Segments that passed the filter
    /// a moment ago may not have reached it yet.
    pub rcv_nxt: u32,
    /// First sequence number that the client has not acknowledged.
    pub snd_una: u32,
    /// Next sequence number that the host will send.
    pub snd_nxt: u32,
    /// Timestamp last accepted from the client; 0 if timestamps are off.
    pub ts_recent: u32,
}

/// Kinds of [`Peer`].
pub mod peer {
    /// No socket: the connection passes through, or sockets are not consulted.
    pub const NONE: u32 = 0;
    /// A socket that listens, and takes no SYN cookies: the host refuses the segment, unless
    /// somebody rewrites its destination on the way.
    pub const LISTENER: u32 = 1;
    /// A connection, or a request for one.
    pub const CONNECTION: u32 = 2;
    /// No socket, but both directions of the connection were seen to pass.
    pub const SEEN: u32 = 3;
    /// A socket that listens, and takes the segment's acknowledgement for its SYN cookie: the
    /// connection starts with this segment, at `start`.
    pub const COOKIE: u32 = 4;
    /// A socket that listens and takes SYN cookies, of which this is none. The segment counts only
    /// behind one with a cookie that has not reached the host yet.
    pub const NO_COOKIE: u32 = 5;
}

impl Peer {
    /// Whether the numbers of both directions are known.
    #[inline(always)]
    pub const fn numbered(self) -> bool {
        matches!(self.kind, peer::CONNECTION | peer::SEEN)
    }

    /// Whether it is a socket that listens.
    #[inline(always)]
    pub const fn listens(self) -> bool {
        matches!(self.kind, peer::LISTENER | peer::COOKIE | peer::NO_COOKIE)
    }

    /// Whether the segment belongs to a connection that this host has, or that its cookies open.
    #[inline(always)]
    pub const fn at_host(self) -> bool {
        matches!(self.kind, peer::CONNECTION | peer::COOKIE | peer::NO_COOKIE)
    }

    /// Whether the host has received nothing on the connection yet.
    #[inline(always)]
    pub const fn fresh(self) -> bool {
        self.rcv_nxt == self.start
    }
}

/// A TCP segment towards an inspected port of a served address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where its payload starts in the frame.
    pub offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP [`flags`].
    pub flags: u8,
    /// [`crate::abi::port_class`] bits of the destination port.
    pub class: u8,
    /// Destination port.
    pub port: u16,
    /// Where the TCP header starts in the frame, at most
    /// [`crate::limits::HEADER_OFFSET_MAX`].
    pub transport: u16,
    /// Where the network header starts in the frame.
    pub network: u16,
}

impl Segment {
    /// As three scalars, for a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> [u64; 3] {
        [
            (self.offset as u64) << 32 | self.len as u64,
            (self.seq as u64) << 32 | self.ack as u64,
            (self.network as u64) << 48
                | (self.transport as u64) << 32
                | (self.port as u64) << 16
                | (self.flags as u64) << 8
                | self.class as u64,
        ]
    }

    /// Back from [`Segment::pack`].
    #[inline(always)]
    pub const fn unpack(packed: [u64; 3]) -> Self {
        Self {
            offset: (packed[0] >> 32) as u32,
            len: packed[0] as u32,
            seq: (packed[1] >> 32) as u32,
            ack: packed[1] as u32,
            flags: (packed[2] >> 8) as u8,
            class: packed[2] as u8,
            port: (packed[2] >> 16) as u16,
            transport: (packed[2] >> 32) as u16,
            network: (packed[2] >> 48) as u16,
        }
    }

    /// Where its payload ends in the frame.
    #[inline(always)]
    const fn end(self) -> u32 {
        self.offset + self.len
    }

    /// The segment without its first `bytes` bytes.
    #[inline(always)]
    const fn without(self, bytes: u32) -> Self {
        Self {
            offset: self.offset + bytes,
            len: self.len - bytes,
            seq: self.seq.wrapping_add(bytes),
            ..self
        }
    }
}

/// What reading a payload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reading {
    /// The deciding rule.
    pub hit: Hit,
    /// Why; a reason that drops by itself needs no rule, see [`Reading::drops`].
    pub reason: Reason,
    /// What the payload was recognised as.
    pub protocol: Protocol,
    /// Whether the segment is dropped though no rule hits.
    pub drops: bool,
}

impl Reading {
    /// Nothing that decides.
    #[inline(always)]
    pub const fn nothing(reason: Reason, protocol: Protocol) -> Self {
        Self {
            hit: Hit::NONE,
            reason,
            protocol,
            drops: false,
        }
    }

    #[inline(always)]
    const fn dropped(reason: Reason, protocol: Protocol) -> Self {
        Self {
            hit: Hit::NONE,
            reason,
            protocol,
            drops: true,
        }
    }

    /// As one scalar, for a function boundary: reason in bits 58..64, protocol in 56..58,
    /// `drops` in 55, the hit below.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        (self.reason as u64) << 58
            | (self.protocol as u64) << 56
            | (self.drops as u64) << 55
            | self.hit.0
    }

    /// Back from [`Reading::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self {
            hit: Hit(packed & ((1 << 55) - 1)),
            reason: match Reason::from_u8((packed >> 58) as u8) {
                Some(reason) => reason,
                None => Reason::NoMatch,
            },
            protocol: match Protocol::from_u8((packed >> 56 & 3) as u8) {
                Some(protocol) => protocol,
                None => Protocol::None,
            },
            drops: packed >> 55 & 1 != 0,
        }
    }
}

/// Flags for which a client's segment matters though it has no payload.
///
/// Where all connections end on this host its sockets are the truth, and a SYN says nothing that they will
/// not say: a flood of them is to cost nothing.
#[inline(always)]
pub const fn bare_flags(features: u32) -> u8 {
    if features & (feature::SOCKETS | feature::ANSWERS) == feature::SOCKETS {
        flags::RST
    } else {
        flags::SYN | flags::RST
    }
}

/// The key of a TCP flow from its client.
#[inline(always)]
pub fn key(src: [u64; 2], dst: [u64; 2], src_port: u16, dst_port: u16) -> FlowKey {
    FlowKey {
        src: [src[0].to_be(), src[1].to_be()],
        dst: [dst[0].to_be(), dst[1].to_be()],
        src_port,
        dst_port,
        protocol: TCP,
        reserved: [0; 3],
    }
}

const _: () = assert!(size_of::<Entry>() == 64);
