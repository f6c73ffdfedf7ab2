//! The way of nearly every packet: to where nothing is listed and nothing is read.
//!
//! Answers for the commonest frames only, in few instructions and without a call, and says "not sure" to
//! all others. What it answers is what [`crate::pipeline::decide_in_full`] would: it is a shorter way, not
//! another opinion.

use crate::{
    abi::{feature, port_class},
    env::{Env, Window},
    flow::flags,
    origins,
    wire::{
        ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, IPV4_LEN, IPV6_LEN, TCP,
        TCP_LEN, UDP, UDP_LEN, VLAN_TAG_LEN, is_tag,
    },
};

/// Version and header length of an IPv4 header without options.
const IPV4_PLAIN: u8 = 0x45;

/// Bytes of ports at the beginning of a TCP or UDP header.
const PORTS_LEN: u32 = 4;

/// Whether the frame passes without anything to be said about it: [`crate::reason::Reason::NoMatch`],
/// no rule, nothing kept. `false` says nothing.
#[inline(always)]
pub fn is_unrelated<E: Env>(env: &E) -> bool {
    let Some(link) = env.window::<14>(0) else {
        return false;
    };
    let mut ethertype = link.be16::<12>();
    let mut network = ETHERNET_LEN;
    if is_tag(ethertype) {
        let Some(tag) = env.window::<4>(network) else {
            return false;
        };
        ethertype = tag.be16::<2>();
        network += VLAN_TAG_LEN;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(env, network),
        ETHERTYPE_IPV6 => ipv6(env, network),
        _ => false,
    }
}

#[inline(always)]
fn ipv4<E: Env>(env: &E, network: u32) -> bool {
    let Some(header) = env.window::<24>(network) else {
        return false;
    };
    if header.u8::<0>() != IPV4_PLAIN || header.be16::<6>() & IPV4_FRAGMENT != 0 {
        return false;
    }
    if env.config().features & feature::V4 != 0
        && (origins::maybe_v4(env, header.be32::<12>())
            | origins::maybe_v4(env, header.be32::<16>()))
    {
        return false;
    }
    let end = network + u32::from(header.be16::<2>());
    transport(
        env,
        header.u8::<9>(),
        header.be16::<22>(),
        network + IPV4_LEN,
        end,
    )
}

#[inline(always)]
fn ipv6<E: Env>(env: &E, network: u32) -> bool {
    let Some(header) = env.window::<44>(network) else {
        return false;
    };
    if header.u8::<0>() >> 4 != 6 {
        return false;
    }
    if env.config().features & feature::V6 != 0 {
        let src = [header.be64::<8>(), header.be64::<16>()];
        let dst = [header.be64::<24>(), header.be64::<32>()];
        if origins::maybe_v6(env, src) | origins::maybe_v6(env, dst) {
            return false;
        }
    }
    let start = network + IPV6_LEN;
    let end = start + u32::from(header.be16::<4>());
    transport(env, header.u8::<6>(), header.be16::<42>(), start, end)
}

/// A transport header at `start` towards `port`, in a packet that ends at `end`.
#[inline(always)]
fn transport<E: Env>(env: &E, protocol: u8, port: u16, start: u32, end: u32) -> bool {
    if start + PORTS_LEN > end || !env.contains(end) {
        return false;
    }
    if protocol != TCP && protocol != UDP {
        return false;
    }
    if env.config().features & (feature::NAMES | feature::READ_NAMES) == 0 {
        return true;
    }
    let class = env.port_class(port);
    if class == 0 {
        return true;
    }
    match protocol {
        TCP => class & (port_class::TLS | port_class::HTTP) == 0 || is_bare(env, start, end),
        _ => class & port_class::QUIC == 0 || is_short_quic(env, start, end),
    }
}

/// Whether a segment neither carries payload nor opens or resets a connection.
#[inline(always)]
fn is_bare<E: Env>(env: &E, start: u32, end: u32) -> bool {
    let Some(header) = env.window::<20>(start) else {
        return false;
    };
    let len = u32::from(header.u8::<12>() >> 4) * 4;
    len >= TCP_LEN && start + len == end && header.u8::<13>() & (flags::SYN | flags::RST) == 0
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
