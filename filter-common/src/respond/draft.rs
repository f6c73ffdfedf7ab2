//! Where an answer is written: a network header that ends where the transport header begins, so that
//! every field is at a constant place.

use super::Request;
use crate::{
    checksum::{fold, words},
    limits::ICMP_QUOTE_BYTES_MAX,
    wire::{Address, Family, IPV4_LEN, IPV6_LEN, UDP},
};

/// Bytes of a draft; a power of two, so that an index is one mask.
pub const DRAFT_BYTES: usize = 256;
/// Most bytes of an answer: an ICMPv6 error.
pub const REPLY_BYTES_MAX: usize = TRANSPORT + 8 + ICMP_QUOTE_BYTES_MAX as usize;
/// Where the transport header is.
pub(super) const TRANSPORT: usize = IPV6_LEN as usize;
/// Where an IPv4 header is.
const IPV4: usize = TRANSPORT - IPV4_LEN as usize;

/// Hop limit of what is sent back.
pub(super) const HOPS: u8 = 64;
const IPV4_VERSION_AND_LENGTH: u8 = 0x45;
const IPV4_DONT_FRAGMENT: u16 = 0x4000;
const IPV6_VERSION: u8 = 0x60;

/// Memory for one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Draft {
    /// The answer, see [`Reply`].
    pub bytes: [u8; DRAFT_BYTES],
}

/// Where an answer is in its draft, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where its network header starts.
    pub at: u32,
    /// Bytes of the IP packet.
    pub len: u32,
    /// Whether it goes back where the frame came from; otherwise it goes on in the frame's place.
    pub goes_back: bool,
}

impl Reply {
    /// As one scalar, for a function boundary; none is 0.
    #[inline(always)]
    pub const fn pack(reply: Option<Self>) -> u64 {
        match reply {
            Some(reply) => {
                (reply.goes_back as u64) << 63 | (reply.len as u64) << 32 | reply.at as u64
            }
            None => 0,
        }
    }

    /// Back from [`Reply::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Option<Self> {
        let reply = Self {
            at: packed as u32,
            len: (packed >> 32) as u32 & 0xffff,
            goes_back: packed >> 63 != 0,
        };
        if reply.len == 0 { None } else { Some(reply) }
    }
}

/// A network header to be.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) family: Family,
    pub(super) src: Address,
    pub(super) dst: Address,
    pub(super) hops: u8,
    pub(super) protocol: u8,
    pub(super) goes_back: bool,
}

impl Network {
    /// From the request's destination to its source.
    #[inline(always)]
    pub(super) const fn back(request: &Request, protocol: u8) -> Self {
        Self {
            family: request.family,
            src: request.dst,
            dst: request.src,
            hops: HOPS,
            protocol,
            goes_back: true,
        }
    }

    /// The request's own way. Its hops go on counting, or a frame that comes by again would never end.
    #[inline(always)]
    pub(super) const fn onward(request: &Request, protocol: u8) -> Self {
        Self {
            family: request.family,
            src: request.src,
            dst: request.dst,
            hops: request.hops,
            protocol,
            goes_back: false,
        }
    }

    /// Sum of the addresses' 16-bit words.
    #[inline(always)]
    fn addresses(&self) -> u64 {
        let sum = match self.family {
            Family::V4 => words(self.src[1] & 0xffff_ffff) + words(self.dst[1] & 0xffff_ffff),
            Family::V6 => {
                words(self.src[0]) + words(self.src[1]) + words(self.dst[0]) + words(self.dst[1])
            }
        };
        u64::from(sum)
    }
}

impl Draft {
    /// Nothing.
    pub const EMPTY: Self = Self {
        bytes: [0; DRAFT_BYTES],
    };

    /// Zeros everywhere: what is summed goes beyond what is written.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.bytes = [0; DRAFT_BYTES];
    }

    /// Writes a byte at `at`, which wraps.
    #[inline(always)]
    pub(super) fn put8(&mut self, at: usize, value: u8) {
        self.bytes[at & (DRAFT_BYTES - 1)] = value;
    }

    /// Writes a big-endian word at `at`, which wraps.
    #[inline(always)]
    pub(super) fn put16(&mut self, at: usize, value: u16) {
        self.put8(at, (value >> 8) as u8);
        self.put8(at + 1, value as u8);
    }

    /// As [`Draft::put16`].
    #[inline(always)]
    pub(super) fn put32(&mut self, at: usize, value: u32) {
        self.put16(at, (value >> 16) as u16);
        self.put16(at + 2, value as u16);
    }

    #[inline(always)]
    fn put64(&mut self, at: usize, value: u64) {
        self.put32(at, (value >> 32) as u32);
        self.put32(at + 4, value as u32);
    }

    /// Writes `text` at `at`.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, at: usize, text: &[u8; N]) {
        let mut i = 0;
        while i < N {
            self.put8(at + i, text[i]);
            i += 1;
        }
    }

    /// Writes the network header before `len` bytes from [`TRANSPORT`] on, and their checksum at
    /// `checksum`.
    #[inline(always)]
    pub(super) fn finish(&mut self, network: Network, len: u32, checksum: usize) -> Reply {
        let pseudo = network.addresses() + u64::from(network.protocol) + u64::from(len);
        self.finish_with(network, len, checksum, pseudo)
    }

    /// As [`Draft::finish`], for a checksum without a pseudo-header.
    #[inline(always)]
    pub(super) fn finish_plain(&mut self, network: Network, len: u32, checksum: usize) -> Reply {
        self.finish_with(network, len, checksum, 0)
    }

    #[inline(always)]
    fn finish_with(&mut self, network: Network, len: u32, checksum: usize, pseudo: u64) -> Reply {
        let sum = !(fold(self.sum(pseudo)) as u16);
        // Zero would say that there is none (RFC 768).
        let sum = if sum == 0 && network.protocol == UDP {
            0xffff
        } else {
            sum
        };
        self.put16(checksum, sum);
        match network.family {
            Family::V4 => self.ipv4(network, IPV4_LEN + len),
            Family::V6 => self.ipv6(network, len),
        }
    }

    /// Sum of all 16-bit words from the transport header on, and of `start`.
    #[inline(always)]
    fn sum(&self, start: u64) -> u64 {
        let mut sum = start;
        let mut at = TRANSPORT;
        while at < DRAFT_BYTES {
            sum += u64::from(self.bytes[at]) << 8 | u64::from(self.bytes[at + 1]);
            at += 2;
        }
        sum
    }

    #[inline(always)]
    fn ipv4(&mut self, network: Network, len: u32) -> Reply {
        let version = u16::from_be_bytes([IPV4_VERSION_AND_LENGTH, 0]);
        let hops = u16::from_be_bytes([network.hops, network.protocol]);
        let sum = u64::from(version)
            + u64::from(len)
            + u64::from(IPV4_DONT_FRAGMENT)
            + u64::from(hops)
            + network.addresses();
        self.put16(IPV4, version);
        self.put16(IPV4 + 2, len as u16);
        self.put16(IPV4 + 4, 0);
        self.put16(IPV4 + 6, IPV4_DONT_FRAGMENT);
        self.put16(IPV4 + 8, hops);
        self.put16(IPV4 + 10, !(fold(sum) as u16));
        self.put32(IPV4 + 12, network.src[1] as u32);
        self.put32(IPV4 + 16, network.dst[1] as u32);
        Reply {
            at: IPV4 as u32,
            len,
            goes_back: network.goes_back,
        }
    }

    #[inline(always)]
    fn ipv6(&mut self, network: Network, len: u32) -> Reply {
        self.put8(0, IPV6_VERSION);
        self.put16(4, len as u16);
        self.put8(6, network.protocol);
        self.put8(7, network.hops);
        self.put64(8, network.src[0]);
        self.put64(16, network.src[1]);
        self.put64(24, network.dst[0]);
        self.put64(32, network.dst[1]);
        Reply {
            at: 0,
            len: IPV6_LEN + len,
            goes_back: network.goes_back,
        }
    }
}
