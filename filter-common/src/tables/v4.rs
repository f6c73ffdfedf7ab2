//! IPv4 prefixes: a bitmap over the leading bits, then buckets of exact keys.
//!
//! A bucket is one line of eight entries. An entry, from the low bit up:
//!
//! | bits | meaning |
//! |---|---|
//! | 0..32 | address, host bits zero |
//! | 32..38 | prefix length plus one; 0 for an empty entry |
//! | 38 | in entry 0 only: a key of this bucket lives in its alternative bucket |
//! | 39..64 | value |
//!
//! Addresses are `u32` in host byte order: 192.0.2.1 is `0xC000_0201`.

use super::{
    Lines, VALUE_MAX,
    hash::{mix, scale},
};
use crate::abi::{Line, Table};

/// Shape of an IPv4 prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct V4Params {
    /// Right shift that turns an address (host byte order) into an index of a summary bit.
    pub summary_shift: u32,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// Key of the bucket hash, random per table.
    pub seed: u64,
    /// How many of `lengths` are used.
    pub length_count: u32,
    /// The prefix lengths that occur, longest first.
    pub lengths: [u8; 36],
}

/// Entries in a bucket.
pub const SLOTS: usize = 8;

/// Different prefix lengths, `/0` included.
pub const LENGTHS: usize = 33;

const LENGTH_SHIFT: u32 = 32;
const OVERFLOW: u64 = 1 << 38;
const VALUE_SHIFT: u32 = 39;
const KEY_MASK: u64 = OVERFLOW - 1;

/// `addr` with all but its `length` leading bits cleared.
#[inline(always)]
pub const fn masked(addr: u32, length: u8) -> u32 {
    if length >= 32 {
        addr
    } else {
        addr & !(u32::MAX >> length)
    }
}

/// Whether a prefix may cover `addr`: `false` is certain. Touches one cache line
/// of the summary (8 KiB to 2 MiB, so it stays cached), which answers nearly all
/// misses.
#[inline(always)]
pub fn maybe<L: Lines + ?Sized>(lines: &L, summary: Table, params: &V4Params, addr: u32) -> bool {
    let bit = addr >> (params.summary_shift & 31);
    match lines.line(summary, bit >> 9) {
        Some(line) => line[(bit >> 6) as usize & 7] >> (bit & 63) & 1 != 0,
        None => false,
    }
}

/// The value of exactly the prefix of `addr` that is `length` bits long (at most
/// 32). Touches one cache line, and a second one if the first bucket has sent
/// keys away (about one bucket in six).
#[inline(always)]
pub fn probe<L: Lines + ?Sized>(
    lines: &L,
    buckets: Table,
    params: &V4Params,
    addr: u32,
    length: u8,
) -> Option<u32> {
    let key = key(addr, length);
    let hash = mix(key ^ params.seed);
    let line = lines.line(buckets, home(hash, params))?;
    if let Some(value) = find(line, key) {
        return Some(value);
    }
    if line[0] & OVERFLOW == 0 {
        return None;
    }
    find(lines.line(buckets, alternative(hash, params))?, key)
}

/// The longest prefix that covers `addr`: its length and value. For tables whose
/// values need no further look, such as the served addresses. Touches the lines of
/// [`maybe`], and on a set bit those of one [`probe`] per length in use, longest
/// first.
#[inline(always)]
pub fn longest<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    buckets: Table,
    params: &V4Params,
    addr: u32,
) -> Option<(u8, u32)> {
    if !maybe(lines, summary, params, addr) {
        return None;
    }
    for i in 0..LENGTHS {
        if i as u32 >= params.length_count {
            break;
        }
        let length = params.lengths[i];
        if let Some(value) = probe(lines, buckets, params, addr, length) {
            return Some((length, value));
        }
    }
    None
}

/// The home and the alternative bucket of a prefix; they may be the same.
pub const fn bucket_pair(params: &V4Params, addr: u32, length: u8) -> [u32; 2] {
    let hash = mix(key(addr, length) ^ params.seed);
    [home(hash, params), alternative(hash, params)]
}

/// Writes an entry into `slot` (below [`SLOTS`]) of a bucket; the value's bits
/// beyond [`super::VALUE_BITS`] are lost.
pub const fn put(bucket: &mut Line, slot: usize, addr: u32, length: u8, value: u32) {
    let slot = slot & 7;
    bucket[slot] =
        bucket[slot] & OVERFLOW | key(addr, length) | ((value & VALUE_MAX) as u64) << VALUE_SHIFT;
}

/// Whether `slot` (below [`SLOTS`]) of a bucket holds no entry.
pub const fn is_free(bucket: &Line, slot: usize) -> bool {
    bucket[slot & 7] & KEY_MASK == 0
}

/// Notes in a home bucket that one of its keys lives in its alternative bucket.
pub const fn set_overflow(bucket: &mut Line) {
    bucket[0] |= OVERFLOW;
}

#[inline(always)]
const fn key(addr: u32, length: u8) -> u64 {
    masked(addr, length) as u64 | ((length as u64 + 1) & 63) << LENGTH_SHIFT
}

#[inline(always)]
const fn home(hash: u64, params: &V4Params) -> u32 {
    scale((hash >> 32) as u32, params.bucket_count)
}

#[inline(always)]
const fn alternative(hash: u64, params: &V4Params) -> u32 {
    scale(hash as u32, params.bucket_count)
}

#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the verifier wants integer loop counters, not pointers"
)]
fn find(line: &Line, key: u64) -> Option<u32> {
    for i in 0..SLOTS {
        if line[i] & KEY_MASK == key {
            return Some((line[i] >> VALUE_SHIFT) as u32);
        }
    }
    None
}

const _: () = assert!(size_of::<V4Params>() == 56);

#[cfg(test)]
mod tests {
    use super::{V4Params, bucket_pair, masked, maybe, probe, put, set_overflow};
    use crate::{
        abi::Table,
        tables::{VALUE_MAX, testing::One},
    };

    fn params(summary_shift: u32, bucket_count: u32) -> V4Params {
        V4Params {
            summary_shift,
            bucket_count,
            seed: 7,
            length_count: 0,
            lengths: [0; 36],
        }
    }

    #[test]
    fn masks_keep_exactly_the_leading_bits() {
        assert_eq!(masked(u32::MAX, 0), 0);
        assert_eq!(masked(u32::MAX, 1), 0x8000_0000);
        assert_eq!(masked(u32::MAX, 31), 0xFFFF_FFFE);
        assert_eq!(masked(u32::MAX, 32), u32::MAX);
    }

    #[test]
    fn an_empty_bucket_hits_nothing_not_even_the_default_route() {
        let lines = One(&[[0; 8]]);
        for length in 0..=32 {
            assert_eq!(
                probe(&lines, Table::V4Buckets, &params(8, 1), 0, length),
                None
            );
        }
    }

    #[test]
    fn an_entry_gives_back_its_value_in_every_slot_beside_the_overflow_flag() {
        for slot in 0..8 {
            let mut line = [0; 8];
            set_overflow(&mut line);
            put(&mut line, slot, 0xC000_0200, 24, VALUE_MAX);
            let lines = [line];
            let hit =
                |addr, length| probe(&One(&lines), Table::V4Buckets, &params(8, 1), addr, length);
            assert_eq!(hit(0xC000_02FF, 24), Some(VALUE_MAX));
            assert_eq!(hit(0xC000_02FF, 25), None);
            assert_eq!(hit(0xC000_0300, 24), None);
        }
    }

    #[test]
    fn the_alternative_bucket_is_read_only_behind_the_flag() {
        let params = params(8, 1_000);
        let [home, alternative] = bucket_pair(&params, 0x0A00_0000, 8);
        assert_ne!(home, alternative);
        let mut lines = [[0; 8]; 1_000];
        put(&mut lines[alternative as usize], 3, 0x0A00_0000, 8, 42);
        assert_eq!(
            probe(&One(&lines), Table::V4Buckets, &params, 0x0A01_0203, 8),
            None
        );
        set_overflow(&mut lines[home as usize]);
        assert_eq!(
            probe(&One(&lines), Table::V4Buckets, &params, 0x0A01_0203, 8),
            Some(42)
        );
    }

    #[test]
    fn the_summary_bit_of_an_address_is_its_leading_bits() {
        let mut lines = [[0; 8]; 128];
        let bit = 0xC000usize;
        lines[bit >> 9][(bit >> 6) & 7] |= 1 << (bit & 63);
        let maybe = |addr| maybe(&One(&lines), Table::V4Summary, &params(16, 1), addr);
        assert!(maybe(0xC000_0000) && maybe(0xC000_FFFF));
        assert!(!maybe(0xC001_0000) && !maybe(0xBFFF_FFFF));
    }
}
