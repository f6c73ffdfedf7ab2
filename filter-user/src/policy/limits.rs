//! Every limit on policy and configuration files, by name, with its reason.

/// Bytes of `policy.toml` or one file in `policy.d/`. A rule needs under a kilobyte and there are at
/// most [`filter_common::limits::RULES_MAX`] rules; longer lists of names belong in list files.
pub const POLICY_FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of `edgefilter.toml`: a few hundred interfaces and prefixes fit many times over.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of one list file: [`KEYS_MAX`] names of the usual length, twice over.
pub const LIST_FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of all files of one policy together; they are in memory at the same time, for the messages.
pub const SOURCE_BYTES_MAX: u64 = 512 << 20;

/// Files in `policy.d/` that are read.
pub const POLICY_DIRECTORY_FILES_MAX: usize = 4_096;

/// Names and prefixes of all rules together: about 64 bytes each in the controller, 16 in the tables.
pub const KEYS_MAX: usize = 4_000_000;

/// Names and prefixes that come or go in tables which a program reads; beyond, all tables are made anew,
/// so that they keep the room and the filters that lookups count on.
pub const IN_PLACE_KEYS_MAX: usize = 65_536;

/// Bytes of a rule's id, which is a label in logs and metrics.
pub const ID_BYTES_MAX: usize = 64;

/// Bytes of one explaining text of a rule (`title`, `reason`, …): a page's worth.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// People in `approved_by`.
pub const APPROVERS_MAX: usize = 64;

/// Errors shown in full; the rest is counted.
pub const ERRORS_SHOWN_MAX: usize = 20;

/// Errors counted before reading a list ends: such a file is not a list.
pub const ERRORS_COUNTED_MAX: usize = 10_000;

/// Warnings shown; the rest is counted.
pub const WARNINGS_SHOWN_MAX: usize = 100;

/// Characters of a source line shown around an error.
pub const EXCERPT_CHARS_MAX: usize = 120;

/// Shortest IPv4 prefix that a rule may list without `allow_wide`: 65,536 addresses.
pub const IPV4_PREFIX_LEN_MIN: u8 = 16;

/// Shortest IPv6 prefix that a rule may list without `allow_wide`: what one provider is given.
pub const IPV6_PREFIX_LEN_MIN: u8 = 32;

/// Bytes of a host name in its canonical form (DNS).
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// Bytes of one label of a host name (DNS).
pub const LABEL_BYTES_MAX: usize = 63;

/// Bytes of a host name before IDNA mapping; the longest that can map to a valid name is near 1,000.
pub const UNMAPPED_NAME_BYTES_MAX: usize = 4_096;

/// Bytes of an interface's name (`IFNAMSIZ` less the terminating zero).
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Interfaces that one controller attaches to.
pub const INTERFACES_MAX: usize = 1_024;

/// First second that `from` and `until` may name: 1970-01-01T00:00:00Z, where the kernel's clock begins.
pub const TIME_SECOND_MIN: i64 = 0;

/// Last second that `from` and `until` may name: 2500-01-01T00:00:00Z. The kernel compares unsigned 64-bit
/// nanoseconds, which end in 2554.
pub const TIME_SECOND_MAX: i64 = 16_725_225_600;

/// Events that one CPU emits per window unless configured: about 250 a second at 250 jiffies a second,
/// enough to see what is going on and far from what a ring buffer of 1 MiB holds.
pub const EVENTS_PER_WINDOW_DEFAULT: u32 = 64;

/// Most events per window that can be configured: more than a CPU's share of packets in that time.
pub const EVENTS_PER_WINDOW_MAX: u32 = 1_000_000;

/// Languages of a rule's texts, and of the block page.
pub const LANGUAGES_MAX: usize = 64;

/// Ports on which the block page is served, those inspected for TLS and HTTP included: each is a
/// socket for each address family.
pub const PAGE_PORTS_MAX: usize = 256;

/// Connections to the block page at once, unless configured: some 100 KiB each at the worst.
pub const PAGE_CONNECTIONS_DEFAULT: u32 = 4_096;

/// Most that can be configured.
pub const PAGE_CONNECTIONS_MAX: u32 = 65_536;

/// Connections to it of one client, unless configured.
pub const PAGE_CONNECTIONS_PER_CLIENT_DEFAULT: u32 = 256;

/// Seconds that a client of it may be silent or take nothing, unless configured.
pub const PAGE_TIMEOUT_S_DEFAULT: u64 = 10;

/// Seconds that a connection to it lasts, unless configured.
pub const PAGE_LIFETIME_S_DEFAULT: u64 = 60;

/// Most seconds that can be configured for either.
pub const PAGE_SECONDS_MAX: u64 = 3_600;
