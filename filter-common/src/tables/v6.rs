//! IPv6 prefixes: a Bloom filter over areas, one over all keys, then buckets of exact keys.
//!
//! The summary table has two Bloom filters, one behind the other. The first holds all keys: it answers
//! for one prefix length at a time. The second holds *areas*, the prefixes of one length that some key
//! covers or lies in: for nearly all addresses it answers for all lengths at once.
//!
//! A bucket is one line of three entries:
//!
//! | word | meaning |
//! |---|---|
//! | 0, 2, 4 | more significant half of the address of entry 0, 1, 2 |
//! | 1, 3, 5 | less significant half |
//! | 6 | value of entry 0 in the low half, of entry 1 in the high half |
//! | 7 | value of entry 2 in the low half; in bits 32.., 40.., 48.. the prefix lengths plus one, 0 for an empty entry; bit 56: a key of this bucket lives in its alternative bucket |
//!
//! Addresses are `[u64; 2]` in host byte order, the more significant half first.

use super::{
    Lines, VALUE_MAX,
    hash::{BloomWord, mix, scale},
};
use crate::abi::{Line, Table};

/// Shape of an IPv6 prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct V6Params {
    /// Lines of the Bloom filter of keys.
    pub bloom_lines: u32,
    /// Lines of the Bloom filter of areas, which lies behind that of keys.
    pub area_lines: u32,
    /// Length of an area's prefix, at most [`AREA_LENGTH_MAX`].
    pub area_length: u32,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// Key of the hashes, random per table.
    pub seed: u64,
    /// How many of `lengths` are used.
    pub length_count: u32,
    /// The prefix lengths that occur, longest first.
    pub lengths: [u8; 132],
}

/// Entries in a bucket.
pub const SLOTS: usize = 3;

/// Different prefix lengths, `/0` included.
pub const LENGTHS: usize = 129;

/// Longest prefix of an area.
pub const AREA_LENGTH_MAX: u32 = 64;

const TAG_SHIFT: u32 = 32;
const OVERFLOW: u64 = 1 << 56;

/// `addr` with all but its `length` leading bits cleared.
#[inline(always)]
pub const fn masked(addr: [u64; 2], length: u8) -> [u64; 2] {
    let high = if length >= 64 {
        u64::MAX
    } else {
        !(u64::MAX >> length)
    };
    let low = if length <= 64 {
        0
    } else if length >= 128 {
        u64::MAX
    } else {
        !(u64::MAX >> (length - 64))
    };
    [addr[0] & high, addr[1] & low]
}

/// Whether any prefix may cover `addr`: `false` is certain. Touches one cache line of the second
/// filter.
#[inline(always)]
pub fn maybe_near<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    params: &V6Params,
    addr: [u64; 2],
) -> bool {
    let area = addr[0] >> ((AREA_LENGTH_MAX - params.area_length) & 63);
    area_word(params, area).is_set(lines, summary)
}

#[inline(always)]
const fn area_word(params: &V6Params, area: u64) -> BloomWord {
    let place = BloomWord::new(mix(area ^ params.seed), params.area_lines);
    BloomWord {
        line: params.bloom_lines + place.line,
        ..place
    }
}

/// Calls `set` for the bits that a prefix has in the summary: line, word below 8, and mask. Those are
/// 2ⁿ areas for a prefix that is n bits shorter than an area's.
pub fn mark(params: &V6Params, addr: [u64; 2], length: u8, mut set: impl FnMut(u32, u32, u64)) {
    let BloomWord { line, word, mask } = bloom_word(params, addr, length);
    set(line, word, mask);
    let shift = (AREA_LENGTH_MAX - params.area_length) & 63;
    let first = masked(addr, length)[0];
    let last = first | !masked([u64::MAX; 2], length)[0];
    for area in first >> shift..=last >> shift {
        let BloomWord { line, word, mask } = area_word(params, area);
        set(line, word, mask);
    }
}

/// Whether the prefix of `addr` that is `length` bits long may be in the table:
/// `false` is certain, `true` is wrong in about 0.5 % of the misses at 16 bits an
/// entry. Touches one cache line of the filter (2 bytes an entry).
#[inline(always)]
pub fn maybe<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    params: &V6Params,
    addr: [u64; 2],
    length: u8,
) -> bool {
    let hash = hash(params, masked(addr, length), length);
    BloomWord::new(hash, params.bloom_lines).is_set(lines, summary)
}

/// The value of exactly the prefix of `addr` that is `length` bits long (at most
/// 128). Touches one cache line, and a second one if the first bucket has sent
/// keys away (about one bucket in three).
#[inline(always)]
pub fn probe<L: Lines + ?Sized>(
    lines: &L,
    buckets: Table,
    params: &V6Params,
    addr: [u64; 2],
    length: u8,
) -> Option<u32> {
    let addr = masked(addr, length);
    let hash = hash(params, addr, length);
    let line = lines.line(buckets, home(hash, params))?;
    if let Some(value) = find(line, addr, length) {
        return Some(value);
    }
    if line[7] & OVERFLOW == 0 {
        return None;
    }
    find(
        lines.line(buckets, alternative(hash, params))?,
        addr,
        length,
    )
}

/// The longest prefix that covers `addr`: its length and value. For tables whose
/// values need no further look, such as the served addresses. Touches the line of
/// [`maybe_near`], and if that says yes one line of the first filter per length in use, longest first, and the lines of a [`probe`]
/// where that says yes.
#[inline(always)]
pub fn longest<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    buckets: Table,
    params: &V6Params,
    addr: [u64; 2],
) -> Option<(u8, u32)> {
    if !maybe_near(lines, summary, params, addr) {
        return None;
    }
    for i in 0..LENGTHS {
        if i as u32 >= params.length_count {
            break;
        }
        let length = params.lengths[i];
        if !maybe(lines, summary, params, addr, length) {
            continue;
        }
        if let Some(value) = probe(lines, buckets, params, addr, length) {
            return Some((length, value));
        }
    }
    None
}

/// Where a prefix lives in the Bloom filter of keys.
const fn bloom_word(params: &V6Params, addr: [u64; 2], length: u8) -> BloomWord {
    BloomWord::new(
        hash(params, masked(addr, length), length),
        params.bloom_lines,
    )
}

/// The home and the alternative bucket of a prefix; they may be the same.
pub const fn bucket_pair(params: &V6Params, addr: [u64; 2], length: u8) -> [u32; 2] {
    let hash = hash(params, masked(addr, length), length);
    [home(hash, params), alternative(hash, params)]
}

/// Writes an entry into `slot` (below [`SLOTS`]) of a bucket; the value's bits
/// beyond [`super::VALUE_BITS`] are lost. A slot beyond the bucket is not written.
pub const fn put(bucket: &mut Line, slot: usize, addr: [u64; 2], length: u8, value: u32) {
    if slot >= SLOTS {
        return;
    }
    let addr = masked(addr, length);
    let value = (value & VALUE_MAX) as u64;
    bucket[2 * slot] = addr[0];
    bucket[2 * slot + 1] = addr[1];
    let (word, shift) = (6 + slot / 2, 32 * (slot as u32 % 2));
    bucket[word] = bucket[word] & !((VALUE_MAX as u64) << shift) | value << shift;
    let shift = TAG_SHIFT + 8 * slot as u32;
    bucket[7] = bucket[7] & !(0xff << shift) | tag(length) << shift;
}

/// Whether `slot` (below [`SLOTS`]) of a bucket holds no entry.
pub const fn is_free(bucket: &Line, slot: usize) -> bool {
    slot < SLOTS && bucket[7] >> (TAG_SHIFT + 8 * slot as u32) & 0xff == 0
}

/// Notes in a home bucket that one of its keys lives in its alternative bucket.
pub const fn set_overflow(bucket: &mut Line) {
    bucket[7] |= OVERFLOW;
}

#[inline(always)]
const fn tag(length: u8) -> u64 {
    length as u64 + 1
}

/// Hash of a masked address and its length.
#[inline(always)]
const fn hash(params: &V6Params, addr: [u64; 2], length: u8) -> u64 {
    let high = (addr[0] ^ params.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let high = high ^ (high >> 32);
    mix(high ^ addr[1] ^ tag(length).wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

#[inline(always)]
const fn home(hash: u64, params: &V6Params) -> u32 {
    scale((hash >> 32) as u32, params.bucket_count)
}

#[inline(always)]
const fn alternative(hash: u64, params: &V6Params) -> u32 {
    scale(hash as u32, params.bucket_count)
}

#[inline(always)]
fn find(line: &Line, addr: [u64; 2], length: u8) -> Option<u32> {
    let tag = tag(length);
    let tags = line[7] >> TAG_SHIFT;
    if line[0] == addr[0] && line[1] == addr[1] && tags & 0xFF == tag {
        return Some(line[6] as u32);
    }
    if line[2] == addr[0] && line[3] == addr[1] && tags >> 8 & 0xFF == tag {
        return Some((line[6] >> 32) as u32);
    }
    if line[4] == addr[0] && line[5] == addr[1] && tags >> 16 & 0xFF == tag {
        return Some(line[7] as u32);
    }
    None
}

const _: () = assert!(size_of::<V6Params>() == 160);

#[cfg(test)]
mod tests {
    use super::{V6Params, bucket_pair, mark, masked, maybe, maybe_near, probe, put, set_overflow};
    use crate::{
        abi::Table,
        tables::{VALUE_MAX, testing::One},
    };

    const ALL: [u64; 2] = [u64::MAX; 2];

    fn params(bucket_count: u32) -> V6Params {
        V6Params {
            bloom_lines: 1,
            area_lines: 32,
            area_length: 40,
            bucket_count,
            seed: 7,
            length_count: 0,
            lengths: [0; 132],
        }
    }

    #[test]
    fn masks_keep_exactly_the_leading_bits() {
        for length in 0..=128u8 {
            let [high, low] = masked(ALL, length);
            let mask = u128::from(high) << 64 | u128::from(low);
            assert_eq!(mask.leading_ones(), u32::from(length));
            assert_eq!(mask.count_ones(), u32::from(length));
        }
    }

    #[test]
    fn every_prefix_marks_itself_and_the_areas_that_it_touches() {
        for length in 30..=128 {
            let mut lines = [[0; 8]; 33];
            mark(&params(1), ALL, length, |line, word, mask| {
                lines[line as usize][word as usize] |= mask;
            });
            let near = |addr| maybe_near(&One(&lines), Table::V6Summary, &params(1), addr);
            let [first, last] = [masked(ALL, length.min(40)), ALL];
            assert!(near(first) && near(last), "/{length}");
            assert!(!near([first[0] - 1, 0]), "/{length}");
            assert!(maybe(
                &One(&lines),
                Table::V6Summary,
                &params(1),
                ALL,
                length
            ));
        }
    }

    #[test]
    fn an_empty_bucket_hits_nothing_not_even_the_default_route() {
        for length in 0..=128 {
            assert_eq!(
                probe(
                    &One(&[[0; 8]]),
                    Table::V6Buckets,
                    &params(1),
                    [0; 2],
                    length
                ),
                None
            );
        }
    }

    #[test]
    fn three_entries_of_one_bucket_keep_their_values_beside_the_overflow_flag() {
        let mut line = [0; 8];
        set_overflow(&mut line);
        put(&mut line, 0, ALL, 0, VALUE_MAX);
        put(&mut line, 1, ALL, 64, 0);
        put(&mut line, 2, ALL, 128, VALUE_MAX - 1);
        let lines = [line];
        let hit = |addr, length| probe(&One(&lines), Table::V6Buckets, &params(1), addr, length);
        assert_eq!(hit([0, 0], 0), Some(VALUE_MAX));
        assert_eq!(hit([u64::MAX, 0], 64), Some(0));
        assert_eq!(hit(ALL, 128), Some(VALUE_MAX - 1));
        assert_eq!(hit([u64::MAX, u64::MAX - 1], 128), None);
        assert_eq!(hit(ALL, 63), None);
    }

    #[test]
    fn the_alternative_bucket_is_read_only_behind_the_flag() {
        let params = params(1_000);
        let [home, alternative] = bucket_pair(&params, ALL, 48);
        assert_ne!(home, alternative);
        let mut lines = [[0; 8]; 1_000];
        put(&mut lines[alternative as usize], 1, ALL, 48, 42);
        assert_eq!(
            probe(&One(&lines), Table::V6Buckets, &params, ALL, 48),
            None
        );
        set_overflow(&mut lines[home as usize]);
        assert_eq!(
            probe(&One(&lines), Table::V6Buckets, &params, ALL, 48),
            Some(42)
        );
    }
}
