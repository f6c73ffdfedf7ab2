//! Router role: origins blocked by address, as destination and as source, and redirected.

use std::time::Duration;

use filter_tests::{
    echo::Echo,
    edge::{Edge, exit},
    frames::FrameSocket,
    net::{Namespace, Offload, Routed, set_offload},
    probe::answers,
    process::wait_for,
};

const PORT: u16 = 7;
const POLICY: &str = r#"
version = 1
[[rule]]
id = "origin"
origins = ["203.0.113.66", "2001:db8:2::66"]
action = "drop"
"#;

fn at(address: &str) -> String {
    std::net::SocketAddr::new(address.parse().expect("an address"), PORT).to_string()
}

/// Whether the blocked origin and its neighbour answer, over both families.
fn reach(net: &Routed) -> [bool; 4] {
    let ask = |from: &str, to: &str| answers(&net.visitor, from, &at(to));
    [
        ask(Routed::VISITOR_V4, Routed::BLOCKED_V4),
        ask(Routed::VISITOR_V6, Routed::BLOCKED_V6),
        ask(Routed::VISITOR_V4, Routed::NEIGHBOUR_V4),
        ask(Routed::VISITOR_V6, Routed::NEIGHBOUR_V6),
    ]
}

const ONLY_NEIGHBOURS: [bool; 4] = [false, false, true, true];

#[test]
fn an_origin_is_unreachable_as_destination_and_its_neighbour_is_not() {
    let net = Routed::new();
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, PORT);
    assert_eq!(reach(&net), [true; 4], "before");
    let edge = Edge::enforcing(&net.edge, &[Routed::VISITOR_SIDE], POLICY);
    assert_eq!(reach(&net), ONLY_NEIGHBOURS);
    assert!(edge.reason_packets("origin_destination") >= 4);
    assert_eq!(edge.reason_packets("origin_source"), 0);
}

#[test]
fn answers_of_an_origin_are_dropped_as_source() {
    let net = Routed::new();
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, PORT);
    let edge = Edge::enforcing(&net.edge, &[Routed::ORIGIN_SIDE], POLICY);
    assert_eq!(reach(&net), ONLY_NEIGHBOURS);
    // Both IPv4 answers. Over IPv6 the origin's neighbour advertisement is dropped already.
    assert!(edge.reason_packets("origin_source") >= 3);
    assert_eq!(edge.reason_packets("origin_destination"), 0);
}

#[test]
fn both_interfaces_are_filtered_and_detached_together() {
    let net = Routed::new();
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, PORT);
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let mut edge = Edge::enforcing(&net.edge, &interfaces, POLICY);
    assert_eq!(reach(&net), ONLY_NEIGHBOURS);
    edge.stop_controller();
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
    assert_eq!(reach(&net), [true; 4]);
}

#[test]
fn a_redirected_origin_goes_to_another_interface_and_failures_are_counted() {
    let net = Routed::new();
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, PORT);
    let sink = Namespace::new("sink");
    net.edge.veth("sink0", &sink, "eth0");
    // Native redirect into a veth needs NAPI on the other end.
    set_offload(&sink, "eth0", Offload::ReceiveAggregation, true);
    let policy = r#"
version = 1
[[rule]]
id = "away"
origins = ["203.0.113.66"]
action = "redirect"
redirect = { interface = "sink0" }
"#;
    let edge = Edge::enforcing(&net.edge, &[Routed::VISITOR_SIDE], policy);
    let socket = FrameSocket::open(&sink, "eth0");
    let ask = |origin| answers(&net.visitor, Routed::VISITOR_V4, &at(origin));
    assert!(!ask(Routed::BLOCKED_V4));
    assert!(ask(Routed::NEIGHBOUR_V4));
    let destination = [203, 0, 113, 66];
    let arrived = socket.receive(Duration::from_secs(2), |frame| {
        frame.get(30..34) == Some(&destination[..]) && frame.ends_with(b"probe")
    });
    assert!(arrived.is_some(), "the peer receives the frame");
    assert!(edge.rule_packets("away") >= 1);
    assert_eq!(edge.reason_packets("redirect_failed"), 0);

    net.edge.ip(&["link", "del", "sink0"]);
    assert!(
        !ask(Routed::BLOCKED_V4),
        "without its target a redirect drops"
    );
    wait_for(
        "failed redirects are counted",
        Duration::from_secs(2),
        || edge.reason_packets("redirect_failed") >= 1,
    );
}
