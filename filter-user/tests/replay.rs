//! `edgefilter replay` as an operator meets it: the answer, its last line, exit codes; through the
//! program in the kernel and the host build, which must print the same. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/captures");
/// A pcap file header, little-endian, for Ethernet.
const PCAP_HEADER: [u8; 24] = [
    0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
];

fn capture(name: &str) -> PathBuf {
    Path::new(CAPTURES).join(name)
}

fn run(capture: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgefilter"))
        .arg("replay")
        .args(arguments)
        .arg(capture)
        .output()
        .expect("the binary")
}

/// Standard output of a replay that succeeds: the same of both builds.
fn replayed(capture: &Path, arguments: &[&str]) -> String {
    let [kernel, host] = [&[][..], &["--host"]].map(|more: &[&str]| {
        let output = run(capture, &[arguments, more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    });
    assert_eq!(kernel, host, "the two builds differ");
    kernel
}

/// The flows' lines, and the summary.
fn lines(output: &str) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let last = lines.pop().expect("a last line");
    (lines, last["summary"].clone())
}

/// What a policy with this rule makes of a capture's only flow: verdict, rule, reason, name.
fn judged(name: &str, rule: &str) -> (String, Option<String>, String, Option<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.toml");
    fs::write(
        &policy,
        format!("version = 1\n[[rule]]\nid = \"it\"\n{rule}\n"),
    )
    .expect("a policy");
    let policy = policy.to_str().expect("a path in UTF-8");
    let output = replayed(
        &capture(name),
        &["--json", "--ports", "any", "--policy", policy],
    );
    let (flows, _) = lines(&output);
    assert_eq!(flows.len(), 1, "{output}");
    let word = |field: &str| flows[0][field].as_str().map(str::to_owned);
    (
        word("verdict").expect("a verdict"),
        word("rule"),
        word("reason").expect("a reason"),
        word("name"),
    )
}

#[test]
fn a_flow_is_one_line_with_the_documented_fields_and_the_summary_is_the_last() {
    let output = replayed(&capture("go124.pcap"), &["--json"]);
    let (flows, summary) = lines(&output);
    let flow = output.lines().next().expect("a flow");
    let (head, frames) = flow.rsplit_once("\"frames\":").expect("frames last");
    assert!(
        frames.trim_end_matches('}').parse::<u64>().is_ok(),
        "{flow}"
    );
    assert!(
        head.ends_with(
            "\"proto\":\"tcp\",\"protocol\":\"tls\",\"name\":\"go124.test.example\",\
             \"verdict\":\"pass\",\"rule\":null,\"reason\":\"no_match\","
        ),
        "{flow}"
    );
    assert!(head.starts_with("{\"src\":\""), "{flow}");
    assert_eq!(flows[0].as_object().map(serde_json::Map::len), Some(11));
    assert_eq!(summary["flows"], 1);
    assert_eq!(summary["named"], 1);
    assert_eq!(summary["unparsed"], 0);
}

#[test]
fn a_policy_is_judged_with_its_actions_qualifiers_and_the_present_moment() {
    let go = "hosts = [\"go124.test.example\"]";
    let name = || Some("go124.test.example".to_owned());
    let rule = || Some("it".to_owned());
    let hit = |verdict: &str| (verdict.to_owned(), rule(), "hostname".to_owned(), name());
    let passes = ("pass".to_owned(), None, "no_match".to_owned(), name());
    for (more, expected) in [
        ("action = \"drop\"", hit("drop")),
        ("action = \"observe\"", hit("observe")),
        ("ports = [443]\naction = \"drop\"", hit("drop")),
        ("ports = [444]\naction = \"drop\"", passes.clone()),
        (
            "from = 2020-01-01T00:00:00Z\naction = \"drop\"",
            hit("drop"),
        ),
        (
            "from = 2200-01-01T00:00:00Z\naction = \"drop\"",
            passes.clone(),
        ),
        ("until = 2020-01-01T00:00:00Z\naction = \"drop\"", passes),
    ] {
        assert_eq!(
            judged("go124.pcap", &format!("{go}\n{more}")),
            expected,
            "{more}"
        );
    }
}

#[test]
fn origins_hit_as_source_and_as_destination_and_are_redirected_without_an_interface() {
    let output = replayed(&capture("go124.pcap"), &["--json"]);
    let (flows, _) = lines(&output);
    for (end, reason) in [("src", "origin_source"), ("dst", "origin_destination")] {
        let address = flows[0][end].as_str().expect("an address");
        let origins = format!("origins = [\"{address}/32\"]");
        let expected = |verdict: &str, name: Option<&str>| {
            (
                verdict.to_owned(),
                Some("it".to_owned()),
                reason.to_owned(),
                name.map(str::to_owned),
            )
        };
        let with = |action: &str| judged("go124.pcap", &format!("{origins}\n{action}"));
        assert_eq!(with("action = \"drop\""), expected("drop", None));
        assert_eq!(
            with("action = \"redirect\"\nredirect = { interface = \"no-such-one\" }"),
            expected("redirect", None)
        );
        // What is only observed is read on.
        let observed = with("action = \"observe\"");
        assert_eq!((&*observed.0, &*observed.2), ("observe", reason));
        assert_eq!(observed.3.as_deref(), Some("go124.test.example"));
    }
}

#[test]
fn checksums_are_judged_only_when_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let damaged = directory.path().join("damaged.pcap");
    let mut bytes = fs::read(capture("go124.pcap")).expect("a capture");
    let name = b"go124.test.example";
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(name.len())
        .position(|window| window == name)
    {
        at += found;
        bytes[at] = b'x';
    }
    fs::write(&damaged, bytes).expect("a file");
    let (flows, _) = lines(&replayed(&damaged, &["--json"]));
    assert_eq!(flows[0]["name"], "xo124.test.example");
    let (flows, summary) = lines(&replayed(&damaged, &["--json", "--checksums", "verify"]));
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0]["name"], serde_json::Value::Null);
    assert_eq!(flows[0]["verdict"], "drop");
    assert_eq!(flows[0]["reason"], "bad_checksum");
    assert!(
        summary["reasons"]["bad_checksum"].as_u64() > Some(0),
        "{summary}"
    );
    assert_eq!(summary["unparsed"], 1);
}

#[test]
fn files_that_are_no_capture_or_half_a_one_have_their_exit_codes_and_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(capture("go124.pcap")).expect("a capture");
    let mut other_link = whole.clone();
    other_link[20] = 105;
    let cases: [(&str, &[u8], i32, &str, bool); 7] = [
        ("empty file", b"", 2, "not a capture", false),
        ("text", b"hello\nworld\n", 2, "not a capture", false),
        ("half a header", &whole[..20], 2, "cut short", false),
        ("no frames", &PCAP_HEADER, 0, "", true),
        ("half a record header", &whole[..30], 0, "cut short", true),
        (
            "half a frame",
            &whole[..whole.len() - 3],
            0,
            "cut short",
            true,
        ),
        ("another link type", &other_link, 2, "IEEE802_11", false),
    ];
    for (what, bytes, code, word, answers) in cases {
        let path = directory.path().join("capture");
        fs::write(&path, bytes).expect("a file");
        let output = run(&path, &["--host", "--json"]);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(code), "{what}: {err}");
        assert!(err.contains(word), "{what}: {err}");
        assert_eq!(out.contains("{\"summary\":"), answers, "{what}: {out}");
    }
    let output = run(directory.path(), &["--host"]);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&directory.path().join("absent"), &["--host"]);
    assert_eq!(output.status.code(), Some(2));
}
