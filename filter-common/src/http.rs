//! The hosts that an HTTP/1 request head names (RFC 9112): its Host fields and the authority
//! of its target.
//!
//! One walk over the bytes, as lenient as the most lenient server: leading empty lines, bare
//! line feeds, any method, blanks and tabs, folded lines, lists of hosts. Cut into steps of
//! [`STEP_BYTES`] that a driver repeats, as in [`crate::tls`].
//!
//! Behind a complete head the walk goes on to the next one if all servers agree where that is:
//! directly, or behind a body of a stated length. Where they may not (chunks, two lengths) it only
//! looks whether another head follows directly.

mod body;

use body::{
    CONTENT_LENGTH, EXPECT, FIELD_BYTES, FIELDS, HOST, TRANSFER_ENCODING, framing, go_on_behind,
    length, rewind, takes_body,
};
pub use body::{Rest, rest};

use crate::{
    hello::Progress,
    limits::STREAM_BYTES_MAX,
    tls::Step,
    work::{Memory, Variable as _, Work},
};

/// Bytes of a line's uninteresting rest that one step skips.
const SKIPPED_BYTES: u32 = 64;

/// Bytes that one step looks at one by one. Each is verified with all that may be done about it,
/// which is much.
const STEP_BYTES: u32 = 16;

/// Steps that a whole stream takes at most, gone through twice, see [`rewind`].
pub const STEPS_MAX: u32 = 2 * (STREAM_BYTES_MAX as u32 / STEP_BYTES + 1);

/// Longest method in mid-stream; the registry's longest has 17 letters. Where a stream is known to start
/// it may have any length: nginx and hyper take them, and forward the request.
const METHOD_LEN_MAX: u32 = 32;

/// Where the walk is.
mod phase {
    pub(super) const LEADING_LINES: u32 = 0;
    pub(super) const METHOD: u32 = 1;
    pub(super) const BEFORE_TARGET: u32 = 2;
    pub(super) const AUTHORITY: u32 = 3;
    pub(super) const AFTER_SCHEME: u32 = 4;
    pub(super) const TARGET: u32 = 5;
    pub(super) const LINE_START: u32 = 6;
    pub(super) const EMPTY_LINE: u32 = 7;
    pub(super) const FIELD_NAME: u32 = 8;
    pub(super) const BEFORE_VALUE: u32 = 9;
    pub(super) const VALUE: u32 = 10;
    pub(super) const REST_OF_LINE: u32 = 11;
    pub(super) const VERSION: u32 = 12;
    pub(super) const BEFORE_LENGTH: u32 = 13;
    pub(super) const LENGTH: u32 = 14;
    pub(super) const BEHIND_LENGTH: u32 = 15;
}

/// State of the walk.
#[derive(Default)]
#[repr(C)]
pub struct Head<M: Memory> {
    at: M::Var,
    end: M::Var,
    phase: M::Var,
    /// Where the method starts.
    method: M::Var,
    /// Where the target starts.
    target: M::Var,
    /// Where the method, authority, version, field name or value starts.
    mark: M::Var,
    /// Behind the last byte of a value that is not blank.
    value_end: M::Var,
    /// Whether a Host field's value has not begun yet, so that a folded line may bring it.
    value_pending: M::Var,
    /// Whether the stream is known to start with this head.
    certain: M::Var,
    /// Whether it was known when the walk began.
    began_certain: M::Var,
    /// How many names complete heads have given.
    names_complete: M::Var,
    /// Which of [`FIELDS`] the line may be.
    field: M::Var,
    /// One of [`framing`].
    framing: M::Var,
    /// The stated length of the body.
    length: M::Var,
    /// Nonzero if the method is one that comes with a body.
    with_body: M::Var,
    /// Where to go on behind what may be a body, see [`rewind`]; 0 for nowhere.
    behind_body: M::Var,
    /// Nonzero if that was done.
    rewound: M::Var,
    /// Nonzero as long as a value is the same as the name before.
    repeated: M::Var,
    /// Where the last complete head ends.
    behind: M::Var,
    /// Where the next one begins.
    next: M::Var,
    /// Nonzero if that is known.
    next_known: M::Var,
    progress: M::Var,
}

/// Whether a payload that starts with `first` can be the start of a request.
#[inline(always)]
pub const fn can_start_with(first: u8) -> bool {
    is_token(first) || first == b'\r' || first == b'\n'
}

/// RFC 9110, section 5.6.2.
#[inline(always)]
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[inline(always)]
pub(crate) const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Prepares the walk over the first `end` bytes of the stream; the progress if that decides.
///
/// If the stream is not known to start here (`certain`), a request must have a version: the middle
/// of a body is not to be taken for one.
#[inline(always)]
pub fn begin<M: Memory>(work: &Work<M>, end: u32, certain: bool) -> Option<Progress> {
    // RFC 9113, section 3.4: the preface's first line is `PRI * HTTP/2.0`.
    let begins = work.begins.get();
    if end >= begins + 6 && work.be24(begins) == 0x50_52_49 && work.be24(begins + 3) == 0x20_2a_20 {
        return Some(Progress::Http2);
    }
    let head = &work.head;
    head.at.set(begins);
    head.end.set(end);
    head.phase.set(phase::LEADING_LINES);
    head.method.set(0);
    head.target.set(0);
    head.mark.set(0);
    head.value_end.set(0);
    head.value_pending.set(0);
    head.certain.set(certain as u32);
    head.began_certain.set(certain as u32);
    head.next_known.set(0);
    head.behind_body.set(0);
    head.rewound.set(0);
    head.progress.set(Progress::Incomplete as u32);
    None
}

/// The outcome of the walk.
#[inline(always)]
pub fn finish<M: Memory>(work: &Work<M>) -> Progress {
    let head = &work.head;
    let progress = Progress::from_u8(head.progress.get() as u8);
    if !matches!(progress, Progress::Named | Progress::NoName) {
        return progress;
    }
    if head.next_known.get() != 0 && head.phase.get() != phase::LEADING_LINES {
        // The beginning of another request is there.
        return Progress::Incomplete;
    }
    // Not what looked like the beginning of another head behind the last.
    work.name_count.set(head.names_complete.get());
    progress
}

/// Looks at the next bytes.
#[inline(always)]
pub fn step<M: Memory>(work: &mut Work<M>) -> Step {
    if work.head.phase.get() == phase::REST_OF_LINE {
        skip(work);
    }
    for _ in 0..STEP_BYTES {
        let at = work.head.at.get();
        if at >= work.head.end.get() {
            return if rewind(work) {
                Step::Again
            } else {
                Step::Done
            };
        }
        let byte = work.byte(at);
        work.head.at.set(at + 1);
        if let Some(progress) = one_byte(work, at, byte)
            && ends(work, progress)
        {
            return Step::Done;
        }
    }
    Step::Again
}

/// Whether the walk ends with `progress`. Behind a complete head there may be another, pipelined
/// one; what is not one is the first one's body, or the next's beginning.
#[inline(always)]
fn ends<M: Memory>(work: &Work<M>, progress: Progress) -> bool {
    let head = &work.head;
    let mut complete = matches!(progress, Progress::Named | Progress::NoName);
    let mut progress = progress;
    if complete {
        head.names_complete.set(work.name_count.get());
        if !go_on_behind(work) {
            complete = false;
            progress = Progress::Malformed;
        }
    } else if progress as u32 == Progress::Other as u32 && rewind(work) {
        return false;
    } else {
        head.next_known.set(0);
    }
    let first = head.progress.get() == Progress::Incomplete as u32;
    // More names than are looked up must not hide the last.
    let hides = progress as u32 == Progress::Malformed as u32 && head.began_certain.get() != 0;
    if complete || first || hides {
        head.progress.set(progress as u32);
    }
    head.phase.set(phase::LEADING_LINES);
    head.certain.set(0);
    !complete
}

/// Goes on to the line feed, if it is near.
#[inline(always)]
fn skip<M: Memory>(work: &Work<M>) {
    let (at, end) = (work.head.at.get(), work.head.end.get());
    for skipped in 0..SKIPPED_BYTES {
        let next = at + skipped;
        if next >= end || work.byte(next) == b'\n' {
            work.head.at.set(next);
            return;
        }
    }
    work.head.at.set(at + SKIPPED_BYTES);
}

#[inline(always)]
fn one_byte<M: Memory>(work: &mut Work<M>, at: u32, byte: u8) -> Option<Progress> {
    let line_feed = byte == b'\n';
    match work.head.phase.get() {
        phase::REST_OF_LINE => {
            if line_feed {
                work.head.phase.set(phase::LINE_START);
            }
            None
        }
        phase::LINE_START => line_start(work, byte),
        phase::FIELD_NAME => field_name(work, at, byte),
        phase::BEFORE_VALUE => {
            if line_feed {
                work.head.phase.set(phase::LINE_START);
            } else if !is_blank(byte) && byte != b'\r' && byte != b',' {
                work.head.value_pending.set(0);
                work.head.mark.set(at);
                work.head.value_end.set(at);
                work.head.repeated.set(1);
                work.head.phase.set(phase::VALUE);
                return value(work, at, byte);
            }
            None
        }
        phase::VALUE => value(work, at, byte),
        phase::TARGET => end_of_target(work, byte),
        phase::AUTHORITY => authority(work, at, byte),
        phase::AFTER_SCHEME if byte == b'/' => {
            work.head.mark.set(at + 1);
            work.head.phase.set(phase::AUTHORITY);
            None
        }
        phase::AFTER_SCHEME => {
            work.head.phase.set(phase::TARGET);
            end_of_target(work, byte)
        }
        phase::VERSION => version(work, at, byte),
        phase::METHOD => {
            if is_blank(byte) {
                work.head.with_body.set(takes_body(work, at) as u32);
                work.head.phase.set(phase::BEFORE_TARGET);
                return None;
            }
            let long = work.head.certain.get() == 0 && at - work.head.mark.get() >= METHOD_LEN_MAX;
            (long || !is_token(byte)).then_some(Progress::Other)
        }
        phase::BEFORE_TARGET => before_target(work, at, byte),
        phase::EMPTY_LINE => {
            if line_feed {
                return Some(complete(work));
            }
            work.head.phase.set(phase::REST_OF_LINE);
            None
        }
        phase::BEFORE_LENGTH | phase::LENGTH | phase::BEHIND_LENGTH => length(work, byte),
        _ => leading_lines(work, at, byte),
    }
}

#[inline(always)]
fn leading_lines<M: Memory>(work: &Work<M>, at: u32, byte: u8) -> Option<Progress> {
    if byte == b'\r' || byte == b'\n' {
        return None;
    }
    if !is_token(byte) {
        return Some(Progress::Other);
    }
    work.head.method.set(at);
    work.head.mark.set(at);
    work.head.framing.set(framing::NONE);
    work.head.length.set(0);
    work.head.phase.set(phase::METHOD);
    None
}

#[inline(always)]
fn before_target<M: Memory>(work: &Work<M>, at: u32, byte: u8) -> Option<Progress> {
    if is_blank(byte) {
        return None;
    }
    if byte == b'\r' || byte == b'\n' {
        return Some(Progress::Other);
    }
    work.head.mark.set(at);
    work.head.target.set(at);
    let origin_form = byte == b'/' || byte == b'*';
    work.head.phase.set(if origin_form {
        phase::TARGET
    } else {
        phase::AUTHORITY
    });
    None
}

/// In what may be a scheme, user information or the authority itself (RFC 9112, section 3.2).
#[inline(always)]
fn authority<M: Memory>(work: &mut Work<M>, at: u32, byte: u8) -> Option<Progress> {
    match byte {
        b'@' => {
            work.head.mark.set(at + 1);
            None
        }
        // Behind the scheme; behind an authority the colon is that of an empty port.
        b'/' if work.byte(at.wrapping_sub(1)) == b':'
            && work.head.mark.get() == work.head.target.get() =>
        {
            work.head.phase.set(phase::AFTER_SCHEME);
            None
        }
        b'/' | b'?' | b'#' | b' ' | b'\t' | b'\r' | b'\n' => {
            let mark = work.head.mark.get();
            let first = mark == work.head.target.get();
            if byte == b'/' && first && at - mark == 4 && work.be24(mark) == 0x48_54_54 {
                // A request without a target: this is the version.
                work.head.phase.set(phase::REST_OF_LINE);
                return None;
            }
            if at > mark && !work.add_name(mark, at - mark) {
                return Some(Progress::Malformed);
            }
            work.head.phase.set(phase::TARGET);
            end_of_target(work, byte)
        }
        _ => None,
    }
}

/// A blank leads to the version; a line that ends without one is a complete HTTP/0.9 request.
#[inline(always)]
fn end_of_target<M: Memory>(work: &Work<M>, byte: u8) -> Option<Progress> {
    if byte == b'\n' {
        return Some(without_version(work));
    }
    if is_blank(byte) {
        work.head.mark.set(work.head.at.get());
        work.head.phase.set(phase::VERSION);
    }
    None
}

/// HTTP/0.9, which knows GET only. Other protocols' command lines look like it.
#[inline(always)]
fn without_version<M: Memory>(work: &Work<M>) -> Progress {
    let get = work.be24(work.head.method.get()) == 0x47_45_54;
    if work.head.certain.get() != 0 && get {
        complete(work)
    } else {
        Progress::Other
    }
}

/// `HTTP/` (RFC 9112, section 2.3). Anything else still belongs to the target, for servers that
/// take blanks in it.
#[inline(always)]
fn version<M: Memory>(work: &Work<M>, at: u32, byte: u8) -> Option<Progress> {
    let expected = match at - work.head.mark.get() {
        0 => b'H',
        1 | 2 => b'T',
        3 => b'P',
        _ => b'/',
    };
    if byte == expected {
        if byte == b'/' {
            work.head.phase.set(phase::REST_OF_LINE);
        }
        return None;
    }
    if at == work.head.mark.get() && is_blank(byte) {
        work.head.mark.set(at + 1);
        return None;
    }
    if work.head.certain.get() == 0 {
        return Some(Progress::Other);
    }
    work.head.phase.set(phase::TARGET);
    end_of_target(work, byte)
}

#[inline(always)]
fn line_start<M: Memory>(work: &Work<M>, byte: u8) -> Option<Progress> {
    let pending = work.head.value_pending.get() != 0;
    let next = match byte {
        b'\n' => return Some(complete(work)),
        b'\r' => phase::EMPTY_LINE,
        b' ' | b'\t' if pending => phase::BEFORE_VALUE,
        b' ' | b'\t' => {
            // More of the line before, which may have been about the body.
            work.head.framing.set(framing::UNKNOWN);
            phase::REST_OF_LINE
        }
        b'h' | b'H' => may_be(work, HOST),
        b'c' | b'C' => may_be(work, CONTENT_LENGTH),
        b't' | b'T' => may_be(work, TRANSFER_ENCODING),
        b'e' | b'E' => may_be(work, EXPECT),
        _ => phase::REST_OF_LINE,
    };
    if next != phase::BEFORE_VALUE {
        work.head.value_pending.set(0);
    }
    work.head.phase.set(next);
    None
}

/// The line may be this field.
#[inline(always)]
fn may_be<M: Memory>(work: &Work<M>, field: u32) -> u32 {
    work.head.mark.set(work.head.at.get() - 1);
    work.head.field.set(field);
    phase::FIELD_NAME
}

#[inline(always)]
fn field_name<M: Memory>(work: &Work<M>, at: u32, byte: u8) -> Option<Progress> {
    let field = work.head.field.get();
    let offset = at.wrapping_sub(work.head.mark.get());
    let name = &FIELDS[field as usize & (FIELDS.len() - 1)];
    let expected = name[offset as usize & (FIELD_BYTES - 1)];
    if byte.to_ascii_lowercase() == expected {
        if expected == b':' {
            field_found(work, field);
        }
        return None;
    }
    work.head.phase.set(if byte == b'\n' {
        phase::LINE_START
    } else {
        phase::REST_OF_LINE
    });
    None
}

/// The name of one of [`FIELDS`] is complete.
#[inline(always)]
fn field_found<M: Memory>(work: &Work<M>, field: u32) {
    let head = &work.head;
    if field == HOST {
        head.value_pending.set(1);
        head.phase.set(phase::BEFORE_VALUE);
        return;
    }
    if field == CONTENT_LENGTH && head.framing.get() == framing::NONE {
        head.framing.set(framing::LENGTH);
        head.phase.set(phase::BEFORE_LENGTH);
        return;
    }
    head.framing.set(framing::UNKNOWN);
    head.phase.set(phase::REST_OF_LINE);
}

#[inline(always)]
fn value<M: Memory>(work: &mut Work<M>, at: u32, byte: u8) -> Option<Progress> {
    compare_with_last(work, at, byte);
    // HAProxy takes a NUL as well.
    if is_blank(byte) || byte == b'\r' || byte == 0 {
        return None;
    }
    if byte != b'\n' && byte != b',' {
        work.head.value_end.set(at + 1);
        return None;
    }
    let mark = work.head.mark.get();
    let len = work.head.value_end.get().wrapping_sub(mark);
    if !repeats_last(work, len) && !work.add_name(mark, len) {
        return Some(Progress::Malformed);
    }
    work.head.phase.set(if byte == b'\n' {
        phase::LINE_START
    } else {
        phase::BEFORE_VALUE
    });
    None
}

/// Clients that pipeline name the same host again and again, which is one name.
#[inline(always)]
fn compare_with_last<M: Memory>(work: &Work<M>, at: u32, byte: u8) {
    let last = work.name(work.name_count.get().wrapping_sub(1));
    let offset = at.wrapping_sub(work.head.mark.get());
    if offset < last.len && work.byte(last.at.wrapping_add(offset)) != byte {
        work.head.repeated.set(0);
    }
}

/// Whether a value of `len` bytes is the same as the name before.
#[inline(always)]
fn repeats_last<M: Memory>(work: &Work<M>, len: u32) -> bool {
    let count = work.name_count.get();
    count != 0 && work.head.repeated.get() != 0 && work.name(count.wrapping_sub(1)).len == len
}

#[inline(always)]
fn complete<M: Memory>(work: &Work<M>) -> Progress {
    if work.name_count.get() == 0 {
        Progress::NoName
    } else {
        Progress::Named
    }
}

#[cfg(test)]
mod tests;
