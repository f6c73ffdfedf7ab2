//! The ABI between the kernel program and user space.
//!
//! Everything here is `repr(C)`, made of fixed-width integers in host byte order
//! unless a field says otherwise, free of padding, and valid for every bit
//! pattern. [`ABI_VERSION`] changes whenever a layout or a meaning changes; a
//! controller refuses pinned maps of another version.

mod respond;

use core::net::Ipv6Addr;

pub use self::respond::{
    Handover, NextHop, Response, Sink, Taken, local_page_address, method, redirect, rule_flag,
    sink, taken,
};

use crate::{
    limits::{EVENT_NAME_BYTES, NAME_BYTES_MAX, PORT_RANGES_PER_RULE},
    tables::{names::NameParams, v4::V4Params, v6::V6Params},
};

/// Version of every layout in this module and in [`crate::tables`].
pub const ABI_VERSION: u32 = 5;

/// Metadata before a frame that the controller sends through a program that is not attached yet:
/// nothing is counted and no event written. Nothing that arrives on a wire has metadata.
pub const PROBE_MARK: u64 = 0x6564_6765_7072_6f62;

/// One cache line, the element of every table map.
pub type Line = [u64; 8];

/// The table maps. Each is a `BPF_MAP_TYPE_ARRAY` of [`Line`]s, written by user space. Once a program
/// reads it, nothing is taken out of it any more; what is added, word by word, leads to rules that match
/// nothing until the generation's number is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Table {
    /// Bitmaps of blocked IPv4 prefixes, see [`crate::tables::v4`].
    V4Summary = 0,
    /// Buckets of blocked IPv4 prefixes; values index [`Table::RuleSets`].
    V4Buckets = 1,
    /// Bloom filters of blocked IPv6 prefixes, see [`crate::tables::v6`].
    V6Summary = 2,
    /// Buckets of blocked IPv6 prefixes; values index [`Table::RuleSets`].
    V6Buckets = 3,
    /// As [`Table::V4Summary`], for the addresses that the operator serves.
    ServedV4Summary = 4,
    /// As [`Table::V4Buckets`]; the values are those of [`served`].
    ServedV4Buckets = 5,
    /// As [`Table::V6Summary`], for the addresses that the operator serves.
    ServedV6Summary = 6,
    /// As [`Table::V6Buckets`]; the values are those of [`served`].
    ServedV6Buckets = 7,
    /// Bloom filter of blocked names.
    NameSummary = 8,
    /// Buckets of blocked names; values index [`Table::RuleSets`].
    NameBuckets = 9,
    /// Lists of [`SetRef`]s, sixteen `u32` to a line (low half of a word first).
    RuleSets = 10,
}

impl Table {
    /// Every table, in the order of its discriminants.
    pub const ALL: [Self; 11] = [
        Self::V4Summary,
        Self::V4Buckets,
        Self::V6Summary,
        Self::V6Buckets,
        Self::ServedV4Summary,
        Self::ServedV4Buckets,
        Self::ServedV6Summary,
        Self::ServedV6Buckets,
        Self::NameSummary,
        Self::NameBuckets,
        Self::RuleSets,
    ];

    /// Name of the map in the object file and of its pin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4Summary => "V4_SUMMARY",
            Self::V4Buckets => "V4_BUCKETS",
            Self::V6Summary => "V6_SUMMARY",
            Self::V6Buckets => "V6_BUCKETS",
            Self::ServedV4Summary => "SERVED_V4_SUM",
            Self::ServedV4Buckets => "SERVED_V4_BKT",
            Self::ServedV6Summary => "SERVED_V6_SUM",
            Self::ServedV6Buckets => "SERVED_V6_BKT",
            Self::NameSummary => "NAME_SUMMARY",
            Self::NameBuckets => "NAME_BUCKETS",
            Self::RuleSets => "RULE_SETS",
        }
    }
}

/// What the load-time constants switch on; code behind a cleared bit is removed
/// by the verifier.
pub mod feature {
    /// There are IPv4 origin prefixes.
    pub const V4: u32 = 1 << 0;
    /// There are IPv6 origin prefixes.
    pub const V6: u32 = 1 << 1;
    /// There are hostnames, so payloads are inspected.
    pub const NAMES: u32 = 1 << 2;
    /// A rule has `from` or `until`.
    pub const TIMES: u32 = 1 << 3;
    /// Sampled events go to the ring buffer.
    pub const EVENTS: u32 = 1 << 4;
    /// Every destination counts as served (replay).
    pub const SERVE_ANY: u32 = 1 << 5;
    /// Every packet's outcome is written to the trace map (replay and parity tests).
    pub const TRACE: u32 = 1 << 6;
    /// Debug messages through `aya-log`.
    pub const DEBUG: u32 = 1 << 7;
    /// There are served IPv4 prefixes.
    pub const SERVED_V4: u32 = 1 << 8;
    /// There are served IPv6 prefixes.
    pub const SERVED_V6: u32 = 1 << 9;
    /// A rule redirects to an interface.
    pub const REDIRECT: u32 = 1 << 10;
    /// TCP and IP header checksums of inspected segments must be right.
    pub const CHECKSUMS: u32 = 1 << 11;
    /// Names are read even if no rule has one (replay without a policy).
    pub const READ_NAMES: u32 = 1 << 12;
    /// A rule observes.
    pub const OBSERVE: u32 = 1 << 13;
    /// Hellos that cannot be read pass; otherwise they are dropped.
    pub const UNPARSED_PASS: u32 = 1 << 14;
    /// The host's sockets are consulted (server role).
    pub const SOCKETS: u32 = 1 << 15;
    /// A TCP checksum field that holds the pseudo-header's sum is taken for right.
    pub const CHECKSUM_PARTIAL: u32 = 1 << 16;
    /// A hello that names no host is dropped.
    pub const NO_SNI_DROP: u32 = 1 << 17;
    /// The host takes payload in a SYN (TCP Fast Open).
    pub const FAST_OPEN: u32 = 1 << 18;
    /// First fragments towards inspected ports pass.
    pub const FRAGMENTS_PASS: u32 = 1 << 19;
    /// HTTP/2 with prior knowledge is dropped.
    pub const HTTP2_DROP: u32 = 1 << 20;
    /// On some ports a PROXY protocol header may precede the hello.
    pub const PROXY: u32 = 1 << 21;
    /// A rule refuses, or leads to the block page or a next hop: there is a second program that answers,
    /// and connections that it has answered are looked up.
    pub const RESPOND: u32 = 1 << 22;
    /// QUIC long headers to inspected ports of served addresses get a Version Negotiation packet.
    pub const QUIC_REFUSE: u32 = 1 << 23;
    /// Connections to served addresses pass through, so that the answers are watched (router role).
    pub const ANSWERS: u32 = 1 << 24;
    /// Answers are believed on whatever interface they arrive (replay).
    pub const ANSWERS_ANYWHERE: u32 = 1 << 25;
    /// Answers do not arrive: a SYN is all there is to know where a stream starts.
    pub const ONE_SIDED: u32 = 1 << 26;
}

/// Load-time constants of a generation, in the program's `.rodata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`ABI_VERSION`] of the user space that made it.
    pub abi: u32,
    /// Bits of [`feature`].
    pub features: u32,
    /// Number of the generation, for events.
    pub generation: u64,
    /// Most events that one CPU emits in [`crate::limits::EVENT_WINDOW_JIFFIES`].
    pub events_per_window: u32,
    /// Strongest [`Action`] of the rules with names: a stronger origin rule needs no look at the payload.
    pub name_action_max: u32,
    /// Where the kernel keeps what [`feature::SOCKETS`] needs.
    pub sockets: SocketOffsets,
    /// Blocked IPv4 prefixes.
    pub v4: V4Params,
    /// Served IPv4 prefixes.
    pub served_v4: V4Params,
    /// Blocked IPv6 prefixes.
    pub v6: V6Params,
    /// Served IPv6 prefixes.
    pub served_v6: V6Params,
    /// Blocked names.
    pub names: NameParams,
}

/// Offsets in bytes of fields of kernel structures, read from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketOffsets {
    /// `tcp_sock.rcv_nxt`
    pub rcv_nxt: u32,
    /// `tcp_sock.snd_nxt`
    pub snd_nxt: u32,
    /// `tcp_sock.snd_una`
    pub snd_una: u32,
    /// `tcp_sock.write_seq`: the end of what waits to be sent
    pub write_seq: u32,
    /// `tcp_sock.bytes_received`, whose low half is read
    pub bytes_received: u32,
    /// `tcp_sock.rx_opt.ts_recent`
    pub ts_recent: u32,
    /// `tcp_request_sock.rcv_isn`
    pub request_rcv_isn: u32,
    /// `tcp_request_sock.snt_isn`
    pub request_snt_isn: u32,
    /// `tcp_request_sock.req.req.ts_recent`
    pub request_ts_recent: u32,
    /// Zero.
    pub reserved: u32,
}

impl Config {
    /// No policy: everything passes.
    pub const EMPTY: Self = {
        let v4 = V4Params {
            shifts: 16 << 8 | 16,
            wide_at: 0,
            narrow_at: 0,
            narrow_lines: 1,
            bucket_count: 1,
            seed: 0,
            length_count: 0,
            lengths: [0; 40],
        };
        let v6 = V6Params {
            bloom_lines: 1,
            area_lines: 1,
            area_length: 0,
            bucket_count: 1,
            seed: 0,
            length_count: 0,
            lengths: [0; 132],
        };
        Self {
            abi: ABI_VERSION,
            features: 0,
            generation: 0,
            events_per_window: 0,
            name_action_max: 0,
            sockets: SocketOffsets {
                rcv_nxt: 0,
                snd_nxt: 0,
                snd_una: 0,
                write_seq: 0,
                bytes_received: 0,
                ts_recent: 0,
                request_rcv_isn: 0,
                request_snt_isn: 0,
                request_ts_recent: 0,
                reserved: 0,
            },
            v4,
            served_v4: v4,
            v6,
            served_v6: v6,
            names: NameParams {
                bloom_lines: 1,
                bucket_count: 1,
                key: [0; 4],
            },
        }
    };
}

/// Whether names are read on connections to an address: the values of the served tables.
pub mod served {
    /// The address is not served.
    pub const NO: u32 = 0;
    /// Connections to it pass through (router role).
    pub const BEYOND: u32 = 1;
    /// It is an address of this host (server role).
    pub const HERE: u32 = 2;
}

/// What a port is inspected for: the value of the 65,536-byte port map.
pub mod port_class {
    /// TLS ClientHello over TCP.
    pub const TLS: u8 = 1 << 0;
    /// HTTP/1 request head over TCP.
    pub const HTTP: u8 = 1 << 1;
    /// QUIC over UDP.
    pub const QUIC: u8 = 1 << 2;
    /// A PROXY protocol header may precede what the port is inspected for over TCP.
    pub const PROXY: u8 = 1 << 3;
}

/// What a rule does, weakest first: the order decides between rules that hit the
/// same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Counted and reported as if enforced; the search goes on.
    Observe = 0,
    /// Dropped silently.
    Drop = 1,
    /// Dropped, and the client is told at once.
    Refuse = 2,
    /// Sent out of another interface, or answered with the block page.
    Redirect = 3,
}

impl Action {
    /// The action with this discriminant; anything unknown drops, which cannot
    /// happen with tables made by this version and fails closed otherwise.
    #[inline(always)]
    pub const fn from_u8(action: u8) -> Self {
        match action {
            0 => Self::Observe,
            2 => Self::Refuse,
            3 => Self::Redirect,
            _ => Self::Drop,
        }
    }

    /// The stable word used in policies, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Drop => "drop",
            Self::Refuse => "refuse",
            Self::Redirect => "redirect",
        }
    }
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// A rule as the kernel sees it: exactly one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rule {
    /// [`Action`] discriminant.
    pub action: u8,
    /// IP protocol number that the rule is narrowed to; [`Rule::ANY_PROTOCOL`] for all.
    pub protocol: u8,
    /// Position of the rule's id among all ids, sorted: the last tie-breaker.
    pub rank: u16,
    /// Changes whenever the slot is given to another rule.
    pub slot_version: u32,
    /// In force from this CLOCK_TAI nanosecond on; 0 for always.
    pub from_tai_ns: u64,
    /// No longer in force from this CLOCK_TAI nanosecond on; `u64::MAX` for never.
    pub until_tai_ns: u64,
    /// Key of the redirect map, or one of [`redirect`], for [`Action::Redirect`].
    pub redirect_index: u32,
    /// How many of `ports` are used; 0 means every port, and no port needed.
    pub port_count: u16,
    /// Bits of [`rule_flag`].
    pub flags: u16,
    /// Ports that the rule is narrowed to.
    pub ports: [PortRange; PORT_RANGES_PER_RULE],
}

impl Rule {
    /// Value of [`Rule::protocol`] for a rule that is not narrowed. 255 is reserved by IANA.
    pub const ANY_PROTOCOL: u8 = 255;

    /// Ranges that no packet's port is in, for [`Rule::inert`].
    const NO_PORT: PortRange = PortRange { first: 1, last: 0 };

    /// The rule as one that nothing matches. What else it says stays, for a packet that it has hit
    /// and whose outcome is still to be recorded.
    pub const fn inert(mut self) -> Self {
        self.port_count = 1;
        self.ports[0] = Self::NO_PORT;
        self
    }

    /// Whether the rule enforces at all times, for every protocol and port.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.action != Action::Observe as u8
            && self.protocol == Self::ANY_PROTOCOL
            && self.port_count == 0
            && self.from_tai_ns == 0
            && self.until_tai_ns == u64::MAX
    }

    /// A rule in force at all times, for every protocol and port.
    pub const fn new(action: Action, rank: u16, slot_version: u32) -> Self {
        Self {
            action: action as u8,
            protocol: Self::ANY_PROTOCOL,
            rank,
            slot_version,
            from_tai_ns: 0,
            until_tai_ns: u64::MAX,
            redirect_index: 0,
            port_count: 0,
            flags: 0,
            ports: [PortRange { first: 0, last: 0 }; PORT_RANGES_PER_RULE],
        }
    }
}

/// Where the rule table has the rule in `slot` for a generation. There are two of every rule: user space
/// writes those that are not in use, and switches by one store of the generation's number.
#[inline(always)]
pub const fn rule_index(slot: u16, generation: u64) -> u32 {
    (slot as u32) << 1 | (generation & 1) as u32
}

/// One element of a rule set: the rules listed under one key, in the order in
/// which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetRef(pub u32);

impl SetRef {
    /// The rule lists this key as `hosts`: hits only if the key is the whole name.
    pub const EXACT: u32 = 1 << 16;
    /// The rule lists this key as `domains` or as a prefix: hits the key and all under it.
    pub const SUBTREE: u32 = 1 << 17;
    /// No rule hits here or at any less specific key; combined with EXACT or SUBTREE.
    pub const PROTECT: u32 = 1 << 18;
    /// Last element of its set.
    pub const LAST: u32 = 1 << 31;

    /// Slot of the rule.
    #[inline(always)]
    pub const fn slot(self) -> u16 {
        self.0 as u16
    }

    /// Whether any bit of `mask` is set.
    #[inline(always)]
    pub const fn has(self, mask: u32) -> bool {
        self.0 & mask != 0
    }
}

/// Per-CPU counters of one rule slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleCounters {
    /// Packets that the rule decided, or observed.
    pub packets: u64,
    /// Their frame bytes.
    pub bytes: u64,
}

/// Per-CPU counters of connections that pass through, of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Directions {
    /// Judged with the server's direction seen.
    pub answered: u64,
    /// Judged by the client's direction alone.
    pub unanswered: u64,
}

/// A TCP or UDP flow as seen from its initiator. IPv4 addresses are mapped (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Source address: two words that in memory are in network byte order.
    pub src: [u64; 2],
    /// Destination address, likewise.
    pub dst: [u64; 2],
    /// Source port, host byte order.
    pub src_port: u16,
    /// Destination port, host byte order.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl FlowKey {
    /// Source address.
    pub const fn src_addr(&self) -> Ipv6Addr {
        address(self.src)
    }

    /// Destination address.
    pub const fn dst_addr(&self) -> Ipv6Addr {
        address(self.dst)
    }
}

const fn address(words: [u64; 2]) -> Ipv6Addr {
    Ipv6Addr::from_bits((u64::from_be(words[0]) as u128) << 64 | u64::from_be(words[1]) as u128)
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[must_use]
pub enum Verdict {
    /// On to the network stack.
    Pass = 0,
    /// On to the network stack, hit by a rule that only observes.
    Observe = 1,
    /// Dropped.
    Drop = 2,
    /// Dropped, and the client is told at once.
    Refuse = 3,
    /// Sent out of another interface, or answered with the block page.
    Redirect = 4,
}

impl Verdict {
    /// The verdict with this discriminant.
    pub const fn from_u8(verdict: u8) -> Option<Self> {
        match verdict {
            0 => Some(Self::Pass),
            1 => Some(Self::Observe),
            2 => Some(Self::Drop),
            3 => Some(Self::Refuse),
            4 => Some(Self::Redirect),
            _ => None,
        }
    }

    /// The stable word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Observe => "observe",
            Self::Drop => "drop",
            Self::Refuse => "refuse",
            Self::Redirect => "redirect",
        }
    }
}

/// Application protocol of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// Not known.
    None = 0,
    /// TLS over TCP.
    Tls = 1,
    /// HTTP/1.
    Http = 2,
    /// QUIC.
    Quic = 3,
}

impl Protocol {
    /// The protocol with this discriminant.
    pub const fn from_u8(protocol: u8) -> Option<Self> {
        match protocol {
            0 => Some(Self::None),
            1 => Some(Self::Tls),
            2 => Some(Self::Http),
            3 => Some(Self::Quic),
            _ => None,
        }
    }

    /// The stable word used in JSON; `None` for [`Protocol::None`].
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Tls => Some("tls"),
            Self::Http => Some("http"),
            Self::Quic => Some("quic"),
        }
    }
}

/// "No rule" where a slot is expected.
pub const NO_SLOT: u16 = u16::MAX;

/// What became of one packet: written to the trace map under [`feature::TRACE`],
/// and the prefix of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// [`Verdict`] discriminant.
    pub verdict: u8,
    /// [`crate::reason::Reason`] discriminant.
    pub reason: u8,
    /// [`Protocol`] discriminant.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Slot of the deciding rule, else of the first observing rule, else [`NO_SLOT`].
    pub slot: u16,
    /// Bytes of `name` that are used.
    pub name_len: u16,
    /// Version of the slot's rule.
    pub slot_version: u32,
    /// Frame length in bytes.
    pub frame_len: u32,
    /// The name as sent, without trailing dots and port.
    pub name: [u8; NAME_BYTES_MAX],
}

/// A sampled event in the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// CLOCK_TAI nanoseconds.
    pub tai_ns: u64,
    /// Generation that decided.
    pub generation: u64,
    /// The packet's addresses and ports, as the packet has them.
    pub flow: FlowKey,
    /// Ingress interface index.
    pub ifindex: u32,
    /// Frame length in bytes.
    pub frame_len: u32,
    /// Version of the slot's rule.
    pub slot_version: u32,
    /// Slot of the rule.
    pub slot: u16,
    /// Bytes of `name` that are used.
    pub name_len: u16,
    /// [`Verdict`] discriminant.
    pub verdict: u8,
    /// [`crate::reason::Reason`] discriminant.
    pub reason: u8,
    /// [`Protocol`] discriminant.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The name that was hit, as sent; never the name of an allowed connection.
    pub name: [u8; EVENT_NAME_BYTES],
}

const _: () = {
    assert!(size_of::<Rule>() == 64);
    assert!(size_of::<Line>() == 64);
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Outcome>() == 16 + NAME_BYTES_MAX);
    assert!(size_of::<Event>() == 80 + EVENT_NAME_BYTES);
    assert!(size_of::<Config>().is_multiple_of(8));
};
