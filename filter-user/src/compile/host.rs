//! What the host configuration and facts come down to.

use std::{fmt::Write as _, net::IpAddr};

use filter_common::abi::{feature, port_class, served};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::HostFacts;
use crate::policy::model::{ChecksumMode, HostConfig, HostName, InspectPorts};

/// Prefixes that no rule may hit.
pub fn protected(host: &HostConfig, facts: &HostFacts) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = host.protect_prefixes.iter().map(IpNet::trunc).collect();
    if host.protect_self {
        prefixes.extend(
            facts
                .own_addresses
                .iter()
                .chain(&facts.lifelines)
                .map(single),
        );
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// Prefixes on which names are read, with a value of [`served`]: addresses of this host have an entry
/// of their own.
pub(super) fn serves(host: &HostConfig, facts: &HostFacts) -> Vec<(IpNet, u32)> {
    let own: Vec<IpNet> = facts.own_addresses.iter().map(single).collect();
    let prefixes = served_prefixes(host, facts);
    let here: Vec<IpNet> = own
        .into_iter()
        .filter(|address| prefixes.iter().any(|prefix| prefix.contains(address)))
        .collect();
    let beyond = prefixes
        .into_iter()
        .filter(|prefix| !here.contains(prefix))
        .map(|prefix| (prefix, served::BEYOND));
    let mut all: Vec<(IpNet, u32)> = beyond.collect();
    all.extend(here.iter().map(|address| (*address, served::HERE)));
    all.sort_unstable();
    all.dedup();
    all
}

/// The [`feature`] bits that say how connections to these prefixes are followed.
pub(super) fn directions(serves: &[(IpNet, u32)], facts: &HostFacts) -> u32 {
    let passing = serves.iter().any(|(_, value)| *value == served::BEYOND);
    match (passing, facts.interfaces > 1) {
        (false, _) => 0,
        (true, true) => feature::ANSWERS,
        (true, false) => feature::ANSWERS | feature::ONE_SIDED,
    }
}

/// Prefixes on which names are read.
pub fn served_prefixes(host: &HostConfig, facts: &HostFacts) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = match &host.serves {
        Some(serves) => serves.iter().map(IpNet::trunc).collect(),
        None => facts.own_addresses.iter().map(single).collect(),
    };
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// What this host lacks for what the policy wants; `reads_names` if names are to be read here.
pub(super) fn warnings(host: &HostConfig, facts: &HostFacts, reads_names: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if reads_names && served_prefixes(host, facts).is_empty() {
        warnings.push(
            "the policy has hostnames, but this host serves no address: names are not read \
             anywhere; list addresses under `serves`"
                .to_owned(),
        );
    }
    if reads_names && facts.sockets.is_none() {
        warnings.push(
            "this kernel does not tell where it keeps its connections (no BTF): streams are \
             followed by what passes by alone, see LIMITS"
                .to_owned(),
        );
    }
    warnings
}

/// `port_class` bits of every port.
pub fn ports(host: &HostConfig) -> Box<[u8; 65_536]> {
    let mut classes = Box::new([0u8; 65_536]);
    for (ports, class) in [
        (&host.tls, port_class::TLS),
        (&host.http, port_class::HTTP),
        (&host.quic, port_class::QUIC),
        (&host.proxy_protocol, port_class::PROXY),
    ] {
        match ports {
            InspectPorts::Any => classes.iter_mut().for_each(|bits| *bits |= class),
            InspectPorts::List(ports) => {
                for port in ports {
                    classes[usize::from(*port)] |= class;
                }
            }
        }
    }
    classes
}

/// The [`feature`] bits that say how checksums of inspected segments are judged.
pub(super) fn checksums(host: &HostConfig, facts: &HostFacts) -> u32 {
    let partial = match host.checksum {
        ChecksumMode::Auto => facts.partial_checksums,
        ChecksumMode::Strict => false,
        ChecksumMode::Partial => true,
    };
    if partial {
        feature::CHECKSUMS | feature::CHECKSUM_PARTIAL
    } else {
        feature::CHECKSUMS
    }
}

/// SHA-256, in hexadecimal, over everything but the policy that shapes a live
/// generation: equal for equal meaning, whatever the order of the lists.
pub fn digest(host: &HostConfig, facts: &HostFacts) -> String {
    let names = |names: &[HostName]| sorted(names.iter().map(HostName::to_string));
    let prefixes = |prefixes: Vec<IpNet>| sorted(prefixes.iter().map(IpNet::to_string));
    let mut hash = Sha256::new();
    for (label, items) in [
        (
            "serves",
            sorted(serves(host, facts).iter().map(|it| format!("{it:?}"))),
        ),
        (
            "directions",
            vec![directions(&serves(host, facts), facts).to_string()],
        ),
        ("protect prefixes", prefixes(protected(host, facts))),
        ("protect names", names(&host.protect_names)),
        ("protect domains", names(&host.protect_domains)),
        ("tai offset", vec![facts.tai_offset_s.to_string()]),
        ("sockets", vec![format!("{:?}", facts.sockets)]),
        ("checksums", vec![checksums(host, facts).to_string()]),
        ("unparsed", vec![format!("{:?}", host.unparsed)]),
        ("no sni", vec![format!("{:?}", host.no_sni)]),
        ("http2", vec![format!("{:?}", host.http2)]),
        ("fragments", vec![format!("{:?}", host.fragments)]),
        ("fast open", vec![facts.fast_open.to_string()]),
        ("events", vec![host.events_per_window.to_string()]),
        ("debug", vec![host.debug.to_string()]),
        ("quic refuse", vec![host.quic_refuse.to_string()]),
        ("local proxies", vec![format!("{:?}", host.local_proxies)]),
        ("local page", vec![host.local_page.to_string()]),
    ] {
        // None of the items contains a newline, so no two lists are written alike.
        hash.update(format!("{label} {}\n", items.len()));
        for item in items {
            hash.update(item);
            hash.update("\n");
        }
    }
    hash.update(ports(host).as_slice());
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// As [`digest`], of the configuration alone: tells whether it was edited since, whoever asks and
/// whatever addresses the host has by now. Interfaces and the policy's path are not part of it.
pub fn config_digest(host: &HostConfig) -> String {
    let flags = [host.serves.is_none(), host.protect_self].map(u8::from);
    format!(
        "{}-{}{}",
        digest(host, &HostFacts::default()),
        flags[0],
        flags[1]
    )
}

fn sorted(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// An address as a prefix of full length; IPv4-mapped addresses are IPv4.
fn single(addr: &IpAddr) -> IpNet {
    IpNet::from(addr.to_canonical())
}
