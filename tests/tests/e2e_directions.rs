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
    process::wait_for,
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
    let edge = enforcing(&net.edge, BOTH, &["203.0.113.0/24"]);
    let socket = FrameSocket::open(&net.visitor, "eth0");
    let (from, to) = (
        mac_of(&net.visitor, "eth0"),
        mac_of(&net.edge, Routed::VISITOR_SIDE),
    );
    // Served, and nobody there: only what is forged answers.
    let (client, server) = ("198.51.100.88:5000", "203.0.113.99:443");
    let send = |packet: Packet| socket.send(&packet.macs(from, to).build());
    send(Packet::tcp(client, server).flags(flag::SYN).seq(99).ack(0));
    let forged = Packet::tcp(server, client).flags(flag::SYN | flag::ACK);
    send(forged.seq(499).ack(100));
    let hello = Packet::tcp(client, server).seq(100).ack(500);
    send(hello.payload([0x16, 3, 1, 0, 200].as_slice()));
    wait_for("it is counted", Duration::from_secs(2), || {
        directions(&edge) == (0, 1, true)
    });
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
    const SYNS: usize = 200_000;
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

/// Sends SYNs to the origin from addresses and ports that nobody has.
///
/// Port and low half of the sequence number add up to the same in every frame, and so does the
/// checksum.
fn flood(net: &Routed, syns: usize) {
    const PORTS: std::ops::Range<u16> = 1_024..61_024;
    let socket = FrameSocket::open(&net.visitor, "eth0");
    let macs = (
        mac_of(&net.visitor, "eth0"),
        mac_of(&net.edge, Routed::VISITOR_SIDE),
    );
    let sources = syns.div_ceil(PORTS.len());
    let frames = (1..=sources).flat_map(|source| {
        let from = format!("10.9.8.{source}:{}", PORTS.start);
        let syn = Packet::tcp(&from, "203.0.113.67:443")
            .flags(flag::SYN)
            .ack(0);
        let first = syn
            .seq(u32::from(u16::MAX - PORTS.start))
            .macs(macs.0, macs.1)
            .build();
        PORTS.map(move |port| {
            let mut frame = first.clone();
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            frame[40..42].copy_from_slice(&(u16::MAX - port).to_be_bytes());
            frame
        })
    });
    for frame in frames.take(syns) {
        socket.send(&frame);
    }
}
