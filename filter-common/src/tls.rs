//! The server names of a TLS ClientHello (RFC 8446, RFC 6066) over any number of records.
//!
//! Two walks over [`Work::bytes`], each cut into short steps that a driver repeats: the kernel
//! with `bpf_loop`, the host with `for`. [`Records`] finds the end of the handshake message and,
//! if several records carry it, puts it together; [`Extensions`] finds the names in it. The
//! usual hello lies in one record and is read in place.
//!
//! A record's version is not looked at: Go and Java serve a hello under any, rustls under some.

use crate::{
    hello::Progress,
    limits::{EMPTY_RECORDS_MAX, HELLO_BYTES_MAX, NAMES_PER_HELLO_MAX},
    work::{HANDSHAKE_AT, Memory, Variable as _, Work},
};

const RECORD_HEADER_LEN: u32 = 5;
const RECORD_ALERT: u8 = 0x15;
const RECORD_HANDSHAKE: u8 = 0x16;
/// RFC 5246, section 6.2.3: 2^14 bytes and what an old cipher may add; more is refused by all.
const RECORD_LEN_MAX: u32 = 16_384 + 2_048;

const HANDSHAKE_HEADER_LEN: u32 = 4;
const CLIENT_HELLO: u8 = 0x01;
const LEGACY_VERSION_AND_RANDOM_LEN: u32 = 2 + 32;

const EXTENSION_SERVER_NAME: u32 = 0x0000;
/// RFC 9849, section 5: also what browsers send as a decoy.
const EXTENSION_ENCRYPTED_CLIENT_HELLO: u32 = 0xfe0d;
const NAME_TYPE_HOST: u8 = 0x00;

/// Whether a step wants another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Repeat.
    Again,
    /// The walk's `progress` stands.
    Done,
}

/// Whether a payload that starts with `first` can be the start of a TLS stream.
#[inline(always)]
pub const fn can_start_with(first: u8) -> bool {
    first == RECORD_HANDSHAKE || first == RECORD_ALERT
}

/// Whether a stream that was read begins with an alert, and has nothing of a hello yet.
#[inline(always)]
pub fn only_alerts<M: Memory>(work: &Work<M>) -> bool {
    work.byte(work.begins.get()) == RECORD_ALERT && work.records.gathered.get() == 0
}

/// State of the walk over records.
#[derive(Default)]
#[repr(C)]
pub struct Records<M: Memory> {
    /// Where the next record header starts.
    at: M::Var,
    /// Where the stream ends so far.
    end: M::Var,
    /// Handshake bytes put together so far.
    gathered: M::Var,
    /// Records of no use: empty ones and alerts.
    empty: M::Var,
    /// [`Progress`] discriminant.
    progress: M::Var,
}

/// State of the walk over extensions.
#[derive(Default)]
#[repr(C)]
pub struct Extensions<M: Memory> {
    /// Where the next extension starts.
    at: M::Var,
    /// Where the extensions end.
    end: M::Var,
    /// [`Progress`] discriminant.
    progress: M::Var,
}

/// Where a complete handshake message lies in [`Work::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub at: u32,
    /// Length of header and body.
    pub len: u32,
}

/// The first look at a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One record holds the whole message.
    OneRecord(Message),
    /// The records have to be walked.
    Several,
    /// Decided already.
    Decided(Progress),
}

/// Looks at the start of a stream of `len` bytes.
#[inline(always)]
pub fn shape<M: Memory>(work: &Work<M>, len: u32) -> Shape {
    let record = work.begins.get();
    if len <= record {
        return Shape::Decided(Progress::Incomplete);
    }
    if !can_start_with(work.byte(record)) {
        return Shape::Decided(Progress::Other);
    }
    let message = record + RECORD_HEADER_LEN;
    if len < message + HANDSHAKE_HEADER_LEN || work.byte(record) != RECORD_HANDSHAKE {
        return Shape::Several;
    }
    let record_len = work.be16(record + 3);
    if record_len > RECORD_LEN_MAX {
        return Shape::Decided(Progress::Malformed);
    }
    let message_len = HANDSHAKE_HEADER_LEN + work.be24(message + 1);
    if record_len > 0 && work.byte(message) != CLIENT_HELLO {
        return Shape::Decided(Progress::Other);
    }
    if record_len < message_len || message_len > HELLO_BYTES_MAX as u32 {
        return Shape::Several;
    }
    if len < message + message_len {
        return Shape::Decided(Progress::Incomplete);
    }
    Shape::OneRecord(Message {
        at: message,
        len: message_len,
    })
}

impl<M: Memory> Records<M> {
    /// Prepares the walk over the stream from `begins` to `end`.
    #[inline(always)]
    pub fn begin(&self, begins: u32, end: u32) {
        self.at.set(begins);
        self.end.set(end);
        self.gathered.set(0);
        self.empty.set(0);
        self.progress.set(Progress::Incomplete as u32);
    }

    /// The message put together, or why there is none.
    ///
    /// # Errors
    ///
    /// The progress that the walk ended with.
    #[inline(always)]
    pub fn finish(&self, work: &Work<M>) -> Result<Message, Progress> {
        match Progress::from_u8(self.progress.get() as u8) {
            Progress::Named => Ok(Message {
                at: HANDSHAKE_AT,
                len: HANDSHAKE_HEADER_LEN + work.be24(HANDSHAKE_AT + 1),
            }),
            other => Err(other),
        }
    }

    #[inline(always)]
    fn stop(&self, progress: Progress) -> Step {
        self.progress.set(progress as u32);
        Step::Done
    }
}

/// One record. At most [`crate::limits::RECORDS_MAX`] steps.
#[inline(always)]
pub fn record_step<M: Memory>(work: &mut Work<M>) -> Step {
    let (at, end) = (work.records.at.get(), work.records.end.get());
    if at >= end || end - at < RECORD_HEADER_LEN {
        return work.records.stop(Progress::Incomplete);
    }
    let record_len = work.be16(at + 3);
    if record_len > RECORD_LEN_MAX {
        return work.records.stop(Progress::Malformed);
    }
    let body = at + RECORD_HEADER_LEN;
    let there = record_len.min(end - body);
    match work.byte(at) {
        RECORD_HANDSHAKE if there > 0 => {
            if let Some(progress) = gather(work, body, there) {
                return work.records.stop(progress);
            }
        }
        RECORD_HANDSHAKE | RECORD_ALERT => {
            work.records.empty.add(1);
            if work.records.empty.get() > EMPTY_RECORDS_MAX {
                return work.records.stop(Progress::Malformed);
            }
        }
        _ => return work.records.stop(Progress::Malformed),
    }
    if there < record_len {
        return work.records.stop(Progress::Incomplete);
    }
    work.records.at.set(body + record_len);
    Step::Again
}

/// Appends handshake bytes; the progress if that decides.
#[inline(always)]
fn gather<M: Memory>(work: &mut Work<M>, from: u32, len: u32) -> Option<Progress> {
    let gathered = work.records.gathered.get();
    if gathered >= HELLO_BYTES_MAX as u32 {
        return Some(Progress::TooLong);
    }
    let len = len.min(HELLO_BYTES_MAX as u32);
    M::copy(&mut work.bytes, from, HANDSHAKE_AT + gathered, len);
    let gathered = gathered + len;
    work.records.gathered.set(gathered);
    if work.byte(HANDSHAKE_AT) != CLIENT_HELLO {
        return Some(Progress::Other);
    }
    if gathered < HANDSHAKE_HEADER_LEN {
        return None;
    }
    let message_len = HANDSHAKE_HEADER_LEN + work.be24(HANDSHAKE_AT + 1);
    if message_len > HELLO_BYTES_MAX as u32 {
        return Some(Progress::TooLong);
    }
    (gathered >= message_len).then_some(Progress::Named)
}

/// Prepares the walk over the extensions of a complete ClientHello; the progress if there
/// are none or it breaks its own lengths.
#[inline(always)]
pub fn begin_extensions<M: Memory>(work: &Work<M>, message: Message) -> Option<Progress> {
    let end = message.at + message.len;
    let mut at = message.at + HANDSHAKE_HEADER_LEN + LEGACY_VERSION_AND_RANDOM_LEN;
    if at + 1 > end {
        return Some(Progress::Malformed);
    }
    at += 1 + u32::from(work.byte(at)); // legacy_session_id
    if at + 2 > end {
        return Some(Progress::Malformed);
    }
    at += 2 + work.be16(at); // cipher_suites
    if at + 1 > end {
        return Some(Progress::Malformed);
    }
    at += 1 + u32::from(work.byte(at)); // legacy_compression_methods
    if at == end {
        return Some(Progress::NoName);
    }
    if at + 2 > end || at + 2 + work.be16(at) != end {
        return Some(Progress::Malformed);
    }
    work.extensions.at.set(at + 2);
    work.extensions.end.set(end);
    work.extensions.progress.set(Progress::Malformed as u32);
    None
}

/// One extension. At most [`crate::limits::EXTENSIONS_MAX`] steps.
#[inline(always)]
pub fn extension_step<M: Memory>(work: &mut Work<M>) -> Step {
    let (at, end) = (work.extensions.at.get(), work.extensions.end.get());
    if at == end {
        let progress = if work.name_count.get() == 0 {
            Progress::NoName
        } else {
            Progress::Named
        };
        work.extensions.progress.set(progress as u32);
        return Step::Done;
    }
    if at > end || end - at < 4 {
        return Step::Done;
    }
    let (kind, len) = (work.be16(at), work.be16(at + 2));
    let body = at + 4;
    if len > end - body {
        return Step::Done;
    }
    if kind == EXTENSION_SERVER_NAME && !server_names(work, body, len) {
        return Step::Done;
    }
    if kind == EXTENSION_ENCRYPTED_CLIENT_HELLO {
        work.ech.set(1);
    }
    work.extensions.at.set(body + len);
    Step::Again
}

/// The outcome of the walk over the extensions.
#[inline(always)]
pub fn finish_extensions<M: Memory>(work: &Work<M>) -> Progress {
    Progress::from_u8(work.extensions.progress.get() as u8)
}

/// The host names of a server_name extension (RFC 6066, section 3); `false` if it breaks its
/// own lengths or lists too many.
#[inline(always)]
fn server_names<M: Memory>(work: &mut Work<M>, body: u32, len: u32) -> bool {
    if len < 2 || work.be16(body) + 2 != len {
        return false;
    }
    let end = body + len;
    let mut at = body + 2;
    for _ in 0..=NAMES_PER_HELLO_MAX {
        if at == end {
            return true;
        }
        if at > end || end - at < 3 {
            return false;
        }
        let name_len = work.be16(at + 1);
        if name_len > end - at - 3 {
            return false;
        }
        if work.byte(at) == NAME_TYPE_HOST && !work.add_name(at + 3, name_len) {
            return false;
        }
        at += 3 + name_len;
    }
    false
}

#[cfg(test)]
mod tests;
