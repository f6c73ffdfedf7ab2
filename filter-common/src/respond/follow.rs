//! Later segments of connections that were answered in the server's place.

use crate::{
    abi::{Action, NO_SLOT, Protocol, taken},
    env::Env,
    flow::{Entry, Reading, Segment, flags, peer},
    hit::Hit,
    reason::Reason,
};

/// Looks up the connection of the segment whose flow's key is in the working area.
///
/// A SYN ends nothing: whoever can forge an address could otherwise throw a client back at the server. It
/// is judged like any, and what agrees with it afterwards belongs to another connection if the server has
/// taken it, as its socket, in the working area, or what it answered says.
#[inline(always)]
pub fn follow<E: Env>(env: &mut E, segment: Segment) -> Reading {
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    let Some(taken) = env.taken_load() else {
        return nothing;
    };
    if segment.flags & (flags::SYN | flags::ACK) == flags::SYN {
        let at = segment.seq.wrapping_add(1);
        // A late copy of the SYN that opened this connection opens no other: its hello, repeated, is still the
        // one that was answered.
        if at != taken.start {
            env.taken_reopen(at);
        }
        return nothing;
    }
    let reopened = taken.flags & taken::flag::REOPENED != 0;
    if reopened && segment.seq == taken.reopened_at && opens(env, segment) {
        env.taken_delete();
        return nothing;
    }
    let slot = match env.rule(taken.slot) {
        Some(rule) if rule.slot_version == taken.slot_version => taken.slot,
        _ => NO_SLOT,
    };
    let action = match taken.state {
        taken::PAGE => Action::Redirect,
        _ => Action::Refuse,
    };
    let protocol = Protocol::from_u8(taken.protocol).unwrap_or(Protocol::None);
    Reading {
        hit: Hit::before(action, slot),
        ..Reading::nothing(Reason::Taken, protocol)
    }
}

/// Whether the segment starts a connection that the server has opened.
#[inline(always)]
fn opens<E: Env>(env: &mut E, segment: Segment) -> bool {
    env.look_up_peer(segment);
    let kind = env.work().map_or(peer::LISTENER, |work| work.peer.kind);
    // Where there is no socket, what the server answered is in the entry that the SYN has made.
    let answered = kind == peer::NONE && env.flow_load();
    let Some(work) = env.work() else {
        return false;
    };
    let Entry { flow, answers } = &work.entry;
    let (start, first, next) = match kind {
        peer::COOKIE => return true,
        peer::CONNECTION => (work.peer.start, work.peer.snd_una, work.peer.snd_nxt),
        _ if answered && answers.seen != 0 => (flow.connection, answers.start, answers.next),
        _ => return false,
    };
    start == segment.seq && segment.ack.wrapping_sub(first) <= next.wrapping_sub(first)
}
