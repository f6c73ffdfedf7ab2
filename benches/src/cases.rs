//! The frames that are measured, and the policy they meet.

use std::net::Ipv4Addr;

use filter_tests::packet::{Packet, tls::ClientHello};

/// The address on which names are read.
pub(crate) const SERVED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The name that the policy blocks.
pub(crate) const BLOCKED_NAME: &str = "blocked.example";

/// First of the blocked prefixes, and the source of [`Case::BlockedSource`].
const BLOCKED_SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Further blocked addresses count up from here: a range set aside for benchmarks (RFC 2544).
const MORE_BLOCKED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Source port of the first case.
const FIRST_PORT: u16 = 51_514;

/// `XDP_PASS` and `XDP_DROP` of linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// One kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// A segment of a connection that nothing concerns.
    UnrelatedTcp,
    /// A segment from a blocked address.
    BlockedSource,
    /// A ClientHello for a name that is not blocked.
    HelloUnlisted,
    /// A ClientHello for the blocked name.
    HelloBlocked,
}

impl Case {
    pub(crate) const ALL: [Self; 4] = [
        Self::UnrelatedTcp,
        Self::BlockedSource,
        Self::HelloUnlisted,
        Self::HelloBlocked,
    ];

    /// The stable word in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UnrelatedTcp => "unrelated_tcp",
            Self::BlockedSource => "blocked_source",
            Self::HelloUnlisted => "client_hello_unlisted",
            Self::HelloBlocked => "client_hello_blocked",
        }
    }

    /// The frame, Ethernet to payload.
    pub(crate) fn frame(self) -> Vec<u8> {
        // A connection of its own for every case: a verdict stays with its connection.
        let visitor = format!("192.0.2.7:{}", FIRST_PORT + self as u16);
        let visitor = visitor.as_str();
        let hello = |name| {
            Packet::tcp(visitor, &format!("{SERVED}:443"))
                .payload(ClientHello::named(name).record())
                .build()
        };
        match self {
            Self::UnrelatedTcp => Packet::tcp(visitor, &format!("{SERVED}:8022"))
                .payload([0x5A; 64])
                .build(),
            Self::BlockedSource => {
                Packet::tcp(&format!("{BLOCKED_SOURCE}:443"), &format!("{SERVED}:40000"))
                    .payload([0x5A; 64])
                    .build()
            }
            Self::HelloUnlisted => hello("neighbour.example"),
            Self::HelloBlocked => hello(BLOCKED_NAME),
        }
    }

    /// What a filter of names and addresses must return.
    pub(crate) fn action(self) -> u32 {
        match self {
            Self::UnrelatedTcp | Self::HelloUnlisted => XDP_PASS,
            Self::BlockedSource | Self::HelloBlocked => XDP_DROP,
        }
    }

    /// What a filter of addresses alone must return.
    pub(crate) fn action_by_address(self) -> u32 {
        match self {
            Self::UnrelatedTcp | Self::HelloUnlisted | Self::HelloBlocked => XDP_PASS,
            Self::BlockedSource => XDP_DROP,
        }
    }
}

/// This many single addresses, the source of [`Case::BlockedSource`] first.
pub(crate) fn blocked_prefixes(count: usize) -> Vec<Ipv4Addr> {
    let more = (MORE_BLOCKED.to_bits()..).map(Ipv4Addr::from_bits);
    std::iter::once(BLOCKED_SOURCE)
        .chain(more)
        .take(count)
        .collect()
}
