//! Processes of the edge itself that connect to blocked origins: those of the configured control group
//! are told at once, all others and all other destinations are left alone.

use std::{
    fs,
    time::{Duration, Instant},
};

use filter_tests::{
    client::{Answer, CURL_TIMEOUT, PATIENCE},
    edge::{Edge, exit},
    net::{ControlGroup, Direct},
    process::wait_for,
    site::Site,
};

const NAME: &str = "origin.example";

/// `CURLE_COULDNT_CONNECT`.
const CURL_NO_CONNECTION: i32 = 7;

/// A refusal needs no packet.
const AT_ONCE: Duration = Duration::from_millis(500);

/// What curl on the edge gets of this address, within a group or outside of all.
fn ask(net: &Direct, group: Option<&ControlGroup>, address: &str) -> (Answer, Duration) {
    let join = match group {
        Some(group) => format!("echo $$ > {}/cgroup.procs && ", group.path().display()),
        None => String::new(),
    };
    let address = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let mut command = net.edge.command("sh");
    command.arg("-c").arg(format!(
        "{join}exec curl --silent --show-error --noproxy '*' --max-time {} --header 'Host: {NAME}' http://{address}/",
        PATIENCE.as_secs_f32()
    ));
    let begin = Instant::now();
    let output = command.output().expect("a shell");
    let answer = Answer {
        status: output.status.code().unwrap_or(-1),
        body: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (answer, begin.elapsed())
}

fn policy() -> String {
    format!(
        "version = 1\n[[rule]]\nid = \"origin\"\norigins = [\"{}\", \"{}\"]\naction = \"drop\"\n\
         [[rule]]\nid = \"watched\"\norigins = [\"{}\"]\naction = \"observe\"\n",
        Direct::VISITOR_V4,
        Direct::VISITOR_V6,
        Direct::OTHER_V6
    )
}

fn configuration(group: &ControlGroup) -> String {
    format!("[local_proxies]\ncgroup = \"{}\"\n", group.path().display())
}

fn is_refused((answer, took): &(Answer, Duration)) -> bool {
    answer.status == CURL_NO_CONNECTION && *took < AT_ONCE
}

#[test]
fn a_proxy_is_told_at_once_that_an_origin_is_blocked() {
    let net = Direct::new();
    let _site = Site::start(&net.visitor, &[NAME]);
    let group = ControlGroup::new("told");
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    assert!(
        ask(&net, Some(&group), Direct::VISITOR_V4)
            .0
            .is_served(NAME)
    );
    edge.configure(&[Direct::EDGE_IF], &configuration(&group));
    let applied = edge.run(&["apply"]);
    assert_eq!(applied.code, exit::OK, "{applied:?}");

    for blocked in [Direct::VISITOR_V4, Direct::VISITOR_V6] {
        let told = ask(&net, Some(&group), blocked);
        assert!(is_refused(&told), "{blocked}: {told:?}");
        let (outside, _) = ask(&net, None, blocked);
        assert_eq!(
            outside.status, CURL_TIMEOUT,
            "the answers are dropped: {outside:?}"
        );
    }
    let mapped = format!("::ffff:{}", Direct::VISITOR_V4);
    let told = ask(&net, Some(&group), &mapped);
    assert!(is_refused(&told), "{told:?}");
    for other in [Direct::OTHER_V4, Direct::OTHER_V6] {
        let (answer, _) = ask(&net, Some(&group), other);
        assert!(answer.is_served(NAME), "{other}: {answer:?}");
    }
    assert_eq!(edge.reason_packets("local_connection"), 3);
    assert!(edge.rule_packets("origin") >= 3);
    assert!(edge.rule_packets("watched") >= 1);

    // A rule that goes lets connections go on: the program in place decides by the new generation.
    edge.write_policy(
        "version = 1\n[[rule]]\nid = \"other\"\norigins = [\"192.0.2.1\"]\naction = \"drop\"\n",
    );
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert!(
        ask(&net, Some(&group), Direct::VISITOR_V4)
            .0
            .is_served(NAME)
    );
    edge.write_policy(&policy());
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert!(is_refused(&ask(&net, Some(&group), Direct::VISITOR_V4)));

    // Without the configuration, and without the filter, nobody decides about connections.
    edge.configure(&[Direct::EDGE_IF], "");
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let (outside, _) = ask(&net, Some(&group), Direct::VISITOR_V4);
    assert_eq!(outside.status, CURL_TIMEOUT, "{outside:?}");
    edge.configure(&[Direct::EDGE_IF], &configuration(&group));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    assert!(
        ask(&net, Some(&group), Direct::VISITOR_V4)
            .0
            .is_served(NAME)
    );
}

#[test]
fn a_group_that_is_none_is_refused_and_nothing_is_left_attached() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    for (group, said) in [
        ("/nowhere/at/all", "No such file"),
        ("/tmp", "cgroup.controllers"),
    ] {
        let more = format!("[local_proxies]\ncgroup = \"{group}\"\n");
        edge.configure(&[Direct::EDGE_IF], &more);
        let refused = edge.run(&["apply"]);
        assert_eq!(refused.code, exit::UNSUPPORTED, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
        assert!(refused.stderr.contains(group), "{refused:?}");
        assert!(!net.edge.pin_dir().exists(), "pins are left");
    }
}

#[test]
fn a_group_that_is_made_anew_is_hooked_again_by_the_controller() {
    let net = Direct::new();
    let _site = Site::start(&net.visitor, &[NAME]);
    let group = ControlGroup::new("anew");
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    edge.configure(&[Direct::EDGE_IF], &configuration(&group));
    edge.start();
    assert!(is_refused(&ask(&net, Some(&group), Direct::VISITOR_V4)));

    fs::remove_dir(group.path()).expect("an empty control group");
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::DIFFERS, "{status:?}");
    assert!(status.stdout.contains("control group"), "{status:?}");
    fs::create_dir(group.path()).expect("a control group");
    wait_for(
        "the controller hooks the group again",
        Duration::from_secs(20),
        || is_refused(&ask(&net, Some(&group), Direct::VISITOR_V4)),
    );
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");
}
