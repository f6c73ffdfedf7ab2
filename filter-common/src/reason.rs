//! Why a packet got its verdict: one counter each.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a packet got its verdict. The discriminant indexes the per-CPU reason counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word used in JSON and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The reason with this discriminant.
            pub const fn from_u8(reason: u8) -> Option<Self> {
                if (reason as usize) < Self::ALL.len() {
                    Some(Self::ALL[reason as usize])
                } else {
                    None
                }
            }
        }
    };
}

reasons! {
    /// Parsed as far as the policy needs; no rule in force hits.
    NoMatch = "no_match",
    /// A rule hit the source address.
    OriginSource = "origin_source",
    /// A rule hit the destination address.
    OriginDestination = "origin_destination",
    /// A rule hit the hostname.
    Hostname = "hostname",
    /// A `redirect` rule hit, but the frame could not be sent to its interface; dropped.
    RedirectFailed = "redirect_failed",
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// The frame ends before the headers it announces.
    Truncated = "truncated",
    /// More VLAN tags than are looked behind.
    VlanDepth = "vlan_depth",
    /// An IP header that no host accepts: version, lengths or checksum.
    BadIp = "bad_ip",
    /// More IPv6 extension headers than are looked behind.
    ExtensionDepth = "extension_depth",
    /// A later fragment: it carries no ports and no start of a hello.
    LaterFragment = "later_fragment",
    /// A first fragment towards an inspected port.
    FirstFragment = "first_fragment",
    /// A TCP or UDP header that no host accepts: data offset, length or checksum.
    BadTransport = "bad_transport",
    /// An IP or TCP checksum that is wrong: no host takes the segment.
    BadChecksum = "bad_checksum",
    /// Payload of an undecided stream in a segment without ACK, or with SYN or an urgent pointer.
    BadFlags = "bad_flags",
    /// Payload of an undecided stream with an acknowledgement number that the host has not sent.
    BadSequence = "bad_sequence",
    /// Payload of an undecided stream with an MD5 or AO signature or an old timestamp.
    BadOptions = "bad_options",
    /// Payload on an inspected port that is not the start of the protocol expected there.
    OtherProtocol = "other_protocol",
    /// The hello is not complete yet.
    HelloIncomplete = "hello_incomplete",
    /// Payload beyond a gap in an undecided stream: held back, the sender repeats it.
    HeldBack = "held_back",
    /// A connection that a rule blocked before.
    BlockedFlow = "blocked_flow",
    /// Payload that contradicts what was seen at the same place of an undecided stream.
    Overlap = "overlap",
    /// More of a hello whose beginning had to make room for others, or what the tables did not take.
    StateLost = "state_lost",
    /// A ClientHello or request head that breaks its own lengths.
    HelloMalformed = "hello_malformed",
    /// A ClientHello or request head longer than is kept.
    HelloTooLong = "hello_too_long",
    /// A hello or request that names no host, or an IP address in place of one.
    NoName = "no_name",
    /// A name that is not letters, digits, hyphens, dots and underscores, or too long; no rule hits it as sent.
    OddName = "odd_name",
    /// A hello with an encrypted one (ECH) inside, or a decoy of one: its outer name is not listed.
    Ech = "ech",
    /// A PROXY protocol header that breaks its grammar or is too long.
    ProxyMalformed = "proxy_malformed",
    /// A QUIC long-header packet to an inspected port: QUIC names are not read yet.
    QuicUnread = "quic_unread",
    /// HTTP/2 with prior knowledge: its names are not read.
    Http2 = "http2",
    /// A segment of a connection that the block page answers, or that was refused.
    Taken = "taken",
    /// A `refuse` rule hit, or one that leads to the block page, but the program that answers is not there;
    /// dropped.
    RefuseFailed = "refuse_failed",
    /// A QUIC long-header packet to an inspected port of a host that refuses QUIC.
    QuicRefused = "quic_refused",
    /// A process of this host wanted to connect to a blocked origin; it was told at once that it may not.
    LocalConnection = "local_connection",
}

const _: () = assert!(Reason::ALL.len() <= 64);
