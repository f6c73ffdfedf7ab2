//! Hostnames: a Bloom filter over fingerprints, then buckets of fingerprints.
//!
//! A name is hashed from its end, so that one pass gives the fingerprint of every
//! suffix; names themselves are not stored. A bucket is one line of four entries
//! of two words:
//!
//! | word | bits | meaning |
//! |---|---|---|
//! | even | 0..64 | [`Fingerprint::check`] |
//! | odd | 0..25 | value |
//! | odd | 25 | in entry 0 only: a key of this bucket lives in its alternative bucket |
//! | odd | 26 | the entry is used |
//! | odd | 32..64 | low half of [`Fingerprint::index`] |
//!
//! **False hits.** 96 bits are compared, in at most eight entries of a lookup, and
//! the bucket is chosen by 32 other bits. A name that is not in the table has, over
//! the random key, fingerprints that agree with a stored one in a given entry with
//! probability 2⁻⁹⁶ (the lanes' own collisions, over names of 253 bytes, are rarer
//! by the same heuristic): below 2⁻⁹² per suffix looked up, whatever the size of the
//! table. At 10⁹ suffixes a second that is one false hit in 10¹¹ years. Who does
//! not know the key cannot aim for one.

use super::{
    Lines, VALUE_MAX,
    hash::{BloomWord, mix, scale},
};
use crate::abi::{Line, Table};

/// Shape of a name table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NameParams {
    /// Lines of the Bloom filter.
    pub bloom_lines: u32,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// Key of the fingerprints, random per table.
    pub key: [u64; 4],
}

/// Entries in a bucket.
pub const SLOTS: usize = 4;

const OVERFLOW: u64 = 1 << 25;
const USED: u64 = 1 << 26;
/// What of an odd word is compared.
const KEY_MASK: u64 = 0xFFFF_FFFF_0000_0000 | USED;

/// Keyed 128-bit fingerprint of a suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Fingerprint {
    /// High half: places in the filter and the table. Low half: bits of the filter, and compared.
    pub index: u64,
    /// Compared.
    pub check: u64,
}

impl Fingerprint {
    /// The fingerprint of a suffix from [`NameHash::lanes`].
    #[inline(always)]
    pub const fn of_lanes(lanes: [u64; 2]) -> Self {
        let index = mix(lanes[0].wrapping_add(lanes[1].rotate_left(32)));
        Self {
            index,
            check: mix(lanes[1] ^ index),
        }
    }
}

/// A name being hashed from its end to its start. Two lanes of 64 bits, each
/// multiplied by a secret odd number at every byte and folded, so that no
/// difference survives predictably.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    lanes: [u64; 2],
    factors: [u64; 2],
}

impl NameHash {
    /// The hash of the empty suffix.
    #[inline(always)]
    pub const fn new(params: &NameParams) -> Self {
        Self {
            lanes: [params.key[0], params.key[1]],
            factors: [params.key[2] | 1, params.key[3] | 1],
        }
    }

    /// Goes on from [`NameHash::lanes`].
    #[inline(always)]
    pub const fn resume(params: &NameParams, lanes: [u64; 2]) -> Self {
        Self {
            lanes,
            ..Self::new(params)
        }
    }

    /// Takes in the byte before the suffix so far; `byte` is lower case. Touches
    /// no memory.
    #[inline(always)]
    pub const fn push(&mut self, byte: u8) {
        let a = (self.lanes[0] ^ byte as u64).wrapping_mul(self.factors[0]);
        let b = (self.lanes[1] ^ byte as u64).wrapping_mul(self.factors[1]);
        self.lanes = [a ^ (a >> 32), b ^ (b >> 32)];
    }

    /// The fingerprint of the suffix so far; more bytes may follow. Touches no
    /// memory; to be called at label boundaries only, since it costs as much as
    /// several bytes.
    #[inline(always)]
    pub const fn finish(&self) -> Fingerprint {
        Fingerprint::of_lanes(self.lanes)
    }

    /// All that [`Fingerprint::of_lanes`] needs, to finish elsewhere.
    #[inline(always)]
    pub const fn lanes(&self) -> [u64; 2] {
        self.lanes
    }

    /// The fingerprint of a whole name, lower case, without trailing dot.
    pub fn of(params: &NameParams, name: &[u8]) -> Fingerprint {
        let mut hash = Self::new(params);
        for byte in name.iter().rev() {
            hash.push(*byte);
        }
        hash.finish()
    }
}

/// Whether a name with this fingerprint may be in the table: `false` is certain,
/// `true` is wrong in about 0.5 % of the misses at 16 bits an entry. Touches one
/// cache line of the filter (2 bytes an entry).
///
/// For the verifier's sake, a loop over a name collects the fingerprints for which
/// this is true and probes them afterwards, with their count kept in map memory: a
/// count in a register is followed value by value, which takes a walk over 255
/// bytes from 56,000 verified instructions to over a million.
#[inline(always)]
pub fn maybe<L: Lines + ?Sized>(
    lines: &L,
    summary: Table,
    params: &NameParams,
    fingerprint: Fingerprint,
) -> bool {
    bloom_word(params, fingerprint).is_set(lines, summary)
}

/// The value of the name with this fingerprint. Touches one cache line, and a
/// second one if the first bucket has sent keys away (about one bucket in four).
#[inline(always)]
pub fn probe<L: Lines + ?Sized>(
    lines: &L,
    buckets: Table,
    params: &NameParams,
    fingerprint: Fingerprint,
) -> Option<u32> {
    let line = lines.line(buckets, home(params, fingerprint))?;
    if let Some(value) = find(line, fingerprint) {
        return Some(value);
    }
    if line[1] & OVERFLOW == 0 {
        return None;
    }
    find(
        lines.line(buckets, alternative(params, fingerprint))?,
        fingerprint,
    )
}

/// Where a name lives in the Bloom filter.
#[inline(always)]
pub const fn bloom_word(params: &NameParams, fingerprint: Fingerprint) -> BloomWord {
    BloomWord::new(fingerprint.index, params.bloom_lines)
}

/// The home and the alternative bucket of a name; they may be the same.
pub const fn bucket_pair(params: &NameParams, fingerprint: Fingerprint) -> [u32; 2] {
    [home(params, fingerprint), alternative(params, fingerprint)]
}

/// Writes an entry into `slot` (below [`SLOTS`]) of a bucket; the value's bits
/// beyond [`super::VALUE_BITS`] are lost.
pub const fn put(bucket: &mut Line, slot: usize, fingerprint: Fingerprint, value: u32) {
    let slot = slot & 3;
    bucket[2 * slot] = fingerprint.check;
    bucket[2 * slot + 1] =
        bucket[2 * slot + 1] & OVERFLOW | wanted(fingerprint) | (value & VALUE_MAX) as u64;
}

/// Whether `slot` (below [`SLOTS`]) of a bucket holds no entry.
pub const fn is_free(bucket: &Line, slot: usize) -> bool {
    bucket[2 * (slot & 3) + 1] & USED == 0
}

/// Notes in a home bucket that one of its keys lives in its alternative bucket.
pub const fn set_overflow(bucket: &mut Line) {
    bucket[1] |= OVERFLOW;
}

#[inline(always)]
const fn wanted(fingerprint: Fingerprint) -> u64 {
    fingerprint.index << 32 | USED
}

#[inline(always)]
const fn home(params: &NameParams, fingerprint: Fingerprint) -> u32 {
    scale((fingerprint.index >> 32) as u32, params.bucket_count)
}

/// From the same 32 bits as the home bucket, by a multiplication that brings
/// their low bits to the top.
#[inline(always)]
const fn alternative(params: &NameParams, fingerprint: Fingerprint) -> u32 {
    scale(
        ((fingerprint.index >> 32) as u32).wrapping_mul(0x9E37_79B1),
        params.bucket_count,
    )
}

#[inline(always)]
fn find(line: &Line, fingerprint: Fingerprint) -> Option<u32> {
    let wanted = wanted(fingerprint);
    for i in 0..SLOTS {
        let word = line[2 * i + 1];
        if line[2 * i] == fingerprint.check && word & KEY_MASK == wanted {
            return Some(word as u32 & VALUE_MAX);
        }
    }
    None
}

const _: () = assert!(size_of::<NameParams>() == 40);

#[cfg(test)]
mod tests {
    use super::{Fingerprint, NameHash, NameParams, bucket_pair, probe, put, set_overflow};
    use crate::{
        abi::Table,
        tables::{VALUE_MAX, testing::One},
    };

    const KEY: [u64; 4] = [
        0x243F_6A88_85A3_08D3,
        0x1319_8A2E_0370_7344,
        0xA409_3822_299F_31D0,
        0x082E_FA98_EC4E_6C89,
    ];

    fn params(bucket_count: u32) -> NameParams {
        NameParams {
            bloom_lines: 1,
            bucket_count,
            key: KEY,
        }
    }

    #[test]
    fn one_pass_gives_the_fingerprint_of_every_suffix() {
        let params = params(1);
        let name = b"www.evil.example";
        let mut hash = NameHash::new(&params);
        for start in (0..name.len()).rev() {
            hash.push(name[start]);
            assert_eq!(hash.finish(), NameHash::of(&params, &name[start..]));
        }
    }

    #[test]
    fn both_halves_depend_on_every_byte_and_every_word_of_the_key() {
        let base = NameHash::of(&params(1), b"evil.example");
        for other in [
            &b"evil.exampld"[..],
            b"fvil.example",
            b"vil.example",
            b".evil.example",
        ] {
            let other = NameHash::of(&params(1), other);
            assert!(base.index != other.index && base.check != other.check);
        }
        for word in 0..4 {
            let mut params = params(1);
            params.key[word] ^= 2;
            let other = NameHash::of(&params, b"evil.example");
            assert!(base.index != other.index && base.check != other.check);
        }
    }

    #[test]
    fn an_empty_bucket_hits_nothing_not_even_the_zero_fingerprint() {
        let zero = Fingerprint { index: 0, check: 0 };
        assert_eq!(
            probe(&One(&[[0; 8]]), Table::NameBuckets, &params(1), zero),
            None
        );
    }

    #[test]
    fn an_entry_is_hit_by_its_own_96_bits_only() {
        let fingerprint = NameHash::of(&params(1), b"evil.example");
        for slot in 0..4 {
            let mut line = [0; 8];
            set_overflow(&mut line);
            put(&mut line, slot, fingerprint, VALUE_MAX);
            let lines = [line];
            let hit = |fp| probe(&One(&lines), Table::NameBuckets, &params(1), fp);
            assert_eq!(hit(fingerprint), Some(VALUE_MAX));
            for bit in 0..64 {
                assert_eq!(
                    hit(Fingerprint {
                        check: fingerprint.check ^ 1 << bit,
                        ..fingerprint
                    }),
                    None
                );
            }
            for bit in 0..32 {
                assert_eq!(
                    hit(Fingerprint {
                        index: fingerprint.index ^ 1 << bit,
                        ..fingerprint
                    }),
                    None
                );
            }
        }
    }

    #[test]
    fn the_alternative_bucket_is_read_only_behind_the_flag() {
        let params = params(1_000);
        let fingerprint = NameHash::of(&params, b"evil.example");
        let [home, alternative] = bucket_pair(&params, fingerprint);
        assert_ne!(home, alternative);
        let mut lines = [[0; 8]; 1_000];
        put(&mut lines[alternative as usize], 2, fingerprint, 42);
        assert_eq!(
            probe(&One(&lines), Table::NameBuckets, &params, fingerprint),
            None
        );
        set_overflow(&mut lines[home as usize]);
        assert_eq!(
            probe(&One(&lines), Table::NameBuckets, &params, fingerprint),
            Some(42)
        );
    }
}
