//! What is known of a segment that is to be answered.

use crate::{
    abi::Response,
    flow::{Flow, Peer, Segment, mark, peer},
    reason::Reason,
    work::{Memory, Variable as _, Work},
};

/// Completes `response` for a segment, as far as the working area, which the decision was made in, knows
/// its stream.
#[inline(always)]
pub fn describe<M: Memory>(response: &mut Response, work: &Work<M>, segment: Segment) {
    response.seq = segment.seq;
    response.ack = segment.ack;
    if response.reason != Reason::Hostname as u8 {
        return;
    }
    let flow = &work.entry.flow;
    response.start = flow.start;
    response.next = flow.next;
    response.flags |= Response::NAMED;
    if is_verified(&work.peer, flow, segment) {
        response.flags |= Response::VERIFIED;
    }
    if matches!(
        work.peer.kind,
        peer::CONNECTION | peer::COOKIE | peer::NO_COOKIE
    ) {
        response.flags |= Response::LOCAL;
    }
    if is_in_flight(&work.peer, segment) || work.queued.get() != 0 {
        response.flags |= Response::IN_FLIGHT;
    }
    // What stands before the hello is for the server, and nobody else reads it.
    let opens = flow.certain != 0 && flow.start == flow.connection;
    if (opens || flow.marks & mark::CLEAN != 0) && work.begins.get() == 0 {
        response.flags |= Response::CLEAN;
    }
}

/// Whether the segment's numbers are those of a connection of which the host, its SYN cookie, or both
/// directions tell them: nobody can have made it up who does not see the connection.
#[inline(always)]
fn is_verified(peer: &Peer, flow: &Flow, segment: Segment) -> bool {
    match peer.kind {
        peer::CONNECTION | peer::SEEN => {
            let sent = peer.snd_nxt.wrapping_sub(peer.snd_una);
            let acknowledged = segment.ack.wrapping_sub(peer.snd_una);
            // In mid-stream the place is the host's next byte, or it is a guess. Of what passes through, the
            // server's answer tells, which comes when it has the whole request.
            let starts_there = flow.start == peer.rcv_nxt && peer.kind == peer::SEEN;
            let placed = starts_there || segment.seq == peer.rcv_nxt;
            acknowledged <= sent && (flow.certain != 0 || placed)
        }
        peer::COOKIE => true,
        // Behind a segment with a cookie.
        peer::NO_COOKIE => flow.kept != 0 && segment.ack == flow.ack,
        _ => false,
    }
}

/// Whether the server has sent what this segment does not acknowledge. What it
/// acknowledges the host need not know yet.
#[inline(always)]
fn is_in_flight(peer: &Peer, segment: Segment) -> bool {
    match peer.kind {
        peer::CONNECTION | peer::SEEN => segment.ack != peer.snd_nxt,
        peer::COOKIE | peer::NO_COOKIE => false,
        _ => true,
    }
}
