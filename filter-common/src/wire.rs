//! From a frame to addresses, protocol and the transport header's place.
//!
//! Ethernet with 802.1Q/802.1ad tags, IPv4 with options and fragments (RFC 791), IPv6 with
//! extension headers (RFC 8200). Lengths are the IP header's, never the frame's: what follows
//! the IP packet in a frame is padding.

use crate::{
    env::{Env, Window},
    flow::Segment,
    limits::{IPV6_EXTENSIONS_MAX, VLAN_TAGS_MAX},
    reason::Reason,
};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: u32 = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// Bytes of a VLAN tag.
pub const VLAN_TAG_LEN: u32 = 4;

/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: u32 = 20;
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;
/// Set in a part of a datagram.
pub(crate) const IPV4_FRAGMENT: u16 = IPV4_MORE_FRAGMENTS | IPV4_OFFSET;

/// Bytes of an IPv6 header.
pub const IPV6_LEN: u32 = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Bytes of a TCP header without options.
pub const TCP_LEN: u32 = 20;
pub(crate) const UDP_LEN: u32 = 8;

/// An IP address in host byte order, most significant half first; IPv4 mapped
/// (`::ffff:a.b.c.d`, RFC 4291, section 2.5.5.2).
pub type Address = [u64; 2];

/// The mapped form of an IPv4 address.
#[inline(always)]
pub const fn mapped(addr: u32) -> Address {
    [0, 0xffff_0000_0000 | addr as u64]
}

/// Whether an address is the mapped form of an IPv4 address.
#[inline(always)]
pub const fn is_mapped(address: Address) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

/// Version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// All of it (an IPv6 atomic fragment included, RFC 6946).
    Whole = 0,
    /// Its beginning: ports are there.
    First = 1,
    /// Something behind the beginning: no ports.
    Later = 2,
}

/// An IP packet in a frame. Offsets count from the start of the frame.
///
/// Plain fields without options: the compiler may leave the payload of an absent option
/// undefined, and the verifier refuses to see undefined registers saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Version of the Internet Protocol.
    pub family: Family,
    /// Source.
    pub src: Address,
    /// Destination.
    pub dst: Address,
    /// Protocol number of the transport header, or of what could not be looked behind.
    pub protocol: u8,
    /// Which part of the datagram this is.
    pub fragment: Fragment,
    /// Where the network header starts.
    pub network: u32,
    /// Where the transport header starts.
    pub transport: u32,
    /// Where the IP packet ends, at most the frame's end.
    pub end: u32,
    /// Something odd that does not keep the addresses from being judged;
    /// [`Reason::NoMatch`] if there is nothing odd.
    pub oddity: Reason,
}

/// A transport header's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Whether the packet shows its ports: the beginning of a TCP or UDP packet does.
    pub shown: bool,
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

/// Reads the link and network headers into `packet`.
///
/// # Errors
///
/// The reason why there are no addresses to be judged: the frame passes.
#[inline(always)]
pub fn parse<E: Env>(env: &E, packet: &mut Packet) -> Result<(), Reason> {
    let link = env.window::<14>(0).ok_or(Reason::Truncated)?;
    let mut ethertype = link.be16::<12>();
    let mut offset = ETHERNET_LEN;
    if is_tag(ethertype) {
        let tags = env.skip_tags(ethertype).ok_or(Reason::Truncated)?;
        (ethertype, offset) = (tags.ethertype, tags.end);
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(env, offset, packet),
        ETHERTYPE_IPV6 => ipv6(env, offset, packet),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::VlanDepth),
        _ => Err(Reason::NotIp),
    }
}

/// What follows a frame's tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Type of what follows; that of a tag if there are more than [`VLAN_TAGS_MAX`].
    pub ethertype: u16,
    /// Where it starts.
    pub end: u32,
}

impl Tags {
    /// For a function boundary; a frame that ends before its tags do is 0.
    #[inline(always)]
    pub const fn pack(tags: Option<Self>) -> u64 {
        match tags {
            Some(Self { ethertype, end }) => (ethertype as u64) << 32 | end as u64,
            None => 0,
        }
    }

    /// The inverse of [`Tags::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Option<Self> {
        match packed {
            0 => None,
            _ => Some(Self {
                ethertype: (packed >> 32) as u16,
                end: packed as u32,
            }),
        }
    }
}

#[inline(always)]
pub(crate) const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

/// Skips 802.1Q and 802.1ad tags, the first of this type; `None` if the frame ends before them.
#[inline(always)]
pub fn skip_tags<E: Env>(env: &E, mut ethertype: u16) -> Option<Tags> {
    let mut end = ETHERNET_LEN;
    for _ in 0..VLAN_TAGS_MAX {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = env.window::<4>(end)?.be16::<2>();
        end += VLAN_TAG_LEN;
    }
    Some(Tags { ethertype, end })
}

#[inline(always)]
fn ipv4<E: Env>(env: &E, offset: u32, packet: &mut Packet) -> Result<(), Reason> {
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
    let fragment_word = header.be16::<6>();
    packet.family = Family::V4;
    packet.src = mapped(header.be32::<12>());
    packet.dst = mapped(header.be32::<16>());
    packet.protocol = header.u8::<9>();
    packet.fragment = if fragment_word & IPV4_OFFSET != 0 {
        Fragment::Later
    } else if fragment_word & IPV4_MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    packet.network = offset;
    packet.transport = offset + header_len;
    packet.end = offset + total_len;
    note_if_cut(env, packet);
    Ok(())
}

/// A packet that is longer than its frame is dropped by every host, but its addresses count.
#[inline(always)]
fn note_if_cut<E: Env>(env: &E, packet: &mut Packet) {
    if !env.contains(packet.end) {
        packet.oddity = Reason::Truncated;
    }
}

#[inline(always)]
fn ipv6<E: Env>(env: &E, offset: u32, packet: &mut Packet) -> Result<(), Reason> {
    let header = env.window::<40>(offset).ok_or(Reason::Truncated)?;
    if header.u8::<0>() >> 4 != 6 {
        return Err(Reason::BadIp);
    }
    packet.family = Family::V6;
    packet.src = [header.be64::<8>(), header.be64::<16>()];
    packet.dst = [header.be64::<24>(), header.be64::<32>()];
    packet.protocol = header.u8::<6>();
    packet.network = offset;
    packet.transport = offset + IPV6_LEN;
    packet.end = offset + IPV6_LEN + u32::from(header.be16::<4>());
    note_if_cut(env, packet);
    if is_extension(packet.protocol) {
        let chain = env.walk_extensions(packet.protocol, packet.transport, packet.end);
        packet.protocol = chain.protocol;
        packet.fragment = chain.fragment;
        packet.transport = chain.at;
        if chain.oddity != Reason::NoMatch {
            packet.oddity = chain.oddity;
        }
    }
    Ok(())
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
    )
}

/// Where a walk over IPv6 extension headers stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the header at `at`.
    pub protocol: u8,
    /// Which part of the datagram this is.
    pub fragment: Fragment,
    /// Why the walk stopped early; [`Reason::NoMatch`] if it did not.
    pub oddity: Reason,
    /// Where the next header starts.
    pub at: u32,
}

impl Chain {
    /// As one scalar, for a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        (self.protocol as u64) << 48
            | (self.fragment as u64) << 40
            | (self.oddity as u64) << 32
            | self.at as u64
    }

    /// Back from [`Chain::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self {
            protocol: (packed >> 48) as u8,
            fragment: match (packed >> 40) as u8 {
                0 => Fragment::Whole,
                1 => Fragment::First,
                _ => Fragment::Later,
            },
            oddity: match (packed >> 32) as u8 {
                reason if reason == Reason::NoMatch as u8 => Reason::NoMatch,
                reason if reason == Reason::ExtensionDepth as u8 => Reason::ExtensionDepth,
                _ => Reason::Truncated,
            },
            at: packed as u32,
        }
    }
}

/// Walks the extension chain from a header at `at` to the transport header. What cannot be
/// walked leaves an oddity and the extension's own number as the protocol.
#[inline(always)]
pub fn walk_extensions<E: Env>(env: &E, protocol: u8, at: u32, end: u32) -> Chain {
    let mut chain = Chain {
        protocol,
        fragment: Fragment::Whole,
        oddity: Reason::NoMatch,
        at,
    };
    for _ in 0..IPV6_EXTENSIONS_MAX {
        if !is_extension(chain.protocol) || matches!(chain.fragment, Fragment::Later) {
            return chain;
        }
        let Some(extension) = env.window::<8>(chain.at) else {
            chain.oddity = Reason::Truncated;
            return chain;
        };
        let units = u32::from(extension.u8::<1>());
        let len = match chain.protocol {
            FRAGMENT => {
                chain.fragment = ipv6_fragment(extension.be16::<2>());
                8
            }
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        chain.protocol = extension.u8::<0>();
        chain.at += len;
        if chain.at > end {
            chain.oddity = Reason::Truncated;
            return chain;
        }
    }
    if is_extension(chain.protocol) {
        chain.oddity = Reason::ExtensionDepth;
    }
    chain
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
    /// What [`parse`] starts from.
    pub const EMPTY: Self = Self {
        family: Family::V4,
        src: [0; 2],
        dst: [0; 2],
        protocol: 0,
        fragment: Fragment::Whole,
        network: 0,
        transport: 0,
        end: 0,
        oddity: Reason::NoMatch,
    };

    /// The ports.
    #[inline(always)]
    pub fn ports<E: Env>(&self, env: &E) -> Ports {
        let hidden = Ports {
            shown: false,
            src: 0,
            dst: 0,
        };
        if matches!(self.fragment, Fragment::Later)
            || (self.protocol != TCP && self.protocol != UDP)
            || self.transport + 4 > self.end
        {
            return hidden;
        }
        match env.window::<4>(self.transport) {
            Some(ports) => Ports {
                shown: true,
                src: ports.be16::<0>(),
                dst: ports.be16::<2>(),
            },
            None => hidden,
        }
    }

    /// The TCP segment, towards a port of the given class.
    ///
    /// # Errors
    ///
    /// [`Reason::BadTransport`] if the header does not fit the packet, [`Reason::Truncated`] if
    /// the packet does not fit the frame.
    #[inline(always)]
    pub fn segment<E: Env>(&self, env: &E, port: u16, class: u8) -> Result<Segment, Reason> {
        if self.transport + TCP_LEN > self.end {
            return Err(Reason::BadTransport);
        }
        let header = env.window::<20>(self.transport).ok_or(Reason::Truncated)?;
        let header_len = u32::from(header.u8::<12>() >> 4) * 4;
        let offset = self.transport + header_len;
        if header_len < TCP_LEN || offset > self.end {
            return Err(Reason::BadTransport);
        }
        Ok(Segment {
            offset,
            len: self.end - offset,
            seq: header.be32::<4>(),
            ack: header.be32::<8>(),
            flags: header.u8::<13>(),
            class,
            port,
            transport: self.transport as u16,
            network: self.network as u16,
        })
    }

    /// The UDP payload.
    ///
    /// # Errors
    ///
    /// As for [`Packet::segment`].
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
        Ok(Payload {
            offset: self.transport + UDP_LEN,
            len: len - UDP_LEN,
        })
    }
}
