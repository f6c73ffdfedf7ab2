//! What rules mean once they are loaded: lists, conflicts, warnings, digest; and that what the
//! documentation shows does load.

use std::{collections::BTreeMap, fs, path::Path};

use filter_common::{
    abi::{Action, PortRange},
    limits::{RULES_MAX, RULES_PER_KEY_MAX},
};
use proptest::prelude::*;

use super::{
    super::{
        load_host_config, load_policy,
        model::{Rule, Target},
        parse_host_config, parse_policy,
    },
    EXPLAINED, message, parse, policy,
};

/// The only rule of a policy that loads.
fn rule(text: &str) -> Rule {
    parse(&policy(&[text]))
        .unwrap_or_else(|error| panic!("{text}\n{error}"))
        .rules
        .remove(0)
}

#[test]
fn every_key_of_a_rule_is_understood() {
    let text = r#"
version = 1
[[rule]]
id = "2026-09:x_y.z"
hosts = ["Forum.example."]
domains = ["forum.example"]
origins = ["192.0.2.0/24", "2001:db8:bad::1"]
ports = [443, "8000-8010", "8011"]
protocol = "tcp"
action = "drop"
title = "t"
reason = "r"
statement = "https://provider.example/statements/2026-09"
authority = "a"
reference = "f"
approved_by = ["x", "y"]
from = 2026-09-03T22:00:00+02:00
until = 2026-10-03 00:00:00Z
review_by = 2026-09-10T00:00:00Z
"#;
    let loaded = parse(text).unwrap();
    let expected = Rule {
        id: "2026-09:x_y.z".into(),
        action: Action::Drop,
        target: None,
        refuses_quic: false,
        hosts: vec!["forum.example".parse().unwrap()],
        domains: vec!["forum.example".parse().unwrap()],
        origins: vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8:bad::1/128".parse().unwrap(),
        ],
        ports: vec![
            PortRange {
                first: 443,
                last: 443,
            },
            PortRange {
                first: 8000,
                last: 8011,
            },
        ],
        protocol: Some(6),
        title: Some("t".into()),
        reason: Some("r".into()),
        text: BTreeMap::new(),
        statement: Some("https://provider.example/statements/2026-09".into()),
        authority: Some("a".into()),
        reference: Some("f".into()),
        approved_by: vec!["x".into(), "y".into()],
        from: Some("2026-09-03T20:00:00Z".parse().unwrap()),
        until: Some("2026-10-03T00:00:00Z".parse().unwrap()),
        review_by: Some("2026-09-10T00:00:00Z".parse().unwrap()),
    };
    assert_eq!(loaded.rules, [expected]);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("has names and origins"));
}

#[test]
fn times_are_read_with_their_offset() {
    for (written, utc) in [
        ("2026-09-03T22:00:00Z", "2026-09-03T22:00:00Z"),
        ("2026-09-03 22:00:00.5+02:00", "2026-09-03T20:00:00.5Z"),
        ("2026-09-03t22:00:00-00:00", "2026-09-03T22:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ] {
        let text = format!("action = \"drop\"\nhosts = [\"a.example\"]\nfrom = {written}");
        assert_eq!(rule(&text).from, Some(utc.parse().unwrap()), "{written}");
    }
}

#[test]
fn redirects_lead_to_the_page_an_interface_or_a_next_hop() {
    let to = |redirect: &str| {
        let rule = rule(&format!(
            "action = \"redirect\"\n{redirect}\norigins = [\"192.0.2.1\"]"
        ));
        assert_eq!(rule.action, Action::Redirect);
        (rule.target.unwrap(), rule.refuses_quic)
    };
    assert_eq!(to(""), (Target::Page, true));
    assert_eq!(to("quic = \"icmp\""), (Target::Page, false));
    assert_eq!(
        to("redirect = { interface = \"eth1\" }"),
        (Target::Interface("eth1".into()), false)
    );
    let hop = |interface: Option<&str>| Target::NextHop {
        address: "2001:db8::1".parse().unwrap(),
        interface: interface.map(str::to_owned),
    };
    assert_eq!(
        to("redirect = { next_hop = \"2001:db8::1\" }"),
        (hop(None), false)
    );
    assert_eq!(
        to("redirect = { next_hop = \"2001:db8::1\", interface = \"eth1\" }"),
        (hop(Some("eth1")), false)
    );
}

#[test]
fn names_may_be_refused_and_led_to_the_page() {
    for (action, expected) in [("refuse", Action::Refuse), ("redirect", Action::Redirect)] {
        let rule = rule(&format!("action = \"{action}\"\nhosts = [\"a.example\"]"));
        assert_eq!(rule.action, expected);
        assert!(rule.refuses_quic);
    }
}

#[test]
fn texts_come_in_languages() {
    let rule = rule(
        "action = \"redirect\"\nhosts = [\"a.example\"]\ntitle = \"Blocked\"\n\
         [rule.text.de]\ntitle = \"Gesperrt\"\n[rule.text.pt-BR]\nreason = \"r\"",
    );
    assert_eq!(rule.title.as_deref(), Some("Blocked"));
    assert_eq!(rule.text["de"].title.as_deref(), Some("Gesperrt"));
    assert_eq!(rule.text["pt-BR"].reason.as_deref(), Some("r"));
}

#[test]
fn one_port_and_protocol_numbers_are_understood() {
    let with = |keys: &str| {
        rule(&format!(
            "action = \"drop\"\norigins = [\"192.0.2.1\"]\n{keys}"
        ))
    };
    assert_eq!(
        with("ports = 443").ports,
        [PortRange {
            first: 443,
            last: 443
        }]
    );
    assert_eq!(
        with("ports = \"1-65535\"").ports,
        [PortRange {
            first: 1,
            last: 65535
        }]
    );
    assert_eq!(with("protocol = 0").protocol, Some(0));
    assert_eq!(with("protocol = 254").protocol, Some(254));
    assert_eq!(with("protocol = \"ICMPv6\"").protocol, Some(58));
}

#[test]
fn the_rule_itself_may_lift_the_guardrails() {
    let rule = rule(
        "action = \"drop\"\norigins = [\"0.0.0.0/0\"]\nhosts = [\"github.io\"]\nallow_wide = true\nallow_public_suffix = true",
    );
    assert_eq!((rule.origins.len(), rule.hosts.len()), (1, 1));
}

#[test]
fn repetitions_are_taken_out_with_one_warning() {
    let text =
        "action = \"drop\"\nhosts = [\"b.example\", \"a.example\", \"B.example\", \"a.example.\"]";
    let loaded = parse(&policy(&[text])).unwrap();
    assert_eq!(loaded.rules[0].hosts.len(), 2);
    let expected = "policy.toml:8:49: rule \"a\" lists a.example more than once, and 1 others; the repetition has no effect; remove it";
    assert_eq!(loaded.warnings, [expected]);
}

#[test]
fn unexplained_and_outdated_rules_are_warned_of() {
    for (keys, warning) in [
        ("", "has no `reason`, no `statement`"),
        ("", "neither `until` nor `review_by`"),
        (
            "until = 2027-01-01T00:00:00Z\nreason = \"r\"",
            "has no `statement`, no `review_by`",
        ),
        ("until = 2026-01-01T00:00:00Z", "is no longer in force"),
        (
            "until = 2027-01-01T00:00:00Z\nreview_by = 2028-01-01T00:00:00Z",
            "ends before it is reviewed",
        ),
        ("protocol = \"udp\"", "never hit over UDP"),
    ] {
        let text = format!(
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"a.example\"]\n{keys}"
        );
        let warnings = parse(&text).unwrap().warnings;
        assert!(
            warnings.iter().any(|line| line.contains(warning)),
            "{keys}: {warnings:?}"
        );
    }
    let warnings = parse("version = 1").unwrap().warnings;
    assert_eq!(warnings, ["the policy has no rules: nothing is blocked"]);
}

#[test]
fn different_actions_conflict_only_if_one_packet_can_be_meant_by_both() {
    let cases = [
        ("", "", true),
        ("ports = 80", "ports = 443", false),
        ("ports = 80", "ports = \"1-100\"", true),
        ("ports = 80", "", true),
        ("protocol = \"tcp\"", "protocol = \"udp\"", false),
        ("protocol = \"tcp\"", "", true),
        ("protocol = \"tcp\"", "ports = 443", true),
        ("protocol = \"icmp\"", "ports = 443", false),
        (
            "until = 2026-10-01T00:00:00Z",
            "from = 2026-10-01T00:00:00Z",
            false,
        ),
        (
            "until = 2026-10-01T00:00:01Z",
            "from = 2026-10-01T00:00:00Z",
            true,
        ),
    ];
    for (a, b, conflict) in cases {
        let key = "origins = [\"192.0.2.0/24\"]";
        let a_drop = format!("action = \"drop\"\n{key}\n{a}");
        let b_observe = format!("action = \"observe\"\n{key}\n{b}");
        for rules in [[&a_drop, &b_observe], [&b_observe, &a_drop]] {
            let loaded = parse(&policy(&rules.map(String::as_str)));
            assert_eq!(loaded.is_err(), conflict, "{a} | {b}");
        }
        let b_drop = format!("action = \"drop\"\n{key}\n{b}");
        assert!(parse(&policy(&[&a_drop, &b_drop])).is_ok(), "{a} | {b}");
    }
}

#[test]
fn different_keys_do_not_conflict() {
    for (a, b) in [
        ("hosts = [\"a.example\"]", "domains = [\"a.example\"]"),
        ("domains = [\"a.example\"]", "domains = [\"b.a.example\"]"),
        (
            "origins = [\"192.0.2.0/24\"]",
            "origins = [\"192.0.2.0/25\"]",
        ),
    ] {
        let a = format!("action = \"drop\"\n{a}");
        let b = format!("action = \"observe\"\n{b}");
        assert!(parse(&policy(&[&a, &b])).is_ok(), "{a} | {b}");
    }
}

#[test]
fn redirects_to_different_interfaces_conflict() {
    let to = |interface: &str| {
        format!(
            "action = \"redirect\"\nredirect.interface = \"{interface}\"\norigins = [\"192.0.2.1\"]"
        )
    };
    assert!(parse(&policy(&[&to("eth1"), &to("eth1")])).is_ok());
    assert!(parse(&policy(&[&to("eth1"), &to("eth2")])).is_err());
}

#[test]
fn limits_on_rules_are_kept() {
    let rule = "action = \"drop\"\nhosts = [\"a.example\"]";
    let full = vec![rule; RULES_PER_KEY_MAX];
    assert!(parse(&policy(&full)).is_ok());
    let beyond = vec![rule; RULES_PER_KEY_MAX + 1];
    assert_eq!(
        message(&policy(&beyond)),
        "17 rules list the host a.example, at most 16 may"
    );

    let mut many = String::from("version = 1\n");
    for count in 0..=RULES_MAX {
        many += &format!(
            "[[rule]]\nid = \"{count}\"\naction = \"drop\"\nhosts = [\"{count}.example\"]\n"
        );
    }
    assert_eq!(message(&many), "more than 16384 rules");
}

#[test]
fn the_digest_depends_on_the_meaning_and_on_nothing_else() {
    let digest = |text: &str| parse(text).unwrap().digest;
    let a = format!(
        "[[rule]]\nid = \"a\"\n{EXPLAINED}action = \"drop\"\nhosts = [\"a.example\", \"b.example\"]\n"
    );
    let b = format!(
        "[[rule]]\nid = \"b\"\n{EXPLAINED}action = \"drop\"\norigins = [\"192.0.2.1\"]\nports = [80, 81]\n"
    );
    let original = digest(&format!("version = 1\n{a}{b}"));
    assert_eq!(original.len(), 64);
    assert_eq!(digest(&format!("# comment\nversion = 1\n{b}{a}")), original);
    let rewritten = a.replace(
        "[\"a.example\", \"b.example\"]",
        "[\"B.example.\", \"a.example\", \"a.example\"]",
    );
    assert_eq!(digest(&format!("version = 1\n{rewritten}{b}")), original);
    let merged = b
        .replace("[80, 81]", "\"80-81\"")
        .replace("192.0.2.1", "192.0.2.1/32");
    assert_eq!(digest(&format!("version = 1\n{a}{merged}")), original);
    for (from, to) in [
        ("\"drop\"", "\"observe\""),
        ("\"a.example\"", "\"c.example\""),
        ("hosts", "domains"),
        ("reason = \"r\"", "reason = \"s\""),
        ("id = \"a\"", "id = \"c\""),
    ] {
        let changed = a.replace(from, to);
        assert_ne!(
            digest(&format!("version = 1\n{changed}{b}")),
            original,
            "{from}"
        );
    }
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn the_examples_load_without_a_warning() {
    let policy = load_policy(&root().join("examples/policy.toml")).unwrap();
    assert_eq!(policy.warnings, [""; 0]);
    let config = load_host_config(&root().join("examples/edgefilter.toml")).unwrap();
    assert_eq!(config.policy, Some(root().join("examples/policy.toml")));
}

#[test]
fn what_the_reference_shows_loads() {
    let text = fs::read_to_string(root().join("docs/POLICY.md")).unwrap();
    let mut blocks = 0;
    for block in text.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").expect("a block ends");
        let directory = tempfile::tempdir().unwrap();
        for list in ["names.txt", "prefixes.txt"] {
            let entry = if list == "names.txt" {
                "listed.example"
            } else {
                "198.51.100.0/24"
            };
            fs::write(directory.path().join(list), entry).unwrap();
        }
        let name = Path::new("docs/POLICY.md");
        let problem = if block.starts_with("# edgefilter.toml") {
            parse_host_config(block, name, directory.path())
                .err()
                .map(|error| error.to_string())
        } else {
            parse_policy(block, name, directory.path())
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(problem, None, "{block}");
        blocks += 1;
    }
    assert!(blocks >= 4, "{blocks} blocks");
}

proptest! {
    #[test]
    fn any_text_loads_or_is_refused_without_a_panic(text in "(?s).{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_of_any_key_loads_or_is_refused_without_a_panic(
        key in "id|hosts|domains|origins|ports|protocol|action|redirect|title|statement|approved_by|from|until|review_by|allow_wide|hosts_file",
        value in "[0-9a-z\":T.,{}=\\[\\]/ é*-]{0,24}",
    ) {
        let text = format!("version = 1\n[[rule]]\n{key} = {value}\n");
        prop_assert!(parse(&text).is_err());
    }
}
