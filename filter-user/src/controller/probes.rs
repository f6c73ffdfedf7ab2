//! Synthetic packets that a new generation must block, made from its rules.

use std::net::IpAddr;

use super::lookup::{self, Tables};
use crate::{datapath::Probe, policy::model::Rule};

/// Prefixes that are tried before giving up: the first few may be protected or expired.
const PREFIXES_TRIED_MAX: usize = 64;
/// IP protocol for experiments (RFC 3692): it has no ports, and no rule narrowed to a protocol is meant.
const PROTOCOL: u8 = 253;
/// `XDP_REDIRECT` needs a device; only drops are probed.
const PROBED_ACTION: &str = "drop";

/// One packet from a blocked IPv4 origin and one from a blocked IPv6 origin, where the policy has them.
pub(super) fn probes<'a>(
    tables: &impl Tables,
    rules: impl Iterator<Item = &'a Rule> + Clone,
) -> Vec<Probe> {
    let now = lookup::now_tai_ns();
    let blocked = |address: &IpAddr| {
        let listings = lookup::address(tables, *address, now);
        // A rule that observes would count the probe.
        let observed = listings
            .iter()
            .any(|listing| listing.role == lookup::Role::Observes);
        !observed
            && lookup::deciding(&listings).is_some_and(|listing| {
                listing.role == lookup::Role::Decides
                    && listing.action.as_deref() == Some(PROBED_ACTION)
            })
    };
    let origins = |v4: bool| {
        let all = rules.clone().flat_map(|rule| &rule.origins);
        all.filter(move |net| net.addr().is_ipv4() == v4)
            .take(PREFIXES_TRIED_MAX)
            .map(|net| net.addr())
            .find(blocked)
    };
    [origins(true), origins(false)]
        .into_iter()
        .flatten()
        .map(|address| Probe {
            description: format!("a packet from the blocked origin {address}"),
            frame: frame_from(address),
            blocked: true,
        })
        .collect()
}

/// An Ethernet frame with an IP packet from `source` to a documentation address.
fn frame_from(source: IpAddr) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    match source {
        IpAddr::V4(source) => {
            frame.extend([0x08, 0x00]);
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&28u16.to_be_bytes());
            header[8] = 64;
            header[9] = PROTOCOL;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&[203, 0, 113, 1]);
            let checksum = internet_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, PROTOCOL, 64]);
            frame.extend(source.octets());
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
    }
    frame.extend([0; 8]);
    frame
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_frames_are_what_a_parser_expects() {
        for source in ["192.0.2.77", "2001:db8:bad::1"] {
            let frame = frame_from(source.parse().unwrap());
            let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
            match parsed.net.unwrap() {
                etherparse::NetHeaders::Ipv4(header, _) => {
                    assert_eq!(std::net::Ipv4Addr::from(header.source).to_string(), source);
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                }
                etherparse::NetHeaders::Ipv6(header, _) => {
                    assert_eq!(std::net::Ipv6Addr::from(header.source).to_string(), source);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
