//! Link types (<https://www.tcpdump.org/linktypes.html>) and how their frames
//! become the Ethernet frames that the program reads.

use std::fmt;

use super::CaptureError;

/// Length of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
const IPV6: u16 = 0x86dd;
/// Synthesised for what has no EtherType: "local experimental" (IEEE 802), never IP.
const NOT_IP: u16 = 0x88b5;

/// Source and destination of a synthesised header: locally administered, unicast.
const SYNTHESISED_ADDRESSES: [u8; 12] = [
    0x02, 0, 0, 0, 0, 0x02, // destination
    0x02, 0, 0, 0, 0, 0x01, // source
];

/// Header lengths of the cooked formats.
const SLL_HEADER: usize = 16;
const SLL2_HEADER: usize = 20;
/// `sll_protocol` in them.
const SLL_PROTOCOL: usize = 14;
const SLL2_PROTOCOL: usize = 0;

/// A link type by its number in capture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u32);

impl LinkType {
    /// How frames of this link type begin; an error if they are not read.
    pub fn framing(self) -> Result<Framing, CaptureError> {
        match self.0 {
            0 => Ok(Framing::Null),
            1 => Ok(Framing::Ethernet),
            // 12 and 14 are DLT values that old tools wrote into files.
            12 | 14 | 101 | 228 | 229 => Ok(Framing::Ip),
            108 => Ok(Framing::Loop),
            113 => Ok(Framing::LinuxCooked),
            276 => Ok(Framing::LinuxCooked2),
            _ => Err(CaptureError::UnsupportedLink { link: self }),
        }
    }

    /// The name in the registry, of those that one may meet.
    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL",
            1 => "ETHERNET",
            6 => "IEEE802_5",
            8 => "SLIP",
            9 => "PPP",
            10 => "FDDI",
            12 | 14 | 101 => "RAW",
            50 => "PPP_HDLC",
            51 => "PPP_ETHER",
            104 => "C_HDLC",
            105 => "IEEE802_11",
            107 => "FRELAY",
            108 => "LOOP",
            113 => "LINUX_SLL",
            117 => "PFLOG",
            119 => "IEEE802_11_PRISM",
            122 => "IP_OVER_FC",
            127 => "IEEE802_11_RADIOTAP",
            143 => "DOCSIS",
            147..=162 => "USER",
            163 => "IEEE802_11_AVS",
            187 => "BLUETOOTH_HCI_H4",
            189 => "USB_LINUX",
            192 => "PPI",
            195 => "IEEE802_15_4_WITHFCS",
            204 => "PPP_WITH_DIR",
            220 => "USB_LINUX_MMAPPED",
            227 => "CAN_SOCKETCAN",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            240 => "NETANALYZER",
            242 => "IPOIB",
            249 => "USBPCAP",
            253 => "NETLINK",
            258 => "PKTAP",
            264 => "ZWAVE_R1_R2",
            276 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
    /// Linux cooked, version 1.
    LinuxCooked,
    /// Linux cooked, version 2.
    LinuxCooked2,
    /// BSD loopback: the address family in the byte order of the capturing machine.
    Null,
    /// OpenBSD loopback: the address family in network byte order.
    Loop,
}

impl Framing {
    /// Turns a frame into an Ethernet frame, with a synthesised header where it has none.
    /// A frame shorter than its link header yields a header without anything behind it.
    pub fn to_ethernet(self, frame: Vec<u8>) -> Vec<u8> {
        let (ether_type, header) = match self {
            Self::Ethernet => return frame,
            Self::Ip => (ip_ether_type(&frame), 0),
            Self::LinuxCooked => (u16_at(&frame, SLL_PROTOCOL), SLL_HEADER),
            Self::LinuxCooked2 => (u16_at(&frame, SLL2_PROTOCOL), SLL2_HEADER),
            // The family's number differs between systems (IPv6 is 10, 24, 28 or 30), and for
            // `Null` so does its byte order: the version of the IP header tells without doubt.
            Self::Null | Self::Loop => (ip_ether_type(frame.get(4..).unwrap_or_default()), 4),
        };
        let payload = frame.get(header..).unwrap_or_default();
        let mut ethernet = Vec::with_capacity(ETHERNET_HEADER + payload.len());
        ethernet.extend_from_slice(&SYNTHESISED_ADDRESSES);
        ethernet.extend_from_slice(&ether_type.unwrap_or(NOT_IP).to_be_bytes());
        ethernet.extend_from_slice(payload);
        ethernet
    }
}

/// EtherType for a packet that begins with its IP header.
fn ip_ether_type(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// Big-endian number at `offset`.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}
