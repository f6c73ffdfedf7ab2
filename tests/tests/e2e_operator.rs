//! What an operator does to a running filter, rightly and wrongly, and what it says to that.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use filter_tests::{
    echo::Echo,
    edge::{Edge, exit, number_at},
    net::{Direct, Namespace},
    probe::answers,
    process::wait_for,
};
use nix::sys::signal::Signal;

const PORT: u16 = 7;
const SOON: Duration = Duration::from_secs(3);

/// Drops packets from the visitor's second address, or from an address nobody has.
fn policy(blocked: bool) -> String {
    let origin = if blocked {
        Direct::OTHER_V4
    } else {
        "192.0.2.99"
    };
    rule("origin", &format!("origins = [\"{origin}\"]"))
}

fn rule(id: &str, keys: &str) -> String {
    format!("version = 1\n[[rule]]\nid = \"{id}\"\n{keys}\naction = \"drop\"\n")
}

fn is_blocked(net: &Direct) -> bool {
    !answers(
        &net.visitor,
        Direct::OTHER_V4,
        &format!("{}:{PORT}", Direct::EDGE_V4),
    )
}

#[test]
fn what_cannot_be_a_policy_is_refused_in_words_and_enforcement_goes_on() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let path = edge.policy_path();
    let second = |id, keys: &str| {
        let rule = rule(id, keys);
        rule.trim_start_matches("version = 1\n").to_owned()
    };
    let twice = policy(true) + &second("origin", "hosts = [\"a.example\"]");
    let against = policy(true)
        + &second("b", &format!("origins = [\"{}\"]", Direct::OTHER_V4)).replace("drop", "observe");
    let texts = [
        (&twice, "two rules have the id", "policy.toml:7:6"),
        (&against, "with different actions", "policy.toml:8:"),
        (
            &rule("x", "hosts = 7"),
            "expected a list",
            "policy.toml:4:9",
        ),
        (
            &rule("x", "hosts_file = \"absent.txt\""),
            "no such file",
            "absent.txt",
        ),
        (
            &"version = 1\n\0\0".to_owned(),
            "not valid TOML",
            "policy.toml:2:1",
        ),
    ];
    let refused = |what: &str, place: &str| {
        wait_for(what, SOON, || edge.run(&["status"]).code == exit::DIFFERS);
        let said = edge.json("status")["last_error"].to_string();
        assert!(
            said.contains(what) && said.contains(place),
            "{what}: {said}"
        );
        assert!(is_blocked(&net), "{what}");
    };
    let mended = || {
        edge.replace_policy(&policy(true));
        wait_for("mended", SOON, || edge.run(&["status"]).code == exit::OK);
    };
    for (text, what, place) in texts {
        edge.replace_policy(text);
        refused(what, place);
        mended();
    }

    fs::remove_file(&path).expect("a removed policy");
    fs::create_dir(&path).expect("a directory instead");
    refused("this is a directory", "policy.toml");
    fs::remove_dir(&path).expect("a removed directory");
    mended();

    let noise = path.with_extension("noise");
    let file = fs::File::create(&noise).expect("a file");
    file.set_len(100_000_000).expect("100 MB of nothing");
    fs::rename(&noise, &path).expect("a renamed file");
    refused("100000000 bytes", "policy.toml");
    let started = Instant::now();
    assert_eq!(edge.run(&["check"]).code, exit::REFUSED);
    assert!(started.elapsed() < Duration::from_secs(2));
    mended();
}

#[test]
fn sighup_applies_what_no_watch_can_see() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(false));
    // Written through a name in another directory, the file changes and its own directory does not.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other_name = elsewhere.path().join("policy");
    fs::hard_link(edge.policy_path(), &other_name).expect("a second name");
    edge.start();
    fs::write(&other_name, policy(true)).expect("a written policy");
    thread::sleep(Duration::from_millis(500));
    assert!(!is_blocked(&net), "nothing was noticed");
    edge.controller().signal(Signal::SIGHUP);
    wait_for("SIGHUP", SOON, || is_blocked(&net));
}

#[test]
fn a_policy_behind_symbolic_links_is_followed_as_kubernetes_swaps_it() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], "");
    let path = edge.policy_path();
    let mount = path.parent().expect("a folder").to_owned();
    let point_to = |revision: &str, blocked: bool| {
        fs::create_dir(mount.join(revision)).expect("a folder");
        fs::write(mount.join(revision).join("policy.toml"), policy(blocked)).expect("a policy");
        symlink(revision, mount.join("..data_tmp")).expect("a link");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("a renamed link");
    };
    point_to("..1", false);
    fs::remove_file(&path).expect("a removed policy");
    symlink(Path::new("..data/policy.toml"), &path).expect("a link");
    edge.start();
    assert!(!is_blocked(&net));
    point_to("..2", true);
    wait_for("the first swap", SOON, || is_blocked(&net));
    fs::remove_dir_all(mount.join("..1")).expect("a removed folder");
    point_to("..3", false);
    wait_for("the second swap", SOON, || !is_blocked(&net));
    assert_eq!(edge.run(&["status"]).code, exit::OK);
}

#[test]
fn what_is_detached_by_hand_stays_detached_until_somebody_applies() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let detached = edge.run(&["detach"]);
    assert_eq!(detached.code, exit::OK, "{detached:?}");
    assert!(detached.stdout.contains("controller"), "{detached:?}");
    edge.replace_policy(&format!("{}reason = \"again\"\n", policy(true)));
    edge.controller().signal(Signal::SIGHUP);
    // Longer than the controller takes to look at its interfaces.
    thread::sleep(Duration::from_millis(2_500));
    assert!(!is_blocked(&net), "still detached");
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::DIFFERS, "{status:?}");
    assert!(status.stdout.contains("detached by hand"), "{status:?}");

    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert!(is_blocked(&net), "applied");
    wait_for("the controller agrees", SOON, || {
        edge.run(&["status"]).code == exit::OK
    });

    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    edge.stop_controller();
    edge.start();
    assert!(is_blocked(&net), "a new controller attaches");
}

#[test]
fn a_redirect_target_that_vanished_is_reported_and_used_again_when_it_returns() {
    let net = Direct::new();
    let sink = Namespace::new("sink");
    net.edge.veth("sink0", &sink, "eth0");
    let away = rule("away", "origins = [\"203.0.113.66\"]").replace(
        "\"drop\"",
        "\"redirect\"\nredirect = { interface = \"sink0\" }",
    );
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &away);
    let warnings = edge.json("status")["warnings"].to_string();
    assert!(
        warnings.contains("sink0") && warnings.contains("GRO"),
        "a veth without GRO behind it loses redirected frames: {warnings}"
    );
    net.edge.ip(&["link", "del", "sink0"]);
    wait_for("the alarm", SOON, || {
        let status = edge.run(&["status"]);
        status.code == exit::DIFFERS && status.stdout.contains("sink0: rules redirect to it")
    });
    net.edge.veth("sink0", &sink, "eth0");
    wait_for("used again", Duration::from_secs(15), || {
        edge.run(&["status"]).code == exit::OK
    });
}

#[test]
fn maps_for_streams_exist_only_where_names_are_read() {
    const MEBIBYTE: u64 = 1 << 20;
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let flows = net.edge.pin_dir().join("shared/FLOWS");
    let bytes = || {
        assert_eq!(edge.run(&["apply"]).code, exit::OK);
        number_at(&edge.json("status"), "map_bytes").expect("map memory")
    };
    assert!(bytes() < 4 * MEBIBYTE);
    assert!(!flows.exists());
    edge.write_policy(&rule("name", "hosts = [\"a.example\"]"));
    assert!(bytes() > 16 * MEBIBYTE);
    assert!(flows.exists());
    edge.write_policy(&policy(true));
    assert!(bytes() < 4 * MEBIBYTE);
    assert!(!flows.exists());
}

#[test]
fn status_differs_while_an_edited_configuration_or_policy_is_not_applied() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert_eq!(edge.run(&["status"]).code, exit::OK);
    edge.configure(&[Direct::EDGE_IF], "[protect]\nnames = [\"a.example\"]\n");
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::DIFFERS, "{status:?}");
    assert!(status.stdout.contains("host configuration"), "{status:?}");
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert_eq!(edge.run(&["status"]).code, exit::OK);
    edge.write_policy(&policy(false));
    assert_eq!(edge.run(&["status"]).code, exit::DIFFERS);
    let applied = edge.run(&["apply"]);
    assert!(
        applied.stdout.contains("~ origin"),
        "another address, the same number of them: {applied:?}"
    );
    assert_eq!(edge.run(&["status"]).code, exit::OK);
}

#[test]
fn rules_out_of_their_time_are_told_at_the_time_of_asking() {
    let net = Direct::new();
    let until = filter_tests::fixtures::seconds_from_now(3);
    let text = format!("{}until = {until}\n", policy(true));
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &text);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert!(!edge.run(&["rules"]).stdout.contains("no longer"));
    wait_for("its end", Duration::from_secs(6), || {
        edge.run(&["rules"]).stdout.contains("no longer")
    });
    let status = edge.run(&["status"]).stdout;
    assert!(status.contains("origin: no longer in force"), "{status}");
}

#[test]
fn json_is_one_document_for_every_command_and_every_error() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let is_document = |args: &[&str], code: i32| {
        let ended = edge.run(args);
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        let parsed = serde_json::from_str::<serde_json::Value>(&ended.stdout);
        assert!(parsed.is_ok(), "{args:?}: {ended:?}");
    };
    is_document(&["counters", "--json"], exit::DIFFERS);
    is_document(&["explain", "--json", "192.0.2.0/24"], exit::USAGE);
    is_document(&["check", "--json", "--no-such-flag"], exit::USAGE);
    is_document(&["apply", "--json", "/nonexistent"], exit::REFUSED);
    for command in ["check", "apply", "status", "rules", "counters", "detach"] {
        is_document(&[command, "--json"], exit::OK);
    }
}

#[test]
fn detach_removes_the_run_state_and_tells_typing_errors() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let pins = net.edge.pin_dir();
    let run = Path::new("/run/edgefilter").join(pins.file_name().expect("a name"));
    assert!(run.exists());
    let typo = edge.run(&["detach", "--interface", "absent0"]);
    assert_eq!(typo.code, exit::UNSUPPORTED, "{typo:?}");
    let idle = edge.run(&["detach", "--interface", "lo"]);
    assert_eq!(idle.code, exit::OK, "{idle:?}");
    assert!(idle.stdout.contains("nothing was attached"), "{idle:?}");
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    assert!(!run.exists() && !pins.exists());
}
