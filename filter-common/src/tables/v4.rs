//! IPv4 prefixes: a bitmap over the leading bits, two finer looks, then buckets of exact keys.
//!
//! The summary table has three parts, one behind the other:
//!
//! | part | says of an address | false alarms |
//! |---|---|---|
//! | cells | whether any prefix touches its cell, a /16 to a /22 by the size of the table | neighbours in the cell |
//! | wide | whether a prefix of at most [`WIDE_LENGTH_MAX`] bits touches its cell, a /16 to a /24 | none where it is a /24 |
//! | narrow | whether a longer prefix covers the address: two bits of the line that its /26 hashes to | what shares the line |
//!
//! Nearly all misses end at the cells, which fit the second-level cache. In a long list many cells are
//! set, and behind them each length in use would have to be probed; the other two parts end most of
//! these misses with one line each, and tell which lengths may hit.
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
    /// Right shifts that turn an address (host byte order) into the index of a bit: of the cells in the
    /// low byte, of the wide part in the next.
    pub shifts: u32,
    /// First line of the summary's wide part.
    pub wide_at: u32,
    /// First line of its narrow part.
    pub narrow_at: u32,
    /// Lines of its narrow part.
    pub narrow_lines: u32,
    /// Key of the hashes, random per table.
    pub seed: u64,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// How many of `lengths` are used.
    pub length_count: u32,
    /// The prefix lengths that occur, longest first.
    pub lengths: [u8; 40],
}

impl V4Params {
    /// Both shifts, below 32.
    pub const fn with_shifts(self, cell: u32, wide: u32) -> Self {
        Self {
            shifts: wide << 8 | cell,
            ..self
        }
    }

    #[inline(always)]
    const fn cell_shift(&self) -> u32 {
        self.shifts & 31
    }

    #[inline(always)]
    const fn wide_shift(&self) -> u32 {
        self.shifts >> 8 & 31
    }
}

/// Entries in a bucket.
pub const SLOTS: usize = 8;

/// Different prefix lengths, `/0` included.
pub const LENGTHS: usize = 33;

/// Longest prefix of the summary's wide part. Those of 25 and 26 bits are few in real lists, and would
/// fill the narrow part with bits.
pub const WIDE_LENGTH_MAX: u8 = 26;

/// Addresses in a word of the narrow part, as a shift.
const NARROW_SHIFT: u32 = 6;

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

/// Whether a prefix may touch the cell of `addr`: `false` is certain. Touches one cache line
/// of the cells (8 KiB to 2 MiB, so they stay cached), which answers nearly all misses.
#[inline(always)]
pub fn touches_cell<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    params: &V4Params,
    addr: u32,
) -> bool {
    bit(lines, summary, 0, addr >> params.cell_shift())
}

/// Whether a prefix of at most [`WIDE_LENGTH_MAX`] bits may cover `addr`: `false` is certain. Touches
/// one line.
#[inline(always)]
fn maybe_wide<L: Lines + ?Sized>(lines: &L, summary: Table, params: &V4Params, addr: u32) -> bool {
    bit(lines, summary, params.wide_at, addr >> params.wide_shift())
}

/// Whether a prefix of more than [`WIDE_LENGTH_MAX`] bits may cover `addr`: `false` is certain. Touches
/// one line.
#[inline(always)]
fn maybe_narrow<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    params: &V4Params,
    addr: u32,
) -> bool {
    let hash = narrow_hash(params, addr);
    match lines.line(summary, narrow_line(params, hash)) {
        Some(line) => {
            let [a, b] = narrow_places(hash);
            let a = line[a.word] >> ((addr ^ a.turn) & 63);
            let b = line[b.word] >> ((addr ^ b.turn) & 63);
            a & b & 1 != 0
        }
        None => false,
    }
}

/// Which prefixes may cover an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    wide: bool,
    narrow: bool,
}

impl Kinds {
    /// None, for certain.
    pub const NONE: Self = Self {
        wide: false,
        narrow: false,
    };

    /// Whether none may.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        !self.wide & !self.narrow
    }

    /// Whether one of this length may.
    #[inline(always)]
    pub const fn has(self, length: u8) -> bool {
        if length > WIDE_LENGTH_MAX {
            self.narrow
        } else {
            self.wide
        }
    }
}

/// Which prefixes may cover `addr`. Touches the line of [`touches_cell`], and if that says yes those of
/// [`maybe_wide`] and [`maybe_narrow`].
#[inline(always)]
pub fn kinds<L: Lines + ?Sized>(lines: &L, summary: Table, params: &V4Params, addr: u32) -> Kinds {
    if !touches_cell(lines, summary, params, addr) {
        return Kinds::NONE;
    }
    Kinds {
        wide: maybe_wide(lines, summary, params, addr),
        narrow: maybe_narrow(lines, summary, params, addr),
    }
}

#[inline(always)]
fn bit<L: Lines + ?Sized>(lines: &L, summary: Table, first_line: u32, bit: u32) -> bool {
    match lines.line(summary, first_line + (bit >> 9)) {
        Some(line) => line[(bit >> 6) as usize & 7] >> (bit & 63) & 1 != 0,
        None => false,
    }
}

/// A word of a line that has a bit for each address of a /26.
#[derive(Clone, Copy)]
struct NarrowPlace {
    word: usize,
    /// What the number of the bit is combined with: lists are full of addresses that end alike.
    turn: u32,
}

#[inline(always)]
const fn narrow_hash(params: &V4Params, addr: u32) -> u64 {
    mix((addr >> NARROW_SHIFT) as u64 ^ params.seed)
}

#[inline(always)]
const fn narrow_line(params: &V4Params, hash: u64) -> u32 {
    params.narrow_at + scale((hash >> 32) as u32, params.narrow_lines)
}

#[inline(always)]
const fn narrow_places(hash: u64) -> [NarrowPlace; 2] {
    [
        NarrowPlace {
            word: hash as usize & 7,
            turn: (hash >> 6) as u32,
        },
        NarrowPlace {
            word: (hash >> 3) as usize & 7,
            turn: (hash >> 12) as u32,
        },
    ]
}

/// Calls `set` for the bits that a prefix has in the summary: line, word below 8, and mask.
pub fn mark(params: &V4Params, addr: u32, length: u8, mut set: impl FnMut(u32, u32, u64)) {
    let first = masked(addr, length);
    let last = first | !masked(u32::MAX, length);
    let run = |shift| (first >> shift, last >> shift);
    mark_run(0, run(params.cell_shift()), &mut set);
    if length <= WIDE_LENGTH_MAX {
        mark_run(params.wide_at, run(params.wide_shift()), &mut set);
        return;
    }
    let hash = narrow_hash(params, first);
    // An aligned run stays one when every number in it is combined with the same other.
    let run = last - first;
    for place in narrow_places(hash) {
        let from = (first ^ place.turn) & 63 & !run;
        let mask = u64::MAX >> (63 - run) << from;
        set(narrow_line(params, hash), place.word as u32, mask);
    }
}

/// The bits `first..=last` of the lines from `first_line` on, whole words at once.
fn mark_run(first_line: u32, (first, last): (u32, u32), set: &mut impl FnMut(u32, u32, u64)) {
    for word in first >> 6..=last >> 6 {
        let from = first.max(word << 6) & 63;
        let to = last.min(word << 6 | 63) & 63;
        let mask = u64::MAX << from & u64::MAX >> (63 - to);
        set(first_line + (word >> 3), word & 7, mask);
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
/// [`kinds`], and those of one [`probe`] per length in use that these leave, longest
/// first.
#[inline(always)]
pub fn longest<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    buckets: Table,
    params: &V4Params,
    addr: u32,
) -> Option<(u8, u32)> {
    let kinds = kinds(lines, summary, params, addr);
    if kinds.is_none() {
        return None;
    }
    for i in 0..LENGTHS {
        if i as u32 >= params.length_count {
            break;
        }
        let length = params.lengths[i];
        if !kinds.has(length) {
            continue;
        }
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

const _: () = assert!(size_of::<V4Params>() == 72);

#[cfg(test)]
mod tests {
    use super::{
        V4Params, WIDE_LENGTH_MAX, bucket_pair, kinds, mark, masked, probe, put, set_overflow,
    };
    use crate::{
        abi::Table,
        tables::{VALUE_MAX, testing::One},
    };

    fn params(cell_shift: u32, bucket_count: u32) -> V4Params {
        V4Params {
            shifts: 16 << 8 | cell_shift,
            wide_at: 128,
            narrow_at: 256,
            narrow_lines: 64,
            bucket_count,
            seed: 7,
            length_count: 0,
            lengths: [0; 40],
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

    fn marked(addr: u32, length: u8) -> [[u64; 8]; 320] {
        let mut lines = [[0; 8]; 320];
        mark(&params(16, 1), addr, length, |line, word, mask| {
            lines[line as usize][word as usize] |= mask;
        });
        lines
    }

    #[test]
    fn a_wide_prefix_touches_exactly_its_cells() {
        let lines = marked(0xC000_0000, 15);
        let maybe = |addr| !kinds(&One(&lines), Table::V4Summary, &params(16, 1), addr).is_none();
        assert!(maybe(0xC000_0000) && maybe(0xC001_FFFF));
        assert!(!maybe(0xC002_0000) && !maybe(0xBFFF_FFFF));
    }

    #[test]
    fn a_narrow_prefix_covers_its_addresses_and_hardly_any_other() {
        for length in WIDE_LENGTH_MAX + 1..=32 {
            let first = masked(0xC000_02B7, length);
            let lines = marked(first, length);
            let maybe =
                |addr| !kinds(&One(&lines), Table::V4Summary, &params(16, 1), addr).is_none();
            let mut false_alarms = 0;
            for addr in 0xC000_0000..0xC000_1000 {
                if masked(addr, length) == first {
                    assert!(maybe(addr), "/{length}");
                } else {
                    false_alarms += u32::from(maybe(addr));
                }
            }
            assert!(false_alarms < 200, "/{length}: {false_alarms} of 4096");
        }
    }
}
