//! The path of a packet: parse, look up, read the hello, decide.

use crate::{
    abi::{Action, Protocol, Verdict, feature, port_class, served},
    env::{Env, Window},
    fast::{self, Glance},
    flow::{self, Reading},
    hit::{Hit, Qualifiers},
    origins,
    reason::Reason,
    wire::{self, Address, Family, Fragment, Packet, Ports, TCP, UDP},
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What the payload was recognised as.
    pub protocol: Protocol,
    /// The deciding rule.
    pub hit: Hit,
}

impl Decision {
    #[inline(always)]
    const fn pass(reason: Reason, protocol: Protocol) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            protocol,
            hit: Hit::NONE,
        }
    }

    #[inline(always)]
    const fn by_rule(hit: Hit, reason: Reason, protocol: Protocol) -> Self {
        let verdict = match hit.action() {
            Action::Observe => Verdict::Observe,
            Action::Drop => Verdict::Drop,
            Action::Refuse => Verdict::Refuse,
            Action::Redirect => Verdict::Redirect,
        };
        Self {
            verdict,
            reason,
            protocol,
            hit,
        }
    }
}

impl Glance {
    /// The decision, if this is sure.
    #[inline(always)]
    pub const fn decision(self) -> Decision {
        if self.hit.is_none() {
            Decision::pass(Reason::NoMatch, Protocol::None)
        } else {
            Decision::by_rule(self.hit, Reason::OriginSource, Protocol::None)
        }
    }
}

/// Decides about the frame in `env`, whose headers are left in `packet`.
#[inline(always)]
pub fn decide<E: Env>(env: &mut E, packet: &mut Packet) -> Decision {
    if let Err(reason) = wire::parse(env, packet) {
        return Decision::pass(reason, Protocol::None);
    }
    let ports = packet.ports(env);
    let of_src = Qualifiers {
        protocol: packet.protocol,
        port: ports.src,
        port_shown: ports.shown,
        reason: Reason::OriginSource,
    };
    let of_dst = Qualifiers {
        port: ports.dst,
        reason: Reason::OriginDestination,
        ..of_src
    };
    let by_src = search(env, packet.family, packet.src, of_src);
    let by_dst = search(env, packet.family, packet.dst, of_dst);
    let (origin, origin_reason) = if by_dst > by_src {
        (by_dst, Reason::OriginDestination)
    } else {
        (by_src, Reason::OriginSource)
    };
    if !names_may_beat(env, origin) {
        return Decision::by_rule(origin, origin_reason, Protocol::None);
    }
    let reading = read_payload(env, packet, ports);
    if reading.hit.strength() > origin.strength() {
        return Decision::by_rule(reading.hit, reading.reason, reading.protocol);
    }
    if !origin.is_none() {
        return Decision::by_rule(origin, origin_reason, reading.protocol);
    }
    if reading.reason as u8 == Reason::QuicRefused as u8 {
        return Decision {
            verdict: Verdict::Refuse,
            ..Decision::pass(reading.reason, reading.protocol)
        };
    }
    if reading.drops {
        return Decision {
            verdict: Verdict::Drop,
            ..Decision::pass(reading.reason, reading.protocol)
        };
    }
    Decision::pass(reading.reason, reading.protocol)
}

/// The deciding rule for one of a packet's addresses.
#[inline(always)]
fn search<E: Env>(env: &E, family: Family, address: Address, qualifiers: Qualifiers) -> Hit {
    let features = env.config().features;
    match family {
        Family::V4 => {
            let address = address[1] as u32;
            if features & feature::V4 == 0 || !origins::touches_v4(env, address) {
                return Hit::NONE;
            }
            env.search_v4(address, qualifiers)
        }
        Family::V6 => {
            if features & feature::V6 == 0 || !origins::maybe_v6(env, address) {
                return Hit::NONE;
            }
            env.search_v6(address, qualifiers)
        }
    }
}

/// Whether a name's rule could be stronger than the origin's. At equal strength the origin
/// decides, so that a flood from a blocked origin costs no look at its payload.
#[inline(always)]
pub(crate) fn names_may_beat<E: Env>(env: &E, origin: Hit) -> bool {
    origin.is_none() || env.config().name_action_max > origin.action() as u32
}

/// Reads the name in a payload towards an inspected port of a served address.
#[inline(always)]
fn read_payload<E: Env>(env: &mut E, packet: &Packet, ports: Ports) -> Reading {
    let nothing = Reading::nothing(packet.oddity, Protocol::None);
    if packet.oddity == Reason::ExtensionDepth {
        return too_deep(env, packet);
    }
    if packet.oddity != Reason::NoMatch {
        return nothing;
    }
    if matches!(packet.fragment, Fragment::Later) {
        return Reading::nothing(Reason::LaterFragment, Protocol::None);
    }
    if env.config().features & (feature::NAMES | feature::READ_NAMES) == 0 || !ports.shown {
        return nothing;
    }
    if env.config().features & feature::ANSWERS != 0 && packet.protocol == TCP {
        watch_answer(env, packet, ports);
    }
    let class = env.port_class(ports.dst);
    if class == 0 {
        return nothing;
    }
    match packet.protocol {
        TCP if class & (port_class::TLS | port_class::HTTP) != 0 => {
            read_segment(env, packet, ports, class)
        }
        UDP if class & port_class::QUIC != 0 => read_datagram(env, packet),
        _ => nothing,
    }
}

#[inline(always)]
fn serves<E: Env>(env: &E, packet: &Packet) -> bool {
    service(env, packet.family, packet.dst) != served::NO
}

/// One of [`served`] for an address of a packet.
#[inline(always)]
fn service<E: Env>(env: &E, family: Family, address: Address) -> u32 {
    let features = env.config().features;
    if features & feature::SERVE_ANY != 0 {
        return served::BEYOND;
    }
    match family {
        Family::V4 if features & feature::SERVED_V4 != 0 => env.serves_v4(address[1] as u32),
        Family::V6 if features & feature::SERVED_V6 != 0 => env.serves_v6(address),
        Family::V4 | Family::V6 => served::NO,
    }
}

/// Takes note of what a served address sends from an inspected port: what it answers to a client
/// whose connection passes through. Pure acknowledgements, and what this host sends, end here.
#[inline(always)]
fn watch_answer<E: Env>(env: &mut E, packet: &Packet, ports: Ports) {
    let class = env.port_class(ports.src) & (port_class::TLS | port_class::HTTP);
    if class == 0 || !matches!(packet.fragment, Fragment::Whole) {
        return;
    }
    let Ok(segment) = packet.segment(env, ports.src, class) else {
        return;
    };
    if !flow::matters(segment) || service(env, packet.family, packet.src) != served::BEYOND {
        return;
    }
    let Some(work) = env.work() else { return };
    work.key = flow::key(packet.dst, packet.src, ports.dst, ports.src);
    // Read again behind the calls instead of carried through them: the stack is short.
    if let Ok(segment) = packet.segment(env, ports.src, class) {
        env.watch(segment);
    }
}

/// Hands a segment that may matter to a hello on. Pure acknowledgements end here.
#[inline(always)]
fn read_segment<E: Env>(env: &mut E, packet: &Packet, ports: Ports, class: u8) -> Reading {
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    if matches!(packet.fragment, Fragment::First) {
        return first_fragment(env, packet);
    }
    let segment = match packet.segment(env, ports.dst, class) {
        Ok(segment) => segment,
        Err(reason) => return Reading::nothing(reason, Protocol::None),
    };
    let is_bare = segment.len == 0 && segment.flags & flow::bare_flags(env.config().features) == 0;
    if is_bare && !fast::may_be_taken(env, ports.src) {
        return nothing;
    }
    let service = service(env, packet.family, packet.dst);
    if service == served::NO {
        return nothing;
    }
    let Some(work) = env.work() else {
        return nothing;
    };
    work.begin();
    work.served = service;
    work.key = flow::key(packet.src, packet.dst, ports.src, ports.dst);
    // As in `watch_answer`.
    if fast::may_be_taken(env, ports.src)
        && let Ok(segment) = packet.segment(env, ports.dst, class)
    {
        let answered = env.follow(segment);
        if !answered.hit.is_none() {
            return answered;
        }
    }
    match packet.segment(env, ports.dst, class) {
        Ok(segment) => flow::inspect(env, segment),
        Err(reason) => Reading::nothing(reason, Protocol::None),
    }
}

/// More extension headers than are looked behind: the host might still find a hello there.
#[inline(always)]
fn too_deep<E: Env>(env: &E, packet: &Packet) -> Reading {
    let features = env.config().features;
    let passes = features & feature::NAMES == 0
        || features & feature::UNPARSED_PASS != 0
        || !serves(env, packet);
    Reading {
        drops: !passes,
        ..Reading::nothing(packet.oddity, Protocol::None)
    }
}

/// The beginning of a datagram towards an inspected port: reassembled, it could bring any name.
/// Without it the later fragments are worth nothing.
#[inline(always)]
fn first_fragment<E: Env>(env: &E, packet: &Packet) -> Reading {
    let passes = Reading::nothing(Reason::FirstFragment, Protocol::None);
    if env.config().features & feature::FRAGMENTS_PASS != 0 || !serves(env, packet) {
        return passes;
    }
    Reading {
        drops: true,
        ..passes
    }
}

/// QUIC long headers (RFC 9000, section 17.2) are counted, their names are not read.
#[inline(always)]
fn read_datagram<E: Env>(env: &E, packet: &Packet) -> Reading {
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    let payload = match packet.udp_payload(env) {
        Ok(payload) => payload,
        Err(reason) => return Reading::nothing(reason, Protocol::None),
    };
    if payload.len == 0 || !serves(env, packet) {
        return nothing;
    }
    let Some(first) = env.window::<1>(payload.offset) else {
        return nothing;
    };
    if first.u8::<0>() & 0xc0 != 0xc0 {
        return nothing;
    }
    let refuses = env.config().features & (feature::RESPOND | feature::QUIC_REFUSE)
        == feature::RESPOND | feature::QUIC_REFUSE;
    let reason = if refuses {
        Reason::QuicRefused
    } else {
        Reason::QuicUnread
    };
    Reading::nothing(reason, Protocol::Quic)
}
