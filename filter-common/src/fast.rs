//! The way of nearly every packet: to where nothing is listed and nothing is read, or, under attack, from
//! a listed address.
//!
//! Answers for the commonest frames only, in few instructions and without a call, and leaves all others to
//! [`crate::pipeline::decide`]. What it says is what that would say: a shorter way, not another opinion.

use crate::{
    abi::{feature, port_class},
    env::{Env, Window},
    flow::{bare_flags, flags},
    hit::{Hit, Qualifiers},
    origins,
    pipeline::names_may_beat,
    reason::Reason,
    respond,
    wire::{
        ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, IPV4_LEN, IPV6_LEN, TCP,
        TCP_LEN, UDP, UDP_LEN, VLAN_TAG_LEN, is_tag,
    },
};

/// Version and header length of an IPv4 header without options.
const IPV4_PLAIN: u8 = 0x45;

/// Bytes of ports at the beginning of a TCP or UDP header.
const PORTS_LEN: u32 = 4;

/// What a first look at a frame came to. Plain fields, see [`crate::wire::Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Glance {
    /// Whether that is all there is to say: [`crate::pipeline::decide`] would say the same.
    pub is_sure: bool,
    /// The rule that hit the source address; without one the frame passes, and there is nothing to be
    /// noted about it.
    pub hit: Hit,
}

impl Glance {
    const UNSURE: Self = Self {
        is_sure: false,
        hit: Hit::NONE,
    };

    const UNRELATED: Self = Self {
        is_sure: true,
        hit: Hit::NONE,
    };

    #[inline(always)]
    const fn unrelated_if(is_unrelated: bool) -> Self {
        Self {
            is_sure: is_unrelated,
            hit: Hit::NONE,
        }
    }
}

/// A first look at the frame in `env`.
#[inline(always)]
pub fn look<E: Env>(env: &E) -> Glance {
    let Some(link) = env.window::<14>(0) else {
        return Glance::UNSURE;
    };
    let mut ethertype = link.be16::<12>();
    let mut network = ETHERNET_LEN;
    if is_tag(ethertype) {
        let Some(tag) = env.window::<4>(network) else {
            return Glance::UNSURE;
        };
        ethertype = tag.be16::<2>();
        network += VLAN_TAG_LEN;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(env, network),
        ETHERTYPE_IPV6 => ipv6(env, network),
        _ => Glance::UNSURE,
    }
}

#[inline(always)]
fn ipv4<E: Env>(env: &E, network: u32) -> Glance {
    let Some(header) = env.window::<24>(network) else {
        return Glance::UNSURE;
    };
    if header.u8::<0>() != IPV4_PLAIN || header.be16::<6>() & IPV4_FRAGMENT != 0 {
        return Glance::UNSURE;
    }
    let protocol = header.u8::<9>();
    let start = network + IPV4_LEN;
    let end = network + u32::from(header.be16::<2>());
    if !shows_ports(env, protocol, start, end) {
        return Glance::UNSURE;
    }
    if env.config().features & feature::V4 != 0 {
        let (src, dst) = (header.be32::<12>(), header.be32::<16>());
        let (of_src, of_dst) = (origins::kinds_v4(env, src), origins::kinds_v4(env, dst));
        if !of_dst.is_none() {
            return Glance::UNSURE;
        }
        if !of_src.is_none() {
            return listed_source(env, origins::first_v4(env, src, of_src));
        }
    }
    let ports = [header.be16::<20>(), header.be16::<22>()];
    transport(env, protocol, ports, start, end)
}

/// A hit of the source, where none of the destination is possible.
#[inline(always)]
fn listed_source<E: Env>(env: &E, hit: Hit) -> Glance {
    // What is to be answered must be read anyway.
    let is_answered = respond::answers(env.config(), hit);
    Glance {
        is_sure: !names_may_beat(env, hit) && !is_answered,
        hit,
    }
}

#[inline(always)]
fn ipv6<E: Env>(env: &E, network: u32) -> Glance {
    let Some(header) = env.window::<44>(network) else {
        return Glance::UNSURE;
    };
    if header.u8::<0>() >> 4 != 6 {
        return Glance::UNSURE;
    }
    let protocol = header.u8::<6>();
    let start = network + IPV6_LEN;
    let end = start + u32::from(header.be16::<4>());
    if !shows_ports(env, protocol, start, end) {
        return Glance::UNSURE;
    }
    if env.config().features & feature::V6 != 0 {
        let src = [header.be64::<8>(), header.be64::<16>()];
        let dst = [header.be64::<24>(), header.be64::<32>()];
        let (is_src_listed, is_dst_listed) =
            (origins::maybe_v6(env, src), origins::maybe_v6(env, dst));
        if is_dst_listed {
            return Glance::UNSURE;
        }
        if is_src_listed {
            // A rule that observes must not be counted twice.
            if env.config().features & feature::OBSERVE != 0 {
                return Glance::UNSURE;
            }
            let qualifiers = Qualifiers {
                protocol,
                port: header.be16::<40>(),
                port_shown: true,
                reason: Reason::OriginSource,
            };
            return listed_source(env, env.search_v6(src, qualifiers));
        }
    }
    let ports = [header.be16::<40>(), header.be16::<42>()];
    transport(env, protocol, ports, start, end)
}

/// Whether this is a TCP or UDP packet, all of which is in the frame, and long enough for ports.
#[inline(always)]
fn shows_ports<E: Env>(env: &E, protocol: u8, start: u32, end: u32) -> bool {
    (protocol == TCP || protocol == UDP) && start + PORTS_LEN <= end && env.contains(end)
}

/// A transport header at `start` with these source and destination ports, in a packet that ends at `end`.
#[inline(always)]
fn transport<E: Env>(env: &E, protocol: u8, [src, dst]: [u16; 2], start: u32, end: u32) -> Glance {
    const SEGMENTS: u8 = port_class::TLS | port_class::HTTP;
    let features = env.config().features;
    if features & (feature::NAMES | feature::READ_NAMES) == 0 {
        return Glance::UNRELATED;
    }
    let mut class = env.port_class(dst);
    if features & feature::ANSWERS != 0 && protocol == TCP {
        // What a server sends matters as well.
        class |= env.port_class(src);
    }
    if class == 0 {
        return Glance::UNRELATED;
    }
    Glance::unrelated_if(match protocol {
        TCP => class & SEGMENTS == 0 || is_bare(env, start, end) && !may_be_taken(env, src),
        _ => class & port_class::QUIC == 0 || is_short_quic(env, start, end),
    })
}

/// Whether a connection from this client port may have been answered in the server's place.
#[inline(always)]
pub(crate) fn may_be_taken<E: Env>(env: &E, port: u16) -> bool {
    env.config().features & feature::RESPOND != 0 && env.port_taken(port)
}

/// Whether a segment carries no payload, and has no flags that matter without.
#[inline(always)]
fn is_bare<E: Env>(env: &E, start: u32, end: u32) -> bool {
    let features = env.config().features;
    let of_servers = if features & feature::ANSWERS != 0 {
        flags::SYN | flags::RST | flags::FIN
    } else {
        0
    };
    let matters = bare_flags(features) | of_servers;
    let Some(header) = env.window::<20>(start) else {
        return false;
    };
    let len = u32::from(header.u8::<12>() >> 4) * 4;
    len >= TCP_LEN && start + len == end && header.u8::<13>() & matters == 0
}

/// Whether a datagram is complete and no QUIC long header: anything else belongs to connections that
/// are established.
#[inline(always)]
fn is_short_quic<E: Env>(env: &E, start: u32, end: u32) -> bool {
    let Some(header) = env.window::<9>(start) else {
        return false;
    };
    let len = u32::from(header.be16::<4>());
    len > UDP_LEN && start + len <= end && header.u8::<8>() & 0xc0 != 0xc0
}
