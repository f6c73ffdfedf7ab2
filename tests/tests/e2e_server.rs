//! Server role: a real site with several names on one address behind the filter.

use std::thread;

use filter_tests::{
    client::{CURL_TIMEOUT, curl, curl_with, exchange, s_client},
    edge::{Edge, exit},
    frames::FrameSocket,
    net::{Direct, mac_of},
    packet::{Packet, TPID_8021Q},
    process::wait_for,
    site::Site,
};

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const POLICY: &str = r#"
version = 1
[[rule]]
id = "host"
hosts = ["blocked.example"]
action = "drop"
[[rule]]
id = "domain"
domains = ["whole.example"]
action = "drop"
[[rule]]
id = "watched"
hosts = ["watched.example"]
action = "observe"
"#;

/// Runs attempts that wait for a time-out side by side.
fn together<T: Send>(attempts: impl IntoIterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = attempts
            .into_iter()
            .map(|attempt| scope.spawn(attempt))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn a_blocked_name_is_refused_and_its_neighbour_on_the_same_address_served() {
    let net = Direct::new();
    let names = [
        BLOCKED,
        NEIGHBOUR,
        "whole.example",
        "www.whole.example",
        "notwhole.example",
    ];
    let _site = Site::start(&net.edge, &names);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let visitor = &net.visitor;
    let mut attempts = Vec::new();
    for name in names {
        for address in [Direct::EDGE_V4, Direct::EDGE_V6] {
            for scheme in ["https", "http"] {
                attempts.push(move || {
                    let answer = curl(visitor, &format!("{scheme}://{name}/"), address);
                    let served = answer.is_served(name);
                    (format!("{scheme} {name} {address}"), served, answer)
                });
            }
        }
    }
    let answers = together(attempts);
    for (what, served, answer) in &answers {
        let is_blocked = [BLOCKED, "whole.example", "www.whole.example"]
            .iter()
            .any(|name| what.contains(&format!(" {name} ")));
        assert_eq!(*served, !is_blocked, "{what}: {answer:?}");
        if is_blocked {
            assert_eq!(answer.status, CURL_TIMEOUT, "{what}: {answer:?}");
        }
    }
    assert!(edge.rule_packets("host") >= 4);
    assert!(edge.rule_packets("domain") >= 8);
}

#[test]
fn openssl_gets_no_certificate_for_a_blocked_name() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let _edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    for address in [Direct::EDGE_V4, Direct::EDGE_V6] {
        let certified = |name| {
            s_client(&net.visitor, address, name)
                .body
                .contains("BEGIN CERTIFICATE")
        };
        assert!(!certified(Some(BLOCKED)), "{address}");
        assert!(certified(Some(NEIGHBOUR)), "{address}");
        assert!(certified(None), "{address}: no name is no blocked name");
    }
}

#[test]
fn an_observing_rule_counts_and_serves() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &["watched.example"]);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    assert!(
        curl(&net.visitor, "https://watched.example/", Direct::EDGE_V4)
            .is_served("watched.example")
    );
    assert!(
        curl(&net.visitor, "http://watched.example/", Direct::EDGE_V6).is_served("watched.example")
    );
    assert_eq!(edge.rule_packets("watched"), 2, "one hello and one request");
    assert_eq!(edge.rule_packets("host"), 0);
}

#[test]
fn spellings_that_a_server_accepts_do_not_slip_through() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED]);
    let _edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let to = format!("{}:80", Direct::EDGE_V4)
        .parse()
        .expect("a socket address");
    let heads = [
        "GET / HTTP/1.1\r\nhost:blocked.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\nHost: blocked.example\nConnection: close\n\n",
        "GET / HTTP/1.1\r\nHost: BLOCKED.example.:80\r\nConnection: close\r\n\r\n",
        "GET http://blocked.example/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.0\r\nHost: blocked.example\r\n\r\n",
    ];
    let visitor = &net.visitor;
    let attempts = heads.map(|head| move || exchange(visitor, to, head.as_bytes()).is_ok());
    let answered = together(attempts);
    assert_eq!(answered, [false; 5], "{heads:?}");
    let control = b"GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n";
    assert!(
        exchange(&net.visitor, to, control).is_ok(),
        "the server answers other names"
    );
}

#[test]
fn a_large_request_and_a_kept_alive_connection_are_served() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[NEIGHBOUR]);
    let _edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let header = format!("X-Padding: {}", "x".repeat(3_000));
    let url = format!("https://{NEIGHBOUR}/");
    let more = ["--header", &header, &url];
    let answer = curl_with(&net.visitor, &url, Direct::EDGE_V4, &more);
    assert_eq!(answer.body.matches(NEIGHBOUR).count(), 2, "{answer:?}");
}

#[test]
fn odd_frames_pass_and_are_counted_by_their_reason() {
    let net = Direct::new();
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let socket = FrameSocket::open(&net.visitor, Direct::VISITOR_IF);
    let macs = (
        mac_of(&net.visitor, Direct::VISITOR_IF),
        mac_of(&net.edge, Direct::EDGE_IF),
    );
    let packet = || {
        Packet::udp("198.51.100.2:9", "198.51.100.1:9")
            .macs(macs.0, macs.1)
            .payload("odd")
    };
    let deep = (0..6).fold(packet(), |packet, tag| packet.vlan(TPID_8021Q, tag + 1));
    let rows = [
        ("bad_ip", packet().version_ihl(0x44).build()),
        ("vlan_depth", deep.build()),
        (
            "later_fragment",
            packet().payload([0; 64]).fragment(32..72).build(),
        ),
    ];
    for (reason, frame) in rows {
        let before = edge.reason_packets(reason);
        socket.send(&frame);
        wait_for(reason, std::time::Duration::from_secs(2), || {
            edge.reason_packets(reason) == before + 1
        });
    }
    assert_eq!(edge.run(&["status"]).code, exit::OK);
}
