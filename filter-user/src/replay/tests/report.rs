use filter_common::{
    abi::{NO_SLOT, Protocol, Verdict},
    reason::Reason,
};
use serde_json::{Value, json};

use super::{super::testing::*, pass};
use crate::{
    compile::{Meta, MetaRule},
    replay::{Findings, Ran, Runner, escape_name, json_lines, table},
};

fn meta() -> Meta {
    let rule = |slot, id: &str| MetaRule {
        slot,
        id: id.to_owned(),
        ..MetaRule::default()
    };
    Meta {
        rules: vec![rule(3, "weak-rule"), rule(4, "strong-rule")],
        ..Meta::default()
    }
}

fn lines(findings: &Findings) -> Vec<Value> {
    let mut out = Vec::new();
    json_lines(&mut out, findings, &meta()).expect("writing to memory");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// One frame for each outcome, on one connection.
fn flow_of(outcomes: &[Ran]) -> Findings {
    let mut left = outcomes.iter();
    let mut runner = Scripted::new(move |_| Ok(*left.next().expect("an outcome per frame")));
    let frames = (0..outcomes.len())
        .map(|index| captured(tcp((1, 51_514), (9, 443), 1 + index as u32, DATA, b"x")))
        .collect();
    replay(&mut runner as &mut dyn Runner, frames)
}

fn named(reason: Reason, name: &[u8]) -> Ran {
    outcome(Verdict::Pass, reason, NO_SLOT, Protocol::Tls, name)
}

fn hit(verdict: Verdict, slot: u16) -> Ran {
    outcome(
        verdict,
        Reason::Hostname,
        slot,
        Protocol::Tls,
        b"hit.example",
    )
}

#[test]
fn a_named_flow_has_exactly_the_documented_fields() {
    let findings = flow_of(&[pass(), named(Reason::NoMatch, b"www.example.org"), pass()]);
    let lines = lines(&findings);
    assert_eq!(
        lines[0],
        json!({
            "src": "192.0.2.1", "src_port": 51_514, "dst": "192.0.2.9", "dst_port": 443,
            "proto": "tcp", "protocol": "tls", "name": "www.example.org", "verdict": "pass",
            "rule": null, "reason": "no_match", "frames": 3
        })
    );
    assert_eq!(
        lines[1],
        json!({"summary": {
            "frames": 3, "flows": 1, "named": 1, "hit": 0, "unparsed": 0, "unsupported": 0,
            "held": 0, "held_dropped": 0, "held_unresolved": 0, "truncated": 0, "untracked": 0,
            "reasons": {"no_match": 3}
        }})
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn the_fields_are_written_in_the_documented_order() {
    let mut out = Vec::new();
    let findings = flow_of(&[named(Reason::NoMatch, b"www.example.org")]);
    json_lines(&mut out, &findings, &meta()).expect("writing to memory");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    assert!(text.starts_with(
        r#"{"src":"192.0.2.1","src_port":51514,"dst":"192.0.2.9","dst_port":443,"proto":"tcp","protocol":"tls","name":"www.example.org","verdict":"pass","rule":null,"reason":"no_match","frames":1}"#
    ), "{text}");
}

#[test]
fn the_strongest_frame_gives_verdict_rule_and_reason() {
    let line = |outcomes: &[Ran]| lines(&flow_of(outcomes))[0].clone();
    let drop = line(&[
        hit(Verdict::Observe, 3),
        hit(Verdict::Drop, 4),
        hit(Verdict::Drop, 3),
    ]);
    assert_eq!(
        (&drop["verdict"], &drop["rule"]),
        (&json!("drop"), &json!("strong-rule"))
    );
    assert_eq!(
        (&drop["reason"], &drop["name"]),
        (&json!("hostname"), &json!("hit.example"))
    );
    let redirect = line(&[hit(Verdict::Drop, 3), hit(Verdict::Redirect, 4), pass()]);
    assert_eq!(redirect["verdict"], "redirect");
    let observe = line(&[pass(), hit(Verdict::Observe, 3), pass()]);
    assert_eq!(
        (&observe["verdict"], &observe["rule"]),
        (&json!("observe"), &json!("weak-rule"))
    );
    // A drop without a rule yields to one with a rule.
    let malformed = outcome(
        Verdict::Drop,
        Reason::HelloMalformed,
        NO_SLOT,
        Protocol::Tls,
        b"",
    );
    let both = line(&[malformed, hit(Verdict::Drop, 4)]);
    assert_eq!(both["rule"], "strong-rule");
    let alone = line(&[malformed]);
    assert_eq!(
        (&alone["rule"], &alone["reason"]),
        (&Value::Null, &json!("hello_malformed"))
    );
}

#[test]
fn several_names_of_one_connection_are_listed() {
    let findings = flow_of(&[
        named(Reason::NoMatch, b"a.example"),
        named(Reason::NoMatch, b"A.example"),
        named(Reason::NoMatch, b"b.example"),
        named(Reason::NoMatch, b"a.example"),
    ]);
    let line = &lines(&findings)[0];
    assert_eq!(
        (&line["name"], &line["names"]),
        (&json!("a.example"), &json!(["a.example", "b.example"]))
    );
    assert_eq!(findings.summary.named, 1);
}

#[test]
fn unsupported_flows_say_so_and_silent_ones_are_left_out() {
    let mut runner = Scripted::new(|_| Ok(pass()));
    let gre = {
        let mut frame = tcp((1, 1), (2, 2), 1, DATA, b"");
        frame[23] = 47;
        frame
    };
    let findings = replay(
        &mut runner,
        vec![captured(tcp((1, 1), (2, 2), 1, DATA, b"x")), captured(gre)],
    );
    let lines = lines(&findings);
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        json!({
            "src": "192.0.2.1", "src_port": null, "dst": "192.0.2.2", "dst_port": null,
            "proto": "47", "protocol": null, "name": null, "verdict": "pass", "rule": null,
            "reason": "unsupported", "frames": 1, "unsupported": "gre"
        })
    );
    assert_eq!(lines[1]["summary"]["flows"], 2);
}

#[test]
fn names_are_escaped_reversibly() {
    for (name, escaped) in [
        (&b"www.example.org"[..], "www.example.org"),
        ("bücher.example".as_bytes(), "bücher.example"),
        (b"a\xff\xc3b", r"a\xff\xc3b"),
        (br"back\slash", r"back\x5cslash"),
        (b"line\nfeed\x1b[31m\x00", r"line\x0afeed\x1b[31m\x00"),
        ("right\u{202e}left".as_bytes(), r"right\xe2\x80\xaeleft"),
        (b"", ""),
    ] {
        assert_eq!(escape_name(name), escaped);
    }
}

#[test]
fn the_table_is_aligned_and_ends_with_the_summary() {
    let findings = flow_of(&[hit(Verdict::Drop, 4), named(Reason::NoMatch, b"b.example")]);
    let mut out = Vec::new();
    table(&mut out, &findings, &meta()).expect("writing to memory");
    let text = String::from_utf8(out).expect("UTF-8");
    let expected = "\
SOURCE           DESTINATION    PROTO  PROTOCOL  VERDICT  RULE         REASON    FRAMES  NAME
192.0.2.1:51514  192.0.2.9:443  tcp    tls       drop     strong-rule  hostname  2       hit.example, b.example

2 frames, 1 flows: 1 with a name, 1 hit by a rule, 0 unparsed, 0 unsupported
frames by reason: hostname 1, no_match 1
";
    assert_eq!(text, expected);
}
