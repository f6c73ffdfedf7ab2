//! Ports and protocols, as rules and the host configuration write them.

use filter_common::abi::PortRange;

use super::{
    diagnostics::{Finding, Findings},
    fields::{Scalar, Scalars},
    source::Located,
};

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;

/// IP protocol number of UDP.
pub(super) const UDP: u8 = 17;

/// Protocols of which the data path reads ports.
pub(super) const PROTOCOLS_WITH_PORTS: [u8; 2] = [TCP, UDP];

/// IP protocol numbers that have names in a policy.
const PROTOCOLS: [(&str, u8); 4] = [("tcp", TCP), ("udp", UDP), ("icmp", 1), ("icmpv6", 58)];

/// Ranges, sorted, those that touch or overlap merged; mistakes are noted.
pub(super) fn parse_ports(ports: Located<Scalars>, findings: &mut Findings) -> Vec<PortRange> {
    let span = ports.span;
    let items = ports.flatten();
    if items.is_empty() {
        findings.error(
            Finding::at(span, "this list of ports is empty").help("name ports, or remove the key"),
        );
    }
    let mut ranges = Vec::new();
    for item in items {
        match parse_range(&item.value) {
            Some(range) => ranges.push(range),
            None => findings.error_with(|| {
                Finding::at(
                    item.span,
                    format!("{} is not a port or a range of ports", item.value),
                )
                .help(
                    "write a port from 1 to 65535, as in `443`, or a range, as in `\"8000-8010\"`",
                )
            }),
        }
    }
    merge(ranges)
}

fn parse_range(item: &Scalar) -> Option<PortRange> {
    let (first, last) = match item {
        Scalar::Integer(number) => {
            let port = u16::try_from(*number).ok()?;
            (port, port)
        }
        Scalar::Text(text) => match text.split_once('-') {
            Some((first, last)) => (parse_port(first)?, parse_port(last)?),
            None => {
                let port = parse_port(text)?;
                (port, port)
            }
        },
    };
    (first >= 1 && first <= last).then_some(PortRange { first, last })
}

fn parse_port(text: &str) -> Option<u16> {
    let text = text.trim();
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable_by_key(|range| (range.first, range.last));
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

/// An IP protocol number; a mistake is noted.
pub(super) fn parse_protocol(protocol: &Located<Scalar>, findings: &mut Findings) -> Option<u8> {
    let number = match &protocol.value {
        // 255 is reserved by IANA, and means "any" in the tables.
        Scalar::Integer(number) => u8::try_from(*number).ok().filter(|&number| number != 255),
        Scalar::Text(text) => {
            let known = PROTOCOLS
                .iter()
                .find(|(name, _)| text.eq_ignore_ascii_case(name));
            known.map(|&(_, number)| number)
        }
    };
    if number.is_none() {
        findings.error(
            Finding::at(protocol.span, "this is not an IP protocol").help(
                "write \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a protocol number from 0 to 254",
            ),
        );
    }
    number
}
