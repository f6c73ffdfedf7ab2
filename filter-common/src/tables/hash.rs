//! Hashing and Bloom words shared by the tables.
//!
//! Only 64-bit multiplications, shifts and exclusive ors: what BPF has as single
//! instructions.

use super::Lines;
use crate::abi::Table;

/// Bijective mixing of 64 bits: every input bit changes every output bit with
/// probability about one half (David Stafford's variant 13 of the MurmurHash3
/// finalizer, as in SplitMix64). Touches no memory.
#[inline(always)]
pub const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// Maps a uniform 32-bit hash to `0..count` without division, so that a table
/// need not be a power of two. Uses the high bits of `hash`. 0 if `count` is 0.
#[inline(always)]
pub const fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

/// Where a key lives in a register-blocked Bloom filter: all its bits are in one
/// word, so that a query is one load and one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloomWord {
    /// Line of the filter.
    pub line: u32,
    /// Word of the line, below 8.
    pub word: u32,
    /// Up to four bits of the word.
    pub mask: u64,
}

impl BloomWord {
    /// The place of the key with this hash in a filter of `lines` lines. Line
    /// from the high half of the hash, word and bits from its low 27 bits.
    #[inline(always)]
    pub const fn new(hash: u64, lines: u32) -> Self {
        Self {
            line: scale((hash >> 32) as u32, lines),
            word: (hash >> 24) as u32 & 7,
            mask: 1 << (hash & 63)
                | 1 << ((hash >> 6) & 63)
                | 1 << ((hash >> 12) & 63)
                | 1 << ((hash >> 18) & 63),
        }
    }

    /// Whether all bits are set in `table`. Touches one cache line.
    #[inline(always)]
    pub fn is_set<L: Lines + ?Sized>(self, lines: &L, table: Table) -> bool {
        match lines.line(table, self.line) {
            Some(line) => line[(self.word & 7) as usize] & self.mask == self.mask,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BloomWord, mix, scale};

    #[test]
    fn scale_covers_every_bucket_and_never_leaves_the_table() {
        assert_eq!(scale(0, 3), 0);
        assert_eq!(scale(u32::MAX, 3), 2);
        assert_eq!(scale(u32::MAX, u32::MAX), u32::MAX - 1);
        assert_eq!(scale(u32::MAX, 0), 0);
    }

    #[test]
    fn mix_spreads_neighbours_over_all_bits() {
        let changed: u32 = (0..1_000)
            .map(|i: u64| (mix(i) ^ mix(i + 1)).count_ones())
            .sum();
        assert!(
            (30_000..34_000).contains(&changed),
            "{changed} of 64,000 bits changed"
        );
    }

    #[test]
    fn a_bloom_word_stays_within_its_line() {
        let word = BloomWord::new(u64::MAX, 5);
        assert_eq!((word.line, word.word, word.mask), (4, 7, 1 << 63));
    }
}
