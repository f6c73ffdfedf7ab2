//! Names found in a hello against the listed names.
//!
//! One pass over a name from its end gives the fingerprint of every suffix at a label boundary;
//! the listed ones are collected, then tried from the longest, which is the most specific.

use crate::{
    abi::{SetRef, Table},
    env::Rules,
    hit::{Hit, Listed},
    http::is_blank,
    limits::{NAME_BYTES_MAX, NAME_CANDIDATES_MAX, NAMES_PER_HELLO_MAX},
    tables::names::{self, Fingerprint, NameHash},
    tls::Step,
    work::{Memory, Span, Variable as _, Work},
};

/// Blanks at each end, trailing dots, and digits of a port, that are taken off a name.
const TRIM_MAX: usize = 8;

/// Marks a candidate that is the whole name; lengths and set indexes have fewer bits.
pub const WHOLE: u32 = 1 << 31;

/// Bytes of a name that one step hashes: most names are shorter. A loop over all of them, the
/// verifier would follow many times.
const STEP_BYTES: u32 = 32;

/// Steps that a whole name takes at most.
pub const STEPS_MAX: u32 = NAME_BYTES_MAX as u32 / STEP_BYTES + 1;

/// State of the walk over a name.
#[derive(Default)]
#[repr(C)]
pub struct Suffixes<M: Memory> {
    /// Where the name starts.
    at: M::Var,
    /// Its length, without port and trailing dots.
    len: M::Var,
    /// Length of the suffix hashed so far.
    done: M::Var,
    /// Kinds of bytes seen.
    kinds: M::Var,
    /// Its hash, see [`NameHash::lanes`].
    lanes: [u64; 2],
}

/// Prepares the walk that collects the rule sets that list the name at `index` or a domain above
/// it, for [`try_candidates`]; `false` if there is no walking it.
#[inline(always)]
pub fn begin<R: Rules, M: Memory>(rules: &R, work: &mut Work<M>, index: u32) -> bool {
    work.candidate_count.set(0);
    let span = trim(work, work.name(index));
    work.names[index as usize & (NAMES_PER_HELLO_MAX - 1)] = span;
    if span.len == 0 || span.len as usize > NAME_BYTES_MAX {
        work.odd_name.set(1);
    }
    if span.len == 0 {
        work.suffixes.kinds.set(LETTER);
        return false;
    }
    // No listed name is longer, so the end of a longer one has all suffixes that can be.
    let len = span.len.min(NAME_BYTES_MAX as u32);
    work.suffixes.kinds.set(0);
    work.suffixes.at.set(span.at + span.len - len);
    work.suffixes.len.set(len);
    work.suffixes.done.set(0);
    work.suffixes.lanes = NameHash::new(&rules.config().names).lanes();
    true
}

/// Hashes some bytes, from the end of the name. `collect_suffix` is [`collect_suffix`], behind a
/// function boundary in the kernel: it takes a suffix's lanes, its length and [`WHOLE`] for the
/// whole name.
#[inline(always)]
pub fn step<R: Rules, M: Memory>(
    rules: &R,
    work: &mut Work<M>,
    collect_suffix: impl Fn(&mut Work<M>, [u64; 2], u32),
) -> Step {
    // What is read from memory again and again needs no stack across the calls, of which there is
    // little this deep.
    let mut lanes = work.suffixes.lanes;
    for _ in 0..STEP_BYTES {
        let done = work.suffixes.done.get();
        if done >= work.suffixes.len.get() {
            collect_suffix(work, lanes, done | WHOLE);
            return Step::Done;
        }
        work.suffixes.done.set(done + 1);
        let end = work.suffixes.at.get() + work.suffixes.len.get();
        let folded = FOLDED[work.byte(end - 1 - done) as usize];
        let byte = folded as u8;
        let kinds = u32::from(folded >> 8);
        work.suffixes.kinds.set(work.suffixes.kinds.get() | kinds);
        if byte == b'.' {
            collect_suffix(work, lanes, done);
        }
        let mut hash = NameHash::resume(&rules.config().names, lanes);
        hash.push(byte);
        lanes = hash.lanes();
    }
    work.suffixes.lanes = lanes;
    Step::Again
}

/// Notes whether the name walked over is odd, or an address: IPv4 has digits and dots only, which no
/// name has, since no top-level domain is a number; and only IPv6 has colons once a port is taken off.
#[inline(always)]
pub fn finish<M: Memory>(work: &Work<M>) {
    let kinds = work.suffixes.kinds.get();
    if kinds & LETTER == 0 || kinds & COLON != 0 {
        work.literal_name.set(1);
    } else if kinds & ODD != 0 {
        work.odd_name.set(1);
    }
}

/// Tries the collected rule sets, the longest suffix first: the deciding rule for the name.
/// `listed` is [`crate::hit::listed`], behind a function boundary in the kernel.
#[inline(always)]
pub fn try_candidates<M: Memory>(work: &Work<M>, listed: impl Fn(u32, u32, u16) -> Listed) -> Hit {
    for turn in 0..NAME_CANDIDATES_MAX as u32 {
        // Read again in each turn: of a count in a register the compiler makes the loop's only
        // bound, and the verifier of Linux 6.1 does not know how large that is.
        let count = work.candidate_count.get();
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
        match listed(candidate & !WHOLE, kinds, work.candidate_lens[slot]) {
            Listed::Decided(hit) => return hit,
            Listed::Nothing => {}
        }
    }
    Hit::NONE
}

/// Takes blanks at both ends, a port and trailing dots off.
#[inline(always)]
pub fn trim<M: Memory>(work: &Work<M>, span: Span) -> Span {
    let Span { mut at, mut len } = span;
    for _ in 0..TRIM_MAX {
        if len == 0 || !is_blank(work.byte(at)) {
            break;
        }
        at += 1;
        len -= 1;
    }
    for _ in 0..TRIM_MAX {
        if len == 0 || !is_blank(work.byte(at + len - 1)) {
            break;
        }
        len -= 1;
    }
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

/// Kinds of bytes: no host name has it; it is no digit and no dot; it is a colon.
const ODD: u32 = 1 << 0;
const LETTER: u32 = 1 << 1;
const COLON: u32 = 1 << 2;

/// In the low half bytes as they are hashed: lower case, and odd ones with the top bit, by which they
/// differ from all bytes of listed names; in the high half their kinds. A table, since every comparison
/// would be one more way through the loop for the verifier to follow.
static FOLDED: [u16; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0;
    while byte < folded.len() {
        let lower = (byte as u8).to_ascii_lowercase();
        let (mut hashed, mut kinds) = (lower, 0);
        if !is_hostname_byte(lower) && lower != b'.' {
            hashed |= 0x80;
            kinds |= ODD;
        }
        if !lower.is_ascii_digit() && lower != b'.' {
            kinds |= LETTER;
        }
        if lower == b':' {
            kinds |= COLON;
        }
        folded[byte] = (kinds as u16) << 8 | hashed as u16;
        byte += 1;
    }
    folded
};

const fn is_hostname_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Notes the rule set listed under a suffix with these [`NameHash::lanes`], if there is one. `len_and_whole` is
/// the suffix's length in bytes and [`WHOLE`] for the whole name.
///
/// Touches one line of the summary, and of the buckets as [`names::probe`] says.
#[inline(always)]
pub fn collect_suffix<R: Rules, M: Memory>(
    rules: &R,
    work: &mut Work<M>,
    lanes: [u64; 2],
    len_and_whole: u32,
) {
    let params = &rules.config().names;
    let fingerprint = Fingerprint::of_lanes(lanes);
    if !names::maybe(rules, Table::NameSummary, params, fingerprint) {
        return;
    }
    let Some(set) = names::probe(rules, Table::NameBuckets, params, fingerprint) else {
        return;
    };
    let count = work.candidate_count.get();
    let slot = count as usize & (NAME_CANDIDATES_MAX - 1);
    work.candidates[slot] = set | len_and_whole & WHOLE;
    work.candidate_lens[slot] = len_and_whole as u16;
    work.candidate_count.set(count + 1);
}
