//! Names found in a hello against the listed names.
//!
//! One pass over a name from its end gives the fingerprint of every suffix at a label boundary;
//! the listed ones are collected, then tried from the longest, which is the most specific.

use crate::{
    abi::{SetRef, Table},
    env::Rules,
    hit::{Hit, Listed, Qualifiers, listed},
    limits::{NAME_BYTES_MAX, NAME_CANDIDATES_MAX, NAMES_PER_HELLO_MAX},
    tables::names::{self, NameHash},
    work::{Memory, Span, Variable as _, Work},
};

/// Trailing dots, and digits of a port, that are taken off a name.
const TRIM_MAX: usize = 8;

/// Marks a candidate that is the whole name; set indexes have 25 bits.
const WHOLE: u32 = 1 << 31;

/// The strongest rule for the names found in the hello.
#[inline(always)]
pub fn search<R: Rules, M: Memory>(rules: &R, work: &mut Work<M>, qualifiers: Qualifiers) -> Hit {
    let mut best = Hit::NONE;
    for index in 0..NAMES_PER_HELLO_MAX as u32 {
        if index >= work.name_count.get() {
            break;
        }
        let hit = search_one(rules, work, index, qualifiers);
        if hit > best {
            best = hit;
            work.name_reported.set(index);
        }
    }
    best
}

/// The deciding rule for the name at `index`.
#[inline(always)]
pub fn search_one<R: Rules, M: Memory>(
    rules: &R,
    work: &mut Work<M>,
    index: u32,
    qualifiers: Qualifiers,
) -> Hit {
    let span = trim(work, work.name(index));
    work.names[index as usize & (NAMES_PER_HELLO_MAX - 1)] = span;
    if span.len == 0 || span.len as usize > NAME_BYTES_MAX {
        work.odd_name.set(1);
        return Hit::NONE;
    }
    collect(rules, work, span);
    try_candidates(rules, work, qualifiers)
}

/// Takes a port and trailing dots off. Blanks around a name are taken off where it is found.
#[inline(always)]
pub fn trim<M: Memory>(work: &Work<M>, span: Span) -> Span {
    let Span { at, mut len } = span;
    let mut digits = 0;
    for _ in 0..TRIM_MAX {
        if digits >= len || !work.byte(at + len - 1 - digits).is_ascii_digit() {
            break;
        }
        digits += 1;
    }
    if digits < len && work.byte(at + len - 1 - digits) == b':' {
        len -= digits + 1;
    }
    for _ in 0..TRIM_MAX {
        if len == 0 || work.byte(at + len - 1) != b'.' {
            break;
        }
        len -= 1;
    }
    Span { at, len }
}

/// Collects the rule sets of all listed suffixes.
#[inline(always)]
fn collect<R: Rules, M: Memory>(rules: &R, work: &mut Work<M>, span: Span) {
    let mut hash = NameHash::new(&rules.config().names);
    work.candidate_count.set(0);
    for done in 0..NAME_BYTES_MAX as u32 {
        if done >= span.len {
            break;
        }
        let byte = work.byte(span.at + span.len - 1 - done).to_ascii_lowercase();
        if byte == b'.' {
            collect_suffix(rules, work, &hash, done, 0);
        } else if !is_hostname_byte(byte) {
            work.odd_name.set(1);
        }
        hash.push(byte);
    }
    collect_suffix(rules, work, &hash, span.len, WHOLE);
}

#[inline(always)]
const fn is_hostname_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[inline(always)]
fn collect_suffix<R: Rules, M: Memory>(rules: &R, work: &mut Work<M>, hash: &NameHash, len: u32, whole: u32) {
    let params = &rules.config().names;
    let fingerprint = hash.finish();
    if !names::maybe(rules, Table::NameSummary, params, fingerprint) {
        return;
    }
    let Some(set) = names::probe(rules, Table::NameBuckets, params, fingerprint) else {
        return;
    };
    let count = work.candidate_count.get();
    let slot = count as usize & (NAME_CANDIDATES_MAX - 1);
    work.candidates[slot] = set | whole;
    work.candidate_lens[slot] = len as u16;
    work.candidate_count.set(count + 1);
}

/// Tries the collected rule sets, the longest suffix first.
#[inline(always)]
fn try_candidates<R: Rules, M: Memory>(rules: &R, work: &Work<M>, qualifiers: Qualifiers) -> Hit {
    let count = work.candidate_count.get();
    for turn in 0..NAME_CANDIDATES_MAX as u32 {
        if turn >= count {
            break;
        }
        let slot = (count - 1 - turn) as usize & (NAME_CANDIDATES_MAX - 1);
        let candidate = work.candidates[slot];
        let kinds = if candidate & WHOLE != 0 {
            SetRef::EXACT | SetRef::SUBTREE
        } else {
            SetRef::SUBTREE
        };
        let specificity = work.candidate_lens[slot];
        match listed(rules, candidate & !WHOLE, kinds, specificity, qualifiers) {
            Listed::Decided(hit) => return hit,
            Listed::Nothing => {}
        }
    }
    Hit::NONE
}
