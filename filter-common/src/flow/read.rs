//! Reading a segment as part of its stream, and what becomes of the stream then.

use super::{
    Blocked, Reading, Segment,
    held::{flow, forget, host},
    reverse::note_beyond,
    state,
    stream::{not_kept, qualifiers},
};
use crate::{
    abi::{Protocol, feature, port_class},
    env::{Env, Window},
    hello::Progress,
    hit::Hit,
    http,
    limits::STREAM_BYTES_MAX,
    proxy::{self, Header},
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
    let protocol = protocol_by(segment.class, first);
    if protocol != Protocol::None || !may_have_header(env, segment) || !proxy::can_start_with(first)
    {
        return protocol;
    }
    // What is behind the header says more.
    if segment.class & port_class::TLS != 0 {
        Protocol::Tls
    } else {
        Protocol::Http
    }
}

/// What the first byte of a hello says on a port of this class.
#[inline(always)]
fn protocol_by(class: u8, first: u8) -> Protocol {
    if class & port_class::TLS != 0 && tls::can_start_with(first) {
        Protocol::Tls
    } else if class & port_class::HTTP != 0 && http::can_start_with(first) {
        Protocol::Http
    } else {
        Protocol::None
    }
}

/// Whether a PROXY protocol header may precede the hello.
#[inline(always)]
fn may_have_header<E: Env>(env: &E, segment: Segment) -> bool {
    env.config().features & feature::PROXY != 0 && segment.class & port_class::PROXY != 0
}

/// The PROXY protocol header before the hello in the first `len` bytes of the stream.
#[inline(always)]
fn header<E: Env>(env: &mut E, segment: Segment, len: u32) -> Header {
    let header = if may_have_header(env, segment) {
        env.read_proxy(len)
    } else {
        Header::NONE
    };
    if let Some(work) = env.work() {
        work.begins.set(header.len());
    }
    header
}

/// Appends in-order payload to what is kept, reads, and decides if it can.
#[inline(always)]
pub(super) fn read<E: Env>(env: &mut E, segment: Segment, protocol: Protocol) -> Reading {
    if is_undermined(env, segment) {
        return Reading::dropped(Reason::Overlap, protocol);
    }
    // The entry is read anew where it is needed and not carried through calls: the stack is short.
    let before = flow(env).kept;
    let room = (STREAM_BYTES_MAX as u32).saturating_sub(before);
    let taken = segment.len.min(room);
    if taken == 0 {
        return unparsed(env, Reason::HelloTooLong, protocol);
    }
    if !env.fetch(segment.offset, taken, before) {
        return Reading::nothing(Reason::Truncated, Protocol::None);
    }
    let kept = before + taken;
    let header = header(env, segment, kept);
    let protocol = if header.is_empty() || header.len() == kept {
        protocol
    } else {
        // From memory: of what it knows in a register the compiler drops the mask that the verifier needs.
        let first = env.work().map_or(0, |work| work.byte(work.begins.get()));
        protocol_by(segment.class, first)
    };
    let progress = if header == Header::MALFORMED {
        return unparsed(env, Reason::ProxyMalformed, protocol);
    } else if header == Header::INCOMPLETE || header.len() == kept {
        Progress::Incomplete
    } else {
        match protocol {
            Protocol::Tls => env.read_tls(kept),
            Protocol::Http => {
                let certain = flow(env).certain != 0;
                env.read_http(kept, certain)
            }
            Protocol::Quic | Protocol::None => Progress::Other,
        }
    };
    let reason = match progress {
        Progress::Other => {
            if !env.settle(state::PASSED, segment.seq.wrapping_add(segment.len), kept) {
                return not_kept(env, Protocol::None);
            }
            return Reading::nothing(Reason::OtherProtocol, Protocol::None);
        }
        Progress::Malformed => return unparsed(env, Reason::HelloMalformed, protocol),
        Progress::TooLong => return unparsed(env, Reason::HelloTooLong, protocol),
        Progress::Incomplete if taken < segment.len => {
            return unparsed(env, Reason::HelloTooLong, protocol);
        }
        // The end of most connections, which must not take the room of hellos that are under way.
        Progress::Incomplete
            if flow(env).certain == 0
                && protocol == Protocol::Tls
                && env.work().is_some_and(|work| tls::only_alerts(work)) =>
        {
            forget(env);
            return Reading::nothing(Reason::OtherProtocol, Protocol::None);
        }
        Progress::Incomplete => Reason::HelloIncomplete,
        Progress::Named => Reason::NoMatch,
        Progress::NoName if env.config().features & feature::NO_SNI_DROP != 0 => {
            return Reading::dropped(Reason::NoName, protocol);
        }
        Progress::NoName => Reason::NoName,
        Progress::Http2 if env.config().features & feature::HTTP2_DROP != 0 => {
            return Reading::dropped(Reason::Http2, protocol);
        }
        Progress::Http2 => Reason::Http2,
    };
    // Also of an incomplete head: a name that is there already will not go away.
    let hit = env.search_names(qualifiers(segment));
    if !hit.is_none() {
        // What is kept of the stream stays, for the time when the rule is gone.
        block(env, segment, hit, protocol);
        return Reading {
            hit,
            reason: Reason::Hostname,
            protocol,
            drops: false,
        };
    }
    let reason = if progress == Progress::Named {
        unlisted(env)
    } else {
        reason
    };
    if reason == Reason::NoName && env.config().features & feature::NO_SNI_DROP != 0 {
        return Reading::dropped(reason, protocol);
    }
    let settled = match (progress, protocol) {
        (Progress::Incomplete, _) if flow(env).state == state::BESIDE => {
            // Behind a ClientHello the server's answer will come, and then this again; a socket needs
            // but a moment until it has what came before.
            let here = host(env).at_host();
            if flow(env).beyond != 0 && (here || protocol == Protocol::Tls) {
                return Reading::dropped(Reason::HeldBack, protocol);
            }
            0
        }
        (Progress::Incomplete, _) if before == 0 && flow(env).beyond != 0 => {
            // Less than what a verdict was given on, while what comes behind that has passed.
            return Reading::dropped(Reason::Overlap, protocol);
        }
        (Progress::Incomplete, _) => state::READING,
        (_, Protocol::Tls) => state::ALLOWED,
        (Progress::Named | Progress::NoName, _) => state::BETWEEN,
        _ => state::PASSED,
    };
    let next = segment.seq.wrapping_add(segment.len);
    if !env.settle(settled, next, kept) {
        return not_kept(env, protocol);
    }
    Reading::nothing(reason, protocol)
}

/// Whether a hello that takes the place of what passed before reaches over what passed behind that: hosts
/// differ in which of the two they read.
#[inline(always)]
fn is_undermined<E: Env>(env: &mut E, segment: Segment) -> bool {
    let Some(work) = env.work() else { return false };
    let (flow, before) = (&work.entry.flow, work.before.get());
    let len = segment
        .seq
        .wrapping_add(segment.len)
        .wrapping_sub(flow.start);
    before != 0 && flow.beyond != 0 && len > before
}

/// Why names that no rule hits pass.
#[inline(always)]
fn unlisted<E: Env>(env: &mut E) -> Reason {
    let Some(work) = env.work() else {
        return Reason::NoMatch;
    };
    if work.literal_name.get() != 0 {
        Reason::NoName
    } else if work.odd_name.get() != 0 {
        Reason::OddName
    } else if work.ech.get() != 0 {
        Reason::Ech
    } else {
        Reason::NoMatch
    }
}

/// Remembers that this connection is blocked.
#[inline(always)]
fn block<E: Env>(env: &mut E, segment: Segment, hit: Hit, protocol: Protocol) {
    let flow = flow(env);
    if flow.certain == 0 {
        // Each segment is judged by itself, so that a forged one blocks nothing but itself. But of a hello
        // over several the rest must not pass by while this one is missing.
        if flow.kept != 0 {
            note_beyond(env);
        }
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

/// A hello that cannot be read. If it started the connection for certain, a server might still
/// make sense of it: it is dropped, unless the host's configuration lets it pass.
#[inline(always)]
fn unparsed<E: Env>(env: &mut E, reason: Reason, protocol: Protocol) -> Reading {
    if flow(env).certain == 0 || env.config().features & feature::UNPARSED_PASS != 0 {
        forget(env);
        return Reading::nothing(reason, protocol);
    }
    Reading::dropped(reason, protocol)
}
