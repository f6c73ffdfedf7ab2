//! Builders of the lookup tables of [`filter_common::tables`].

use filter_common::{
    abi::Line,
    tables::{
        VALUE_MAX,
        hash::BloomWord,
        names::{self, Fingerprint, NameHash, NameParams},
        v4::{self, V4Params},
        v6::{self, V6Params},
    },
};
use rand::RngCore;

use super::place::place;
use crate::prefetch::ahead;

/// Attempts with a new random key and a larger table each. One is nearly always
/// enough; the bound ends the search for keys that cannot be placed (duplicates).
const ATTEMPTS_MAX: u32 = 12;

/// Bits of Bloom filter per entry: about 0.5 % false positives; more leaves the cache.
const BLOOM_BITS_PER_ENTRY: usize = 16;

/// Entries per Bloom filter line.
const BLOOM_ENTRIES_PER_LINE: usize = size_of::<Line>() * 8 / BLOOM_BITS_PER_ENTRY;

/// Bits of the IPv4 summary's bitmaps per entry, within the bounds below: one random address
/// in 512 is looked up further for nothing.
const BITMAP_BITS_PER_ENTRY: usize = 512;

/// Fewest buckets of a table that has entries, so that there is room for more: 4 KiB.
const BUCKETS_MIN: usize = 64;

/// Fewest lines of its Bloom filter.
const BLOOM_LINES_MIN: usize = 16;

/// Fewest lines of the narrow part of an IPv4 summary.
const NARROW_LINES_MIN: usize = 16;

/// Smallest bitmap: a bit per /16, 8 KiB.
const BITMAP_BITS_MIN: usize = 1 << 16;

/// Largest bitmap of cells: a bit per /22, 512 KiB. One of 2 MiB, a bit per /24, has a third of the false
/// alarms, but is beyond second-level caches: every packet would wait.
const CELL_BITS_MAX: usize = 1 << 22;

/// Largest bitmap of wide prefixes: a bit per /24, 2 MiB.
const WIDE_BITS_MAX: usize = 1 << 24;

/// Bits of the IPv4 summary's narrow part per entry. A single address sets one.
const NARROW_BITS_PER_ENTRY: usize = 32;

/// Areas that any IPv6 table may touch, however small it is.
const AREAS_MIN: usize = 1_024;

/// Why a table could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No random key led to a placement.
    #[error(
        "the {table} table's {entries} entries could not be placed in {ATTEMPTS_MAX} attempts; \
         this cannot happen by chance: look for duplicate entries"
    )]
    Unplaced {
        /// Which table.
        table: &'static str,
        /// How many entries it was to hold.
        entries: usize,
    },
    /// A value does not fit its field.
    #[error("the {table} table cannot store the value {value}, the largest is {VALUE_MAX}")]
    Value {
        /// Which table.
        table: &'static str,
        /// The value.
        value: u32,
    },
}

/// An IPv4 prefix and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4Entry {
    /// Address in host byte order; host bits are ignored.
    pub addr: u32,
    /// Prefix length, at most 32.
    pub length: u8,
    /// At most [`VALUE_MAX`].
    pub value: u32,
}

/// An IPv6 prefix and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6Entry {
    /// Address in host byte order, the more significant half first; host bits are ignored.
    pub addr: [u64; 2],
    /// Prefix length, at most 128.
    pub length: u8,
    /// At most [`VALUE_MAX`].
    pub value: u32,
}

/// A name and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry<'a> {
    /// Lower case, without trailing dot.
    pub name: &'a str,
    /// At most [`VALUE_MAX`].
    pub value: u32,
}

/// A table ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built<P> {
    /// Shape, for the load-time constants.
    pub params: P,
    /// Contents of the summary map, at least one line.
    pub summary: Vec<Line>,
    /// Contents of the bucket map, at least one line.
    pub buckets: Vec<Line>,
}

/// Builds an IPv4 prefix table. Every prefix may occur once.
pub fn build_v4(entries: &[V4Entry], rng: &mut dyn RngCore) -> Result<Built<V4Params>, BuildError> {
    let (length_count, lengths) = lengths_in_use(entries.iter().map(|entry| entry.length));
    let cell_shift = shift(entries.len(), CELL_BITS_MAX);
    let wide_shift = shift(entries.len(), WIDE_BITS_MAX);
    // A table without entries has a shift of 31: two bits, in one line.
    let lines = |shift: u32| (1u32 << (32 - shift)).div_ceil(512);
    let narrow_lines = narrow_lines(entries);
    let shape = V4Params {
        shifts: 0,
        wide_at: lines(cell_shift),
        narrow_at: lines(cell_shift) + lines(wide_shift),
        narrow_lines,
        bucket_count: 0,
        seed: 0,
        length_count,
        lengths,
    };
    let shape = shape.with_shifts(cell_shift, wide_shift);
    let (params, buckets, _) = fill(shape, entries, rng)?;
    let mut summary = vec![[0; 8]; (params.narrow_at + narrow_lines) as usize];
    for entry in entries {
        v4::mark(&params, entry.addr, entry.length, marking(&mut summary));
    }
    Ok(Built {
        params,
        summary,
        buckets,
    })
}

/// Builds an IPv6 prefix table. Every prefix may occur once.
pub fn build_v6(entries: &[V6Entry], rng: &mut dyn RngCore) -> Result<Built<V6Params>, BuildError> {
    let (length_count, lengths) = lengths_in_use(entries.iter().map(|entry| entry.length));
    let bloom_lines = bloom_lines_for(entries.len());
    let (area_length, areas) = areas(entries);
    let area_lines = bloom_lines_for(areas);
    let shape = V6Params {
        bloom_lines,
        area_lines,
        area_length,
        bucket_count: 0,
        seed: 0,
        length_count,
        lengths,
    };
    let (params, buckets, _) = fill(shape, entries, rng)?;
    let mut summary = vec![[0; 8]; (bloom_lines + area_lines) as usize];
    for entry in entries {
        v6::mark(&params, entry.addr, entry.length, marking(&mut summary));
    }
    Ok(Built {
        params,
        summary,
        buckets,
    })
}

/// Builds a name table. Every name may occur once.
pub fn build_names(
    entries: &[NameEntry<'_>],
    rng: &mut dyn RngCore,
) -> Result<Built<NameParams>, BuildError> {
    let bloom_lines = bloom_lines_for(entries.len());
    let shape = NameParams {
        bloom_lines,
        bucket_count: 0,
        key: [0; 4],
    };
    let (params, buckets, hashed) = fill(shape, entries, rng)?;
    let words = hashed
        .into_iter()
        .map(|fingerprint| names::bloom_word(&params, fingerprint));
    Ok(Built {
        params,
        summary: bloom(bloom_lines, words),
        buckets,
    })
}

/// What the bucket tables differ in.
pub(super) trait Shape: Copy {
    type Entry<'a>;
    /// What of an entry decides where it lives and is stored, made once per key.
    type Hashed: Copy;
    /// For error messages.
    const TABLE: &'static str;
    /// Entries in a bucket.
    const SLOTS: usize;
    /// How full the buckets are made: far enough from what can be placed at all, and so that few
    /// lookups need a second line.
    const ENTRIES_PER_100_BUCKETS: usize;
    /// The same table with another size and a new random key.
    fn redrawn(self, bucket_count: u32, rng: &mut dyn RngCore) -> Self;
    fn value(entry: &Self::Entry<'_>) -> u32;
    /// What of an entry lies elsewhere.
    fn bytes<'a>(_entry: &'a Self::Entry<'_>) -> &'a [u8] {
        &[]
    }
    fn hash(&self, entry: &Self::Entry<'_>) -> Self::Hashed;
    fn bucket_pair(&self, hashed: Self::Hashed) -> [u32; 2];
    fn put(bucket: &mut Line, slot: usize, hashed: Self::Hashed, value: u32);
    fn set_overflow(bucket: &mut Line);
}

impl Shape for V4Params {
    type Entry<'a> = V4Entry;
    type Hashed = (u32, u8);
    const TABLE: &'static str = "IPv4";
    const SLOTS: usize = v4::SLOTS;
    const ENTRIES_PER_100_BUCKETS: usize = 500;

    fn redrawn(self, bucket_count: u32, rng: &mut dyn RngCore) -> Self {
        Self {
            bucket_count,
            seed: rng.next_u64(),
            ..self
        }
    }

    fn value(entry: &V4Entry) -> u32 {
        entry.value
    }

    fn hash(&self, entry: &V4Entry) -> Self::Hashed {
        (entry.addr, entry.length)
    }

    fn bucket_pair(&self, (addr, length): Self::Hashed) -> [u32; 2] {
        v4::bucket_pair(self, addr, length)
    }

    fn put(bucket: &mut Line, slot: usize, (addr, length): Self::Hashed, value: u32) {
        v4::put(bucket, slot, addr, length, value);
    }

    fn set_overflow(bucket: &mut Line) {
        v4::set_overflow(bucket);
    }
}

impl Shape for V6Params {
    type Entry<'a> = V6Entry;
    type Hashed = ([u64; 2], u8);
    const TABLE: &'static str = "IPv6";
    const SLOTS: usize = v6::SLOTS;
    const ENTRIES_PER_100_BUCKETS: usize = 150;

    fn redrawn(self, bucket_count: u32, rng: &mut dyn RngCore) -> Self {
        Self {
            bucket_count,
            seed: rng.next_u64(),
            ..self
        }
    }

    fn value(entry: &V6Entry) -> u32 {
        entry.value
    }

    fn hash(&self, entry: &V6Entry) -> Self::Hashed {
        (entry.addr, entry.length)
    }

    fn bucket_pair(&self, (addr, length): Self::Hashed) -> [u32; 2] {
        v6::bucket_pair(self, addr, length)
    }

    fn put(bucket: &mut Line, slot: usize, (addr, length): Self::Hashed, value: u32) {
        v6::put(bucket, slot, addr, length, value);
    }

    fn set_overflow(bucket: &mut Line) {
        v6::set_overflow(bucket);
    }
}

impl Shape for NameParams {
    type Entry<'a> = NameEntry<'a>;
    type Hashed = Fingerprint;
    const TABLE: &'static str = "name";
    const SLOTS: usize = names::SLOTS;
    const ENTRIES_PER_100_BUCKETS: usize = 240;

    fn redrawn(self, bucket_count: u32, rng: &mut dyn RngCore) -> Self {
        Self {
            bucket_count,
            key: std::array::from_fn(|_| rng.next_u64()),
            ..self
        }
    }

    fn value(entry: &NameEntry<'_>) -> u32 {
        entry.value
    }

    fn bytes<'a>(entry: &'a NameEntry<'_>) -> &'a [u8] {
        entry.name.as_bytes()
    }

    fn hash(&self, entry: &NameEntry<'_>) -> Fingerprint {
        NameHash::of(self, entry.name.as_bytes())
    }

    fn bucket_pair(&self, fingerprint: Fingerprint) -> [u32; 2] {
        names::bucket_pair(self, fingerprint)
    }

    fn put(bucket: &mut Line, slot: usize, fingerprint: Fingerprint, value: u32) {
        names::put(bucket, slot, fingerprint, value);
    }

    fn set_overflow(bucket: &mut Line) {
        names::set_overflow(bucket);
    }
}

/// Shape, buckets, and the hashed entries.
type Filled<S> = (S, Vec<Line>, Vec<<S as Shape>::Hashed>);

/// Draws keys and grows the table until every entry has a place, and writes the buckets.
fn fill<S: Shape>(
    shape: S,
    entries: &[S::Entry<'_>],
    rng: &mut dyn RngCore,
) -> Result<Filled<S>, BuildError> {
    if let Some(entry) = entries.iter().find(|entry| S::value(entry) > VALUE_MAX) {
        return Err(BuildError::Value {
            table: S::TABLE,
            value: S::value(entry),
        });
    }
    let unplaced = BuildError::Unplaced {
        table: S::TABLE,
        entries: entries.len(),
    };
    let fewest = match entries.len() {
        0 => 1,
        count => (count * 100)
            .div_ceil(S::ENTRIES_PER_100_BUCKETS)
            .max(BUCKETS_MIN),
    };
    for attempt in 0..ATTEMPTS_MAX {
        let grown = fewest + (fewest * attempt as usize).div_ceil(8);
        let Ok(bucket_count) = u32::try_from(grown) else {
            return Err(unplaced);
        };
        let shape = shape.redrawn(bucket_count, rng);
        let hashed: Vec<S::Hashed> = ahead(entries, S::bytes)
            .map(|entry| shape.hash(entry))
            .collect();
        let pairs: Vec<[u32; 2]> = hashed
            .iter()
            .map(|hashed| shape.bucket_pair(*hashed))
            .collect();
        // One place of each bucket is for keys that come while the table is in use.
        let Some(placement) = place(&pairs, bucket_count, S::SLOTS - 1, rng.next_u64()) else {
            continue;
        };
        let mut lines = vec![[0; 8]; grown];
        for (bucket, slot, key) in placement.iter() {
            S::put(
                &mut lines[bucket],
                slot,
                hashed[key],
                S::value(&entries[key]),
            );
            let home = pairs[key][0] as usize;
            if home != bucket {
                S::set_overflow(&mut lines[home]);
            }
        }
        return Ok((shape, lines, hashed));
    }
    Err(unplaced)
}

/// The lengths that occur, longest first, and how many they are.
fn lengths_in_use<const N: usize>(lengths: impl Iterator<Item = u8>) -> (u32, [u8; N]) {
    let mut used = [false; 256];
    for length in lengths {
        used[usize::from(length)] = true;
    }
    let mut sorted = [0; N];
    let longest_first = (0..=u8::MAX)
        .rev()
        .filter(|length| used[usize::from(*length)]);
    let mut count = 0;
    for (to, length) in sorted.iter_mut().zip(longest_first) {
        *to = length;
        count += 1;
    }
    (count, sorted)
}

/// The shift of a bitmap for that many entries, of at most `bits_max` bits.
fn shift(entries: usize, bits_max: usize) -> u32 {
    if entries == 0 {
        return 31;
    }
    let bits = (entries * BITMAP_BITS_PER_ENTRY).next_power_of_two();
    32 - bits.clamp(BITMAP_BITS_MIN, bits_max).ilog2()
}

/// Lines of the summary's narrow part: none of its words is full by chance.
fn narrow_lines(entries: &[V4Entry]) -> u32 {
    let narrow = entries
        .iter()
        .filter(|entry| entry.length > v4::WIDE_LENGTH_MAX);
    let lines = match narrow.count() {
        0 => 1,
        count => (count * NARROW_BITS_PER_ENTRY)
            .div_ceil(512)
            .max(NARROW_LINES_MIN),
    };
    u32::try_from(lines).unwrap_or(u32::MAX)
}

/// The longest length of areas of which not too many are touched, and how many those are at most.
fn areas(entries: &[V6Entry]) -> (u32, usize) {
    let most = (entries.len() + entries.len() / 2).max(AREAS_MIN);
    let mut by_length = [0usize; v6::LENGTHS];
    for entry in entries {
        by_length[usize::from(entry.length)] += 1;
    }
    let touched = |area_length: u32| {
        by_length
            .iter()
            .zip(0u32..)
            .fold(0usize, |sum, (count, length)| {
                let each = 1usize << area_length.saturating_sub(length).min(usize::BITS - 1);
                sum.saturating_add(count.saturating_mul(each))
            })
    };
    let lengths = (0..=v6::AREA_LENGTH_MAX).rev();
    let mut fitting = lengths.map(|length| (length, touched(length)));
    fitting
        .find(|(_, areas)| *areas <= most)
        .unwrap_or((0, entries.len()))
}

/// Sets bits of a table.
fn marking(lines: &mut [Line]) -> impl FnMut(u32, u32, u64) {
    |line, word, mask| lines[line as usize][word as usize] |= mask
}

fn bloom_lines_for(entries: usize) -> u32 {
    let lines = match entries {
        0 => 1,
        count => count.div_ceil(BLOOM_ENTRIES_PER_LINE).max(BLOOM_LINES_MIN),
    };
    u32::try_from(lines).unwrap_or(u32::MAX)
}

fn bloom(lines: u32, words: impl Iterator<Item = BloomWord>) -> Vec<Line> {
    let mut filter = vec![[0; 8]; lines as usize];
    for BloomWord { line, word, mask } in words {
        filter[line as usize][word as usize] |= mask;
    }
    filter
}
