//! Reading a segment as part of its stream, and what becomes of the stream then.

use super::{
    Blocked, Flow, Reading, Segment, state,
    stream::{flow, forget, qualifiers, store},
};
use crate::{
    abi::{Protocol, feature, port_class},
    env::{Env, Window},
    hello::Progress,
    hit::Hit,
    http,
    limits::STREAM_BYTES_MAX,
    reason::Reason,
    tls,
    work::Variable as _,
};

/// What the stream's first byte says, of what the port is inspected for.
#[inline(always)]
pub(super) fn protocol_of<E: Env>(env: &mut E, segment: Segment) -> Protocol {
    let first = if flow(env).kept != 0 {
        env.work().map_or(0, |work| work.byte(0))
    } else if let Some(window) = env.window::<1>(segment.offset) {
        window.u8::<0>()
    } else if env.fetch(segment.offset, 1, 0) {
        // Beyond the frame's first buffer.
        env.work().map_or(0, |work| work.byte(0))
    } else {
        return Protocol::None;
    };
    if segment.class & port_class::TLS != 0 && tls::can_start_with(first) {
        Protocol::Tls
    } else if segment.class & port_class::HTTP != 0 && http::can_start_with(first) {
        Protocol::Http
    } else {
        Protocol::None
    }
}

/// Appends in-order payload to what is kept, reads, and decides if it can.
#[inline(always)]
pub(super) fn read<E: Env>(env: &mut E, segment: Segment, protocol: Protocol) -> Reading {
    let flow = flow(env);
    let room = (STREAM_BYTES_MAX as u32).saturating_sub(flow.kept);
    let taken = segment.len.min(room);
    if taken == 0 {
        return unparsed(env, flow, Reason::HelloTooLong, protocol);
    }
    if !env.fetch(segment.offset, taken, flow.kept) {
        return Reading::nothing(Reason::Truncated, Protocol::None);
    }
    let kept = flow.kept + taken;
    let progress = match protocol {
        Protocol::Tls => env.read_tls(kept),
        Protocol::Http | Protocol::Quic | Protocol::None => env.read_http(kept, flow.certain != 0),
    };
    let reason = match progress {
        Progress::Other => {
            forget(env);
            return Reading::nothing(Reason::OtherProtocol, Protocol::None);
        }
        Progress::Malformed => return unparsed(env, flow, Reason::HelloMalformed, protocol),
        Progress::TooLong => return unparsed(env, flow, Reason::HelloTooLong, protocol),
        Progress::Incomplete if taken < segment.len => {
            return unparsed(env, flow, Reason::HelloTooLong, protocol);
        }
        // The end of most connections, which must not take the room of hellos that are under way.
        Progress::Incomplete
            if flow.certain == 0
                && protocol == Protocol::Tls
                && env.work().is_some_and(|work| tls::only_alerts(work)) =>
        {
            forget(env);
            return Reading::nothing(Reason::OtherProtocol, Protocol::None);
        }
        Progress::Incomplete => Reason::HelloIncomplete,
        Progress::Named => Reason::NoMatch,
        Progress::NoName if env.config().features & feature::NO_NAME_DROP != 0 => {
            return Reading::dropped(Reason::NoName, protocol);
        }
        Progress::NoName => Reason::NoName,
        Progress::Http2 => Reason::Http2,
    };
    // Also of an incomplete head: a name that is there already will not go away.
    let hit = env.search_names(qualifiers(segment));
    if !hit.is_none() {
        // What is kept of the stream stays, for the time when the rule is gone.
        block(env, segment, flow, hit, protocol);
        return Reading {
            hit,
            reason: Reason::Hostname,
            protocol,
            drops: false,
        };
    }
    let odd = env.work().is_some_and(|work| work.odd_name.get() != 0);
    let reason = if odd && progress == Progress::Named {
        Reason::OddName
    } else {
        reason
    };
    let next = segment.seq.wrapping_add(segment.len);
    if progress == Progress::Incomplete {
        keep(
            env,
            Flow {
                state: state::READING,
                next,
                kept,
                ..flow
            },
        );
    } else if protocol == Protocol::Tls {
        allow(
            env,
            Flow {
                state: state::ALLOWED,
                next,
                kept,
                ..flow
            },
        );
    } else if matches!(progress, Progress::Named | Progress::NoName) {
        follow(env, flow, flow.kept + segment.len);
    } else {
        forget(env);
    }
    Reading::nothing(reason, protocol)
}

/// Remembers that this connection is blocked.
#[inline(always)]
fn block<E: Env>(env: &mut E, segment: Segment, flow: Flow, hit: Hit, protocol: Protocol) {
    if flow.certain == 0 {
        // Each segment is judged by itself, so that a forged one blocks nothing but itself.
        return;
    }
    env.blocked_store(Blocked {
        generation: env.config().generation as u32,
        slot: hit.slot(),
        specificity: hit.specificity(),
        start: flow.start,
        connection: flow.connection,
        seq: segment.seq,
        protocol: protocol as u16,
        ..Blocked::default()
    });
}

/// Keeps the bytes of an incomplete hello.
#[inline(always)]
fn keep<E: Env>(env: &mut E, flow: Flow) {
    env.hello_store(flow.kept);
    store(env, flow);
}

/// Notes where the next request starts, if that is known; `end`: what the segment reaches to.
#[inline(always)]
fn follow<E: Env>(env: &mut E, flow: Flow, end: u32) {
    let rest = match env.work() {
        Some(work) => http::rest(work),
        None => return,
    };
    // Not within what was too long to be taken.
    let passed = rest.next < end;
    if !rest.known || flow.certain == 0 || passed {
        forget(env);
        return;
    }
    let between = Flow {
        state: state::BETWEEN,
        next: flow.start.wrapping_add(rest.next),
        kept: rest.behind,
        ..flow
    };
    if env.hello_exists() {
        env.hello_store(rest.behind);
    }
    store(env, between);
}

/// Notes that the hello was allowed. Its bytes are kept on if several segments brought it, so
/// that they cannot be exchanged before the server has answered.
#[inline(always)]
fn allow<E: Env>(env: &mut E, flow: Flow) {
    let several = env.hello_exists();
    if several {
        env.hello_store(flow.kept);
        store(env, flow);
    } else {
        store(env, Flow { kept: 0, ..flow });
    }
}

/// A hello that cannot be read. If it started the connection for certain, a server might still
/// make sense of it: it is dropped, unless the host's configuration lets it pass.
#[inline(always)]
fn unparsed<E: Env>(env: &mut E, flow: Flow, reason: Reason, protocol: Protocol) -> Reading {
    if flow.certain == 0 || env.config().features & feature::UNPARSED_PASS != 0 {
        forget(env);
        return Reading::nothing(reason, protocol);
    }
    Reading::dropped(reason, protocol)
}
