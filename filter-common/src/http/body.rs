//! What follows a request head: how long its body is, and where the next head begins.

use super::{is_blank, phase};
use crate::{
    hello::Progress,
    limits::BODY_BYTES_MAX,
    work::{Memory, Variable as _, Work},
};

/// Fields that matter, as they are looked for: what a body is like is in the last three.
pub(super) const FIELDS: [[u8; FIELD_BYTES]; 4] = [
    padded(b"host:"),
    padded(b"content-length:"),
    padded(b"transfer-encoding:"),
    padded(b"expect:"),
];
pub(super) const FIELD_BYTES: usize = 32;
pub(super) const HOST: u32 = 0;
pub(super) const CONTENT_LENGTH: u32 = 1;
pub(super) const TRANSFER_ENCODING: u32 = 2;
pub(super) const EXPECT: u32 = 3;

const fn padded(name: &[u8]) -> [u8; FIELD_BYTES] {
    let mut bytes = [0; FIELD_BYTES];
    let mut at = 0;
    while at < name.len() {
        bytes[at] = name[at];
        at += 1;
    }
    bytes
}

/// How the body behind a head ends.
pub(super) mod framing {
    /// There is none.
    pub(in crate::http) const NONE: u32 = 0;
    /// After a stated length.
    pub(in crate::http) const LENGTH: u32 = 1;
    /// Servers may disagree.
    pub(in crate::http) const UNKNOWN: u32 = 2;
}

/// What follows the complete heads of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Where the last of them ends.
    pub behind: u32,
    /// Where the next one begins: at the end of what was walked over, or beyond it.
    pub next: u32,
    /// Whether that is known.
    pub known: bool,
}

/// What follows the complete heads of a walk that found some.
#[inline(always)]
pub fn rest<M: Memory>(work: &Work<M>) -> Rest {
    let head = &work.head;
    Rest {
        behind: head.behind.get(),
        // Empty lines may come before it.
        next: head.next.get().max(head.end.get()),
        known: head.next_known.get() != 0,
    }
}

/// Goes on to where the next head is; `false` if a stream that is known to start has more readings there than
/// are tried.
#[inline(always)]
pub(super) fn go_on_behind<M: Memory>(work: &Work<M>) -> bool {
    let head = &work.head;
    if head.behind_body.get() != 0 {
        // What may be a body is read on; a head in it that has a body in its turn nobody sends who means well.
        let bare = head.framing.get() != framing::UNKNOWN && head.length.get() == 0;
        return bare || head.began_certain.get() == 0;
    }
    let behind = head.at.get();
    let next = behind + head.length.get();
    head.behind.set(behind);
    head.next_known.set(0);
    if head.framing.get() == framing::UNKNOWN {
        return true;
    }
    if next != behind && head.with_body.get() == 0 {
        if next <= head.end.get() && head.rewound.get() == 0 {
            head.behind_body.set(next);
        }
        return true;
    }
    head.next.set(next);
    head.next_known.set(1);
    head.at.set(next);
    true
}

/// Goes on behind the body of a GET or the like, which some servers leave for the next request: so
/// it was read as one first. Once in a walk; `false` if there is nothing to go on to.
#[inline(always)]
pub(super) fn rewind<M: Memory>(work: &Work<M>) -> bool {
    let head = &work.head;
    let next = head.behind_body.get();
    if next == 0 {
        return false;
    }
    work.name_count.set(head.names_complete.get());
    head.behind_body.set(0);
    head.rewound.set(1);
    head.next.set(next);
    head.next_known.set(1);
    head.at.set(next);
    head.phase.set(phase::LEADING_LINES);
    head.certain.set(0);
    true
}

/// Whether the method that ends at `at` is POST, PUT or PATCH, whose bodies servers read.
#[inline(always)]
pub(super) fn takes_body<M: Memory>(work: &Work<M>, at: u32) -> bool {
    let method = work.head.method.get();
    let begins = work.be24(method);
    match at.wrapping_sub(method) {
        3 => begins == 0x50_55_54,
        4 => begins == 0x50_4f_53 && work.byte(method + 3) == b'T',
        5 => begins == 0x50_41_54 && work.be16(method + 3) == 0x43_48,
        _ => false,
    }
}

/// In the value of Content-Length: digits, with blanks around them. Servers disagree about
/// anything else.
#[inline(always)]
pub(super) fn length<M: Memory>(work: &Work<M>, byte: u8) -> Option<Progress> {
    let head = &work.head;
    let phase = head.phase.get();
    if byte.is_ascii_digit() && phase != phase::BEHIND_LENGTH {
        let digits = head.length.get();
        let length = digits.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
        if digits < BODY_BYTES_MAX / 10 {
            head.length.set(length);
            head.phase.set(phase::LENGTH);
            return None;
        }
    }
    let begun = phase != phase::BEFORE_LENGTH;
    if is_blank(byte) || byte == b'\r' && begun {
        if begun {
            head.phase.set(phase::BEHIND_LENGTH);
        }
        return None;
    }
    let line_feed = byte == b'\n';
    if !line_feed || !begun {
        head.framing.set(framing::UNKNOWN);
    }
    head.phase.set(if line_feed {
        phase::LINE_START
    } else {
        phase::REST_OF_LINE
    });
    None
}
