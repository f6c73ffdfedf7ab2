//! The kit against itself, with no filter in the way: what the other tests take for granted.

use std::{net::SocketAddr, time::Duration};

use filter_tests::{
    client::{curl, exchange, s_client},
    echo::Echo,
    frames::FrameSocket,
    net::{Direct, Routed, mac_of},
    packet::{ETHERNET_BYTES, Packet, TPID_8021Q},
    probe::answers,
    site::Site,
};

const NAMES: [&str; 2] = ["blocked.example", "neighbour.example"];

#[test]
fn a_site_serves_every_name_over_tls_and_http_on_both_families() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &NAMES);
    for name in NAMES {
        for address in [Direct::EDGE_V4, Direct::EDGE_V6] {
            for scheme in ["https", "http"] {
                let answer = curl(&net.visitor, &format!("{scheme}://{name}/"), address);
                assert!(
                    answer.is_served(name),
                    "{scheme} {name} {address}: {answer:?}"
                );
            }
        }
    }
    let answer = s_client(&net.visitor, Direct::EDGE_V4, Some(NAMES[0]));
    assert!(answer.body.contains("BEGIN CERTIFICATE"), "{answer:?}");
}

#[test]
fn a_router_forwards_both_families_to_both_origins() {
    let net = Routed::new();
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, 7);
    for origin in Routed::ORIGINS {
        let to = SocketAddr::new(origin.parse().expect("an address"), 7);
        assert_eq!(
            exchange(&net.visitor, to, b"hello").expect("an answer"),
            b"hello",
            "{origin}"
        );
        let from = if to.is_ipv6() {
            Routed::VISITOR_V6
        } else {
            Routed::VISITOR_V4
        };
        assert!(answers(&net.visitor, from, &to.to_string()), "UDP {origin}");
    }
}

#[test]
fn frames_arrive_as_they_were_sent() {
    let net = Direct::new();
    let sender = FrameSocket::open(&net.visitor, Direct::VISITOR_IF);
    let receiver = FrameSocket::open(&net.edge, Direct::EDGE_IF);
    let frame = Packet::udp("198.51.100.2:1000", "198.51.100.9:2000")
        .macs(
            mac_of(&net.visitor, Direct::VISITOR_IF),
            mac_of(&net.edge, Direct::EDGE_IF),
        )
        .payload("numbered")
        .build();
    sender.send(&frame);
    let limit = Duration::from_secs(2);
    assert_eq!(receiver.receive(limit, |seen| seen == frame), Some(frame));
    // The kernel takes the outer tag off before a packet socket sees the frame.
    let tagged = Packet::udp("198.51.100.2:1000", "198.51.100.9:2001")
        .vlan(TPID_8021Q, 7)
        .payload("tagged")
        .build();
    sender.send(&tagged);
    assert!(
        receiver
            .receive(limit, |seen| seen.ends_with(&tagged[ETHERNET_BYTES + 4..]))
            .is_some()
    );
}
