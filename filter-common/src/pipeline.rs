//! The path of a packet: parse, look up, read the hello, decide.

use crate::{
    abi::{Action, Protocol, Verdict, feature, port_class},
    env::{Env, Window},
    hello::Progress,
    hit::{Hit, Qualifiers},
    http, origins,
    reason::Reason,
    tls,
    wire::{self, Addresses, Fragment, Packet, Payload, Ports, TCP, UDP},
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
    /// The packet, if it could be parsed.
    pub packet: Option<Packet>,
}

impl Decision {
    #[inline(always)]
    const fn pass(reason: Reason, protocol: Protocol) -> Self {
        Self { verdict: Verdict::Pass, reason, protocol, hit: Hit::NONE, packet: None }
    }

    #[inline(always)]
    const fn by_rule(hit: Hit, reason: Reason, protocol: Protocol) -> Self {
        let verdict = match hit.action() {
            Action::Observe => Verdict::Observe,
            Action::Drop => Verdict::Drop,
            Action::Redirect => Verdict::Redirect,
        };
        Self { verdict, reason, protocol, hit, packet: None }
    }
}

/// What reading a payload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    hit: Hit,
    reason: Reason,
    protocol: Protocol,
}

impl Reading {
    const fn nothing(reason: Reason, protocol: Protocol) -> Self {
        Self { hit: Hit::NONE, reason, protocol }
    }
}

/// Decides about the frame in `env`.
#[inline(always)]
pub fn decide<E: Env>(env: &mut E) -> Decision {
    let packet = match wire::parse(env) {
        Ok(packet) => packet,
        Err(reason) => return Decision::pass(reason, Protocol::None),
    };
    let decision = judge(env, &packet);
    Decision { packet: Some(packet), ..decision }
}

#[inline(always)]
fn judge<E: Env>(env: &mut E, packet: &Packet) -> Decision {
    let ports = packet.ports(env);
    let (origin, origin_reason) = search_origins(env, packet, ports);
    if !names_may_beat(env, origin) {
        return Decision::by_rule(origin, origin_reason, Protocol::None);
    }
    let reading = read_payload(env, packet, ports);
    if reading.hit > origin {
        return Decision::by_rule(reading.hit, reading.reason, reading.protocol);
    }
    if !origin.is_none() {
        return Decision::by_rule(origin, origin_reason, reading.protocol);
    }
    let reason = match packet.oddity {
        Some(oddity) => oddity,
        None => reading.reason,
    };
    Decision::pass(reason, reading.protocol)
}

/// Whether a name's rule could be stronger than the origin's. At equal strength the origin
/// decides, so that a flood from a blocked origin costs no look at its payload.
#[inline(always)]
fn names_may_beat<E: Env>(env: &E, origin: Hit) -> bool {
    origin.is_none() || env.config().name_action_max > origin.action() as u32
}

/// The stronger of the rules for source and destination.
#[inline(always)]
fn search_origins<E: Env>(env: &mut E, packet: &Packet, ports: Option<Ports>) -> (Hit, Reason) {
    let features = env.config().features;
    let protocol = packet.protocol;
    let of_src = Qualifiers { protocol, port: ports.map(|ports| ports.src) };
    let of_dst = Qualifiers { protocol, port: ports.map(|ports| ports.dst) };
    let (mut by_src, mut by_dst) = (Hit::NONE, Hit::NONE);
    match packet.addresses {
        Addresses::V4 { src, dst } if features & feature::V4 != 0 => {
            if origins::maybe_v4(env, src) {
                by_src = env.search_v4(src, of_src);
            }
            if origins::maybe_v4(env, dst) {
                by_dst = env.search_v4(dst, of_dst);
            }
        }
        Addresses::V6 { src, dst } if features & feature::V6 != 0 => {
            by_src = env.search_v6(src, of_src);
            by_dst = env.search_v6(dst, of_dst);
        }
        Addresses::V4 { .. } | Addresses::V6 { .. } => {}
    }
    if by_dst > by_src {
        (by_dst, Reason::OriginDestination)
    } else {
        (by_src, Reason::OriginSource)
    }
}

/// Reads the name in a payload towards an inspected port of a served address.
#[inline(always)]
fn read_payload<E: Env>(env: &mut E, packet: &Packet, ports: Option<Ports>) -> Reading {
    if matches!(packet.fragment, Fragment::Later) {
        return Reading::nothing(Reason::LaterFragment, Protocol::None);
    }
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    let Some(ports) = ports else {
        return nothing;
    };
    if env.config().features & (feature::NAMES | feature::READ_NAMES) == 0 || packet.oddity.is_some()
    {
        return nothing;
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
fn serves<E: Env>(env: &E, addresses: Addresses) -> bool {
    let features = env.config().features;
    if features & feature::SERVE_ANY != 0 {
        return true;
    }
    match addresses {
        Addresses::V4 { dst, .. } => {
            features & feature::SERVED_V4 != 0 && env.serves_v4(dst)
        }
        Addresses::V6 { dst, .. } => {
            features & feature::SERVED_V6 != 0 && env.serves_v6(dst)
        }
    }
}

#[inline(always)]
fn read_segment<E: Env>(env: &mut E, packet: &Packet, ports: Ports, class: u8) -> Reading {
    let payload = match packet.tcp_payload(env) {
        Ok(payload) => payload,
        Err(reason) => return Reading::nothing(reason, Protocol::None),
    };
    if payload.len == 0 || !serves(env, packet.addresses) {
        return Reading::nothing(Reason::NoMatch, Protocol::None);
    }
    if matches!(packet.fragment, Fragment::First) {
        return Reading::nothing(Reason::FirstFragment, Protocol::None);
    }
    let other = Reading::nothing(Reason::OtherProtocol, Protocol::None);
    let Some(protocol) = recognise(env, payload, class) else {
        return other;
    };
    let len = payload.len.min(crate::limits::STREAM_BYTES_MAX as u32);
    if !env.fetch(payload.offset, len, 0) {
        return Reading::nothing(Reason::Truncated, Protocol::None);
    }
    let progress = match protocol {
        Protocol::Tls => env.read_tls(len),
        Protocol::Http | Protocol::Quic | Protocol::None => env.read_http(len),
    };
    let reason = match progress {
        Progress::Other => return other,
        Progress::Named => Reason::NoMatch,
        Progress::NoName => Reason::NoName,
        Progress::Incomplete => Reason::HelloIncomplete,
        Progress::Malformed => Reason::HelloMalformed,
        Progress::TooLong => Reason::HelloTooLong,
        Progress::Http2 => Reason::Http2,
    };
    let qualifiers = Qualifiers { protocol: packet.protocol, port: Some(ports.dst) };
    let hit = env.search_names(qualifiers);
    if !hit.is_none() {
        return Reading { hit, reason: Reason::Hostname, protocol };
    }
    Reading::nothing(reason, protocol)
}

/// What the first byte of a payload says, of what the port is inspected for.
#[inline(always)]
fn recognise<E: Env>(env: &mut E, payload: Payload, class: u8) -> Option<Protocol> {
    let first = match env.window::<1>(payload.offset) {
        Some(window) => window.u8::<0>(),
        None => {
            // Beyond the first buffer of the frame.
            if !env.fetch(payload.offset, 1, 0) {
                return None;
            }
            env.work()?.byte(0)
        }
    };
    if class & port_class::TLS != 0 && tls::can_start_with(first) {
        return Some(Protocol::Tls);
    }
    if class & port_class::HTTP != 0 && http::can_start_with(first) {
        return Some(Protocol::Http);
    }
    None
}

/// QUIC long headers (RFC 9000, section 17.2) are counted, their names are not read.
#[inline(always)]
fn read_datagram<E: Env>(env: &E, packet: &Packet) -> Reading {
    let nothing = Reading::nothing(Reason::NoMatch, Protocol::None);
    let payload = match packet.udp_payload(env) {
        Ok(payload) => payload,
        Err(reason) => return Reading::nothing(reason, Protocol::None),
    };
    if payload.len == 0 || !serves(env, packet.addresses) {
        return nothing;
    }
    let Some(first) = env.window::<1>(payload.offset) else {
        return nothing;
    };
    if first.u8::<0>() & 0xc0 != 0xc0 {
        return nothing;
    }
    Reading::nothing(Reason::QuicUnread, Protocol::Quic)
}
