//! What the socket of this host says of a segment.

use super::{
    Flow, Peer, Segment,
    held::{flow, forget, host, load},
    mark, peer, state,
    stream::{Plan, at_start},
};
use crate::{env::Env, limits::SEQUENCE_DISTANCE_MAX, reason::Reason};

/// A payload on a connection that the host knows: the host's numbers say where the stream starts.
/// `None` if the entry, which is loaded, says what it is.
#[inline(always)]
pub(super) fn at_host<E: Env>(env: &mut E, segment: Segment) -> Option<Plan> {
    let host_start = host(env).start;
    let end = segment.seq.wrapping_add(segment.len);
    let received = end.wrapping_sub(host(env).rcv_nxt) as i32 <= 0;
    let opens = may_open(host_start, segment);
    if received && !opens {
        // The host has all of it already and looks at it no more.
        return Some(Plan::pass(Reason::NoMatch, segment));
    }
    if load(env) {
        let flow = flow(env);
        let ours = flow.connection == host_start;
        if !ours && torn(host(env), flow.connection) {
            return Some(Plan::drop(Reason::HeldBack, segment));
        }
        // What was kept of an earlier connection on the same ports is void, and so is a stream of
        // which the host has bytes that never came by here.
        let unseen = host(env).rcv_nxt.wrapping_sub(flow.next) as i32 > 0;
        if ours && !unseen {
            let over = flow.certain == 0 || flow.marks & mark::ENDED != 0;
            if opens && over && !host(env).fresh() {
                return Some(Plan::drop(Reason::HeldBack, segment));
            }
            if received {
                return Some(Plan::pass(Reason::NoMatch, segment));
            }
            return None;
        }
        // What came when another connection could be opened on these ports may be the rest of what is read.
        let reads = flow.state == state::READING || flow.state == state::BETWEEN;
        if ours && reads && flow.marks & mark::STRAY != 0 {
            return Some(Plan::drop(Reason::HeldBack, segment));
        }
        forget_other(env, !ours);
    }
    if !opens && !host(env).fresh() {
        // Nobody who does not know the connection's numbers can have it judged.
        if !near(segment.seq, host(env).rcv_nxt) || !near(segment.ack, host(env).snd_una) {
            return Some(Plan::pass(Reason::BadSequence, segment));
        }
        let segment = unreceived(env, segment);
        return Some(Plan::begin_again(env, segment));
    }
    let start = if host(env).fresh() {
        host_start
    } else {
        segment.seq
    };
    Some(at_start(env, segment, start))
}

/// Whether the host may take a segment of a connection that began at `start` for the first of another: the
/// cookie opens that once more, if the host has yet to receive an RST, or is about to send one.
#[inline(always)]
const fn may_open(start: u32, segment: Segment) -> bool {
    let beside = segment.seq.wrapping_sub(start) as i32;
    beside.unsigned_abs() <= COOKIE_SLACK
}

/// The segment without what the host has already, and does not look at again.
#[inline(always)]
pub(super) fn unreceived<E: Env>(env: &mut E, segment: Segment) -> Segment {
    let host = host(env);
    let old = match host.kind {
        peer::CONNECTION => host.rcv_nxt.wrapping_sub(segment.seq),
        _ => 0,
    };
    // Of one that is ahead that is a large number.
    let old = if old < segment.len { old } else { 0 };
    segment.without(old)
}

/// Sequence numbers beside the right one that Linux takes with one cookie, whose low bits tell
/// one of four segment sizes (`check_tcp_syn_cookie`).
const COOKIE_SLACK: u32 = 3;

/// A payload that opens its connection by a SYN cookie; `None` if one before it has.
#[inline(always)]
pub(super) fn with_cookie<E: Env>(env: &mut E, segment: Segment) -> Option<Plan> {
    if load(env) {
        let flow = flow(env);
        let beside = segment.seq.wrapping_sub(flow.connection) as i32;
        let ended = flow.marks & mark::ENDED != 0;
        if beside.unsigned_abs() <= COOKIE_SLACK && !ended {
            if beside < 0 {
                // Where the connection starts here, the entry's bytes are not its first.
                return Some(Plan::drop(Reason::HeldBack, segment));
            }
            opening(env, flow);
            return None;
        }
        if flow.state == state::READING && !ended {
            // Both may be on their way to the host, and the half hello is the first. Its connection will be
            // there when this comes again, or this one.
            return Some(Plan::drop(Reason::HeldBack, segment));
        }
        forget_other(env, true);
    }
    Some(Plan::begin(env, segment))
}

/// A payload at a socket that takes cookies, without one: it may follow one with a cookie that the
/// host is about to receive. Otherwise the host refuses it; but it must not come first, or the host
/// would have it when the cookie comes.
#[inline(always)]
pub(super) fn without_cookie<E: Env>(env: &mut E, segment: Segment) -> Option<Plan> {
    if !load(env) {
        return Some(Plan::drop(Reason::BadSequence, segment));
    }
    let flow = flow(env);
    // What lies before its start would be part of another connection.
    let before = (segment.seq.wrapping_sub(flow.connection) as i32) < 0;
    if before || flow.marks & mark::ENDED != 0 {
        return Some(Plan::drop(Reason::BadSequence, segment));
    }
    opening(env, flow);
    None
}

/// Forgets the entry. If it is of another connection, this one may have received that one's bytes: its bare
/// acknowledgement, which opens it, can be on its way while they pass.
#[inline(always)]
fn forget_other<E: Env>(env: &mut E, other: bool) {
    forget(env);
    if let Some(work) = env.work() {
        work.entry.flow.marks = other as u16 * mark::STRAY;
    }
}

/// A payload on a connection that a cookie opened, before the host has it.
#[inline(always)]
fn opening<E: Env>(env: &mut E, flow: Flow) {
    if let Some(work) = env.work() {
        work.peer.start = flow.connection;
    }
}

/// Whether the host's numbers may be of the connection that started at `start`, though they say that it
/// started elsewhere: they are two counters, which another processor may just be moving on
/// (`tcp_rcv_nxt_update`). They are right again when the client repeats the segment. The first payload of
/// another connection cannot be taken for this: then the host has received nothing, and nothing moves.
#[inline(always)]
pub(super) const fn torn(host: Peer, start: u32) -> bool {
    !host.fresh() && near(host.start, start)
}

/// Whether two numbers are within what may be on its way.
#[inline(always)]
pub(super) const fn near(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32).unsigned_abs() <= SEQUENCE_DISTANCE_MAX
}
