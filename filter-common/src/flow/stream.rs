//! What a segment means for its stream.

use super::{
    Blocked, Entry, Flow, Reading, Segment,
    accept::{checksums_hold, refused},
    flags,
    held::{flow, forget, host, load, store},
    mark, peer,
    read::{protocol_of, read},
    reverse::{Course, answers, read_beside},
    socket::{at_host, near, torn, unreceived, with_cookie, without_cookie},
    state,
};
use crate::{
    abi::{Protocol, feature, port_class, served},
    env::{Env, Window},
    hit::Qualifiers,
    limits::SEQUENCE_DISTANCE_MAX,
    reason::Reason,
    wire::TCP,
    work::Variable as _,
};

/// What to do with a segment: nothing more, or read it. A struct and not an
/// enum with payloads, see [`crate::wire::Packet`].
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// What to say if there is nothing to read.
    reading: Reading,
    /// Whether there is something to read.
    reads: bool,
    /// What to read, as part of the entry in the working area.
    segment: Segment,
}

impl Plan {
    #[inline(always)]
    pub(super) const fn done(reading: Reading, segment: Segment) -> Self {
        Self {
            reading,
            reads: false,
            segment,
        }
    }

    #[inline(always)]
    pub(super) const fn pass(reason: Reason, segment: Segment) -> Self {
        Self::done(Reading::nothing(reason, Protocol::None), segment)
    }

    #[inline(always)]
    pub(super) const fn drop(reason: Reason, segment: Segment) -> Self {
        Self::done(Reading::dropped(reason, Protocol::None), segment)
    }

    /// A payload that starts a stream for certain.
    #[inline(always)]
    pub(super) fn begin<E: Env>(env: &mut E, segment: Segment) -> Self {
        Self::start(env, segment, true)
    }

    /// A payload in mid-stream that starts a hello by its looks.
    #[inline(always)]
    pub(super) fn begin_again<E: Env>(env: &mut E, segment: Segment) -> Self {
        let segment = without_dummy(env, segment);
        Self::start(env, segment, false)
    }

    #[inline(always)]
    fn start<E: Env>(env: &mut E, segment: Segment, certain: bool) -> Self {
        if let Some(work) = env.work() {
            // In place, and not by way of the stack: what is not named stays.
            let Entry { flow, answers } = &mut work.entry;
            let connection = match work.peer.kind {
                peer::NONE if answers.seen != 0 => flow.connection,
                peer::NONE => segment.seq,
                _ => work.peer.start,
            };
            flow.state = state::READING;
            flow.connection = connection;
            flow.start = segment.seq;
            flow.next = segment.seq;
            flow.ack = segment.ack;
            flow.kept = 0;
            // What begins for certain begins with the last SYN.
            flow.reopened &= !certain as u32;
            flow.certain = certain as u16;
        }
        Self::more(segment)
    }

    #[inline(always)]
    const fn more(segment: Segment) -> Self {
        Self {
            reading: Reading::nothing(Reason::NoMatch, Protocol::None),
            reads: true,
            segment,
        }
    }
}

/// Reads a segment of the flow whose key is in the working area, in two steps that are functions of their
/// own in the kernel: the stack is short.
#[inline(always)]
pub fn inspect<E: Env>(env: &mut E, segment: Segment) -> Reading {
    let reading = env.plan(segment);
    match env.work() {
        Some(work) if work.reads.get() != 0 => env.judge(),
        _ => reading,
    }
}

/// Finds out what a segment is to its stream. What of it is to be read, if anything, is left in the
/// working area, with the stream's entry; else what is returned is all there is to say.
#[inline(always)]
pub fn plan<E: Env>(env: &mut E, segment: Segment) -> Reading {
    if let Some(work) = env.work() {
        work.reads.set(0);
        work.before.set(0);
    }
    env.look_up_peer(segment);
    if let Some(work) = env.work() {
        work.entry = Entry::default();
        work.known.set(0);
        if work.peer.listens() && work.served == served::BEYOND {
            // It listens on any address, but connections to this one pass through.
            work.peer.kind = peer::NONE;
        }
    }
    let plan = place(env, segment);
    if is_bent_by_urgent(env, plan) {
        return Reading::dropped(Reason::BadFlags, Protocol::None);
    }
    if let Some(work) = env.work() {
        work.planned = plan.segment.pack();
        work.reads.set(plan.reads as u32);
    }
    plan.reading
}

/// Reads what was planned.
#[inline(always)]
pub fn judge<E: Env>(env: &mut E) -> Reading {
    let Some(work) = env.work() else {
        return Reading::nothing(Reason::NoMatch, Protocol::None);
    };
    let segment = Segment::unpack(work.planned);
    let certain = flow(env).certain != 0;
    let protocol = protocol_of(env, segment);
    if protocol == Protocol::None && !certain {
        return Reading::nothing(Reason::OtherProtocol, Protocol::None);
    }
    let refused = refused(env, segment);
    if refused == Reason::NoMatch {
        return match protocol {
            Protocol::None => passed(env, segment),
            _ => read(env, segment, protocol),
        };
    }
    // In mid-stream the host's refusal is enough; flags that it might take are not let through.
    if certain || refused == Reason::BadFlags {
        return Reading::dropped(refused, Protocol::None);
    }
    Reading::nothing(refused, Protocol::None)
}

/// Another protocol, where the stream is known to start.
#[inline(always)]
fn passed<E: Env>(env: &mut E, segment: Segment) -> Reading {
    let next = segment.seq.wrapping_add(segment.len);
    if env.settle(state::PASSED, next, 0) {
        return Reading::nothing(Reason::OtherProtocol, Protocol::None);
    }
    not_kept(env, Protocol::None)
}

/// Whether an urgent pointer may change what was, or is to be, read: the host takes the urgent byte out of
/// the stream, and what begins like nothing here may begin like a hello there. That holds for bytes
/// that were seen before as well, as long as the host may not have them.
#[inline(always)]
fn is_bent_by_urgent<E: Env>(env: &mut E, plan: Plan) -> bool {
    let urgent = plan.segment.flags & flags::URG != 0 && plan.segment.len != 0;
    urgent && !plan.reading.drops && flow(env).certain != 0
}

#[inline(always)]
fn place<E: Env>(env: &mut E, segment: Segment) -> Plan {
    if segment.flags & (flags::SYN | flags::ACK) == flags::SYN {
        return with_syn(env, segment);
    }
    if segment.flags & flags::RST != 0 {
        ended(env, segment);
        return Plan::pass(Reason::NoMatch, segment);
    }
    if segment.len == 0 {
        return Plan::pass(Reason::NoMatch, segment);
    }
    if let Some(reading) = still_blocked(env, segment) {
        return Plan::done(reading, segment);
    }
    if segment.flags & (flags::SYN | flags::ACK) != flags::ACK {
        // No host takes its payload, and it says nothing of the connection.
        return Plan::drop(Reason::BadFlags, segment);
    }
    let kind = host(env).kind;
    let early = match kind {
        peer::CONNECTION => at_host(env, segment),
        peer::COOKIE => with_cookie(env, segment),
        peer::NO_COOKIE => without_cookie(env, segment),
        _ if load(env) => None,
        _ => Some(Plan::begin_again(env, segment)),
    };
    if let Some(plan) = early {
        return plan;
    }
    let segment = unreceived(env, segment);
    let told = match kind {
        peer::CONNECTION | peer::COOKIE | peer::NO_COOKIE => true,
        peer::NONE if passes_through(env) => true,
        _ => flow(env).state == state::BETWEEN,
    };
    if told {
        return by_course(env, segment);
    }
    let opens = matches!(kind, peer::NONE | peer::LISTENER);
    if opens && flow(env).reopened != 0 {
        let at = flow(env).reopened_at;
        if segment.seq == at && at != flow(env).next {
            return Plan::begin(env, segment);
        }
    }
    by_state(env, segment)
}

/// A payload of a connection of which the host, or the server's direction, says how far it has come.
#[inline(always)]
fn by_course<E: Env>(env: &mut E, segment: Segment) -> Plan {
    let next = flow(env).next;
    // Two functions and not one: the stack of the deepest chain of calls is theirs.
    let course = match flow(env).state {
        state::BETWEEN => env.between(segment),
        _ => env.course(segment),
    };
    match course {
        Course::JUDGED => by_state(env, segment),
        Course::BEGINS => Plan::begin(env, segment),
        Course::GUESSED => Plan::begin_again(env, segment),
        Course::BESIDE => {
            let old = read_beside(env, segment);
            if old != 0 && segment.flags & flags::URG != 0 {
                // As in `is_bent_by_urgent`: the host may not have these bytes.
                return Plan::drop(Reason::BadFlags, segment);
            }
            Plan::more(segment.without(old))
        }
        Course::NEXT => {
            let old = next.wrapping_sub(segment.seq);
            Plan::begin(env, segment.without(old))
        }
        course => match course.verdict() {
            (true, reason) => Plan::drop(reason, segment),
            (false, reason) => Plan::pass(reason, segment),
        },
    }
}

/// Whether connections without a socket of this host are expected.
#[inline(always)]
pub(super) fn passes_through<E: Env>(env: &mut E) -> bool {
    let features = env.config().features;
    features & feature::ANSWERS != 0 || features & feature::SOCKETS == 0
}

#[inline(always)]
fn by_state<E: Env>(env: &mut E, segment: Segment) -> Plan {
    // Loaded here and not carried through calls: the stack is short.
    let flow = flow(env);
    match flow.state {
        state::OPENED => at_start(env, segment, flow.next),
        state::READING => more(env, segment, flow),
        state::KNOWN => Plan::begin_again(env, segment),
        _ => after_allowed(env, segment, flow),
    }
}

/// The rule that blocked this connection before, if it still would.
#[inline(always)]
fn still_blocked<E: Env>(env: &mut E, segment: Segment) -> Option<Reading> {
    let blocked = env.blocked_load()?;
    let reopened = if host(env).kind == peer::CONNECTION {
        blocked.connection != host(env).start && !torn(host(env), blocked.connection)
    } else {
        let other = segment.seq == blocked.reopened_at && segment.seq != blocked.seq;
        blocked.reopened != 0 && other || !near(segment.seq, blocked.start)
    };
    // Another generation may no longer list the name, which is not kept: the hello is read again.
    let current = blocked.generation == env.config().generation as u32;
    if current && !reopened {
        let hit = env.apply(blocked.slot, blocked.specificity, qualifiers(segment));
        if !hit.is_none() {
            let protocol = Protocol::from_u8(blocked.protocol as u8).unwrap_or(Protocol::None);
            return Some(Reading {
                hit,
                reason: Reason::BlockedFlow,
                protocol,
                drops: false,
            });
        }
    }
    env.blocked_delete();
    None
}

#[inline(always)]
pub(super) const fn qualifiers(segment: Segment) -> Qualifiers {
    Qualifiers {
        protocol: TCP,
        port: segment.port,
        port_shown: true,
        reason: Reason::Hostname,
    }
}

/// An RST: it ends the stream if its number is exact, as receivers demand (RFC 9293, section 3.10.7.4),
/// and its checksum right. A host keeps its own state; and where a SYN was seen the next one will be, so
/// that an RST which dies on its way to the server need not be believed.
#[inline(always)]
fn ended<E: Env>(env: &mut E, segment: Segment) {
    if host(env).kind == peer::CONNECTION {
        // One that comes before what the host has, it does not take.
        let ahead = segment.seq.wrapping_sub(host(env).rcv_nxt);
        if ahead <= SEQUENCE_DISTANCE_MAX && load(env) {
            set_mark(env, mark::ENDED);
        }
        return;
    }
    if host(env).kind == peer::NONE
        && load(env)
        && flow(env).certain == 0
        && flow(env).next == segment.seq
        && checksums_hold(env, segment)
    {
        forget(env);
    }
}

/// Sets a mark of the entry in the working area and in the table.
#[inline(always)]
fn set_mark<E: Env>(env: &mut E, mark: u16) {
    if let Some(work) = env.work() {
        work.entry.flow.marks |= mark;
    }
    let _in_place = env.flow_store();
}

/// A SYN: the stream's start, unless a stream on these ports is still being read, which then
/// judges first. `false` if the table does not take it.
#[inline(always)]
fn opened<E: Env>(env: &mut E, segment: Segment) -> bool {
    let next = segment.seq.wrapping_add(1);
    let interface = env.interface();
    let known = load(env) && !shown_only(env);
    if known && (answers(env).seen != 0 || flow(env).connection == next) {
        // The same SYN again, or one that counts if the server takes it.
        return true;
    }
    if let Some(blocked) = env.blocked_load() {
        env.blocked_store(Blocked {
            reopened: 1,
            reopened_at: next,
            ..blocked
        });
    }
    let flow = flow(env);
    let flow = if known {
        Flow {
            reopened: 1,
            reopened_at: next,
            interface,
            ..flow
        }
    } else {
        Flow {
            state: state::OPENED,
            start: next,
            connection: next,
            next,
            certain: 1,
            interface,
            ..Flow::default()
        }
    };
    store(env, flow)
}

/// Whether the entry of the working area was no more than what both directions have shown. That is over with a
/// SYN, and so it is if a part of a later request is kept beside.
#[inline(always)]
fn shown_only<E: Env>(env: &mut E) -> bool {
    let Some(work) = env.work() else { return true };
    let Entry { flow, answers } = &mut work.entry;
    if answers.seen == 0 || flow.certain != 0 {
        return false;
    }
    answers.seen = 0;
    let shown_only = flow.state == state::KNOWN;
    env.flow_delete();
    shown_only
}

/// A SYN, perhaps with payload (TCP Fast Open, RFC 7413), which then starts the stream.
#[inline(always)]
fn with_syn<E: Env>(env: &mut E, segment: Segment) -> Plan {
    if host(env).kind != peer::NONE {
        // A host keeps its own state, and a flood of SYNs is to find nothing to fill. Payload
        // counts only where Fast Open is on; the client then sends it again behind the handshake.
        let taken = env.config().features & feature::FAST_OPEN != 0;
        if taken && segment.len != 0 {
            return Plan::drop(Reason::HeldBack, segment);
        }
        return Plan::pass(Reason::NoMatch, segment);
    }
    if !opened(env, segment) {
        // Of a connection that is not known from its start less can be told: the client asks again.
        return Plan::done(not_kept(env, Protocol::None), segment);
    }
    if segment.len == 0 {
        return Plan::pass(Reason::NoMatch, segment);
    }
    let flow = flow(env);
    let taken = flow.state == state::OPENED && flow.start == segment.seq.wrapping_add(1);
    if !taken || answers(env).seen != 0 {
        return Plan::drop(Reason::HeldBack, segment);
    }
    let payload = Segment {
        seq: segment.seq.wrapping_add(1),
        flags: flags::ACK,
        ..segment
    };
    Plan::begin(env, payload)
}

/// The first payload behind a SYN.
#[inline(always)]
pub(super) fn at_start<E: Env>(env: &mut E, segment: Segment, next: u32) -> Plan {
    let ahead = segment.seq.wrapping_sub(next) as i32;
    if ahead > 0 {
        return Plan::drop(Reason::HeldBack, segment);
    }
    let old = ahead.unsigned_abs();
    if old >= segment.len {
        return Plan::pass(Reason::NoMatch, segment);
    }
    Plan::begin(env, segment.without(old))
}

/// More payload of a half-read hello.
#[inline(always)]
fn more<E: Env>(env: &mut E, segment: Segment, flow: Flow) -> Plan {
    let ahead = segment.seq.wrapping_sub(flow.next) as i32;
    if ahead > 0 && mistaken(env, segment, flow) {
        forget(env);
        return Plan::begin_again(env, segment);
    }
    if ahead > 0 {
        return Plan::drop(Reason::HeldBack, segment);
    }
    if flow.certain == 0 && (segment.seq.wrapping_sub(flow.start) as i32) < 0 {
        // What looked like the start may not have been: this is judged by itself.
        return Plan::begin_again(env, segment);
    }
    if !env.hello_load(flow.kept) {
        return Plan::done(not_kept(env, Protocol::None), segment);
    }
    let old = ahead.unsigned_abs();
    if old == 0 {
        return Plan::more(segment);
    }
    if !repeats(env, segment, old) {
        return Plan::drop(Reason::Overlap, segment);
    }
    if old >= segment.len {
        return Plan::pass(Reason::HelloIncomplete, segment);
    }
    Plan::more(segment.without(old))
}

/// Whether what looked like the start of a hello, in mid-stream or again, was a late copy of a segment that
/// the server had already: it has answered since. Without this the client's next bytes would wait
/// for ever for a rest that nobody sends again. Where only requests are looked for, much begins like
/// one, and a server may wait for more before it answers: there nothing is made to wait, unless a name
/// was found that must not pass.
#[inline(always)]
fn mistaken<E: Env>(env: &mut E, segment: Segment, flow: Flow) -> bool {
    if flow.certain == 0 && flow.beyond != 0 {
        return false;
    }
    let kind = host(env).kind;
    let guessed = flow.certain == 0 && kind != peer::CONNECTION;
    let answered = segment.ack.wrapping_sub(flow.ack) as i32 > 0;
    // Where neither a socket nor answers tell, the client is believed to acknowledge them.
    guessed && (answered || segment.class & port_class::TLS == 0) || kind == peer::NONE && answered
}

/// A segment that cannot be judged, since bytes before it had to make room, or is not remembered, since the
/// tables do not take it: then the client sends it again.
#[inline(always)]
pub(super) fn not_kept<E: Env>(env: &mut E, protocol: Protocol) -> Reading {
    if env.config().features & feature::UNPARSED_PASS != 0 {
        forget(env);
        return Reading::nothing(Reason::StateLost, protocol);
    }
    Reading::dropped(Reason::StateLost, protocol)
}

/// Whether the first `old` bytes of a segment are those that were seen before.
#[inline(always)]
pub(super) fn repeats<E: Env>(env: &mut E, segment: Segment, old: u32) -> bool {
    let Some(work) = env.work() else {
        return false;
    };
    let (start, kept) = (work.entry.flow.start, work.entry.flow.kept);
    let from_start = segment.seq.wrapping_sub(start) as i32;
    // What lies before the start is no part of the stream.
    let before = if from_start < 0 {
        from_start.unsigned_abs()
    } else {
        0
    };
    let len = old.min(segment.len);
    if before >= len {
        return true;
    }
    let at = if from_start < 0 { 0 } else { from_start as u32 };
    let len = len - before;
    if at + len > kept || !env.fetch_aside(segment.offset + before, len) {
        return false;
    }
    env.compare(at, len)
}

/// Payload after an allowed hello: the same again, more of it, or a second hello.
#[inline(always)]
fn after_allowed<E: Env>(env: &mut E, segment: Segment, flow: Flow) -> Plan {
    let ahead = segment.seq.wrapping_sub(flow.next) as i32;
    let answered = (segment.ack.wrapping_sub(flow.ack) as i32) > 0 && has_hello(env, flow);
    if answered || ahead >= 0 {
        // Before the host has the connection, only the entry shows that there is one.
        if host(env).kind != peer::NO_COOKIE {
            forget(env);
        }
        return Plan::begin_again(env, segment);
    }
    let known =
        flow.kept != 0 && env.hello_load(flow.kept) && repeats(env, segment, ahead.unsigned_abs());
    if known {
        // The server may have the rest already, and the client not send it again.
        return Plan::pass(Reason::NoMatch, segment);
    }
    let hello = without_dummy(env, segment);
    let again = if hello.seq == flow.start {
        hello
    } else {
        segment
    };
    if again.seq == flow.start && flow.kept == 0 {
        // Another hello, before the server has answered: what it says now counts. One that came in
        // several segments is not exchanged: the server may have some of them already.
        return Plan::start(env, again, flow.certain != 0);
    }
    Plan::drop(Reason::Overlap, segment)
}

/// Whether the host has the allowed hello; where there is no socket to tell, it is believed to.
#[inline(always)]
fn has_hello<E: Env>(env: &mut E, flow: Flow) -> bool {
    let host = host(env);
    match host.kind {
        peer::CONNECTION => host.rcv_nxt.wrapping_sub(flow.next) as i32 >= 0,
        peer::COOKIE | peer::NO_COOKIE => false,
        _ => true,
    }
}

/// The segment without the dummy change_cipher_spec record that a client may send before its
/// second hello (RFC 8446, appendix D.4).
#[inline(always)]
fn without_dummy<E: Env>(env: &E, segment: Segment) -> Segment {
    const DUMMY_LEN: u32 = 6;
    match env.window::<6>(segment.offset) {
        Some(dummy)
            if segment.len > DUMMY_LEN
                && dummy.u8::<0>() == 0x14
                && dummy.be32::<2>() == 0x0300_0101 =>
        {
            segment.without(DUMMY_LEN)
        }
        _ => segment,
    }
}
