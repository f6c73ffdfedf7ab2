//! The Internet checksum (RFC 1071), right or deliberately wrong.

use std::net::IpAddr;

/// What to put into a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right sum.
    Right,
    /// The right sum with every bit flipped.
    Wrong,
    /// Only the pseudo-header's sum, as a sender with checksum offload leaves it.
    Partial,
    /// Zero: "none" for UDP over IPv4.
    Zero,
}

impl Checksum {
    /// The field's value for `bytes`, whose own checksum field is still zero. `pseudo` is the
    /// unfolded sum of the pseudo header.
    pub(super) fn over(self, pseudo: u32, bytes: &[u8]) -> u16 {
        match self {
            Self::Right => !fold(pseudo + sum(bytes)),
            Self::Wrong => fold(pseudo + sum(bytes)),
            Self::Partial => fold(pseudo),
            Self::Zero => 0,
        }
    }
}

/// Unfolded sum of the pseudo header of TCP or UDP; `length` in bytes.
pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: u32) -> u32 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    address(src) + address(dst) + u32::from(protocol) + (length >> 16) + (length & 0xFFFF)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    sum as u16
}
