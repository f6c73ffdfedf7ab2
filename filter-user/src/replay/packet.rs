//! What the book-keeping of flows needs to know of a frame, read with `etherparse`
//! and so independently of the program, whose verdicts it only files.

use std::{fmt, net::IpAddr};

use etherparse::{Ipv6ExtensionSlice, LaxIpSlice, TcpSlice, ip_number};

use super::unsupported::{self, Unsupported};

/// Offset of the EtherType in an Ethernet header.
const ETHER_TYPE_OFFSET: usize = 12;
/// 802.1Q and 802.1ad tags passed over; more are book-kept as "no IP".
const VLAN_TAGS_MAX: usize = 8;

const VLAN_TYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];
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
pub struct FragmentKey {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// It is the first, with the transport header.
    First(FragmentKey),
    /// It is a later one, without ports.
    Later(FragmentKey),
}

/// The TCP header's part that flows need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
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
pub struct Packet<'a> {
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
pub enum Dissected<'a> {
    /// It belongs to a flow.
    Packet(Packet<'a>),
    /// It does not (ARP, spanning tree, …).
    NotIp,
    /// The headers are not all there: it cannot be said to which flow it belongs.
    Headless,
}

/// Dissects an Ethernet frame. `snapped`: there were more bytes on the wire.
pub fn dissect(frame: &[u8], snapped: bool) -> Dissected<'_> {
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

fn dissect_ip(packet: &[u8], snapped: bool) -> Dissected<'_> {
    let Ok((ip, stopped)) = LaxIpSlice::from_slice(packet) else {
        return if snapped {
            Dissected::Headless
        } else {
            // A header that contradicts itself; the program counts it by its reason.
            Dissected::NotIp
        };
    };
    let (src, dst) = (ip.source_addr(), ip.destination_addr());
    let payload = ip.payload();
    let protocol = payload.ip_number.0;
    let transport = Transport::Ip(protocol);
    let (id, offset, more) = fragment_fields(&ip);
    let key = FragmentKey {
        src,
        dst,
        id,
        protocol,
    };
    let fragment = match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First(key),
        _ => Fragment::Later(key),
    };
    let truncated = payload.incomplete || (stopped.is_some() && snapped);
    let mut packet = Packet {
        src: Endpoint {
            address: Address::Ip(src),
            port: None,
        },
        dst: Endpoint {
            address: Address::Ip(dst),
            port: None,
        },
        transport,
        fragment,
        tcp: None,
        payload: &[],
        unsupported: unsupported::by_protocol(protocol)
            .or(has_authentication(&ip).then_some(Unsupported::Ah)),
    };
    let has_ports = matches!(transport, Transport::TCP | Transport::UDP)
        && !matches!(fragment, Fragment::Later(_));
    if has_ports {
        dissect_transport(&mut packet, payload.payload);
    }
    // What was cut off hides more than a tunnel does.
    if truncated {
        packet.unsupported = Some(Unsupported::Truncated);
    }
    Dissected::Packet(packet)
}

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

/// Identification, offset in bytes (0 for the first), whether more follow.
fn fragment_fields(ip: &LaxIpSlice<'_>) -> (u32, u16, bool) {
    match ip {
        LaxIpSlice::Ipv4(ipv4) => {
            let header = ipv4.header();
            (
                u32::from(header.identification()),
                header.fragments_offset().value(),
                header.more_fragments(),
            )
        }
        LaxIpSlice::Ipv6(ipv6) => ipv6
            .extensions()
            .clone()
            .into_iter()
            .find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(fragment) => Some((
                    fragment.identification(),
                    fragment.fragment_offset().value(),
                    fragment.more_fragments(),
                )),
                Ipv6ExtensionSlice::HopByHop(_)
                | Ipv6ExtensionSlice::Routing(_)
                | Ipv6ExtensionSlice::DestinationOptions(_)
                | Ipv6ExtensionSlice::Authentication(_) => None,
            })
            .unwrap_or_default(),
    }
}

fn has_authentication(ip: &LaxIpSlice<'_>) -> bool {
    match ip {
        LaxIpSlice::Ipv4(ipv4) => ipv4.extensions().auth.is_some(),
        LaxIpSlice::Ipv6(ipv6) => ipv6
            .extensions()
            .clone()
            .into_iter()
            .any(|extension| matches!(extension, Ipv6ExtensionSlice::Authentication(_))),
    }
}
