//! From a frame to addresses, protocol and the transport header's place.
//!
//! Ethernet with 802.1Q/802.1ad tags, IPv4 with options and fragments (RFC 791), IPv6 with
//! extension headers (RFC 8200). Lengths are the IP header's, never the frame's: what follows
//! the IP packet in a frame is padding.

use crate::{
    env::{Env, Window},
    limits::{IPV6_EXTENSIONS_MAX, VLAN_TAGS_MAX},
    reason::Reason,
};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

const ETHERNET_LEN: u32 = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const IPV4_LEN: u32 = 20;
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;

const IPV6_LEN: u32 = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const TCP_LEN: u32 = 20;
const UDP_LEN: u32 = 8;

/// Source and destination, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        src: u32,
        /// Destination.
        dst: u32,
    },
    /// IPv6, most significant half first.
    V6 {
        /// Source.
        src: [u64; 2],
        /// Destination.
        dst: [u64; 2],
    },
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it (an IPv6 atomic fragment included, RFC 6946).
    Whole,
    /// Its beginning: ports are there.
    First,
    /// Something behind the beginning: no ports.
    Later,
}

/// An IP packet in a frame. Offsets count from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination.
    pub addresses: Addresses,
    /// Protocol number of the transport header, or of what could not be looked behind.
    pub protocol: u8,
    /// Which part of the datagram this is.
    pub fragment: Fragment,
    /// Where the transport header starts.
    pub transport: u32,
    /// Where the IP packet ends, at most the frame's end.
    pub end: u32,
    /// Something odd that does not keep the addresses from being judged.
    pub oddity: Option<Reason>,
}

/// A transport header's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
}

/// Where a segment's or datagram's payload lies in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// Reads the link and network headers.
///
/// # Errors
///
/// The reason why there are no addresses to be judged: the frame passes.
#[inline(always)]
pub fn parse<E: Env>(env: &E) -> Result<Packet, Reason> {
    let link = env.window::<14>(0).ok_or(Reason::Truncated)?;
    let mut ethertype = link.be16::<12>();
    let mut offset = ETHERNET_LEN;
    for _ in 0..VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        let tag = env.window::<4>(offset).ok_or(Reason::Truncated)?;
        ethertype = tag.be16::<2>();
        offset += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(env, offset),
        ETHERTYPE_IPV6 => ipv6(env, offset),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::VlanDepth),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn ipv4<E: Env>(env: &E, offset: u32) -> Result<Packet, Reason> {
    let header = env.window::<20>(offset).ok_or(Reason::Truncated)?;
    let version_and_length = header.u8::<0>();
    if version_and_length >> 4 != 4 {
        return Err(Reason::BadIp);
    }
    let header_len = u32::from(version_and_length & 0x0f) * 4;
    let total_len = u32::from(header.be16::<2>());
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(Reason::BadIp);
    }
    let end = offset + total_len;
    let fragment_word = header.be16::<6>();
    let fragment = if fragment_word & IPV4_OFFSET != 0 {
        Fragment::Later
    } else if fragment_word & IPV4_MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    Ok(Packet {
        addresses: Addresses::V4 { src: header.be32::<12>(), dst: header.be32::<16>() },
        protocol: header.u8::<9>(),
        fragment,
        transport: offset + header_len,
        end,
        oddity: beyond_frame(env, end),
    })
}

/// A packet that is longer than its frame is dropped by every host, but its addresses count.
#[inline(always)]
fn beyond_frame<E: Env>(env: &E, end: u32) -> Option<Reason> {
    (!env.contains(end)).then_some(Reason::Truncated)
}

#[inline(always)]
fn ipv6<E: Env>(env: &E, offset: u32) -> Result<Packet, Reason> {
    let header = env.window::<40>(offset).ok_or(Reason::Truncated)?;
    if header.u8::<0>() >> 4 != 6 {
        return Err(Reason::BadIp);
    }
    let end = offset + IPV6_LEN + u32::from(header.be16::<4>());
    let mut packet = Packet {
        addresses: Addresses::V6 {
            src: [header.be64::<8>(), header.be64::<16>()],
            dst: [header.be64::<24>(), header.be64::<32>()],
        },
        protocol: header.u8::<6>(),
        fragment: Fragment::Whole,
        transport: offset + IPV6_LEN,
        end,
        oddity: beyond_frame(env, end),
    };
    if is_extension(packet.protocol) {
        extensions(env, &mut packet);
    }
    Ok(packet)
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
    )
}

/// Walks the extension chain to the transport header. What cannot be walked leaves an
/// oddity and the extension's own number as the protocol.
#[inline(always)]
fn extensions<E: Env>(env: &E, packet: &mut Packet) {
    for _ in 0..IPV6_EXTENSIONS_MAX {
        if !is_extension(packet.protocol) || matches!(packet.fragment, Fragment::Later) {
            return;
        }
        // Authentication is the shortest step (4 bytes a unit, but at least 8); each
        // header has at least 8 bytes.
        let Some(extension) = env.window::<8>(packet.transport) else {
            packet.oddity = Some(Reason::Truncated);
            return;
        };
        let units = u32::from(extension.u8::<1>());
        let len = match packet.protocol {
            FRAGMENT => {
                packet.fragment = ipv6_fragment(extension.be16::<2>());
                8
            }
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        packet.protocol = extension.u8::<0>();
        packet.transport += len;
        if packet.transport > packet.end {
            packet.oddity = Some(Reason::Truncated);
            return;
        }
    }
    if is_extension(packet.protocol) {
        packet.oddity = Some(Reason::ExtensionDepth);
    }
}

/// The fragment header's offset and flags (RFC 8200, section 4.5).
#[inline(always)]
const fn ipv6_fragment(word: u16) -> Fragment {
    if word & 0xfff8 != 0 {
        Fragment::Later
    } else if word & 1 != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

impl Packet {
    /// The ports, if this is the beginning of a TCP or UDP packet and shows them.
    #[inline(always)]
    pub fn ports<E: Env>(&self, env: &E) -> Option<Ports> {
        if matches!(self.fragment, Fragment::Later) || (self.protocol != TCP && self.protocol != UDP)
        {
            return None;
        }
        if self.transport + 4 > self.end {
            return None;
        }
        let ports = env.window::<4>(self.transport)?;
        Some(Ports { src: ports.be16::<0>(), dst: ports.be16::<2>() })
    }

    /// The TCP payload.
    ///
    /// # Errors
    ///
    /// [`Reason::BadTransport`] if the header does not fit the packet, [`Reason::Truncated`] if
    /// the packet does not fit the frame.
    #[inline(always)]
    pub fn tcp_payload<E: Env>(&self, env: &E) -> Result<Payload, Reason> {
        if self.transport + TCP_LEN > self.end {
            return Err(Reason::BadTransport);
        }
        let header = env.window::<20>(self.transport).ok_or(Reason::Truncated)?;
        let header_len = u32::from(header.u8::<12>() >> 4) * 4;
        let offset = self.transport + header_len;
        if header_len < TCP_LEN || offset > self.end {
            return Err(Reason::BadTransport);
        }
        Ok(Payload { offset, len: self.end - offset })
    }

    /// The UDP payload.
    ///
    /// # Errors
    ///
    /// As for [`Packet::tcp_payload`].
    #[inline(always)]
    pub fn udp_payload<E: Env>(&self, env: &E) -> Result<Payload, Reason> {
        if self.transport + UDP_LEN > self.end {
            return Err(Reason::BadTransport);
        }
        let header = env.window::<8>(self.transport).ok_or(Reason::Truncated)?;
        let len = u32::from(header.be16::<4>());
        if len < UDP_LEN || self.transport + len > self.end {
            return Err(Reason::BadTransport);
        }
        Ok(Payload { offset: self.transport + UDP_LEN, len: len - UDP_LEN })
    }
}
