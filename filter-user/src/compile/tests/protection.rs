//! What protection takes from a policy.

use std::collections::HashSet;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::{ProptestConfig, Strategy, prop, proptest};

use super::{compiled, hit_name, hit_v4, hit_v6, host, names_of, nets, policy, rule};
use crate::policy::model::{HostConfig, HostName, Rule};

#[test]
fn a_blocked_prefix_inside_a_protected_one_is_left_out_and_said() {
    let policy = policy(vec![Rule {
        origins: nets(&["192.0.2.0/25", "2001:db8:1::/48"]),
        ..rule("r")
    }]);
    let host = HostConfig {
        protect_prefixes: nets(&["192.0.2.0/24", "2001:db8:1::/48"]),
        ..host()
    };
    let compiled = compiled(&policy, &host);
    assert_eq!(hit_v4(&compiled, 0xC000_0201), None);
    assert_eq!(compiled.config.features, 0, "no key, no code");
    assert_eq!(
        compiled.meta.warnings,
        [
            "rule \"r\": 192.0.2.0/25, 2001:db8:1::/48 are not blocked, protected on this host; nothing of the rule is left"
        ]
    );
}

#[test]
fn a_protected_prefix_inside_a_blocked_one_is_excepted_and_said() {
    let policy = policy(vec![
        Rule {
            origins: nets(&["192.0.2.0/24", "2001:db8::/32"]),
            ..rule("r")
        },
        Rule {
            origins: nets(&["203.0.113.0/24"]),
            ..rule("s")
        },
    ]);
    let host = HostConfig {
        protect_prefixes: nets(&["192.0.2.8/29", "2001:db8::53/128"]),
        ..host()
    };
    let compiled = compiled(&policy, &host);
    for (addr, expected) in [
        (0xC000_0207, true),
        (0xC000_0208, false),
        (0xC000_020F, false),
        (0xC000_0210, true),
    ] {
        assert_eq!(hit_v4(&compiled, addr).is_some(), expected, "{addr:08x}");
    }
    assert_eq!(hit_v6(&compiled, 0x2001_0db8 << 96 | 0x53), None);
    assert_eq!(
        hit_v6(&compiled, 0x2001_0db8 << 96 | 0x54).as_deref(),
        Some("r")
    );
    assert_eq!(
        compiled.meta.warnings,
        [
            "rule \"r\": 192.0.2.8/29, 2001:db8::53/128 are excepted from its keys, protected on this host"
        ]
    );
}

#[test]
fn own_addresses_and_lifelines_are_protected_if_asked() {
    let policy = policy(vec![Rule {
        origins: nets(&["198.51.100.0/24"]),
        ..rule("r")
    }]);
    let open = compiled(&policy, &host());
    let protecting = compiled(
        &policy,
        &HostConfig {
            protect_self: true,
            ..host()
        },
    );
    for addr in [0xC633_6401, 0xC633_64FE] {
        assert!(hit_v4(&open, addr).is_some());
        assert_eq!(hit_v4(&protecting, addr), None);
    }
    assert!(hit_v4(&protecting, 0xC633_6402).is_some());
    assert!(open.meta.warnings.is_empty());
    assert_eq!(protecting.meta.warnings.len(), 1);
}

#[test]
fn protected_names_and_domains_are_excepted_from_blocked_domains() {
    let policy = policy(vec![Rule {
        domains: names_of(&["example", "own.test"]),
        hosts: names_of(&["www.bank.example"]),
        ..rule("r")
    }]);
    let host = HostConfig {
        protect_names: names_of(&["status.example", "own.test"]),
        protect_domains: names_of(&["bank.example", "www.bank.example"]),
        ..host()
    };
    let compiled = compiled(&policy, &host);
    for (name, expected) in [
        ("example", true),
        ("status.example", false),
        ("www.status.example", true),
        ("bank.example", false),
        ("www.bank.example", false),
        ("notbank.example", true),
        ("own.test", false),
        ("www.own.test", true),
        ("test", false),
    ] {
        assert_eq!(hit_name(&compiled, name).is_some(), expected, "{name}");
    }
    assert_eq!(
        compiled.meta.warnings,
        [
            "rule \"r\": www.bank.example is not blocked, protected on this host; \
          bank.example, own.test, status.example are excepted from its keys, protected on this host"
        ]
    );
}

/// Prefixes inside 192.0.2.0/24.
fn small_nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = (0u32..256, 24u8..=32).prop_map(|(host, length)| {
        IpNet::V4(
            Ipv4Net::new((0xC000_0200 | host).into(), length)
                .unwrap()
                .trunc(),
        )
    });
    prop::collection::vec(net, 0..8)
}

fn small_names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."));
    prop::collection::vec(name, 0..6)
}

fn host_names(names: &[String]) -> Vec<HostName> {
    names.iter().map(|name| HostName::canonical(name)).collect()
}

fn is_under(name: &str, domain: &str) -> bool {
    name == domain || name.ends_with(&format!(".{domain}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_address_is_hit_by_the_longest_blocked_prefix_unless_any_protected_one_covers_it(
        a in small_nets(), b in small_nets(), protected in small_nets(),
    ) {
        let policy = policy(vec![
            Rule { origins: a.clone(), ..rule("a") },
            Rule { origins: b.clone(), ..rule("b") },
        ]);
        let host = HostConfig { protect_prefixes: protected.clone(), ..host() };
        let compiled = compiled(&policy, &host);
        for addr in 0xC000_01FF..=0xC000_0300u32 {
            let covers = |net: &&IpNet| net.contains(&std::net::IpAddr::V4(addr.into()));
            let longest = |nets: &[IpNet]| nets.iter().filter(covers).map(IpNet::prefix_len).max();
            let expected = if protected.iter().any(|net| covers(&net)) {
                None
            } else if longest(&b) > longest(&a) {
                Some("b")
            } else {
                longest(&a).map(|_| "a")
            };
            assert_eq!(hit_v4(&compiled, addr).as_deref(), expected, "{addr:08x}");
        }
    }

    #[test]
    fn a_name_is_hit_by_its_host_or_nearest_domain_unless_protected(
        hosts in small_names(), domains in small_names(),
        protect_names in small_names(), protect_domains in small_names(),
        queries in prop::collection::vec(
            prop::collection::vec("[ab]{1,2}", 1..6).prop_map(|labels| labels.join(".")), 16),
    ) {
        let policy = policy(vec![
            Rule { domains: host_names(&domains), ..rule("domains") },
            Rule { hosts: host_names(&hosts), ..rule("hosts") },
        ]);
        let host = HostConfig {
            protect_names: host_names(&protect_names),
            protect_domains: host_names(&protect_domains),
            ..host()
        };
        let compiled = compiled(&policy, &host);
        let listed = hosts.iter().chain(&domains).chain(&protect_names).chain(&protect_domains);
        let queries: HashSet<&String> = queries.iter().chain(listed).collect();
        for name in queries {
            let expected = if protect_names.contains(name)
                || protect_domains.iter().any(|domain| is_under(name, domain))
            {
                None
            } else if hosts.contains(name) {
                Some("hosts")
            } else {
                domains.iter().any(|domain| is_under(name, domain)).then_some("domains")
            };
            assert_eq!(hit_name(&compiled, name).as_deref(), expected, "{name}");
        }
    }
}
