//! Keys put into tables that a program is reading, as stores of single words.

use std::collections::{HashMap, hash_map::Entry};

use filter_common::{
    abi::{Line, Table},
    tables::{
        Lines,
        hash::BloomWord,
        names::{self, NameParams},
        v4::{self, V4Params},
        v6::{self, V6Params},
    },
};

use super::build::{Shape, V4Entry, V6Entry};

/// Bits of a line.
const LINE_BITS: u64 = 8 * size_of::<Line>() as u64;

/// One word of a table to be stored as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// The table.
    pub table: Table,
    /// Line of the table.
    pub line: u32,
    /// Word of the line.
    pub word: usize,
    /// What it will be.
    pub value: u64,
}

/// A table has no place for another key, or for another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full(pub(super) Table);

/// The tables in place, and the stores that are to change them. Reads as if these were done.
///
/// The stores are in an order in which a reader between any two of them finds each key either as it was
/// or as it will be.
pub(super) struct Edits<'a> {
    tables: [&'a [Line]; Table::ALL.len()],
    changed: HashMap<(Table, u32), Line>,
    stores: Vec<Store>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(tables: [&'a [Line]; Table::ALL.len()]) -> Self {
        Self {
            tables,
            changed: HashMap::new(),
            stores: Vec::new(),
        }
    }

    pub(super) fn into_stores(self) -> Vec<Store> {
        self.stores
    }

    /// Makes a key lead to `value`, whether it is there already or not.
    pub(super) fn put<S: Growing>(&mut self, shape: &S, entry: &S::Entry<'_>) -> Result<(), Full> {
        let hashed = shape.hash(entry);
        let value = S::value(entry);
        let pair = shape.bucket_pair(hashed);
        if let Some(present) = shape.probe(self, hashed) {
            let places = pair
                .iter()
                .flat_map(|b| (0..S::SLOTS).map(move |slot| (*b, slot)));
            for (bucket, slot) in places {
                let old = self.read(S::BUCKETS, bucket)?;
                let mut same = old;
                S::put(&mut same, slot, hashed, present);
                if same == old && !S::is_free(&old, slot) {
                    let mut new = old;
                    S::put(&mut new, slot, hashed, value);
                    return self.write(S::BUCKETS, bucket, new);
                }
            }
            return Err(Full(S::BUCKETS));
        }
        let [home, alternative] = pair;
        for bucket in [home, alternative] {
            let mut line = self.read(S::BUCKETS, bucket)?;
            let Some(slot) = (0..S::SLOTS).find(|slot| S::is_free(&line, *slot)) else {
                continue;
            };
            S::put(&mut line, slot, hashed, value);
            self.write(S::BUCKETS, bucket, line)?;
            if bucket != home {
                let mut line = self.read(S::BUCKETS, home)?;
                S::set_overflow(&mut line);
                self.write(S::BUCKETS, home, line)?;
            }
            let mut marked = Ok(());
            shape.mark(entry, hashed, |line, word, mask| {
                if marked.is_ok() {
                    marked = self.mark(S::SUMMARY, line, word, mask);
                }
            });
            return marked;
        }
        Err(Full(S::BUCKETS))
    }

    /// Makes the table begin with these lines.
    pub(super) fn put_lines(&mut self, table: Table, lines: &[Line]) -> Result<(), Full> {
        if lines.len() > self.tables[table as usize].len() {
            return Err(Full(table));
        }
        (0u32..)
            .zip(lines)
            .try_for_each(|(index, line)| self.write(table, index, *line))
    }

    fn mark(&mut self, table: Table, index: u32, word: u32, mask: u64) -> Result<(), Full> {
        let mut line = self.read(table, index)?;
        line[word as usize & 7] |= mask;
        self.write(table, index, line)
    }

    fn read(&self, table: Table, index: u32) -> Result<Line, Full> {
        self.line(table, index).copied().ok_or(Full(table))
    }

    /// Word by word from the first: an entry's last word is what makes it one.
    fn write(&mut self, table: Table, index: u32, line: Line) -> Result<(), Full> {
        let present = match self.changed.entry((table, index)) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                let line = self.tables[table as usize].get(index as usize);
                vacant.insert(*line.ok_or(Full(table))?)
            }
        };
        for (word, value) in line.into_iter().enumerate() {
            if present[word] != value {
                self.stores.push(Store {
                    table,
                    line: index,
                    word,
                    value,
                });
            }
        }
        *present = line;
        Ok(())
    }
}

impl Lines for Edits<'_> {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        match self.changed.get(&(table, index)) {
            Some(line) => Some(line),
            None => self.tables[table as usize].get(index as usize),
        }
    }
}

/// Whether the narrow part of an IPv4 summary has room for prefixes of these lengths.
pub(super) fn narrow_has_room(
    summary: &[Line],
    params: &V4Params,
    lengths: impl Iterator<Item = u8>,
) -> bool {
    // Two bits for each address.
    let bits = lengths
        .filter(|length| *length > v4::WIDE_LENGTH_MAX)
        .map(|length| 2u64 << (32 - u32::from(length)))
        .sum();
    has_room(summary, [params.narrow_at, params.narrow_lines], bits)
}

/// Whether the filter of areas of an IPv6 summary has room for prefixes of these lengths. A short one
/// is many areas.
pub(super) fn areas_have_room(
    summary: &[Line],
    params: &V6Params,
    lengths: impl Iterator<Item = u8>,
) -> bool {
    let bits = lengths.fold(0u64, |bits, length| {
        let missing = params.area_length.saturating_sub(u32::from(length));
        bits.saturating_add(4u64.checked_shl(missing).unwrap_or(u64::MAX))
    });
    has_room(summary, [params.bloom_lines, params.area_lines], bits)
}

/// Whether at most half of a filter's bits are set with `coming` more: it then still says no to most.
fn has_room(summary: &[Line], [at, count]: [u32; 2], coming: u64) -> bool {
    if coming == 0 {
        return true;
    }
    let lines = summary.iter().skip(at as usize).take(count as usize);
    let set: u64 = lines
        .flatten()
        .map(|word| u64::from(word.count_ones()))
        .sum();
    set.saturating_add(coming) <= u64::from(count) * LINE_BITS / 2
}

/// A bucket table to which keys can be added.
pub(super) trait Growing: Shape {
    const SUMMARY: Table;
    const BUCKETS: Table;
    fn is_free(bucket: &Line, slot: usize) -> bool;
    fn probe(&self, lines: &impl Lines, hashed: Self::Hashed) -> Option<u32>;
    /// Calls `set` for the bits of the summary that the key needs: line, word, mask.
    fn mark(&self, entry: &Self::Entry<'_>, hashed: Self::Hashed, set: impl FnMut(u32, u32, u64));
}

impl Growing for V4Params {
    const SUMMARY: Table = Table::V4Summary;
    const BUCKETS: Table = Table::V4Buckets;

    fn is_free(bucket: &Line, slot: usize) -> bool {
        v4::is_free(bucket, slot)
    }

    fn probe(&self, lines: &impl Lines, (addr, length): Self::Hashed) -> Option<u32> {
        v4::probe(lines, Self::BUCKETS, self, addr, length)
    }

    fn mark(&self, entry: &V4Entry, _: Self::Hashed, set: impl FnMut(u32, u32, u64)) {
        v4::mark(self, entry.addr, entry.length, set);
    }
}

impl Growing for V6Params {
    const SUMMARY: Table = Table::V6Summary;
    const BUCKETS: Table = Table::V6Buckets;

    fn is_free(bucket: &Line, slot: usize) -> bool {
        v6::is_free(bucket, slot)
    }

    fn probe(&self, lines: &impl Lines, (addr, length): Self::Hashed) -> Option<u32> {
        v6::probe(lines, Self::BUCKETS, self, addr, length)
    }

    fn mark(&self, entry: &V6Entry, _: Self::Hashed, set: impl FnMut(u32, u32, u64)) {
        v6::mark(self, entry.addr, entry.length, set);
    }
}

impl Growing for NameParams {
    const SUMMARY: Table = Table::NameSummary;
    const BUCKETS: Table = Table::NameBuckets;

    fn is_free(bucket: &Line, slot: usize) -> bool {
        names::is_free(bucket, slot)
    }

    fn probe(&self, lines: &impl Lines, fingerprint: Self::Hashed) -> Option<u32> {
        names::probe(lines, Self::BUCKETS, self, fingerprint)
    }

    fn mark(
        &self,
        _: &Self::Entry<'_>,
        fingerprint: Self::Hashed,
        mut set: impl FnMut(u32, u32, u64),
    ) {
        let BloomWord { line, word, mask } = names::bloom_word(self, fingerprint);
        set(line, word, mask);
    }
}
