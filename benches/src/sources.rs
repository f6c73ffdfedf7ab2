//! Where the frames come from: the blocked entries, and addresses inside and outside of them.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Addresses that a random case goes through: far more than the caches hold.
pub(crate) const COUNT: usize = 1 << 20;

/// An address as the mutator writes it: words in network byte order; IPv4 has one.
pub(crate) type Source = [u32; 4];

/// SplitMix64: the same numbers in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// A family of addresses, left-aligned in 128 bits while they are worked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// A length as a long list has them: mostly single addresses and common sizes.
    fn length(self, random: &mut Random) -> u8 {
        let kind = random.below(10);
        let any = random.below(16) as u8;
        match (self, kind) {
            (Self::V4, 0..7) => 32,
            (Self::V4, 7..9) => 24,
            (Self::V4, _) => 16 + any,
            (Self::V6, 0..5) => 64,
            (Self::V6, 5..8) => 48,
            (Self::V6, 8) => 128,
            (Self::V6, _) => 40 + 4 * (any / 4),
        }
    }

    fn address(self, random: &mut Random) -> u128 {
        match self {
            Self::V4 => u128::from(random.next() as u32) << 96,
            // Global unicast, 2000::/3.
            Self::V6 => random.wide() >> 3 | 1 << 125,
        }
    }

    fn words(self, address: u128) -> Source {
        let bytes = address.to_be_bytes();
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        match self {
            Self::V4 => [word(0), 0, 0, 0],
            Self::V6 => [word(0), word(4), word(8), word(12)],
        }
    }
}

/// Blocked prefixes of one family.
pub(crate) struct Prefixes {
    family: Family,
    /// Address and length, in random order.
    pub(crate) all: Vec<(u128, u8)>,
    lengths: HashSet<u8>,
    known: HashSet<(u128, u8)>,
}

impl Prefixes {
    pub(crate) fn new(family: Family, count: usize, random: &mut Random) -> Self {
        let mut prefixes = Self {
            family,
            all: Vec::with_capacity(count),
            lengths: HashSet::new(),
            known: HashSet::with_capacity(count),
        };
        while prefixes.all.len() < count {
            let length = family.length(random);
            let prefix = (masked(family.address(random), length), length);
            if prefixes.known.insert(prefix) {
                prefixes.all.push(prefix);
                prefixes.lengths.insert(length);
            }
        }
        prefixes
    }

    /// The list file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.all.len() * 24);
        for &(address, length) in &self.all {
            // Writing to a `String` cannot fail.
            let _ = match self.family {
                Family::V4 => writeln!(
                    text,
                    "{}/{length}",
                    Ipv4Addr::from_bits((address >> 96) as u32)
                ),
                Family::V6 => writeln!(text, "{}/{length}", Ipv6Addr::from_bits(address)),
            };
        }
        text
    }

    /// Single IPv4 addresses among them.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let single = self.all.iter().filter(|(_, length)| *length == 32);
        single.map(|(address, _)| Ipv4Addr::from_bits((address >> 96) as u32))
    }

    fn covers(&self, address: u128) -> bool {
        let covering = |length: &u8| self.known.contains(&(masked(address, *length), *length));
        self.lengths.iter().any(covering)
    }

    /// Random addresses that no prefix covers.
    pub(crate) fn outside(&self, random: &mut Random) -> Vec<Source> {
        let mut sources = Vec::with_capacity(COUNT);
        while sources.len() < COUNT {
            let address = self.family.address(random);
            if !self.covers(address) {
                sources.push(self.family.words(address));
            }
        }
        sources
    }

    /// Random addresses inside random prefixes.
    pub(crate) fn inside(&self, random: &mut Random) -> Vec<Source> {
        let mut sources = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (address, length) = self.all[random.below(self.all.len())];
            let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            sources.push(self.family.words(address | random.wide() & host));
        }
        sources
    }
}

/// One address.
pub(crate) fn single(address: Ipv4Addr) -> Source {
    Family::V4.words(u128::from(address.to_bits()) << 96)
}

/// Random addresses among these.
pub(crate) fn among(hosts: &[Ipv4Addr], random: &mut Random) -> Vec<Source> {
    let mut one = || hosts[random.below(hosts.len())];
    (0..COUNT)
        .map(|_| Family::V4.words(u128::from(one().to_bits()) << 96))
        .collect()
}

fn masked(address: u128, length: u8) -> u128 {
    let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    address & !host
}

/// Names that look like names, none of them under `.example`.
pub(crate) fn names(count: usize, random: &mut Random) -> String {
    const TOPS: [&str; 6] = ["com", "net", "org", "info", "de", "shop"];
    let mut text = String::with_capacity(count * 22);
    for number in 0..count {
        let letters = 3 + random.below(9);
        let word: String = (0..letters)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect();
        let top = TOPS[random.below(TOPS.len())];
        // The number keeps them apart.
        let _ = writeln!(text, "{word}{number:x}.{top}");
    }
    text
}
