//! Prefixes of both families: which ones a policy blocks on this host.

use std::{fmt, net};

use ipnet::IpNet;

use super::{notes::Notes, sets::Entry};

/// A prefix of either family, left-aligned in 128 bits. Sorted, a prefix comes
/// before everything under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    fn new(bits: u128, length: u8) -> Self {
        Self { bits, length }.shortened(length)
    }

    /// The prefix of that length above this one, or itself.
    fn shortened(self, length: u8) -> Self {
        let length = length.min(self.length);
        let mask = u128::MAX
            .checked_shr(u32::from(length))
            .map_or(u128::MAX, |host| !host);
        Self {
            bits: self.bits & mask,
            length,
        }
    }

    pub(super) fn length(self) -> u8 {
        self.length
    }

    /// The address of an IPv4 prefix, in host byte order.
    pub(super) fn v4(self) -> u32 {
        (self.bits >> 96) as u32
    }

    /// The address of an IPv6 prefix, in host byte order.
    pub(super) fn v6(self) -> [u64; 2] {
        [(self.bits >> 64) as u64, self.bits as u64]
    }
}

/// Prefixes of one family, in the notation of which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The prefix, if it is of this family. Host bits are cleared.
    pub(super) fn prefix(self, net: &IpNet) -> Option<Prefix> {
        match (self, net) {
            (Self::V4, IpNet::V4(net)) => Some(Prefix::new(
                u128::from(u32::from(net.addr())) << 96,
                net.prefix_len(),
            )),
            (Self::V6, IpNet::V6(net)) => {
                Some(Prefix::new(u128::from(net.addr()), net.prefix_len()))
            }
            (Self::V4, IpNet::V6(_)) | (Self::V6, IpNet::V4(_)) => None,
        }
    }

    /// The prefix in the family's usual notation.
    pub(super) fn show(self, prefix: Prefix) -> impl fmt::Display {
        let addr: net::IpAddr = match self {
            Self::V4 => net::Ipv4Addr::from(prefix.v4()).into(),
            Self::V6 => net::Ipv6Addr::from(prefix.bits).into(),
        };
        format!("{addr}/{}", prefix.length)
    }
}

/// The keys of a prefix table, sorted: what `blocked` lists by rank, without what
/// lies wholly inside a protected prefix, and with an exception for each
/// protected prefix that lies inside a blocked one.
pub(super) fn keys(
    family: Family,
    mut blocked: Vec<(Prefix, u16)>,
    protected: &[Prefix],
    notes: &mut Notes,
) -> Vec<(Prefix, Entry)> {
    blocked.sort_unstable();
    blocked.dedup();
    let protected = Outermost::new(protected);
    blocked.retain(|(prefix, rank)| {
        let is_kept = !protected.covers(*prefix);
        if is_kept {
            notes.kept(*rank);
        } else {
            notes.taken(*rank, family.show(*prefix));
        }
        is_kept
    });

    let lengths = lengths(blocked.iter().map(|(prefix, _)| *prefix));
    let mut keys: Vec<(Prefix, Entry)> = blocked
        .iter()
        .map(|(prefix, rank)| (*prefix, Entry::Subtree(*rank)))
        .collect();
    for exception in protected.prefixes {
        let mut is_inside = false;
        for length in lengths.iter().filter(|length| **length < exception.length) {
            let above = exception.shortened(*length);
            let from = blocked.partition_point(|(prefix, _)| *prefix < above);
            for (_, rank) in blocked[from..]
                .iter()
                .take_while(|(prefix, _)| *prefix == above)
            {
                notes.spared(*rank, family.show(exception));
                is_inside = true;
            }
        }
        if is_inside {
            keys.push((exception, Entry::ProtectSubtree));
        }
    }
    keys.sort_unstable();
    keys
}

/// Prefixes none of which lies inside another.
struct Outermost {
    prefixes: Vec<Prefix>,
    lengths: Vec<u8>,
}

impl Outermost {
    fn new(prefixes: &[Prefix]) -> Self {
        let mut sorted = prefixes.to_vec();
        sorted.sort_unstable();
        // What covers a prefix comes before it, and everything between lies inside it too.
        sorted.dedup_by(|inner, outer| inner.shortened(outer.length) == *outer);
        let lengths = lengths(sorted.iter().copied());
        Self {
            prefixes: sorted,
            lengths,
        }
    }

    fn covers(&self, prefix: Prefix) -> bool {
        let shorter = self
            .lengths
            .iter()
            .take_while(|length| **length <= prefix.length);
        shorter.into_iter().any(|length| {
            self.prefixes
                .binary_search(&prefix.shortened(*length))
                .is_ok()
        })
    }
}

/// The lengths that occur, in ascending order.
fn lengths(prefixes: impl Iterator<Item = Prefix>) -> Vec<u8> {
    let mut used = [false; 129];
    for prefix in prefixes {
        used[usize::from(prefix.length)] = true;
    }
    (0..=128u8)
        .filter(|length| used[usize::from(*length)])
        .collect()
}
