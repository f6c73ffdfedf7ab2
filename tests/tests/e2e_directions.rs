//! Router role with hostnames: both directions seen, one of them, and a host that is both router and
//! server.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use filter_tests::{
    client::{CURL_TIMEOUT, curl, s_client},
    edge::Edge,
    frames::FrameSocket,
    net::{Namespace, Routed, mac_of},
    packet::{Packet, flag},
    site::Site,
};
use serde_json::Value;

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const POLICY: &str = r#"
version = 1
[[rule]]
id = "host"
hosts = ["blocked.example"]
action = "drop"
"#;
const BOTH: &[&str] = &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
const SERVED: [&str; 2] = [Routed::NEIGHBOUR_V4, Routed::NEIGHBOUR_V6];
/// The edge's address towards visitors.
const EDGE_V4: &str = "198.51.100.1";

fn enforcing<'n>(namespace: &'n Namespace, interfaces: &[&str], serves: &[&str]) -> Edge<'n> {
    let mut edge = Edge::new(namespace, interfaces, POLICY);
    edge.configure(interfaces, &format!("[inspect]\nserves = {serves:?}\n"));
    edge.start();
    edge
}

/// What `status` says of the connections through the visitor's side: with answers, without, weak.
fn directions(edge: &Edge) -> (u64, u64, bool) {
    let status = edge.json("status");
    let all = status["connections"].as_array().expect("a list");
    let ours = all
        .iter()
        .find(|it| it["interface"] == Routed::VISITOR_SIDE)
        .unwrap_or(&Value::Null);
    (
        ours["answered"].as_u64().unwrap_or(0),
        ours["unanswered"].as_u64().unwrap_or(0),
        ours["weak"].as_bool().unwrap_or(false),
    )
}

/// Blocked and neighbour over both schemes and families, in one go.
fn assert_only_the_neighbour_is_served(visitor: &Namespace) {
    thread::scope(|scope| {
        for scheme in ["https", "http"] {
            for address in SERVED {
                scope.spawn(move || {
                    let blocked = curl(visitor, &format!("{scheme}://{BLOCKED}/"), address);
                    assert_eq!(
                        blocked.status, CURL_TIMEOUT,
                        "{scheme} {address} {blocked:?}"
                    );
                });
                scope.spawn(move || {
                    let served = curl(visitor, &format!("{scheme}://{NEIGHBOUR}/"), address);
                    assert!(served.is_served(NEIGHBOUR), "{scheme} {address} {served:?}");
                });
            }
        }
    });
}

#[test]
fn names_are_blocked_between_two_interfaces_and_both_directions_are_seen() {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = enforcing(&net.edge, BOTH, &SERVED);
    assert_only_the_neighbour_is_served(&net.visitor);
    let certified = |name| {
        let answer = s_client(&net.visitor, Routed::NEIGHBOUR_V4, Some(name));
        answer.body.contains("BEGIN CERTIFICATE")
    };
    assert!(!certified(BLOCKED) && certified(NEIGHBOUR));
    assert_eq!(directions(&edge), (10, 0, false));
    let text = edge.run(&["status"]).stdout;
    assert!(!text.contains("weak"), "{text}");
}

#[test]
fn with_one_interface_names_are_blocked_and_status_says_weak() {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = enforcing(&net.edge, &[Routed::VISITOR_SIDE], &SERVED);
    assert_only_the_neighbour_is_served(&net.visitor);
    assert_eq!(directions(&edge), (0, 8, true));
    let text = edge.run(&["status"]).stdout;
    assert!(
        text.contains("weak       vis0: 8 of 8 connections"),
        "{text}"
    );
}

/// A SYN-ACK that comes from the client's side is not the server's: a client that sends one to
/// itself, through the router, shifts nothing.
#[test]
fn answers_forged_on_the_clients_side_are_not_believed() {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = enforcing(&net.edge, BOTH, &SERVED);
    let socket = FrameSocket::open(&net.visitor, "eth0");
    let (from, to) = (
        mac_of(&net.visitor, "eth0"),
        mac_of(&net.edge, Routed::VISITOR_SIDE),
    );
    let (client, server) = ("198.51.100.88:5000", "203.0.113.67:443");
    let frame = |packet: Packet| packet.macs(from, to).build();
    socket.send(&frame(
        Packet::tcp(client, server).flags(flag::SYN).seq(99).ack(0),
    ));
    let forged = Packet::tcp(server, client).flags(flag::SYN | flag::ACK);
    socket.send(&frame(forged.seq(499).ack(100)));
    socket.send(&frame(
        Packet::tcp(client, server)
            .seq(100)
            .ack(500)
            .payload(b"GET".as_slice()),
    ));
    // The origin answers the SYN, or refuses the segment; neither was what was forged.
    thread::sleep(Duration::from_millis(100));
    let (answered, unanswered, _) = directions(&edge);
    assert_eq!(
        (answered, unanswered),
        (0, 0),
        "its acknowledgement is not the server's"
    );
}

#[test]
fn a_host_that_routes_and_serves_is_both() {
    let net = Routed::new();
    let _behind = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    // On every address and the same ports, so that its listeners match what passes through as well.
    let _own = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let edge = enforcing(
        &net.edge,
        BOTH,
        &[EDGE_V4, "203.0.113.0/24", "2001:db8:2::/64"],
    );
    assert_only_the_neighbour_is_served(&net.visitor);
    let (answered, unanswered, _) = directions(&edge);
    assert_eq!((answered, unanswered), (8, 0));
    for scheme in ["https", "http"] {
        let ask = |name: &str| curl(&net.visitor, &format!("{scheme}://{name}/"), EDGE_V4);
        assert_eq!(ask(BLOCKED).status, CURL_TIMEOUT);
        assert!(ask(NEIGHBOUR).is_served(NEIGHBOUR));
    }
    // The host's own sockets are asked about those.
    assert_eq!(directions(&edge), (8, 0, false));
}

#[test]
fn a_flood_of_syns_hides_no_name_and_keeps_nobody_out() {
    const SYNS: u32 = 200_000;
    let net = Routed::new();
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = enforcing(&net.edge, BOTH, &SERVED);
    let done = &AtomicBool::new(false);
    let attempts = thread::scope(|scope| {
        scope.spawn(|| {
            flood(&net, SYNS);
            done.store(true, Ordering::Relaxed);
        });
        let mut attempts = 0;
        while !done.load(Ordering::Relaxed) || attempts == 0 {
            let (served, blocked) = thread::scope(|scope| {
                let ask = |name| curl(&net.visitor, &format!("https://{name}/"), SERVED[0]);
                let served = scope.spawn(move || ask(NEIGHBOUR));
                (served.join().expect("no panic"), ask(BLOCKED))
            });
            assert!(served.is_served(NEIGHBOUR), "{served:?}");
            assert_eq!(blocked.status, CURL_TIMEOUT, "{blocked:?}");
            assert!(
                !s_client(&net.visitor, SERVED[0], Some(BLOCKED))
                    .body
                    .contains("BEGIN CERTIFICATE")
            );
            attempts += 1;
        }
        attempts
    });
    assert!(
        edge.rule_packets("host") >= 2 * attempts,
        "{attempts} attempts"
    );
}

/// Sends SYNs to the origin from addresses that nobody has.
fn flood(net: &Routed, syns: u32) {
    let socket = FrameSocket::open(&net.visitor, "eth0");
    let macs = (
        mac_of(&net.visitor, "eth0"),
        mac_of(&net.edge, Routed::VISITOR_SIDE),
    );
    for number in 0..syns {
        let [_, a, b, c] = (number / 7).wrapping_mul(2_654_435_761).to_be_bytes();
        let port = 1_024 + number % 60_000;
        let packet = Packet::tcp(&format!("10.{a}.{b}.{c}:{port}"), "203.0.113.67:443");
        let packet = packet.flags(flag::SYN).seq(number.wrapping_mul(77)).ack(0);
        socket.send(&packet.macs(macs.0, macs.1).build());
    }
}
