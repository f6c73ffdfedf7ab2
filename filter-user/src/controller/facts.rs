//! What a compilation needs to know about this host and moment.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    compile::HostFacts,
    datapath::{kernel_fields, netdev},
    policy::model::InterfaceConfig,
};

/// Gathers the facts from the calling thread's network namespace. What cannot be read is left out:
/// these lists only widen protection.
pub fn gather(ssh_connection: Option<&str>, interfaces: &[InterfaceConfig]) -> HostFacts {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut lifelines = gateways_v4(&read("/proc/thread-self/net/route"));
    lifelines.extend(gateways_v6(&read("/proc/thread-self/net/ipv6_route")));
    lifelines.extend(resolvers(&read("/etc/resolv.conf")));
    lifelines.extend(ssh_connection.and_then(ssh_peer));
    sort(&mut lifelines);
    HostFacts {
        own_addresses: own_addresses(),
        lifelines,
        tai_offset_s: tai_offset_s(),
        sockets: kernel_fields::socket_offsets(),
        fast_open: fast_open(&read("/proc/sys/net/ipv4/tcp_fastopen")),
        partial_checksums: interfaces
            .iter()
            .any(|interface| netdev::leaves_checksums(&interface.name)),
        interfaces: interfaces.len(),
    }
}

fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter_map(|interface| interface.address)
        .filter_map(
            |address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
                (None, Some(v6)) => Some(IpAddr::V6(v6.ip())),
                (None, None) => None,
            },
        )
        .collect();
    sort(&mut addresses);
    addresses
}

fn sort(addresses: &mut Vec<IpAddr>) {
    addresses.sort_unstable();
    addresses.dedup();
}

/// Seconds of the kernel's CLOCK_TAI ahead of UTC: 0 until a time daemon sets it, then 37.
pub(super) fn tai_offset_s() -> i64 {
    // SAFETY: every field is an integer, for which zero is valid.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `modes` is zero, so the call only reads, into a valid structure.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 { 0 } else { i64::from(state.tai) }
}

/// Whether the bit of `tcp_fastopen` is set that lets servers take payload in a SYN. What cannot be
/// read counts as set: a client sends the payload again, the other error lets a name through.
fn fast_open(setting: &str) -> bool {
    const SERVER: u32 = 2;
    setting
        .trim()
        .parse()
        .map_or(true, |bits: u32| bits & SERVER != 0)
}

/// Gateways of `/proc/net/route`: hexadecimal words in host byte order of a network-order address.
fn gateways_v4(table: &str) -> Vec<IpAddr> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok())
        .filter(|&gateway| gateway != 0)
        .map(|gateway| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
        .collect()
}

/// Next hops of `/proc/net/ipv6_route`.
fn gateways_v6(table: &str) -> Vec<IpAddr> {
    table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok())
        .filter(|&gateway| gateway != 0)
        .map(|gateway| IpAddr::V6(Ipv6Addr::from(gateway)))
        .collect()
}

/// `nameserver` lines of resolv.conf; an interface after `%` is left out.
fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| {
            rest.split_whitespace()
                .next()?
                .split('%')
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

/// The client's address in `SSH_CONNECTION` ("client port server port").
fn ssh_peer(connection: &str) -> Option<IpAddr> {
    connection
        .split_whitespace()
        .next()?
        .split('%')
        .next()?
        .parse()
        .ok()
}

/// The client's end of the session in `SSH_CONNECTION`.
pub fn ssh_session(connection: &str) -> Option<SocketAddr> {
    let port = connection.split_whitespace().nth(1)?.parse().ok()?;
    Some(SocketAddr::new(ssh_peer(connection)?.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn gateways_come_from_the_kernels_route_tables() {
        let v4 = "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t010200C0\t0003\neth0\t000200C0\t00000000\t0001\n";
        assert_eq!(gateways_v4(v4), addresses(&["192.0.2.1"]));
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n";
        assert_eq!(gateways_v6(v6), addresses(&["2001:db8::1"]));
        assert!(gateways_v4("garbage\nx y zz\n").is_empty());
    }

    #[test]
    fn resolvers_are_read_with_comments_zones_and_garbage_around_them() {
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.53\n nameserver fe80::1%eth0 \nnameserver x\nsearch a\n";
        assert_eq!(resolvers(text), addresses(&["192.0.2.53", "fe80::1"]));
    }

    #[test]
    fn the_ssh_peer_is_the_client() {
        assert_eq!(
            ssh_peer("198.51.100.7 50000 192.0.2.1 22"),
            "198.51.100.7".parse().ok()
        );
        assert_eq!(ssh_peer(""), None);
        assert_eq!(
            ssh_session("198.51.100.7 50000 192.0.2.1 22"),
            "198.51.100.7:50000".parse().ok()
        );
    }
}
