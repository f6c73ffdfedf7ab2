//! The life of the controller: reloads, bad policies, the ways to end it, and what goes on
//! being enforced meanwhile.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use filter_tests::{
    echo::Echo,
    edge::{Edge, exit},
    fixtures::seconds_from_now,
    net::Direct,
    probe::answers,
    process::wait_for,
};
use nix::sys::signal::Signal;

const PORT: u16 = 7;
const RELOAD_MAX: Duration = Duration::from_secs(1);

/// Drops packets from the visitor's second address, or from an address nobody has.
fn policy(blocked: bool) -> String {
    let origin = if blocked {
        Direct::OTHER_V4
    } else {
        "192.0.2.99"
    };
    format!("version = 1\n[[rule]]\nid = \"origin\"\norigins = [\"{origin}\"]\naction = \"drop\"\n")
}

fn reaches(net: &Direct, from: &str) -> bool {
    answers(&net.visitor, from, &format!("{}:{PORT}", Direct::EDGE_V4))
}

fn is_blocked(net: &Direct) -> bool {
    assert!(
        reaches(net, Direct::VISITOR_V4),
        "the neighbour is always served"
    );
    !reaches(net, Direct::OTHER_V4)
}

#[test]
fn the_policy_file_is_followed_when_written_when_replaced_and_on_sighup() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert!(is_blocked(&net));
    // A blocked probe itself takes 0.3 s: measure until the packet that gets through.
    edge.write_policy(&policy(false));
    wait_for("written in place", RELOAD_MAX, || !is_blocked(&net));
    edge.replace_policy(&policy(true));
    wait_for("renamed over", RELOAD_MAX, || is_blocked(&net));
    edge.replace_policy(&policy(false));
    wait_for("renamed over again", RELOAD_MAX, || !is_blocked(&net));
    edge.controller().signal(Signal::SIGHUP);
    edge.write_policy(&policy(true));
    edge.controller().signal(Signal::SIGHUP);
    wait_for("SIGHUP", RELOAD_MAX, || is_blocked(&net));
    assert!(edge.controller().is_running());
}

#[test]
fn a_bad_policy_keeps_the_last_good_one_and_says_so() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let noise = "\u{1}garbage = [".repeat(10_000);
    let bad = [
        (
            "wrong key",
            "version = 1\n[[rule]]\nid = \"x\"\nhots = [\"a.example\"]\naction = \"drop\"\n",
        ),
        ("empty", ""),
        (
            "a star",
            "version = 1\n[[rule]]\nid = \"x\"\nhosts = [\"*.b.example\"]\naction = \"drop\"\n",
        ),
        (
            "host bits",
            "version = 1\n[[rule]]\nid = \"x\"\norigins = [\"192.0.2.1/24\"]\naction = \"drop\"\n",
        ),
        ("noise", &noise),
    ];
    for (what, text) in bad {
        edge.replace_policy(text);
        wait_for(what, RELOAD_MAX * 2, || {
            edge.run(&["status"]).code == exit::DIFFERS
        });
        assert!(is_blocked(&net), "{what}");
        assert!(edge.controller().is_running(), "{what}");
        edge.replace_policy(&policy(true));
        wait_for("good again", RELOAD_MAX * 2, || {
            edge.run(&["status"]).code == exit::OK
        });
    }
    fs::remove_file(edge.policy_path()).expect("a removed policy");
    wait_for("no policy file", RELOAD_MAX * 2, || {
        edge.run(&["status"]).code == exit::DIFFERS
    });
    assert!(is_blocked(&net), "without a policy file");
}

#[test]
fn enforcement_outlives_the_controller_and_detach_ends_it() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert_eq!(
        edge.stop_controller(),
        Some(exit::OK),
        "SIGTERM is a clean end"
    );
    assert!(is_blocked(&net), "after SIGTERM");
    edge.start();
    assert!(is_blocked(&net), "taken over");
    edge.kill_controller();
    assert!(is_blocked(&net), "after SIGKILL");
    let started = Instant::now();
    edge.start();
    assert!(
        is_blocked(&net),
        "taken over after SIGKILL, in {:?}",
        started.elapsed()
    );
    edge.kill_controller();
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    assert!(!is_blocked(&net), "after detach");
    assert_eq!(
        edge.run(&["status"]).code,
        exit::DIFFERS,
        "nothing is enforced"
    );
}

/// As `status` does, which asks whether a controller is running.
#[test]
fn a_controller_starts_while_somebody_looks_whether_one_is_running() {
    let net = Direct::new();
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    edge.stop_controller();
    let lock = net.edge.run_dir().join("controller.lock");
    let looking = File::open(&lock).expect("the lock of the controller that ended");
    looking.lock_shared().expect("nobody has it");
    let mut controller = edge.spawn();
    assert_eq!(controller.wait(Duration::from_millis(200)), None);
    drop(looking);
    wait_for("the lock is taken", RELOAD_MAX, || {
        let lock = File::open(&lock).expect("the lock");
        lock.try_lock_shared().is_err()
    });
    let mut second = edge.spawn();
    let status = second.wait(RELOAD_MAX * 5).expect("there is one already");
    assert_eq!(status.code(), Some(exit::LOCKED));
    assert_eq!(controller.wait(Duration::ZERO), None);
    controller.kill();
}

#[test]
fn detach_leaves_nothing_behind() {
    let net = Direct::new();
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert!(net.edge.pin_dir().exists());
    edge.stop_controller();
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    assert!(
        !net.edge.pin_dir().exists(),
        "{}",
        net.edge.pin_dir().display()
    );
    let links = net
        .edge
        .command("ip")
        .args(["link", "show", Direct::EDGE_IF])
        .output();
    let links = String::from_utf8(links.expect("ip runs").stdout).expect("text");
    assert!(!links.contains("xdp"), "{links}");
}

#[test]
fn counters_survive_a_reload() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert!(is_blocked(&net));
    let before = edge.rule_packets("origin");
    assert!(before >= 1);
    edge.replace_policy(&format!("{}reason = \"again\"\n", policy(true)));
    wait_for("reload", RELOAD_MAX * 2, || {
        edge.run(&["rules"]).stdout.contains("again")
    });
    assert!(edge.rule_packets("origin") >= before);
}

#[test]
fn until_is_enforced_by_the_kernel_without_a_controller() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let text = format!("{}until = {}\n", policy(true), seconds_from_now(4));
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &text);
    edge.kill_controller();
    assert!(is_blocked(&net), "in force");
    wait_for("the rule ends by itself", Duration::from_secs(6), || {
        !is_blocked(&net)
    });
}

#[test]
fn events_arrive_and_losses_are_counted() {
    let net = Direct::new();
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy(true));
    edge.configure(&[Direct::EDGE_IF], "[events]\nper_window = 2\n");
    edge.start();
    let mut command = net.edge.command(filter_tests::edge::binary());
    command.args(["events", "--json"]);
    let events = filter_tests::process::Process::spawn("edgefilter events", command);
    wait_for("an event", Duration::from_secs(5), || {
        assert!(is_blocked(&net));
        events.stdout().contains("\"origin\"")
    });
    net.visitor.run(|| {
        let socket = std::net::UdpSocket::bind((Direct::OTHER_V4, 0)).expect("a socket");
        for _ in 0..2_000 {
            socket
                .send_to(b"flood", (Direct::EDGE_V4, PORT))
                .expect("a sent datagram");
        }
    });
    let counters = edge.json("counters");
    let suppressed = filter_tests::edge::number_at(&counters, "suppressed");
    assert!(suppressed.is_some_and(|count| count > 1_000), "{counters}");
}

#[test]
fn an_interface_without_native_mode_falls_back_and_says_so() {
    let net = Direct::new();
    let edge = Edge::enforcing(&net.edge, &["lo"], &policy(true));
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");
    assert!(status.stdout.contains("generic"), "{status:?}");
    drop(edge);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    assert!(edge.run(&["status"]).stdout.contains("native"));
}

#[test]
fn an_interface_that_vanishes_is_reported_and_attached_again_when_it_returns() {
    let net = Direct::new();
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    net.edge.ip(&["link", "del", Direct::EDGE_IF]);
    wait_for("the alarm", Duration::from_secs(5), || {
        edge.run(&["status"]).code == exit::DIFFERS
    });
    assert!(edge.controller().is_running());
    net.edge
        .veth(Direct::EDGE_IF, &net.visitor, Direct::VISITOR_IF);
    wait_for("attached again", Duration::from_secs(10), || {
        edge.run(&["status"]).code == exit::OK
    });
}
