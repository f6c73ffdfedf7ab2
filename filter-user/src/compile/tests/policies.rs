//! What a policy becomes, apart from protection.

use std::net::IpAddr;

use filter_common::{
    abi::{self, ABI_VERSION, Action, PortRange, SetRef, Table, feature, port_class, served},
    limits::{NAME_CANDIDATES_MAX, PORT_RANGES_PER_RULE, REDIRECT_TARGETS_MAX, RULES_PER_KEY_MAX},
    tables::{v4, v6},
};

use super::{
    compiled, facts, hit_name, hit_v4, hit_v6, host, names_of, nets, policy, rule, set, try_compile,
};
use crate::{
    compile::{CompileError, HostFacts, Role, compile, host as host_facts},
    policy::model::{HostConfig, HostName, InspectPorts, Policy, Rule, Target},
};

fn drop_origin(id: &str, origin: &str) -> Rule {
    Rule {
        origins: nets(&[origin]),
        ..rule(id)
    }
}

/// Slots listed under a prefix of exactly this length.
fn slots_v4(compiled: &crate::compile::Compiled, addr: u32, length: u8) -> Vec<u16> {
    let value = v4::probe(
        compiled,
        Table::V4Buckets,
        &compiled.config.v4,
        addr,
        length,
    );
    set(compiled, value.expect("the key is listed"))
        .iter()
        .map(|set_ref| set_ref.slot())
        .collect()
}

fn matches_nothing(rule: &abi::Rule) -> bool {
    rule.port_count == 1 && rule.ports[0].first > rule.ports[0].last
}

#[test]
fn the_empty_policy_compiles_to_nothing() {
    let compiled = compiled(
        &Policy::default(),
        &HostConfig {
            events_per_window: 5,
            ..host()
        },
    );
    assert_eq!(compiled.config.features, feature::EVENTS);
    assert_eq!(
        (compiled.config.abi, compiled.config.events_per_window),
        (ABI_VERSION, 5)
    );
    let (rule_sets, others) = compiled.tables.split_last().unwrap();
    assert!(others.iter().all(|lines| lines.len() <= 3));
    assert!(
        others
            .iter()
            .flat_map(|lines| lines.iter())
            .all(|line| *line == [0; 8])
    );
    // Room for rules that come.
    assert!(rule_sets.len() < 128 && compiled.rules.len() < 256);
    assert!(compiled.rules.iter().all(matches_nothing));
}

#[test]
fn keys_of_every_kind_lead_to_their_rule_and_neighbours_to_none() {
    let compiled = compiled(
        &policy(vec![Rule {
            hosts: names_of(&["www.one.example"]),
            domains: names_of(&["evil.example"]),
            origins: nets(&["192.0.2.0/24", "2001:db8:bad::1/128"]),
            ..rule("r")
        }]),
        &host(),
    );
    assert_eq!(hit_v4(&compiled, 0xC000_02FF).as_deref(), Some("r"));
    assert_eq!(hit_v4(&compiled, 0xC000_0300), None);
    assert_eq!(
        hit_v6(&compiled, 0x2001_0db8_0bad << 80 | 1).as_deref(),
        Some("r")
    );
    assert_eq!(hit_v6(&compiled, 0x2001_0db8_0bad << 80 | 2), None);
    for (name, is_hit) in [
        ("www.one.example", true),
        ("one.example", false),
        ("a.www.one.example", false),
        ("evil.example", true),
        ("a.b.evil.example", true),
        ("notevil.example", false),
        ("example", false),
    ] {
        assert_eq!(hit_name(&compiled, name).is_some(), is_hit, "{name}");
    }
}

#[test]
fn features_are_exactly_what_the_policy_needs() {
    let features = |rule: Rule| compiled(&policy(vec![rule]), &host()).config.features;
    let served = feature::SERVED_V4 | feature::SERVED_V6 | feature::SOCKETS | feature::CHECKSUMS;
    assert_eq!(features(drop_origin("r", "192.0.2.0/24")), feature::V4);
    assert_eq!(features(drop_origin("r", "0.0.0.0/0")), feature::V4);
    assert_eq!(features(drop_origin("r", "::/0")), feature::V6);
    let name = Rule {
        hosts: names_of(&["a.example"]),
        ..rule("r")
    };
    assert_eq!(features(name.clone()), feature::NAMES | served);
    let until = Some("2026-10-03T00:00:00Z".parse().unwrap());
    assert_eq!(
        features(Rule {
            until,
            ..name.clone()
        }),
        feature::NAMES | served | feature::TIMES
    );
    let redirect = Rule {
        action: Action::Redirect,
        target: Some(Target::Interface("sink0".to_owned())),
        ..drop_origin("r", "192.0.2.0/24")
    };
    assert_eq!(features(redirect), feature::V4 | feature::REDIRECT);
    let refuse = Rule {
        action: Action::Refuse,
        ..drop_origin("r", "192.0.2.0/24")
    };
    assert_eq!(features(refuse), feature::V4 | feature::RESPOND);
    let page = Rule {
        action: Action::Redirect,
        target: Some(Target::Page),
        ..drop_origin("r", "192.0.2.0/24")
    };
    assert_eq!(features(page), feature::V4 | feature::RESPOND);

    let host = HostConfig {
        debug: true,
        events_per_window: 1,
        ..host()
    };
    let replay = |checksums| {
        let role = Role::Replay { checksums };
        try_compile(&policy(vec![name.clone()]), &host, role, None)
            .unwrap()
            .config
            .features
    };
    let expected =
        feature::NAMES | feature::DEBUG | feature::SERVE_ANY | feature::TRACE | feature::READ_NAMES;
    let expected = expected | feature::ANSWERS | feature::ANSWERS_ANYWHERE | feature::ONE_SIDED;
    assert_eq!(replay(false), expected);
    assert_eq!(replay(true), expected | feature::CHECKSUMS);
}

#[test]
fn served_addresses_are_the_hosts_own_or_the_listed_ones() {
    let policy = policy(vec![Rule {
        hosts: names_of(&["a.example"]),
        ..rule("r")
    }]);
    let serves = |host: &HostConfig, addr: &str| {
        let compiled = compiled(&policy, host);
        match addr.parse().unwrap() {
            IpAddr::V4(addr) => v4::longest(
                &compiled,
                Table::ServedV4Summary,
                Table::ServedV4Buckets,
                &compiled.config.served_v4,
                addr.into(),
            )
            .is_some(),
            IpAddr::V6(addr) => v6::longest(
                &compiled,
                Table::ServedV6Summary,
                Table::ServedV6Buckets,
                &compiled.config.served_v6,
                [(u128::from(addr) >> 64) as u64, u128::from(addr) as u64],
            )
            .is_some(),
        }
    };
    assert!(serves(&host(), "198.51.100.1") && serves(&host(), "2001:db8::1"));
    assert!(!serves(&host(), "198.51.100.2") && !serves(&host(), "2001:db8::2"));
    let listed = HostConfig {
        serves: Some(nets(&["203.0.113.0/24", "203.0.113.0/24"])),
        ..host()
    };
    assert!(serves(&listed, "203.0.113.255") && !serves(&listed, "198.51.100.1"));
    assert!(compiled(&policy, &listed).meta.warnings.is_empty());
    let nothing = HostConfig {
        serves: Some(Vec::new()),
        ..host()
    };
    assert!(compiled(&policy, &nothing).meta.warnings[0].contains("names are not read"));
}

#[test]
fn answers_are_watched_only_for_what_passes_through() {
    let policy = policy(vec![Rule {
        hosts: names_of(&["a.example"]),
        ..rule("r")
    }]);
    let watched = |serves: Option<&[&str]>, interfaces| {
        let host = HostConfig {
            serves: serves.map(nets),
            ..host()
        };
        let facts = HostFacts {
            interfaces,
            ..facts()
        };
        let compiled = compile(&policy, &host, &facts, Role::Live, None).unwrap();
        let served = v4::longest(
            &compiled,
            Table::ServedV4Summary,
            Table::ServedV4Buckets,
            &compiled.config.served_v4,
            0xC633_6401,
        );
        let features = compiled.config.features & (feature::ANSWERS | feature::ONE_SIDED);
        (features, served.map(|(_, value)| value))
    };
    let here = Some(served::HERE);
    assert_eq!(watched(None, 2), (0, here));
    assert_eq!(watched(Some(&["198.51.100.1/32"]), 2), (0, here));
    let around: &[&str] = &["198.51.100.0/24"];
    assert_eq!(watched(Some(around), 2), (feature::ANSWERS, here));
    let behind: &[&str] = &["203.0.113.0/24"];
    assert_eq!(watched(Some(behind), 2), (feature::ANSWERS, None));
    let one_sided = feature::ANSWERS | feature::ONE_SIDED;
    assert_eq!(watched(Some(behind), 1), (one_sided, None));
}

#[test]
fn a_set_lists_qualified_rules_first_then_by_id_and_equal_sets_are_stored_once() {
    let ports = vec![PortRange {
        first: 443,
        last: 443,
    }];
    let compiled = compiled(
        &policy(vec![
            Rule {
                origins: nets(&["192.0.2.0/24", "192.0.3.0/24"]),
                ..rule("c")
            },
            Rule {
                ports,
                origins: nets(&["192.0.2.0/24", "192.0.3.0/24"]),
                ..rule("d")
            },
            Rule {
                origins: nets(&["192.0.2.0/24", "192.0.3.0/24"]),
                ..rule("a")
            },
            Rule {
                protocol: Some(6),
                origins: nets(&["192.0.2.0/24", "192.0.3.0/24"]),
                ..rule("b")
            },
        ]),
        &host(),
    );
    // Slots are given in the order of the ids: a 0, b 1, c 2, d 3.
    assert_eq!(slots_v4(&compiled, 0xC000_0200, 24), [1, 3, 0, 2]);
    assert_eq!(slots_v4(&compiled, 0xC000_0300, 24), [1, 3, 0, 2]);
    let refs = compiled.tables[Table::RuleSets as usize].iter().flatten();
    let refs = refs.flat_map(|word| [*word as u32, (*word >> 32) as u32]);
    // The sets of one element beside it have their last one only.
    let not_last = refs.filter(|set_ref| *set_ref != 0 && !SetRef(*set_ref).has(SetRef::LAST));
    assert_eq!(not_last.count(), 3);
    assert_eq!(
        compiled
            .rules
            .iter()
            .map(|rule| rule.rank)
            .take(4)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn a_rule_that_lists_a_key_twice_is_asked_once() {
    let twice = nets(&["192.0.2.0/24", "192.0.2.0/24"]);
    let compiled = compiled(
        &policy(vec![Rule {
            origins: twice,
            ..rule("r")
        }]),
        &host(),
    );
    assert_eq!(slots_v4(&compiled, 0xC000_0200, 24), [0]);
}

#[test]
fn times_become_tai_nanoseconds_with_the_kernels_offset() {
    let rule = Rule {
        from: Some("1970-01-01T00:00:01.5Z".parse().unwrap()),
        until: Some("9999-01-01T00:00:00Z".parse().unwrap()),
        ..drop_origin("r", "192.0.2.0/24")
    };
    let ancient = Rule {
        until: Some("1969-01-01T00:00:00Z".parse().unwrap()),
        ..drop_origin("s", "192.0.2.0/24")
    };
    let compiled = compiled(&policy(vec![rule, ancient]), &host());
    assert_eq!(compiled.rules[0].from_tai_ns, 38_500_000_000);
    assert_eq!(compiled.rules[0].until_tai_ns, u64::MAX);
    assert_eq!(
        (
            compiled.rules[1].from_tai_ns,
            compiled.rules[1].until_tai_ns
        ),
        (0, 0)
    );
}

#[test]
fn ports_map_to_the_protocols_inspected_there() {
    let host = HostConfig {
        quic: InspectPorts::Any,
        ..host()
    };
    let ports = compiled(&Policy::default(), &host).ports;
    assert_eq!(ports[443], port_class::TLS | port_class::QUIC);
    assert_eq!(ports[80], port_class::HTTP | port_class::QUIC);
    assert_eq!(
        (ports[0], ports[65_535]),
        (port_class::QUIC, port_class::QUIC)
    );
}

#[test]
fn redirects_to_one_interface_share_its_index() {
    let redirect = |id: &str, interface: &str| Rule {
        action: Action::Redirect,
        target: Some(Target::Interface(interface.to_owned())),
        ..drop_origin(id, "192.0.2.0/24")
    };
    let rules = vec![redirect("a", "x"), redirect("b", "y"), redirect("c", "x")];
    let three = compiled(&policy(rules), &host());
    assert_eq!(three.redirect_interfaces, ["x", "y"]);
    assert_eq!(
        three
            .rules
            .iter()
            .map(|rule| rule.redirect_index)
            .take(3)
            .collect::<Vec<_>>(),
        [0, 1, 0]
    );

    let many = (0..=REDIRECT_TARGETS_MAX).map(|i| redirect(&format!("r{i:03}"), &format!("if{i}")));
    let error = try_compile(&policy(many.collect()), &host(), Role::Live, None).unwrap_err();
    assert!(
        matches!(error, CompileError::TooManyTargets { .. }),
        "{error}"
    );
}

#[test]
fn rules_keep_their_slots_over_generations() {
    let first = compiled(
        &policy(vec![
            drop_origin("a", "192.0.2.1/32"),
            drop_origin("b", "192.0.2.2/32"),
        ]),
        &host(),
    );
    let second = try_compile(
        &policy(vec![
            drop_origin("b", "192.0.2.2/32"),
            drop_origin("c", "192.0.2.3/32"),
        ]),
        &host(),
        Role::Live,
        Some(&first.meta),
    )
    .unwrap();
    assert_eq!(slots_v4(&second, 0xC000_0202, 32), [1]);
    assert_eq!(slots_v4(&second, 0xC000_0203, 32), [2]);
    assert!(matches_nothing(&second.rules[0]), "retired");
    assert_eq!(second.meta.retired_slots, [0]);
    let third = try_compile(
        &policy(vec![
            drop_origin("b", "192.0.2.2/32"),
            drop_origin("d", "192.0.2.4/32"),
        ]),
        &host(),
        Role::Live,
        Some(&second.meta),
    )
    .unwrap();
    assert_eq!(slots_v4(&third, 0xC000_0204, 32), [0]);
    assert_eq!(third.rules[0].slot_version, 2);
    assert_eq!(third.meta.slot_versions, [2, 1, 1]);
}

#[test]
fn limits_name_the_object_and_what_to_do() {
    let refused = |rules: Vec<Rule>| {
        try_compile(&policy(rules), &host(), Role::Live, None)
            .unwrap_err()
            .to_string()
    };
    let one_prefix = |i: usize| drop_origin(&format!("r{i:02}"), "192.0.2.0/24");
    assert!(
        try_compile(
            &policy((0..RULES_PER_KEY_MAX).map(one_prefix).collect()),
            &host(),
            Role::Live,
            None
        )
        .is_ok()
    );
    let error = refused((0..=RULES_PER_KEY_MAX).map(one_prefix).collect());
    assert!(
        error.starts_with("192.0.2.0/24 is listed 17 times"),
        "{error}"
    );
    assert!(
        error.contains("r00, r01") && error.ends_with("r16"),
        "{error}"
    );

    let nested = |depth: usize| -> Vec<HostName> {
        (1..=depth)
            .map(|labels| HostName::canonical(&vec!["a"; labels].join(".")))
            .collect()
    };
    let deepest = Rule {
        domains: nested(NAME_CANDIDATES_MAX),
        ..rule("deep")
    };
    assert!(try_compile(&policy(vec![deepest]), &host(), Role::Live, None).is_ok());
    let error = refused(vec![Rule {
        domains: nested(NAME_CANDIDATES_MAX + 1),
        ..rule("deep")
    }]);
    assert!(
        error.contains("has 17 listed names on the way to the top"),
        "{error}"
    );

    let range = PortRange { first: 1, last: 2 };
    let ports = vec![range; PORT_RANGES_PER_RULE + 1];
    let error = refused(vec![Rule {
        ports,
        ..drop_origin("wide", "192.0.2.0/24")
    }]);
    assert!(
        error.starts_with("rule \"wide\" has 9 port ranges"),
        "{error}"
    );
    let error = refused(vec![one_prefix(1), one_prefix(1)]);
    assert!(
        error.starts_with("two rules have the id \"r01\""),
        "{error}"
    );
    let error = refused(vec![Rule {
        action: Action::Redirect,
        ..one_prefix(1)
    }]);
    assert!(error.contains("does not say where to"), "{error}");
}

#[test]
fn the_host_digest_changes_with_meaning_only() {
    let digest = |host: &HostConfig| host_facts::digest(host, &facts());
    let base = HostConfig {
        protect_prefixes: nets(&["10.0.0.0/8", "192.0.2.0/24"]),
        ..host()
    };
    let reordered = HostConfig {
        protect_prefixes: nets(&["192.0.2.0/24", "10.0.0.0/8"]),
        ..host()
    };
    assert_eq!(digest(&base), digest(&reordered));
    let same = HostConfig {
        policy: Some("elsewhere.toml".into()),
        ..base.clone()
    };
    assert_eq!(digest(&base), digest(&same));
    for other in [
        HostConfig {
            protect_self: true,
            ..base.clone()
        },
        HostConfig {
            protect_names: names_of(&["a.example"]),
            ..base.clone()
        },
        HostConfig {
            protect_domains: names_of(&["a.example"]),
            ..base.clone()
        },
        HostConfig {
            tls: InspectPorts::Any,
            ..base.clone()
        },
        HostConfig {
            events_per_window: 1,
            ..base.clone()
        },
        HostConfig {
            serves: Some(Vec::new()),
            ..base.clone()
        },
        HostConfig {
            debug: true,
            ..base.clone()
        },
    ] {
        assert_ne!(digest(&base), digest(&other), "{other:?}");
    }
}

#[test]
fn metadata_survives_its_json_and_repeats_the_rule() {
    let rule = Rule {
        ports: vec![
            PortRange {
                first: 443,
                last: 443,
            },
            PortRange {
                first: 8000,
                last: 8010,
            },
        ],
        protocol: Some(6),
        title: Some("Blocked".to_owned()),
        until: Some("2026-10-03T00:00:00Z".parse().unwrap()),
        ..drop_origin("r", "192.0.2.0/24")
    };
    let meta = compile(&policy(vec![rule]), &host(), &facts(), Role::Live, None)
        .unwrap()
        .meta;
    assert_eq!(meta.rules[0].ports, ["443", "8000-8010"]);
    assert_eq!(
        (meta.rules[0].lists.origins, meta.rules[0].action.as_str()),
        (1, "drop")
    );
    let json = serde_json::to_string(&meta).unwrap();
    assert_eq!(
        serde_json::from_str::<crate::compile::Meta>(&json).unwrap(),
        meta
    );
}
