//! The server's direction of connections that pass through, and what it says about the client's.
//!
//! Where the connection ends on this host its socket is the truth. In between, only what the server
//! answers tells what it has accepted: a SYN opens a candidate, the SYN-ACK confirms it, and a
//! verdict stands until the server has acknowledged the bytes that it was given on. Until then the
//! entry plays the socket's part ([`peer::SEEN`]), and nothing that only the filter believes (a decoy
//! that dies on its way to the server, for instance) can take the place of what the server reads.

use super::{
    Answers, Entry, Flow, Peer, Segment,
    accept::{checksums_hold, echoed_timestamp},
    flags,
    held::{flow, forget, forget_connection, load, store},
    known, mark, peer, state,
    stream::{passes_through, repeats},
};
use crate::{
    abi::{feature, served},
    env::Env,
    http,
    reason::Reason,
    work::{Memory, Variable as _, Work},
};

/// Whether a segment of the server's direction may matter: pure acknowledgements do not.
#[inline(always)]
pub const fn matters(segment: Segment) -> bool {
    segment.len != 0 || segment.flags & (flags::SYN | flags::RST | flags::FIN) != 0
}

/// Takes note of a segment of a server, whose client's flow is in the working area.
#[inline(always)]
pub fn watch<E: Env>(env: &mut E, segment: Segment) {
    if !load(env) {
        return;
    }
    let anywhere = env.config().features & feature::ANSWERS_ANYWHERE != 0;
    // Who answers on the client's side is not the server.
    if !anywhere && env.interface() == flow(env).interface {
        return;
    }
    let kind = segment.flags & (flags::SYN | flags::RST | flags::ACK);
    if kind & flags::RST != 0 {
        refused(env, segment);
    } else if kind == flags::SYN | flags::ACK {
        confirmed(env, segment);
    } else if kind == flags::ACK && answers(env).seen != 0 {
        advanced(env, segment);
    }
}

/// What was seen of the server's direction.
#[inline(always)]
pub(super) fn answers<E: Env>(env: &mut E) -> Answers {
    match env.work() {
        Some(work) => work.entry.answers,
        None => Answers::default(),
    }
}

#[inline(always)]
fn store_answers<E: Env>(env: &mut E, answers: Answers) {
    if let Some(work) = env.work() {
        work.entry.answers = answers;
    }
    env.answers_store();
}

/// An RST of the server ends the stream if the client will believe it: at exactly the server's next
/// byte, or in answer to the SYN (RFC 9293, section 3.10.7).
#[inline(always)]
fn refused<E: Env>(env: &mut E, segment: Segment) {
    let answers = answers(env);
    let exact = if answers.seen != 0 {
        segment.seq == answers.next
    } else {
        segment.flags & flags::ACK != 0 && segment.ack == flow(env).connection
    };
    if exact && checksums_hold(env, segment) {
        forget_connection(env);
    }
}

/// A SYN-ACK: the server has opened a connection, and says where its stream starts.
#[inline(always)]
fn confirmed<E: Env>(env: &mut E, segment: Segment) {
    let (flow, answers) = (flow(env), answers(env));
    let start = segment.seq.wrapping_add(1);
    let again = answers.seen != 0 && answers.start == start;
    if again && flow.connection == segment.ack {
        return;
    }
    // Payload of the SYN that the server has taken (TCP Fast Open) is part of the stream.
    let taken = segment.ack.wrapping_sub(flow.connection);
    let sent = flow.next.wrapping_sub(flow.connection);
    let begun = flow.certain != 0 && flow.state != state::OPENED;
    let with_payload = begun && taken != 0 && taken <= sent;
    let ts_recent = echoed_timestamp(env, segment);
    if answers.seen == 0 && with_payload {
        let _in_place = store(env, Flow { ts_recent, ..flow });
    } else {
        // Whatever these ports were used for before is over for the server. Its entry becomes that of the new
        // connection: one that is there cannot be refused.
        forget_hello(env);
        env.blocked_delete();
        let _in_place = store(
            env,
            Flow {
                state: state::OPENED,
                start: segment.ack,
                connection: segment.ack,
                next: segment.ack,
                certain: 1,
                ts_recent,
                interface: flow.interface,
                ..Flow::default()
            },
        );
    }
    store_answers(
        env,
        Answers {
            seen: 1,
            start,
            next: start.wrapping_add(segment.len),
            acked: segment.ack,
        },
    );
}

/// Data or the end of the server's stream: what the client may acknowledge from now on, and what the
/// server has. A verdict on bytes that the server has cannot be taken back: the entry goes, or says no more
/// than that the connection is known.
#[inline(always)]
fn advanced<E: Env>(env: &mut E, segment: Segment) {
    let mut answers = answers(env);
    let fin = (segment.flags & flags::FIN != 0) as u32;
    let next = segment.seq.wrapping_add(segment.len).wrapping_add(fin);
    if next.wrapping_sub(answers.next) as i32 > 0 {
        answers.next = next;
    }
    if segment.ack.wrapping_sub(answers.acked) as i32 > 0 {
        answers.acked = segment.ack;
    }
    let flow = flow(env);
    let decided = flow.state == state::ALLOWED || flow.state == state::PASSED;
    let over = decided && answers.acked.wrapping_sub(flow.next) as i32 >= 0;
    if fin != 0 && (over || flow.state == state::KNOWN) {
        forget_connection(env);
    } else if over {
        forget(env);
    }
    if self::answers(env).seen != 0 {
        store_answers(env, answers);
    }
}

/// What becomes of a client's payload in a connection that passes through. A number and no enum with
/// payload, since it crosses a function boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course(u32);

impl Course {
    /// The entry judges it as it would anywhere.
    pub const JUDGED: Self = Self(0);
    /// It starts a stream for certain.
    pub const BEGINS: Self = Self(1 << 8);
    /// Its looks say whether it starts a stream.
    pub const GUESSED: Self = Self(2 << 8);
    /// What goes beyond the entry is judged by its looks, and the entry stays.
    pub const BESIDE: Self = Self(3 << 8);
    /// What begins at the entry's end starts a stream for certain.
    pub const NEXT: Self = Self(4 << 8);
    const PASSES: u32 = 5 << 8;
    const DROPPED: u32 = 6 << 8;

    /// It passes unread.
    #[inline(always)]
    pub const fn passes(reason: Reason) -> Self {
        Self(Self::PASSES | reason as u32)
    }

    /// It is dropped.
    #[inline(always)]
    pub const fn dropped(reason: Reason) -> Self {
        Self(Self::DROPPED | reason as u32)
    }

    /// Why it is dropped, or passes (`false`) unread.
    #[inline(always)]
    pub(super) const fn verdict(self) -> (bool, Reason) {
        match Reason::from_u8(self.0 as u8) {
            Some(reason) => (self.0 & !0xff == Self::DROPPED, reason),
            None => (true, Reason::BadSequence),
        }
    }

    /// For a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.0 as u64
    }

    /// Back from [`Course::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self(packed as u32)
    }
}

/// What becomes of a client's payload whose entry is in the working area, where a socket of this host or
/// the server's direction says how far the stream has come.
///
/// Fields are read where they are needed and not carried along: the stack is short.
#[inline(always)]
pub fn course<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    if work.peer.at_host() {
        return provisional(env, segment);
    }
    if work.entry.answers.seen != 0 && work.entry.flow.certain == 0 {
        return behind_request(env, segment);
    }
    let course = if work.entry.answers.seen != 0 {
        work.peer = as_peer(&work.entry);
        answered(env, segment)
    } else {
        unanswered(env, segment)
    };
    if course == Course::JUDGED {
        return provisional(env, segment);
    }
    course
}

/// What both directions have shown, in the place of the host's numbers.
#[inline(always)]
fn as_peer(entry: &Entry) -> Peer {
    Peer {
        kind: peer::SEEN,
        start: entry.flow.connection,
        rcv_nxt: entry.answers.acked,
        snd_una: entry.answers.start,
        snd_nxt: entry.answers.next,
        ts_recent: entry.flow.ts_recent,
    }
}

/// Payload behind a request that the server has: it is judged by itself, and what both directions have shown
/// says only whether it can be answered. Nothing is refused for its numbers: should segments come by another
/// way, the connection goes on.
#[inline(always)]
fn behind_request<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let Entry { flow, answers } = &mut work.entry;
    let unsent = answers.next.wrapping_sub(segment.ack) as i32;
    let acked = segment.ack.wrapping_sub(answers.start);
    let fits = unsent >= 0 && acked <= answers.next.wrapping_sub(answers.start);
    let begins = flow.state == state::KNOWN;
    if begins {
        // The server has said something since it had all that came before this.
        let answered = segment.seq == answers.acked;
        flow.marks = answered as u16 * mark::CLEAN;
    }
    if fits {
        work.peer = as_peer(&work.entry);
    }
    match begins {
        true => Course::GUESSED,
        false => Course::JUDGED,
    }
}

#[inline(always)]
fn answered<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let Entry { flow, answers } = &work.entry;
    if segment.flags & flags::ACK == 0 {
        return Course::dropped(Reason::BadFlags);
    }
    let unsent = segment.ack.wrapping_sub(answers.next) as i32 > 0;
    if unsent || (segment.ack.wrapping_sub(answers.start) as i32) < 0 {
        return match flow.state {
            // Should answers come by another way, the connection goes on.
            state::ALLOWED | state::PASSED => Course::BESIDE,
            _ => Course::dropped(Reason::BadSequence),
        };
    }
    let end = segment.seq.wrapping_add(segment.len);
    if end.wrapping_sub(answers.acked) as i32 <= 0 {
        // The server has all of it already and looks at it no more.
        return Course::passes(Reason::NoMatch);
    }
    if answers.acked.wrapping_sub(flow.next) as i32 > 0 {
        // The server has bytes that never came by here.
        forget(env);
        return Course::GUESSED;
    }
    if flow.state == state::OPENED && segment.seq == flow.next {
        env.count_connection(true);
    }
    Course::JUDGED
}

/// Payload behind a SYN that no SYN-ACK has answered: one direction only is seen here, or somebody
/// sent a SYN that the server did not take. What agrees with the SYN is the start of the stream. What
/// does not is dropped where no answers can be seen, else the SYN is taken for forged.
#[inline(always)]
fn unanswered<E: Env>(env: &mut E, segment: Segment) -> Course {
    let one_sided = env.config().features & feature::ONE_SIDED != 0;
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let flow = &mut work.entry.flow;
    let opened = flow.state == state::OPENED;
    let reopens = flow.reopened != 0 && segment.seq == flow.reopened_at;
    if segment.seq == flow.next && opened || segment.seq != flow.next && reopens {
        flow.beyond = 0;
        env.count_connection(false);
        return Course::BEGINS;
    }
    let before = (segment.seq.wrapping_sub(flow.start) as i32) < 0;
    let certain = flow.certain != 0;
    // What this host itself answers never comes in.
    let here = work.served == served::HERE;
    if opened && !here && !one_sided {
        // Its answer may be on the way: the entry is left alone, or remembers the SYN.
        flow.reopened = 1;
        flow.reopened_at = flow.next;
        work.known.set(0);
        return Course::GUESSED;
    }
    if certain && before {
        return Course::dropped(Reason::Overlap);
    }
    Course::JUDGED
}

/// Payload behind a verdict that the server may not have the bytes of yet; what is behind none is
/// judged.
#[inline(always)]
fn provisional<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let Entry { flow, answers } = &work.entry;
    let decided = flow.state == state::ALLOWED || flow.state == state::PASSED;
    if !decided || flow.certain == 0 {
        return Course::JUDGED;
    }
    let here = work.peer.at_host();
    // Where neither a socket nor answers tell, the client is believed to acknowledge them; a host that has no
    // connection yet has none of it.
    let told = here || answers.seen != 0;
    let has_it =
        !told || work.peer.numbered() && work.peer.rcv_nxt.wrapping_sub(flow.next) as i32 >= 0;
    if has_it && (here || segment.ack.wrapping_sub(flow.ack) as i32 > 0) {
        forget(env);
        return Course::GUESSED;
    }
    let ahead = segment.seq.wrapping_sub(flow.next) as i32;
    if ahead >= 0 {
        return Course::BESIDE;
    }
    let kept = flow.kept;
    let old = ahead.unsigned_abs();
    if kept != 0 && env.hello_load(kept) && repeats(env, segment, old) {
        if old < segment.len {
            return Course::BESIDE;
        }
        // From now on nothing takes its place: the server may have a part.
        note_beyond(env);
        return Course::passes(Reason::NoMatch);
    }
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let flow = &work.entry.flow;
    let alone = flow.kept == 0 || flow.marks & mark::SINGLE != 0 && flow.beyond == 0;
    if segment.seq == flow.start && alone {
        // Another, before the server has the first: what it says now counts.
        work.before.set(flow.next.wrapping_sub(flow.start));
        return Course::BEGINS;
    }
    Course::dropped(Reason::Overlap)
}

/// Prepares the working area for payload that is judged by itself; the entry stays, and remembers that
/// something passed behind its end. How many bytes of the segment come before that.
#[inline(always)]
pub(super) fn read_beside<E: Env>(env: &mut E, segment: Segment) -> u32 {
    note_beyond(env);
    let Some(work) = env.work() else {
        return 0;
    };
    let flow = &mut work.entry.flow;
    let ahead = segment.seq.wrapping_sub(flow.next) as i32;
    let old = if ahead < 0 { ahead.unsigned_abs() } else { 0 };
    let old = if old < segment.len { old } else { 0 };
    let start = segment.seq.wrapping_add(old);
    let here = work.peer.at_host();
    *flow = Flow {
        state: state::BESIDE,
        start,
        next: start,
        beyond: (flow.state == state::ALLOWED || here) as u32,
        ..Flow::default()
    };
    old
}

/// Remembers that something passed behind what the verdict was given on, or a part of that again, before the
/// server had it; or,
/// of a half-read hello in mid-stream, that it has a blocked name.
#[inline(always)]
pub(super) fn note_beyond<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    let flow = &mut work.entry.flow;
    if flow.beyond == 0 {
        flow.beyond = 1;
        // The entry is there, unless it made room just now, and then there is no verdict to guard.
        let _in_place = env.flow_store();
    }
}

/// Leaves the stream of the working area in a state: [`state::READING`] on, [`state::ALLOWED`],
/// [`state::PASSED`], [`state::BETWEEN`] (which elsewhere than on connections to this host is the
/// former), or not worth an entry (0). `next` is its next byte, `kept` the bytes that
/// are in the working area.
///
/// `false` if the tables do not take it, and are as before: the segment must not pass then. What comes behind
/// half a hello, or behind a request, could not be told from anything else; what comes behind a verdict
/// could take the place of what the verdict was given on.
#[inline(always)]
pub fn settle<E: Env>(env: &mut E, state: u32, next: u32, kept: u32) -> bool {
    let Some(work) = env.work() else { return false };
    if work.entry.flow.state == state::BESIDE {
        return true;
    }
    if state == state::BETWEEN && work.peer.at_host() && is_followed(work, next) {
        let rest = http::rest(work);
        let next = work.entry.flow.start.wrapping_add(rest.next);
        return keep(env, state, next, rest.behind);
    }
    let state = match state {
        state::BETWEEN => {
            work.entry.flow.marks |= mark::ASKED;
            state::PASSED
        }
        other => other,
    };
    if state == 0 || state == state::PASSED && !waits(env) {
        forget(env);
        return true;
    }
    keep(env, state, next, kept)
}

/// Stores the stream's entry, and its bytes as far as they matter; `false` if the tables do not take it.
#[inline(always)]
fn keep<E: Env>(env: &mut E, state: u32, next: u32, kept: u32) -> bool {
    // Behind a verdict the bytes are kept on if several segments brought them, so that they cannot be
    // exchanged before the server has answered; where it does not end at this host, in any case: they may be lost
    // on the way, and come again in other pieces, when what is behind them has passed already. They come first:
    // an entry must not speak of bytes that are not there.
    let waits = state != state::BETWEEN && waits(env);
    let Some(work) = env.work() else { return false };
    let must = state == state::READING || work.entry.flow.kept != 0;
    let lossy = waits && !work.peer.at_host() && kept != 0;
    let keeps = (must || lossy) && env.hello_store(kept);
    if must && !keeps {
        return false;
    }
    if !keeps {
        forget_hello(env);
    }
    let Some(work) = env.work() else { return false };
    let (len, before) = (next.wrapping_sub(work.entry.flow.start), work.before.get());
    let flow = &mut work.entry.flow;
    flow.state = state;
    if keeps && !must {
        flow.marks |= mark::SINGLE;
    } else {
        flow.marks &= !mark::SINGLE;
    }
    flow.next = if kept == 0 && before != 0 && before < len {
        // Another protocol, whose start was sent again with more behind it: the server may have what came
        // before alone, and the client send the rest only.
        flow.start.wrapping_add(before)
    } else {
        next
    };
    // Requests that one segment brought are not kept, but how far they go.
    let counts = keeps || state == state::BETWEEN;
    flow.kept = if counts { kept } else { 0 };
    let known = [known::ENTRY, known::ENTRY | known::HELLO];
    work.known.set(known[keeps as usize]);
    env.flow_store()
}

/// Forgets the bytes kept of the stream, if there are any; its entry stays.
#[inline(always)]
fn forget_hello<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    let known = work.known.get();
    work.known.set(known & !known::HELLO);
    if known & known::HELLO != 0 {
        env.hello_delete();
    }
}

/// Whether verdicts on the stream wait until the server has the bytes that they were given on.
#[inline(always)]
fn waits<E: Env>(env: &mut E) -> bool {
    let passes_through = passes_through(env);
    let Some(work) = env.work() else {
        return false;
    };
    let told = match work.peer.kind {
        peer::CONNECTION | peer::COOKIE | peer::NO_COOKIE => true,
        peer::SEEN | peer::NONE => passes_through,
        _ => false,
    };
    work.entry.flow.certain != 0 && told
}

/// Whether it is known where the request behind this one starts. `end`: the number behind the segment.
/// Only on connections to this host, whose socket tells whether it has the body before: elsewhere bytes
/// left out of the body could be sent later, and others than those read with them.
#[inline(always)]
fn is_followed<M: Memory>(work: &Work<M>, end: u32) -> bool {
    let rest = http::rest(work);
    let flow = &work.entry.flow;
    // Not within what was too long to be taken.
    let passed = rest.next < end.wrapping_sub(flow.start);
    rest.known && flow.certain != 0 && !passed
}

/// Payload behind an allowed request to this host: its head again, its body, or the next request.
#[inline(always)]
pub fn between<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let peer = &work.peer;
    if !peer.at_host() {
        // The connection that the entry was made for has gone.
        forget(env);
        return Course::GUESSED;
    }
    let flow = &work.entry.flow;
    let (start, kept) = (flow.start, flow.kept);
    let lacks = peer.kind == peer::CONNECTION && (peer.rcv_nxt.wrapping_sub(start) as i32) < 0;
    if lacks && (segment.seq.wrapping_sub(start) as i32) < 0 {
        return Course::dropped(Reason::Overlap);
    }
    let of_head = start.wrapping_add(kept).wrapping_sub(segment.seq) as i32;
    if of_head > 0 && !host_has_head(peer, flow) {
        if env.hello_load(kept) {
            if !repeats(env, segment, of_head.unsigned_abs()) {
                return Course::dropped(Reason::Overlap);
            }
        } else if segment.seq == start {
            // As after an allowed hello that one segment brought: what the head says now counts.
            return Course::BEGINS;
        } else {
            return Course::dropped(Reason::Overlap);
        }
    }
    behind_head(env, segment)
}

/// Whether the host has all bytes of the head that the entry is about.
#[inline(always)]
fn host_has_head(peer: &Peer, flow: &Flow) -> bool {
    let body = flow.start.wrapping_add(flow.kept);
    peer.kind == peer::CONNECTION && peer.rcv_nxt.wrapping_sub(body) as i32 >= 0
}

/// What of the segment is not the head again. Reads anew what it needs: the stack is short.
#[inline(always)]
fn behind_head<E: Env>(env: &mut E, segment: Segment) -> Course {
    let Some(work) = env.work() else {
        return Course::JUDGED;
    };
    let (peer, flow) = (&work.peer, &mut work.entry.flow);
    let next = flow.next;
    let end = segment.seq.wrapping_add(segment.len);
    if end.wrapping_sub(next) as i32 <= 0 {
        let body = flow.start.wrapping_add(flow.kept);
        if !host_has_head(peer, flow) && end.wrapping_sub(body) as i32 > 0 {
            note_beyond(env);
        }
        return Course::passes(Reason::NoMatch);
    }
    // With bytes missing before it, what comes now could be replaced before the host reads it, and so
    // could they once the entry begins behind them.
    let connected = peer.kind == peer::CONNECTION;
    let gap = !connected || segment.seq.wrapping_sub(peer.rcv_nxt) as i32 > 0;
    if segment.seq.wrapping_sub(next) as i32 > 0 || gap {
        return Course::dropped(Reason::HeldBack);
    }
    if !host_has_head(peer, flow) {
        // The host may refuse this segment as well: then others could come in the place of the head, once the
        // entry begins behind it. So what follows is read as more of the head; a body between is not kept.
        if next != flow.start.wrapping_add(flow.kept) {
            return Course::dropped(Reason::HeldBack);
        }
        flow.state = state::READING;
        return Course::JUDGED;
    }
    // The entry stays until what is read takes its place: what is dropped instead comes again.
    // Whoever waits for the answer before asking again acknowledges it with that.
    let answered = segment.ack.wrapping_sub(flow.ack) as i32 > 0;
    flow.marks &= !mark::CLEAN;
    flow.marks |= answered as u16 * mark::CLEAN;
    flow.beyond = 0;
    Course::NEXT
}
