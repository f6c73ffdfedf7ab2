//! Frames for fixtures, byte by byte: every field can be wrong on purpose.
//!
//! A [`Packet`] starts out as what a well-behaved sender would emit; each method
//! bends one thing. Lengths and checksums are computed last, over what is really
//! there, unless they were set by hand.

mod checksum;
mod extension;
pub mod http;
#[cfg(test)]
mod tests;
pub mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

pub use checksum::Checksum;
pub use extension::Extension;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Tag protocol identifier of 802.1Q.
pub const TPID_8021Q: u16 = 0x8100;
/// Tag protocol identifier of 802.1ad.
pub const TPID_8021AD: u16 = 0x88A8;
/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_BYTES: usize = 14;

/// TCP flag bits as in the header's fourteenth byte.
pub mod flag {
    /// Sender has finished.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Deliver now.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was met.
    pub const ECE: u8 = 0x40;
    /// The sender has reacted to it.
    pub const CWR: u8 = 0x80;
}

const DST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const SRC_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// What the IP header carries.
#[derive(Clone, Debug)]
enum Transport {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        options: Vec<u8>,
        data_offset: Option<u8>,
        reserved: u8,
        window: u16,
        urgent: u16,
    },
    Udp {
        length: Option<u16>,
    },
    Other(u8),
}

/// One frame in the making. Addresses and ports come from the socket addresses.
#[derive(Clone, Debug)]
pub struct Packet {
    src: SocketAddr,
    dst: SocketAddr,
    dst_mac: [u8; 6],
    src_mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    transport: Transport,
    payload: Vec<u8>,
    ipv4_options: Vec<u8>,
    extensions: Vec<Extension>,
    inner_extensions: Vec<Extension>,
    identification: u32,
    dont_fragment: bool,
    hops: u8,
    fragment: Option<Range<usize>>,
    checksum: Checksum,
    ip_checksum: Checksum,
    ip_length: Option<u16>,
    version_ihl: Option<u8>,
    trailer: Vec<u8>,
}

impl Packet {
    /// A TCP segment with PSH and ACK set.
    ///
    /// # Panics
    /// If an address does not parse or the families differ.
    pub fn tcp(src: &str, dst: &str) -> Self {
        let tcp = Transport::Tcp {
            flags: flag::PSH | flag::ACK,
            seq: 0x1000_0001,
            ack: 0x2000_0001,
            options: Vec::new(),
            data_offset: None,
            reserved: 0,
            window: 0xFFFF,
            urgent: 0,
        };
        Self::new(src, dst, tcp)
    }

    /// A UDP datagram. Panics as [`Packet::tcp`].
    pub fn udp(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Udp { length: None })
    }

    /// Any other protocol over IP, without ports of its own; `src` and `dst` are plain addresses.
    /// Panics as [`Packet::tcp`].
    pub fn ip(protocol: u8, src: &str, dst: &str) -> Self {
        let with_port = |address: &str| {
            let address: IpAddr = address.parse().expect("an IP address");
            SocketAddr::new(address, 0).to_string()
        };
        Self::new(&with_port(src), &with_port(dst), Transport::Other(protocol))
    }

    /// An ICMP or ICMPv6 message from one plain address to another, its checksum filled in.
    ///
    /// # Panics
    /// As [`Packet::tcp`]; also for a message without room for a checksum.
    pub fn icmp(protocol: u8, src: &str, dst: &str, message: &[u8]) -> Self {
        let packet = Self::ip(protocol, src, dst);
        let (src, dst) = (packet.src.ip(), packet.dst.ip());
        let pseudo = match src {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => checksum::pseudo_header(src, dst, protocol, message.len() as u32),
        };
        let mut message = message.to_vec();
        let sum = Checksum::Right.over(pseudo, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        packet.payload(message)
    }

    fn new(src: &str, dst: &str, transport: Transport) -> Self {
        let src: SocketAddr = src.parse().expect("source as address:port");
        let dst: SocketAddr = dst.parse().expect("destination as address:port");
        assert_eq!(
            src.is_ipv4(),
            dst.is_ipv4(),
            "both ends of one address family"
        );
        Self {
            src,
            dst,
            dst_mac: DST_MAC,
            src_mac: SRC_MAC,
            tags: Vec::new(),
            transport,
            payload: Vec::new(),
            ipv4_options: Vec::new(),
            extensions: Vec::new(),
            inner_extensions: Vec::new(),
            identification: 0x1234_5678,
            dont_fragment: false,
            hops: 64,
            fragment: None,
            checksum: Checksum::Right,
            ip_checksum: Checksum::Right,
            ip_length: None,
            version_ihl: None,
            trailer: Vec::new(),
        }
    }

    /// MAC addresses, for frames that a real interface is to accept.
    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    /// Adds a VLAN tag inside the ones added before.
    pub fn vlan(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push((tpid, tci));
        self
    }

    /// The transport's payload.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// TCP flags, see [`flag`]. No effect on other protocols.
    pub fn flags(mut self, bits: u8) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = bits;
        }
        self
    }

    /// TCP sequence number. No effect on other protocols.
    pub fn seq(mut self, number: u32) -> Self {
        if let Transport::Tcp { seq, .. } = &mut self.transport {
            *seq = number;
        }
        self
    }

    /// TCP acknowledgement number. No effect on other protocols.
    pub fn ack(mut self, number: u32) -> Self {
        if let Transport::Tcp { ack, .. } = &mut self.transport {
            *ack = number;
        }
        self
    }

    /// Moves the TCP sequence number, modulo 2^32. No effect on other protocols.
    pub fn shift_seq(mut self, by: i64) -> Self {
        if let Transport::Tcp { seq, .. } = &mut self.transport {
            *seq = seq.wrapping_add(by as u32);
        }
        self
    }

    /// Moves the TCP acknowledgement number, modulo 2^32. No effect on other protocols.
    pub fn shift_ack(mut self, by: i64) -> Self {
        if let Transport::Tcp { ack, .. } = &mut self.transport {
            *ack = ack.wrapping_add(by as u32);
        }
        self
    }

    /// TCP urgent pointer, without the flag. No effect on other protocols.
    pub fn urgent(mut self, pointer: u16) -> Self {
        if let Transport::Tcp { urgent, .. } = &mut self.transport {
            *urgent = pointer;
        }
        self
    }

    /// TCP window. No effect on other protocols.
    pub fn window(mut self, bytes: u16) -> Self {
        if let Transport::Tcp { window, .. } = &mut self.transport {
            *window = bytes;
        }
        self
    }

    /// The four TCP header bits beside the data offset. No effect on other protocols.
    pub fn reserved(mut self, bits: u8) -> Self {
        if let Transport::Tcp { reserved, .. } = &mut self.transport {
            *reserved = bits & 0x0F;
        }
        self
    }

    /// TCP options; a multiple of four bytes, at most 40. No effect on other protocols.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        assert!(
            bytes.len().is_multiple_of(4) && bytes.len() <= 40,
            "TCP options fill words"
        );
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
        }
        self
    }

    /// Adds four no-operations to the TCP options. No effect on other protocols.
    pub fn more_tcp_options(mut self) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            options.extend_from_slice(&[1; 4]);
        }
        self
    }

    /// TCP data offset in 32-bit words, right or not. No effect on other protocols.
    pub fn data_offset(mut self, words: u8) -> Self {
        if let Transport::Tcp { data_offset, .. } = &mut self.transport {
            *data_offset = Some(words);
        }
        self
    }

    /// UDP length field, right or not. No effect on other protocols.
    pub fn udp_length(mut self, bytes: u16) -> Self {
        if let Transport::Udp { length } = &mut self.transport {
            *length = Some(bytes);
        }
        self
    }

    /// IPv4 options; a multiple of four bytes, at most 40.
    pub fn ipv4_options(mut self, bytes: &[u8]) -> Self {
        assert!(
            bytes.len().is_multiple_of(4) && bytes.len() <= 40,
            "IPv4 options fill words"
        );
        self.ipv4_options = bytes.to_vec();
        self
    }

    /// Adds an IPv6 extension header behind those added before.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// As [`Packet::extension`], but behind the fragment header and so part of what is fragmented.
    pub fn inner_extension(mut self, extension: Extension) -> Self {
        self.inner_extensions.push(extension);
        self
    }

    /// Identification of the datagram, for its fragments; IPv4 uses the lower half.
    pub fn identification(mut self, number: u32) -> Self {
        self.identification = number;
        self
    }

    /// Hop limit, or time to live.
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// As a host sends what is never fragmented (RFC 6864): no identification, IPv4's flag set.
    pub fn atomic(mut self) -> Self {
        (self.identification, self.dont_fragment) = (0, true);
        self
    }

    /// As an answer to a frame with this builder's MAC addresses.
    pub fn back(self) -> Self {
        let (src, dst) = (self.src_mac, self.dst_mac);
        self.macs(dst, src)
    }

    /// Sends only these bytes of what follows the IP header (transport header included), as a
    /// fragment. The whole range makes an atomic fragment. The start must be a multiple of 8.
    pub fn fragment(mut self, bytes: Range<usize>) -> Self {
        assert!(
            bytes.start.is_multiple_of(8),
            "fragments start at multiples of 8"
        );
        self.fragment = Some(bytes);
        self
    }

    /// Transport checksum.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// IPv4 header checksum.
    pub fn ip_checksum(mut self, checksum: Checksum) -> Self {
        self.ip_checksum = checksum;
        self
    }

    /// IPv4 total length or IPv6 payload length, right or not.
    pub fn ip_length(mut self, bytes: u16) -> Self {
        self.ip_length = Some(bytes);
        self
    }

    /// First byte of the IP header, right or not: version and, for IPv4, header words.
    pub fn version_ihl(mut self, byte: u8) -> Self {
        self.version_ihl = Some(byte);
        self
    }

    /// Bytes behind the IP packet: Ethernet padding.
    pub fn trailer(mut self, bytes: &[u8]) -> Self {
        self.trailer = bytes.to_vec();
        self
    }

    /// Length of transport header and payload in bytes, before any fragmenting, with the
    /// extensions that are fragmented along with them.
    pub fn transport_len(&self) -> usize {
        self.inner().1.len()
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let ethertype = if self.src.is_ipv4() { 0x0800 } else { 0x86DD };
        let mut frame = ethernet(self.dst_mac, self.src_mac, &self.tags, ethertype);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(&mut frame, src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(&mut frame, src, dst),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("the constructor checks the families")
            }
        }
        frame.extend_from_slice(&self.trailer);
        frame
    }

    fn protocol(&self) -> u8 {
        match &self.transport {
            Transport::Tcp { .. } => TCP,
            Transport::Udp { .. } => UDP,
            Transport::Other(protocol) => *protocol,
        }
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let checksum_at = match &self.transport {
            Transport::Tcp {
                flags,
                seq,
                ack,
                options,
                data_offset,
                reserved,
                window,
                urgent,
            } => {
                let words = data_offset.unwrap_or((5 + options.len() / 4) as u8);
                bytes.extend_from_slice(&self.src.port().to_be_bytes());
                bytes.extend_from_slice(&self.dst.port().to_be_bytes());
                bytes.extend_from_slice(&seq.to_be_bytes());
                bytes.extend_from_slice(&ack.to_be_bytes());
                bytes.extend_from_slice(&[words << 4 | reserved, *flags]);
                bytes.extend_from_slice(&window.to_be_bytes());
                bytes.extend_from_slice(&[0; 2]);
                bytes.extend_from_slice(&urgent.to_be_bytes());
                bytes.extend_from_slice(options);
                Some(16)
            }
            Transport::Udp { length } => {
                let length = length.unwrap_or((8 + self.payload.len()) as u16);
                bytes.extend_from_slice(&self.src.port().to_be_bytes());
                bytes.extend_from_slice(&self.dst.port().to_be_bytes());
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&[0; 2]);
                Some(6)
            }
            Transport::Other(_) => None,
        };
        bytes.extend_from_slice(&self.payload);
        if let Some(at) = checksum_at {
            let pseudo = checksum::pseudo_header(
                self.src.ip(),
                self.dst.ip(),
                self.protocol(),
                bytes.len() as u32,
            );
            let sum = self.checksum.over(pseudo, &bytes);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// What is fragmented, and the number of its first header.
    fn inner(&self) -> (u8, Vec<u8>) {
        let mut chain: Vec<_> = self.inner_extensions.iter().map(Extension::bytes).collect();
        let first = extension::link(&mut chain, self.protocol());
        let headers = chain.into_iter().flat_map(|(_, header)| header);
        (first, headers.chain(self.transport_bytes()).collect())
    }

    fn ipv4(&self, frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr) {
        let transport = self.transport_bytes();
        let header_len = 20 + self.ipv4_options.len();
        let piece = self.fragment.clone().unwrap_or(0..transport.len());
        let more = piece.end < transport.len();
        let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
        let flags = flag(self.dont_fragment, 0x4000) | flag(more, 0x2000);
        let fragment_word = (piece.start / 8) as u16 | flags;
        let body = &transport[piece];
        let total = self.ip_length.unwrap_or((header_len + body.len()) as u16);
        let mut header = vec![self.version_ihl.unwrap_or(0x40 | (header_len / 4) as u8), 0];
        header.extend_from_slice(&total.to_be_bytes());
        header.extend_from_slice(&(self.identification as u16).to_be_bytes());
        header.extend_from_slice(&fragment_word.to_be_bytes());
        header.extend_from_slice(&[self.hops, self.protocol(), 0, 0]);
        header.extend_from_slice(&src.octets());
        header.extend_from_slice(&dst.octets());
        header.extend_from_slice(&self.ipv4_options);
        let sum = self.ip_checksum.over(0, &header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(body);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr) {
        let mut chain: Vec<(u8, Vec<u8>)> = self.extensions.iter().map(Extension::bytes).collect();
        let (protocol, transport) = self.inner();
        let body = match &self.fragment {
            Some(piece) => {
                let more = piece.end < transport.len();
                let word = piece.start as u16 | u16::from(more);
                let mut header = vec![0, 0];
                header.extend_from_slice(&word.to_be_bytes());
                header.extend_from_slice(&self.identification.to_be_bytes());
                chain.push((44, header));
                &transport[piece.clone()]
            }
            None => &transport,
        };
        let next = extension::link(&mut chain, protocol);
        let chain_len: usize = chain.iter().map(|(_, header)| header.len()).sum();
        let length = self.ip_length.unwrap_or((chain_len + body.len()) as u16);
        frame.extend_from_slice(&[self.version_ihl.unwrap_or(0x60), 0, 0, 0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[next, self.hops]);
        frame.extend_from_slice(&src.octets());
        frame.extend_from_slice(&dst.octets());
        for (_, header) in &chain {
            frame.extend_from_slice(header);
        }
        frame.extend_from_slice(body);
    }
}

/// A frame of this EtherType with any bytes behind it.
pub fn raw(ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(DST_MAC, SRC_MAC, &[], ethertype);
    frame.extend_from_slice(body);
    frame
}

fn ethernet(dst: [u8; 6], src: [u8; 6], tags: &[(u16, u16)], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_BYTES + 4 * tags.len());
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&src);
    for (tpid, tci) in tags {
        frame.extend_from_slice(&tpid.to_be_bytes());
        frame.extend_from_slice(&tci.to_be_bytes());
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}
