//! Rules that lead to a next hop: found by neighbour discovery, and told when it does not answer.

use std::time::Duration;

use filter_tests::{
    edge::{Edge, exit},
    frames::FrameSocket,
    net::{Direct, Namespace, Offload, mac_of, set_offload},
    probe::answers,
    process::wait_for,
};

const HOP_V4: &str = "192.0.2.9";
const HOP_V6: &str = "2001:db8:9::9";
const CHANGE_MAX: Duration = Duration::from_secs(15);

fn policy(target: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nid = \"away\"\norigins = [\"{}\"]\naction = \"redirect\"\nredirect = {{ {target} }}\n\
         reason = \"r\"\nstatement = \"https://provider.example/1\"\nreview_by = 2099-01-01T00:00:00Z\n",
        Direct::OTHER_V4
    )
}

/// An edge with a second link, to a host that may answer.
fn with_hop() -> (Direct, Namespace) {
    let net = Direct::new();
    let hop = Namespace::new("hop");
    net.edge.veth("hop0", &hop, "eth0");
    // Native redirect into a veth needs NAPI on the other end.
    set_offload(&hop, "eth0", Offload::ReceiveAggregation, true);
    net.edge.address("hop0", "192.0.2.1/24");
    net.edge.address("hop0", "2001:db8:9::1/64");
    (net, hop)
}

/// Whether a packet of the rule's origin comes to the hop, addressed to it by the edge.
fn arrives(net: &Direct, hop: &Namespace) -> bool {
    let socket = FrameSocket::receiving(hop, "eth0");
    let to = format!("{}:7", Direct::EDGE_V4);
    assert!(!answers(&net.visitor, Direct::OTHER_V4, &to));
    let macs = [mac_of(hop, "eth0"), mac_of(&net.edge, "hop0")].concat();
    let source = [198, 51, 100, 3];
    let frame = socket.receive(Duration::from_millis(500), |frame| {
        frame.len() >= 34 && frame[26..30] == source
    });
    frame.is_some_and(|frame| frame[..12] == macs)
}

#[test]
fn frames_go_to_the_next_hop_of_either_family_and_to_where_it_moves() {
    let (net, hop) = with_hop();
    hop.address("eth0", &format!("{HOP_V4}/24"));
    hop.address("eth0", &format!("{HOP_V6}/64"));
    let text = policy(&format!("next_hop = \"{HOP_V4}\""));
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &text);
    wait_for("frames arrive", CHANGE_MAX, || arrives(&net, &hop));

    edge.write_policy(&policy(&format!(
        "next_hop = \"{HOP_V6}\", interface = \"hop0\""
    )));
    wait_for("the other next hop is in use", CHANGE_MAX, || {
        edge.json("rules").to_string().contains(HOP_V6) && edge.run(&["status"]).code == exit::OK
    });
    wait_for("frames arrive", CHANGE_MAX, || arrives(&net, &hop));
}

#[test]
fn a_next_hop_that_does_not_answer_is_told_and_used_once_it_does() {
    let (net, hop) = with_hop();
    let edge = Edge::new(
        &net.edge,
        &[Direct::EDGE_IF],
        &policy(&format!("next_hop = \"{HOP_V4}\"")),
    );
    let _controller = edge.spawn();
    wait_for("status tells", CHANGE_MAX, || {
        let status = edge.run(&["status"]);
        status.code == exit::DIFFERS && status.stdout.contains("next hops do not answer")
    });
    assert!(!arrives(&net, &hop));
    hop.address("eth0", &format!("{HOP_V4}/24"));
    wait_for("frames arrive", CHANGE_MAX, || arrives(&net, &hop));
    wait_for("status is content", CHANGE_MAX, || {
        edge.run(&["status"]).code == exit::OK
    });
}
