//! Every limit of the data path, by name, with its reason. What lies beyond a
//! limit has a counted [`crate::reason::Reason`].

/// 802.1Q/802.1ad tags skipped on a frame. Linux itself needs a device per tag;
/// two are QinQ, more are not seen on edges.
pub const VLAN_TAGS_MAX: usize = 4;

/// IPv6 extension headers skipped. Linux accepts destination options in any
/// number (40 were tried); the bound keeps the verifier's walk finite.
pub const IPV6_EXTENSIONS_MAX: usize = 48;

/// Largest offset at which a header is read: a mask, and with a header's length behind it below the
/// 2^16 that the verifier wants.
pub const HEADER_OFFSET_MAX: u32 = 0x7fff;

/// Port ranges in one rule, so that a rule stays one cache line.
pub const PORT_RANGES_PER_RULE: usize = 8;

/// Rules that may list the same prefix or name, so that a hit stays bounded.
pub const RULES_PER_KEY_MAX: usize = 16;

/// Names on one chain of suffixes that a policy may list (`a.example`,
/// `b.a.example`, …), so that the candidates of one lookup fit the scratch area.
pub const NAME_CANDIDATES_MAX: usize = 16;

/// Rules in a policy, and slots in the counter map (16 bytes a slot and CPU).
/// Long lists belong in one rule's files, not in many rules.
pub const RULES_MAX: usize = 16_384;

/// Longest name that is matched; DNS allows 253 characters, TLS 65,535.
pub const NAME_BYTES_MAX: usize = 256;

/// Names that are looked up per ClientHello or request head. Real ones have one, or two
/// (request target and Host); more is a trick. A power of two.
pub const NAMES_PER_HELLO_MAX: usize = 8;

/// Longest PROXY protocol header that a hello is looked for behind, which is nginx's own bound.
pub const PROXY_HEADER_BYTES_MAX: u32 = 4_096;

/// TLS records that one hello may be spread over: as many as fit the bytes that are kept, at six
/// bytes a record and five an empty one, so that no hello ends behind them.
pub const RECORDS_MAX: u32 = 5_355;

/// Zero-length handshake records and warning alerts before the end of a hello. OpenSSL gives
/// up after 32 of the former and 5 of the latter.
pub const EMPTY_RECORDS_MAX: u32 = 64;

/// Extensions in a ClientHello; real ones have about twenty.
pub const EXTENSIONS_MAX: u32 = 4_096;

/// Bytes of a name that an event carries.
pub const EVENT_NAME_BYTES: usize = 256;

/// Bytes of a flow's stream that are kept and parsed: a 16 KiB hello and the
/// record headers around it.
pub const STREAM_BYTES_MAX: usize = 31 * 1_024;

/// Undecided TCP streams that are remembered (168 bytes each); beyond, the oldest is evicted.
pub const FLOWS_MAX: u32 = 131_072;

/// Undecided streams of which bytes are kept: those whose hello takes several segments.
pub const HELLOS_MAX: u32 = 4_096;

/// Bytes kept of one of them: more than a browser's hello with post-quantum keys (2,032 were seen).
pub const HELLO_KEPT_BYTES: u32 = 3_072;

/// Undecided streams of which more bytes are kept.
pub const LONG_HELLOS_MAX: u32 = 256;

/// Blocked connections that are remembered. Beyond, the oldest is evicted: its hello is then read
/// again when the client repeats it.
pub const BLOCKED_FLOWS_MAX: u32 = 65_536;

/// How far a segment's numbers may be from the host's for it to be judged in mid-stream: what may be
/// on its way in one batch. A forger who knows neither hits both with a chance of 1 in 2^28.
pub const SEQUENCE_DISTANCE_MAX: u32 = 131_072;

/// Longest body of a request that is skipped by its stated length: sequence numbers tell nothing
/// apart that is 2 GiB away.
pub const BODY_BYTES_MAX: u32 = 1_073_741_824;

/// Interfaces whose connections are counted by whether both directions were seen; an interface that
/// comes again has another index.
pub const INTERFACES_COUNTED_MAX: u32 = 1_024;

/// Longest ClientHello handshake message that is parsed.
pub const HELLO_BYTES_MAX: usize = 16_384 + 4;

/// Devices that rules may redirect to.
pub const REDIRECT_TARGETS_MAX: usize = 64;

/// Connections that are answered in the server's place and remembered (112 bytes each). Beyond, the
/// oldest is evicted: the block page loses it, and the client runs into a time-out.
pub const TAKEN_MAX: u32 = 16_384;

/// Clients of blocked addresses that the block page answers (112 bytes each), kept apart from [`TAKEN_MAX`],
/// since a flood of SYNs is enough to fill them. An evicted one is back with its next segment.
pub const ORIGIN_CLIENTS_MAX: u32 = 16_384;

/// Connections taken over of whose hello the server has a part already: its bytes are kept for the
/// block page until the hand-over, which takes microseconds.
pub const TAKEN_HELLOS_MAX: u32 = 512;

/// Longest hello, up to the end of the segment that completes its name, that is handed over in parts; a
/// longer one is refused. The kernel's packets hold no more than one part of 16 KiB.
pub const TAKEN_HELLO_BYTES_MAX: u32 = 8_192;

/// How far ahead of what the client gives back the timestamps are that answer in the server's place, in the
/// server's units (milliseconds: six days; RFC 7323). What it gives back is as old as the server's last word, and
/// the server may have acknowledged the hello's first segment since, with a timestamp of now: a client takes
/// no older one, for at most 2³¹ units.
pub const STAMP_AHEAD: u32 = 1 << 29;

/// Payload of the page's segments on a connection over IPv4 that was taken over: the client's SYN was for the
/// server, and these are segments that any path takes.
pub const PAGE_MSS_V4: u16 = 1_200;

/// The same over IPv6.
pub const PAGE_MSS_V6: u16 = 1_220;

/// Scale of the client's window on such a connection: nearly everybody's, and a guess that is too large makes
/// the page's few packets no more.
pub const PAGE_WINDOW_SCALE: u8 = 8;

/// Bytes of the ring buffer of connections that a process makes sockets of: some 500 of 8 KiB. Beyond, the
/// segment is dropped, and handed over when the client sends it again.
pub const HANDOVER_RING_BYTES: u32 = 1 << 22;

/// Next hops that rules may send to.
pub const NEXT_HOPS_MAX: usize = 64;

/// Bytes of the event ring buffer.
pub const EVENT_RING_BYTES: usize = 1 << 20;

/// Length of the window in which a CPU's events are bounded.
pub const EVENT_WINDOW_JIFFIES: u64 = 64;

/// Most bytes that an answer to a verified connection is larger by than the segment that it answers: the
/// text of HTTP's 451. All others to TCP are no larger.
pub const ANSWER_GROWTH_BYTES_MAX: usize = 84;

/// Bytes of a refused packet that an ICMP error quotes: both headers of any ordinary packet and the start of
/// its payload. The error is larger than the packet by its own headers at most: 48 bytes over IPv6, 28
/// over IPv4.
pub const ICMP_QUOTE_BYTES_MAX: u32 = 128;

/// ICMP errors and Version Negotiation packets that one CPU sends in a second, about what Linux sends of
/// the former: nobody has to prove where he is to be sent one.
pub const UNPROVEN_ANSWERS_PER_SECOND: u64 = 1_000;

/// How many of them it sends at once.
pub const UNPROVEN_ANSWERS_BURST: u64 = 50;

/// Smallest UDP payload that Version Negotiation answers: what opens a QUIC connection is padded to it
/// (RFC 9000, section 14.1), so that no answer is larger.
pub const QUIC_DATAGRAM_BYTES_MIN: u32 = 1_200;

const _: () = {
    assert!(HELLO_BYTES_MAX + (PROXY_HEADER_BYTES_MAX as usize) < STREAM_BYTES_MAX);
    assert!(RECORDS_MAX > STREAM_BYTES_MAX as u32 / 6 + EMPTY_RECORDS_MAX);
    assert!(RULES_MAX < u16::MAX as usize);
    assert!(NAMES_PER_HELLO_MAX.is_power_of_two());
    assert!(NAME_CANDIDATES_MAX.is_power_of_two());
    assert!(crate::respond::UNAVAILABLE.len() == ANSWER_GROWTH_BYTES_MAX);
};
