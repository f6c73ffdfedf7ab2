//! Changes under the program that runs: what comes and goes, what is said about it, and what makes the
//! tables anew.

use std::{fs, path::PathBuf, time::Duration};

use filter_tests::{
    echo::Echo,
    edge::{Edge, exit},
    net::Direct,
    probe::answers,
    process::wait_for,
};
use serde_json::Value;

const PORT: u16 = 7;
/// For a machine that does much else; the bench measures.
const IN_FORCE_MAX: Duration = Duration::from_secs(10);

const POLICY: &str = "version = 1\n[[rule]]\nid = \"base\"\norigins = [\"192.0.2.0/24\", \"192.0.2.1\"]\n\
                      hosts = [\"a.example\"]\naction = \"drop\"\n";

fn more(action: &str) -> String {
    let origin = Direct::OTHER_V4;
    format!(
        "version = 1\n[[rule]]\nid = \"more\"\norigins = [\"{origin}\"]\naction = \"{action}\"\n"
    )
}

fn is_blocked(net: &Direct) -> bool {
    let to = format!("{}:{PORT}", Direct::EDGE_V4);
    assert!(
        answers(&net.visitor, Direct::VISITOR_V4, &to),
        "the neighbour is always served"
    );
    !answers(&net.visitor, Direct::OTHER_V4, &to)
}

/// Path of a file in `policy.d/`, which is made.
fn beside(edge: &Edge<'_>, name: &str) -> PathBuf {
    let policy = edge.policy_path();
    let directory = policy.parent().unwrap().join("policy.d");
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

fn program(status: &Value) -> u64 {
    status["interfaces"][0]["program_id"].as_u64().unwrap()
}

fn generation(status: &Value) -> u64 {
    assert_eq!(status["in_sync"], true, "{status}");
    assert_eq!(status["interfaces"][0]["generation"], status["generation"]);
    status["generation"].as_u64().unwrap()
}

fn apply(edge: &Edge<'_>) -> Value {
    let ended = edge.run(&["apply", "--json"]);
    assert_eq!(ended.code, exit::OK, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_rule_that_comes_and_goes_beside_the_policy_needs_no_other_program() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let path = beside(&edge, "more.toml");
    assert!(!is_blocked(&net));
    let before = edge.json("status");

    fs::write(&path, more("drop")).unwrap();
    wait_for("the rule in force", IN_FORCE_MAX, || is_blocked(&net));
    assert!(edge.rule_packets("more") >= 1);
    let with = edge.json("status");
    assert_eq!(
        (program(&with), with["rules"].as_u64()),
        (program(&before), Some(2))
    );
    assert_eq!(generation(&with), generation(&before) + 1);

    fs::remove_file(&path).unwrap();
    wait_for("the rule gone", IN_FORCE_MAX, || !is_blocked(&net));
    let without = edge.json("status");
    assert_eq!(
        (program(&without), without["rules"].as_u64()),
        (program(&before), Some(1))
    );
    assert_eq!(without["policy_digest"], before["policy_digest"]);
    let explained = edge.run(&["explain", Direct::OTHER_V4]).stdout;
    assert!(!explained.contains("drop"), "{explained}");

    // The same rule again is another one: its counter begins anew.
    fs::write(&path, more("drop")).unwrap();
    wait_for("the rule in the tables", IN_FORCE_MAX, || {
        edge.json("status")["rules"].as_u64() == Some(2)
    });
    assert_eq!(edge.rule_packets("more"), 0);
    assert!(is_blocked(&net));
}

#[test]
fn apply_says_what_was_done_in_place_and_why_the_tables_were_made_anew() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let first = apply(&edge);
    assert_eq!(
        (&first["in_place"], &first["rebuilt"]),
        (&Value::Bool(false), &Value::Null)
    );

    let path = beside(&edge, "more.toml");
    fs::write(&path, more("observe")).unwrap();
    let observing = apply(&edge);
    assert_eq!(
        observing["rebuilt"],
        "the program was loaded without rules that observe"
    );
    assert!(!is_blocked(&net));
    assert!(edge.rule_packets("more") >= 1);
    let counted = edge.rule_packets("more");

    // What the program can do already is done in place, and the counter goes on.
    fs::write(&path, more("drop")).unwrap();
    let dropping = apply(&edge);
    assert_eq!(
        (&dropping["in_place"], &dropping["changed"][0]),
        (&Value::Bool(true), &"more".into())
    );
    assert!(is_blocked(&net));
    assert!(edge.rule_packets("more") > counted);
    assert_eq!(apply(&edge)["unchanged"], true);

    let other = beside(&edge, "other.toml");
    fs::rename(&path, &other).unwrap();
    fs::write(&other, more("drop").replace("\"more\"", "\"other\"")).unwrap();
    let renamed = apply(&edge);
    assert_eq!(
        (&renamed["in_place"], &renamed["added"][0]),
        (&Value::Bool(true), &"other".into())
    );
    assert!(is_blocked(&net));
    let status = edge.json("status");
    // By way of a generation that has both.
    assert_eq!(
        generation(&status),
        dropping["generation"].as_u64().unwrap() + 2
    );

    let elsewhere = more("drop").replace(Direct::OTHER_V4, "192.0.2.66");
    fs::write(&other, elsewhere.replace("\"more\"", "\"other\"")).unwrap();
    assert_eq!(
        apply(&edge)["rebuilt"],
        "rule `other` lists other names or prefixes"
    );
    assert!(!is_blocked(&net));

    let long = edge.run(&["apply", "-v"]);
    assert!(long.stdout.contains("in place already"), "{}", long.stdout);
}
