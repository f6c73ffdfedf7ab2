//! What the book-keeping of flows needs to know of a frame, read with `etherparse`
//! and so independently of the program, whose verdicts it only files.

use std::{fmt, net::IpAddr};

use etherparse::{Ipv6HeaderSlice, LaxIpv4Slice, TcpSlice, ip_number};

use super::unsupported::{self, Unsupported};

/// Offset of the EtherType in an Ethernet header.
const ETHER_TYPE_OFFSET: usize = 12;
/// 802.1Q and 802.1ad tags passed over; more are book-kept as "no IP".
const VLAN_TAGS_MAX: usize = 8;

const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];
const IP_TYPES: [u16; 2] = [0x0800, 0x86dd];

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// An Ethernet address, of frames whose IP header is not read.
    Mac([u8; 6]),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Mac([a, b, c, d, e, last]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
            }
        }
    }
}

/// Address and, if the protocol has them and they are known, port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: Option<u16>,
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// An IP protocol number.
    Ip(u8),
    /// An EtherType that is not IP.
    EtherType(u16),
}

impl Transport {
    /// TCP.
    pub const TCP: Self = Self::Ip(ip_number::TCP.0);
    /// UDP.
    pub const UDP: Self = Self::Ip(ip_number::UDP.0);
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ip(1) => f.write_str("icmp"),
            Self::Ip(6) => f.write_str("tcp"),
            Self::Ip(17) => f.write_str("udp"),
            Self::Ip(58) => f.write_str("icmpv6"),
            Self::Ip(number) => number.fmt(f),
            Self::EtherType(ether_type) => write!(f, "ethertype-{ether_type:#06x}"),
        }
    }
}

/// What identifies the packet that a fragment is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentKey {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
}

impl FragmentKey {
    /// The part of the packet that starts at `offset` (in units of 8 bytes).
    fn at(self, offset: u16, more: bool) -> Fragment {
        match (offset, more) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First(self),
            _ => Fragment::Later(self),
        }
    }
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// It is whole.
    Whole,
    /// It is the first, with the transport header.
    First(FragmentKey),
    /// It is a later one, without ports.
    Later(FragmentKey),
}

/// The TCP header's part that flows need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number, if there is one.
    pub ack: Option<u32>,
    /// SYN flag.
    pub syn: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag.
    pub rst: bool,
}

/// A dissected frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// What it carries.
    pub transport: Transport,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// The TCP header, of a whole packet or first fragment.
    pub tcp: Option<Tcp>,
    /// Payload behind the TCP or UDP header as far as it was captured; else empty.
    pub payload: &'a [u8],
    /// Why the program cannot be expected to understand this packet.
    pub unsupported: Option<Unsupported>,
}

/// What a frame is to the book-keeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dissected<'a> {
    /// It belongs to a flow.
    Packet(Packet<'a>),
    /// It does not (ARP, spanning tree, …).
    NotIp,
    /// The headers are not all there: it cannot be said to which flow it belongs.
    Headless,
}

/// Dissects an Ethernet frame. `snapped`: there were more bytes on the wire.
pub(super) fn dissect(frame: &[u8], snapped: bool) -> Dissected<'_> {
    let Some((mut ether_type, mut rest)) = split_ether_type(frame, ETHER_TYPE_OFFSET) else {
        return Dissected::Headless;
    };
    for _ in 0..VLAN_TAGS_MAX {
        if !VLAN_TYPES.contains(&ether_type) {
            break;
        }
        let Some(behind) = split_ether_type(rest, 2) else {
            return Dissected::Headless;
        };
        (ether_type, rest) = behind;
    }
    if IP_TYPES.contains(&ether_type) {
        return dissect_ip(rest, snapped);
    }
    let Some(unsupported) = unsupported::by_ether_type(ether_type) else {
        return Dissected::NotIp;
    };
    // `split_ether_type` has shown that the addresses before the type are there.
    let (Some(dst), Some(src)) = (
        frame.first_chunk(),
        frame.get(6..).and_then(<[u8]>::first_chunk),
    ) else {
        return Dissected::Headless;
    };
    let end = |mac: &[u8; 6]| Endpoint {
        address: Address::Mac(*mac),
        port: None,
    };
    Dissected::Packet(Packet {
        src: end(src),
        dst: end(dst),
        transport: Transport::EtherType(ether_type),
        fragment: Fragment::Whole,
        tcp: None,
        payload: &[],
        unsupported: Some(unsupported),
    })
}

/// The EtherType at `offset` and what follows it.
fn split_ether_type(bytes: &[u8], offset: usize) -> Option<(u16, &[u8])> {
    let (ether_type, rest) = bytes.get(offset..)?.split_first_chunk()?;
    Some((u16::from_be_bytes(*ether_type), rest))
}

/// What the IP headers say.
struct Ip<'a> {
    src: IpAddr,
    dst: IpAddr,
    /// Behind all extension headers.
    protocol: u8,
    fragment: Fragment,
    /// Behind all headers, as far as it was captured.
    payload: &'a [u8],
    /// The frame ends before the packet.
    incomplete: bool,
    /// There is an authentication header.
    authenticated: bool,
}

fn dissect_ip(packet: &[u8], snapped: bool) -> Dissected<'_> {
    let ip = match packet.first().map(|first| first >> 4) {
        Some(4) => read_ipv4(packet),
        Some(6) => read_ipv6(packet),
        _ => None,
    };
    let Some(ip) = ip else {
        // If it is all there, a header that contradicts itself; the program says how.
        return if snapped {
            Dissected::Headless
        } else {
            Dissected::NotIp
        };
    };
    let end = |address| Endpoint {
        address: Address::Ip(address),
        port: None,
    };
    let transport = Transport::Ip(ip.protocol);
    let mut packet = Packet {
        src: end(ip.src),
        dst: end(ip.dst),
        transport,
        fragment: ip.fragment,
        tcp: None,
        payload: &[],
        unsupported: unsupported::by_protocol(ip.protocol)
            .or(ip.authenticated.then_some(Unsupported::Ah)),
    };
    let has_ports = matches!(transport, Transport::TCP | Transport::UDP)
        && !matches!(ip.fragment, Fragment::Later(_));
    if has_ports {
        dissect_transport(&mut packet, ip.payload);
    }
    // What was cut off hides more than a tunnel does.
    if ip.incomplete {
        packet.unsupported = Some(Unsupported::Truncated);
    }
    Dissected::Packet(packet)
}

fn read_ipv4(packet: &[u8]) -> Option<Ip<'_>> {
    let (ip, _) = LaxIpv4Slice::from_slice(packet).ok()?;
    let header = ip.header();
    let (src, dst) = (
        header.source_addr().into(),
        header.destination_addr().into(),
    );
    let key = FragmentKey {
        src,
        dst,
        id: u32::from(header.identification()),
        protocol: header.protocol().0,
    };
    let fragment = key.at(header.fragments_offset().value(), header.more_fragments());
    // `from_slice` passes over an authentication header, of which a later fragment has none.
    let (protocol, authenticated) = match fragment {
        Fragment::Later(_) => (header.protocol().0, false),
        Fragment::Whole | Fragment::First(_) => {
            (ip.payload_ip_number().0, ip.extensions().auth.is_some())
        }
    };
    Some(Ip {
        src,
        dst,
        protocol,
        fragment,
        payload: ip.payload().payload,
        incomplete: ip.payload().incomplete,
        authenticated,
    })
}

/// The extension headers are walked here: any number in any order, and nothing behind the
/// header of a later fragment.
fn read_ipv6(packet: &[u8]) -> Option<Ip<'_>> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let (src, dst) = (
        header.source_addr().into(),
        header.destination_addr().into(),
    );
    let there = packet.get(header.slice().len()..)?;
    let announced = usize::from(header.payload_length());
    let mut rest = match announced {
        // A jumbogram, or a segment before its offload.
        0 => there,
        _ => there.get(..announced).unwrap_or(there),
    };
    let mut ip = Ip {
        src,
        dst,
        protocol: header.next_header().0,
        fragment: Fragment::Whole,
        payload: &[],
        incomplete: announced > there.len(),
        authenticated: false,
    };
    loop {
        let length = |unit: usize, more: usize| {
            rest.get(1)
                .map(|&length| (usize::from(length) + more) * unit)
        };
        let length = match ip.protocol {
            IPV6_FRAGMENT => Some(8),
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_DESTINATION | IPV6_MOBILITY | IPV6_HIP
            | IPV6_SHIM6 => length(8, 1),
            AUTHENTICATION => length(4, 2),
            _ => break,
        };
        let Some((extension, behind)) = length.and_then(|length| rest.split_at_checked(length))
        else {
            // Cut off, or longer than the packet: nothing more can be said.
            rest = &[];
            break;
        };
        let this = std::mem::replace(&mut ip.protocol, extension[0]);
        rest = behind;
        ip.authenticated |= this == AUTHENTICATION;
        if let (IPV6_FRAGMENT, &[next, _, o0, o1, i0, i1, i2, i3]) = (this, extension) {
            let offset = u16::from_be_bytes([o0, o1]);
            let id = u32::from_be_bytes([i0, i1, i2, i3]);
            ip.fragment = FragmentKey {
                src,
                dst,
                id,
                protocol: next,
            }
            .at(offset >> 3, offset & 1 != 0);
            if matches!(ip.fragment, Fragment::Later(_)) {
                break;
            }
        }
    }
    ip.payload = rest;
    Some(ip)
}

const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const IPV6_DESTINATION: u8 = 60;
const IPV6_MOBILITY: u8 = 135;
const IPV6_HIP: u8 = 139;
const IPV6_SHIM6: u8 = 140;

/// Ports, TCP header and payload.
fn dissect_transport<'a>(packet: &mut Packet<'a>, segment: &'a [u8]) {
    let Some(&[s0, s1, d0, d1]) = segment.first_chunk() else {
        return;
    };
    packet.src.port = Some(u16::from_be_bytes([s0, s1]));
    packet.dst.port = Some(u16::from_be_bytes([d0, d1]));
    if packet.transport == Transport::UDP {
        packet.payload = segment.get(8..).unwrap_or_default();
        packet.unsupported = packet
            .unsupported
            .or_else(|| unsupported::by_datagram(packet.src.port, packet.dst.port, packet.payload));
        return;
    }
    let Ok(tcp) = TcpSlice::from_slice(segment) else {
        return;
    };
    packet.tcp = Some(Tcp {
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
    });
    packet.payload = segment.get(tcp.header_slice().len()..).unwrap_or_default();
}
