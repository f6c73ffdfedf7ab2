//! A frame as far as an answer needs it.

use super::quic;
use crate::{
    env::{Env, Window},
    flow::{flags, stamps},
    reason::Reason,
    wire::{Address, Family, Fragment, Packet, TCP, UDP},
};

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// A frame as far as an answer needs it. Plain fields, see [`Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Version of the Internet Protocol.
    pub family: Family,
    /// Source.
    pub src: Address,
    /// Destination.
    pub dst: Address,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Whether its transport header could be read, and nothing about it is odd: [`Request::read`] was done.
    pub is_sound: bool,
    /// Whether the frame was sent to more than one station.
    pub to_group: bool,
    /// Hop limit, or time to live.
    pub hops: u8,
    /// Where the network header starts in the frame.
    pub network: u32,
    /// Bytes of the IP packet.
    pub packet_len: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Bytes of payload of a segment or a datagram.
    pub payload_len: u32,
    /// Sequence number of a segment.
    pub seq: u32,
    /// Acknowledgement number of a segment.
    pub ack: u32,
    /// TCP [`flags`].
    pub flags: u8,
    /// Whether a segment has timestamps.
    pub stamped: bool,
    /// The sender's timestamp.
    pub stamp: u32,
    /// The timestamp that the sender echoes.
    pub echo: u32,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: u8,
    /// A QUIC long header in a datagram.
    pub quic: LongHeader,
}

/// A QUIC long header (RFC 9000, section 17.2), as far as all versions have it (RFC 8999).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongHeader {
    /// Whether there is one, with connection ids that are not longer than version 1 has them.
    pub is_there: bool,
    /// Version; 0 marks Version Negotiation.
    pub version: u32,
    /// Where it starts in the frame.
    pub offset: u32,
    /// Bytes of the destination's connection id.
    pub dst_id_len: u32,
    /// Bytes of the source's connection id.
    pub src_id_len: u32,
}

impl LongHeader {
    pub(super) const NONE: Self = Self {
        is_there: false,
        version: 0,
        offset: 0,
        dst_id_len: 0,
        src_id_len: 0,
    };
}

impl Request {
    /// What [`Request::read`] starts from.
    pub const EMPTY: Self = Self {
        family: Family::V4,
        src: [0; 2],
        dst: [0; 2],
        protocol: 0,
        fragment: Fragment::Whole,
        is_sound: false,
        to_group: false,
        hops: 0,
        network: 0,
        packet_len: 0,
        src_port: 0,
        dst_port: 0,
        payload_len: 0,
        seq: 0,
        ack: 0,
        flags: 0,
        stamped: false,
        stamp: 0,
        echo: 0,
        icmp_type: 0,
        quic: LongHeader::NONE,
    };

    /// Reads from the frame in `env`, whose network header was parsed into `packet`. What cannot be read
    /// leaves the request without [`Request::is_sound`].
    #[inline(always)]
    pub fn read<E: Env>(&mut self, env: &mut E, packet: &Packet) {
        *self = Self {
            family: packet.family,
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            fragment: packet.fragment,
            network: packet.network,
            packet_len: packet.end - packet.network,
            ..Self::EMPTY
        };
        if packet.oddity != Reason::NoMatch {
            return;
        }
        let Some(link) = env.window::<1>(0) else {
            return;
        };
        self.to_group = link.u8::<0>() & 1 != 0;
        let Some(header) = env.window::<20>(packet.network) else {
            return;
        };
        self.hops = match packet.family {
            Family::V4 => header.u8::<8>(),
            Family::V6 => header.u8::<7>(),
        };
        self.is_sound = match (packet.fragment, packet.protocol) {
            (Fragment::Later, _) => false,
            (Fragment::Whole, TCP) => self.read_segment(env, packet),
            (Fragment::Whole, UDP) => self.read_datagram(env, packet),
            (Fragment::Whole, ICMP | ICMPV6) => self.read_message(env, packet),
            // Its beginning is as good as the whole for an ICMP error.
            (Fragment::Whole | Fragment::First, _) => true,
        };
    }

    #[inline(always)]
    fn read_segment<E: Env>(&mut self, env: &mut E, packet: &Packet) -> bool {
        let ports = packet.ports(env);
        let Ok(segment) = packet.segment(env, ports.dst, 0) else {
            return false;
        };
        (self.src_port, self.dst_port) = (ports.src, ports.dst);
        self.payload_len = segment.len;
        self.seq = segment.seq;
        self.ack = segment.ack;
        self.flags = segment.flags;
        let stamps = stamps(env, segment);
        self.stamped = stamps.timestamped;
        self.stamp = stamps.timestamp;
        self.echo = stamps.echo;
        true
    }

    #[inline(always)]
    fn read_datagram<E: Env>(&mut self, env: &E, packet: &Packet) -> bool {
        let ports = packet.ports(env);
        let Ok(payload) = packet.udp_payload(env) else {
            return false;
        };
        (self.src_port, self.dst_port) = (ports.src, ports.dst);
        self.payload_len = payload.len;
        self.quic = quic::read(env, payload);
        true
    }

    #[inline(always)]
    fn read_message<E: Env>(&mut self, env: &E, packet: &Packet) -> bool {
        let Some(message) = env.window::<1>(packet.transport) else {
            return false;
        };
        self.icmp_type = message.u8::<0>();
        packet.transport < packet.end
    }

    /// Whether all flags of `mask` are set.
    #[inline(always)]
    pub(super) const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }

    /// Sequence number behind the segment.
    #[inline(always)]
    pub(super) const fn end(&self) -> u32 {
        let syn = self.has(flags::SYN) as u32;
        let fin = self.has(flags::FIN) as u32;
        self.seq.wrapping_add(self.payload_len + syn + fin)
    }
}
