//! Later segments of connections that were answered in the server's place.

use crate::{
    abi::{Action, NO_SLOT, Protocol, Taken, taken},
    env::Env,
    flow::{Reading, Segment, flags},
    hit::Hit,
    reason::Reason,
};

/// Looks up the connection of the segment whose flow's key is in the working area.
///
/// A SYN ends nothing: whoever can forge an address could otherwise throw a client back at the server. It
/// is judged like any, and what agrees with it afterwards belongs to another connection.
#[inline(always)]
pub fn follow<E: Env>(env: &mut E, segment: Segment) -> Reading {
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    let Some(taken) = env.taken_load() else {
        return nothing;
    };
    if segment.flags & (flags::SYN | flags::ACK) == flags::SYN {
        env.taken_reopen(segment.seq.wrapping_add(1));
        return nothing;
    }
    let reopened = taken.flags & taken::flag::REOPENED != 0;
    if reopened && segment.seq == taken.reopened_at {
        env.taken_delete();
        return nothing;
    }
    let slot = match env.rule(taken.slot) {
        Some(rule) if rule.slot_version == taken.slot_version => taken.slot,
        _ => NO_SLOT,
    };
    let action = match taken.state {
        taken::PAGE if resets_server(&taken, segment) => return nothing,
        taken::PAGE => Action::Redirect,
        _ => Action::Refuse,
    };
    let protocol = Protocol::from_u8(taken.protocol).unwrap_or(Protocol::None);
    Reading {
        hit: Hit::before(action, slot),
        ..Reading::nothing(Reason::Taken, protocol)
    }
}

/// Whether the segment ends the server's half, which is over anyway. Where the program runs behind the
/// driver it sees its own.
#[inline(always)]
const fn resets_server(taken: &Taken, segment: Segment) -> bool {
    segment.flags & (flags::RST | flags::ACK) == flags::RST && segment.seq == taken.next
}
