//! What is said about policies that do not load.

use filter_common::limits::PORT_RANGES_PER_RULE;

use super::{super::limits::ERRORS_SHOWN_MAX, message, parse, policy};

/// The full text about a policy that does not load.
fn shown(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn important_errors_are_rendered_in_full() {
    for (text, expected) in [
        (
            "",
            "\
error: this policy file is empty
 --> policy.toml:1:1
  |
1 |
  | ^
  |
  = help: write `version = 1`, then `[[rule]]` for each rule",
        ),
        (
            "version = 1\n[[rule]\n",
            "\
error: unclosed array table, expected `]`
 --> policy.toml:2:8
  |
2 | [[rule]
  |        ^
  |
  = help: this is not valid TOML, see https://toml.io",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhsts = [\"a.example\"]\nhosts = [\"b.example\"]\n",
            "\
error: unknown key \"hsts\"
 --> policy.toml:5:1
  |
5 | hsts = [\"a.example\"]
  | ^^^^
  |
  = help: did you mean `hosts`?",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"*.b.example\"]\n",
            "\
error: \"*.b.example\": stars are not understood in host names
 --> policy.toml:5:10
  |
5 | hosts = [\"*.b.example\"]
  |          ^^^^^^^^^^^^^
  |
  = help: `domains = [\"b.example\"]` covers b.example and everything under it",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\norigins = [\"192.0.2.1\", \"203.0.113.77/24\"]\n",
            "\
error: \"203.0.113.77/24\": bits are set beyond the prefix length
 --> policy.toml:5:25
  |
5 | origins = [\"192.0.2.1\", \"203.0.113.77/24\"]
  |                         ^^^^^^^^^^^^^^^^^
  |
  = help: write `203.0.113.0/24`, or `/32` for the single address",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"x.example\"]\n[[rule]]\nid = \"b\"\naction = \"observe\"\nhosts = [\"X.example.\"]\n",
            "\
error: rules \"a\" and \"b\" list the host x.example with different actions
 --> policy.toml:9:10
  |
9 | hosts = [\"X.example.\"]
  |          ^^^^^^^^^^^^ \"b\" says observe
 ::: policy.toml:5:10
  |
5 | hosts = [\"x.example\"]
  |          ----------- \"a\" says drop
  |
  = help: remove it from one of them, or narrow them by `ports`, `protocol` or times that do not overlap",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nquic = \"refuse\"\nhosts = [\"x.example\"]\n",
            "\
error: `quic` says how to refuse, but the rule does not
 --> policy.toml:5:8
  |
5 | quic = \"refuse\"
  |        ^^^^^^^^
 ::: policy.toml:4:10
  |
4 | action = \"drop\"
  |          ------ this action
  |
  = help: remove it, or write `action = \"refuse\"` or `action = \"redirect\"`",
        ),
        (
            "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"x.example\"]\nuntil = 2026-10-01T00:00:00\n",
            "\
error: `until`: a time without an offset means something else on every host
 --> policy.toml:6:9
  |
6 | until = 2026-10-01T00:00:00
  |         ^^^^^^^^^^^^^^^^^^^
  |
  = help: add `Z` for UTC: `2026-10-01T00:00:00Z`",
        ),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn mistakes_in_a_rule_have_their_own_messages() {
    for (keys, expected) in [
        ("", "this rule lists nothing, so it would never hit"),
        (
            "hosts = []",
            "this rule lists nothing, so it would never hit",
        ),
        (
            "hosts = \"a.example\"",
            "`hosts`: expected a list, found a string",
        ),
        (
            "hosts = [5]",
            "`hosts`: invalid type: integer `5`, expected a string",
        ),
        (
            "hosts = [\"a b.example\"]",
            "\"a b.example\": a host name must not contain white space",
        ),
        (
            "hosts = [\"com\"]",
            "\"com\" is a public suffix: names of many owners are under it",
        ),
        (
            "domains = [\"192.0.2.1\"]",
            "\"192.0.2.1\": this is an address, not a host name",
        ),
        (
            "origins = [\"10.0.0.0/15\"]",
            "\"10.0.0.0/15\" is wider than a /16",
        ),
        (
            "origins = [\"2000::/31\"]",
            "\"2000::/31\" is wider than a /32",
        ),
        (
            "origins = [\"::ffff:192.0.2.1\"]",
            "\"::ffff:192.0.2.1\": IPv4-mapped IPv6 addresses do not occur in packets",
        ),
        ("ports = [70000]", "70000 is not a port or a range of ports"),
        (
            "ports = [443.5]",
            "`ports`: invalid type: floating point `443.5`, expected a number or a string",
        ),
        ("ports = []", "this list of ports is empty"),
        (
            "ports = 443\nprotocol = \"icmp\"\norigins = [\"192.0.2.1\"]",
            "packets of this protocol have no ports, so the rule would never hit",
        ),
        (
            "protocol = \"icmp\"\nhosts = [\"a.example\"]",
            "names do not occur in packets of this protocol, so they would never hit",
        ),
        ("protocol = 255", "this is not an IP protocol"),
        (
            "redirect = { interface = \"eth1\" }",
            "`redirect` says where to, but the action is another one",
        ),
        ("title = \"\"", "`title` is empty"),
        (
            "title = \"\\u001b[31m\"",
            "`title` contains control characters",
        ),
        (
            "statement = \"ftp://a.example\"",
            "`statement` is not a web address",
        ),
        (
            "statement = \"https:///x\"",
            "`statement` is not a web address",
        ),
        (
            "statement = \"https://a.example/ x\"",
            "`statement` is not a web address",
        ),
        (
            "from = 2026-09-02T00:00:00Z\nuntil = 2026-09-02T00:00:00Z",
            "`until` is not after `from`, so the rule would never be in force",
        ),
        (
            "from = 2026-09-02",
            "`from`: a date alone does not say when the day begins",
        ),
        (
            "from = \"2026-09-02T00:00:00Z\"",
            "`from`: invalid type: string \"2026-09-02T00:00:00Z\", expected a TOML datetime",
        ),
        (
            "until = 2600-01-01T00:00:00Z",
            "`until`: this is beyond the kernel's clock",
        ),
        (
            "from = 1969-12-31T23:59:59Z",
            "`from`: this is beyond the kernel's clock",
        ),
        (
            "allow_wide = \"yes\"",
            "`allow_wide`: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "approved_by = \"me\"",
            "`approved_by`: expected a list, found a string",
        ),
        ("approved_by = [\"\"]", "`approved_by` is empty"),
    ] {
        let text = format!("version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\n{keys}\n");
        let error = parse(&text).unwrap_err();
        let found = error
            .report
            .diagnostics
            .iter()
            .find(|found| found.message == expected);
        let found = found.unwrap_or_else(|| panic!("{keys}\n{error}"));
        assert!(
            found.line.is_some() && found.column.is_some() && found.help.is_some(),
            "{keys}"
        );
    }
}

#[test]
fn mistakes_in_actions_and_ids_have_their_own_messages() {
    for (keys, expected) in [
        ("hosts = [\"a.example\"]", "this rule has no `action`"),
        (
            "hosts = [\"a.example\"]\naction = \"drp\"",
            "this is not an action",
        ),
        (
            "hosts = [\"a.example\"]\naction = \"redirect\"\nredirect.interface = \"eth1\"",
            "names lead to the block page only, origins also elsewhere",
        ),
        (
            "origins = [\"192.0.2.1\"]\naction = \"redirect\"\nredirect.next_hop = \"a.example\"",
            "\"a.example\" cannot be a next hop",
        ),
        (
            "origins = [\"192.0.2.1\"]\naction = \"redirect\"\nredirect.next_hop = \"224.0.0.1\"",
            "\"224.0.0.1\" cannot be a next hop",
        ),
        (
            "hosts = [\"a.example\"]\naction = \"refuse\"\nquic = \"pass\"",
            "`quic` cannot be \"pass\"",
        ),
        (
            "hosts = [\"a.example\"]\naction = \"redirect\"\n[rule.text.German]\ntitle = \"x\"",
            "\"German\" is not the tag of a language",
        ),
        (
            "hosts = [\"a.example\"]\naction = \"redirect\"\n[rule.text.de]\nstatement = \"x\"",
            "unknown key \"statement\"",
        ),
        (
            "hosts = [\"a.example\"]\naction = \"redirect\"\ntext = \"x\"",
            "expected a table, found a string",
        ),
        (
            "origins = [\"192.0.2.1\"]\naction = \"redirect\"\nredirect = \"eth1\"",
            "expected a table, found a string",
        ),
        (
            "origins = [\"192.0.2.1\"]\naction = \"redirect\"\nredirect = {}",
            "`redirect` names neither an interface nor a next hop",
        ),
        (
            "origins = [\"192.0.2.1\"]\naction = \"redirect\"\nredirect.interface = \"a/b\"",
            "\"a/b\" cannot be the name of an interface",
        ),
    ] {
        assert_eq!(message(&policy(&[keys])), expected, "{keys}");
    }
    for id in ["", "a b", "ä", &"x".repeat(65)] {
        let text = format!(
            "version = 1\n[[rule]]\nid = \"{id}\"\naction = \"drop\"\nhosts = [\"a.example\"]\n"
        );
        assert!(message(&text).ends_with("cannot be a rule's id"), "{id}");
    }
    assert_eq!(
        message("version = 1\n[[rule]]\naction = \"drop\"\nhosts = [\"a.example\"]\n"),
        "this rule has no `id`"
    );
}

#[test]
fn the_version_is_required_and_known() {
    let rule = "[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"a.example\"]\n";
    for (text, expected) in [
        (rule.to_owned(), "this policy file has no `version`"),
        (
            format!("version = 2\n{rule}"),
            "version 2 of the format is not known",
        ),
        (
            format!("version = \"1\"\n{rule}"),
            "version \"1\" of the format is not known",
        ),
    ] {
        assert_eq!(message(&text), expected);
    }
    assert_eq!(message("version = 1\nrules = []"), "unknown key \"rules\"");
    assert_eq!(
        message("version = 1\n[rule]\nid = \"a\""),
        "`rule`: expected a list, found a table"
    );
}

#[test]
fn too_many_separate_ports_are_refused() {
    let ports: Vec<_> = (0..=PORT_RANGES_PER_RULE)
        .map(|at| (1 + 2 * at).to_string())
        .collect();
    let text = format!(
        "action = \"drop\"\norigins = [\"192.0.2.1\"]\nports = [{}]",
        ports.join(", ")
    );
    assert_eq!(
        message(&policy(&[&text])),
        "9 separate port ranges, at most 8 fit in a rule"
    );
}

#[test]
fn every_error_is_reported_at_once_up_to_a_limit() {
    let text = policy(&["action = \"dorp\"\nhosts = [\"*.a\"]\ntitle = 5\ncolour = 1"]);
    assert_eq!(parse(&text).unwrap_err().report.diagnostics.len(), 4);

    let names: Vec<_> = (0..50).map(|count| format!("\"*{count}\"")).collect();
    let text = policy(&[&format!("action = \"drop\"\nhosts = [{}]", names.join(","))]);
    let report = parse(&text).unwrap_err().report;
    assert_eq!(
        (report.diagnostics.len(), report.more),
        (ERRORS_SHOWN_MAX, 50 - ERRORS_SHOWN_MAX)
    );
    assert!(report.to_string().ends_with("error: and 30 more"));
}

#[test]
fn a_wrong_type_is_one_error_and_errors_come_in_the_order_of_the_file() {
    let text = policy(&["title = 5\naction = \"dorp\"\nhosts = \"a.example\"\nport = 1"]);
    let report = parse(&text).unwrap_err().report;
    let lines: Vec<_> = report
        .diagnostics
        .iter()
        .filter_map(|found| found.line)
        .collect();
    assert_eq!(lines, [7, 8, 9, 10]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    let expected = "\
error: version 2 of the format is not known
 --> policy.toml:1:11
  |
1 | version = 2
  |           ^
  |
  = help: write `version = 1`, the only version there is";
    assert_eq!(shown("\u{feff}version = 2\r\n"), expected);
}

#[test]
fn long_or_odd_values_do_not_make_long_or_odd_messages() {
    let long = "x".repeat(1 << 20);
    for keys in [
        format!("from = \"{long}\""),
        format!("hosts = [\"{long}\", \"*{long}\", \"https://{long}\"]"),
        format!("origins = [\"{long}\"]\nports = \"{long}\"\nprotocol = \"{long}\""),
        format!("{long} = 1\naction = \"{long}\""),
        format!("hosts_file = \"{}\"", "\\u001b[31m"),
    ] {
        let shown = shown(&format!("version = 1\n[[rule]]\nid = \"a\"\n{keys}\n"));
        assert!(
            shown.len() < 3_000 && !shown.contains('\u{1b}'),
            "{shown:?}"
        );
    }
}

#[test]
fn errors_have_fields_for_machines() {
    let report = parse("version = 3").unwrap_err().report;
    let json = serde_json::to_value(&report).unwrap();
    let expected = serde_json::json!({
        "diagnostics": [{
            "file": "policy.toml",
            "line": 1,
            "column": 11,
            "message": "version 3 of the format is not known",
            "help": "write `version = 1`, the only version there is",
        }],
        "more": 0,
    });
    assert_eq!(json, expected);
}
