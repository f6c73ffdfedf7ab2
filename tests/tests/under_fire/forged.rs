//! What looks right and has no connection behind it, from addresses of others.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use filter_common::{
    limits::{UNPROVEN_ANSWERS_BURST, UNPROVEN_ANSWERS_PER_SECOND},
    respond::counted::Answer,
};
use filter_tests::{
    edge::number_at,
    frames::FrameSocket,
    net::{Direct, Namespace, Routed, mac_of},
    packet::{Packet, flag, http::Request, tls::ClientHello},
    process::wait_for,
};

use crate::scene::{BLOCKED, CHANGE_MAX, LIMIT, Scene, end, is_page, policy, turn};

/// Whom the forger names: neighbours of the visitor, and somebody far away.
const THIRD_PARTIES: [&str; 3] = ["198.51.100.77", "198.51.100.78", "192.0.2.9"];

/// Forged segments of each kind and third party.
const EACH: u32 = 100;

/// How long frames to a third party are looked for behind the last one.
const QUIET: Duration = Duration::from_millis(300);

/// Destination address of an IPv4 frame.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00][..]);
    let address: [u8; 4] = frame.get(30..34)?.try_into().ok()?;
    is_ipv4.then(|| address.into())
}

fn is_for(third_parties: &[&str], frame: &[u8]) -> bool {
    destination(frame).is_some_and(|to| third_parties.iter().any(|it| *it == to.to_string()))
}

/// Sends hellos and requests of every shape; how many of them name what is blocked, and have no connection at all.
///
/// The host's own stack, which would answer with an RST what the filter lets pass, has no neighbour at these
/// addresses; what the filter sends needs none.
fn forge(scene: &Scene<'_>, socket: &FrameSocket, macs: ([u8; 6], [u8; 6]), existing: u16) -> u64 {
    let hello = ClientHello::named(BLOCKED).record();
    let request = Request::to(BLOCKED).bytes();
    let mut complete = 0;
    let send = |from: &str, own: u16, port: u16, number: u32, payload: &[u8], flags: u8| {
        let ends = [end(from, own), end(scene.to, port)].map(|it| it.to_string());
        let packet = Packet::tcp(&ends[0], &ends[1])
            .macs(macs.0, macs.1)
            .seq(number.wrapping_mul(0x9e37_79b9))
            .ack(number.wrapping_mul(0x85eb_ca6b))
            .flags(flags)
            .payload(payload);
        socket.send(&packet.build());
    };
    let ack = flag::PSH | flag::ACK;
    for third_party in THIRD_PARTIES {
        for number in 1..=EACH {
            let own = 20_000 + number as u16;
            send(third_party, own, 443, number, &hello, ack);
            send(third_party, own, 80, number, &request, ack);
            // In two parts, the first of which may be kept.
            send(third_party, own + 1_000, 443, number, &hello[..40], ack);
            // What a connection that was taken over goes on with.
            send(third_party, own, 443, number + 1, &[], flag::ACK);
            complete += 2;
        }
    }
    // On the ports of a connection that there is, with numbers that are not its own.
    for number in 1..=EACH {
        send(scene.from, existing, 443, number, &hello, ack);
    }
    complete
}

fn nothing_is_reflected(scene: &Scene<'_>, visitor: &Namespace, edge_interface: &str) {
    let probe = scene.probe();
    let socket = FrameSocket::receiving(visitor, "eth0");
    let macs = (
        mac_of(visitor, "eth0"),
        mac_of(scene.namespace, edge_interface),
    );
    let existing = crate::scene::own_port();
    let stream = scene
        .connect_from(existing, 443, LIMIT)
        .expect("a connection");
    let (page, before) = (scene.page(), scene.edge.json("status"));
    let (sockets, descriptors) = (page.sockets(), page.descriptors());

    let complete = forge(scene, &socket, macs, existing);
    let reflected = socket.receive(QUIET, |frame| is_for(&THIRD_PARTIES, frame));
    assert_eq!(reflected, None);
    wait_for("all of them are counted", CHANGE_MAX, || {
        scene.answered(Answer::Unverified) >= complete
    });
    for none in [
        Answer::PageTaken,
        Answer::TlsAlert,
        Answer::HttpStatus,
        Answer::ClientReset,
    ] {
        assert_eq!(scene.answered(none), 0, "{none:?}");
    }
    assert_eq!(scene.counted("connections"), 0);
    assert_eq!(page.sockets(), sockets);
    assert!(
        page.descriptors() <= descriptors + 2,
        "those of who asks for counts"
    );
    let after = scene.edge.json("status");
    let memory = |status| number_at(status, "map_bytes").expect("a sum");
    assert_eq!(memory(&before), memory(&after));

    // The connection whose ports were used is nobody's but its client's.
    let answer = crate::scene::ask_over(crate::scene::greeted(stream, BLOCKED), BLOCKED);
    assert!(answer.as_ref().is_ok_and(|it| is_page(it)), "{answer:?}");
    probe.finish();
}

#[test]
fn forged_hellos_send_nothing_to_whom_they_name_in_server_role() {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server(&net);
    nothing_is_reflected(&scene, &net.visitor, Direct::EDGE_IF);
}

#[test]
fn forged_hellos_send_nothing_to_whom_they_name_in_router_role() {
    let _turn = turn();
    let net = Routed::new();
    let scene = Scene::at_router(&net, &policy(&[BLOCKED]));
    nothing_is_reflected(&scene, &net.visitor, Routed::VISITOR_SIDE);
}

#[test]
fn a_flood_of_datagrams_from_forged_addresses_is_answered_up_to_its_limit_and_the_rest_is_counted()
{
    const DATAGRAMS: u64 = 6_000;
    let _turn = turn();
    let net = Routed::new();
    let refused = format!(
        "{}[[rule]]\nid = \"origin\"\norigins = [\"{}\"]\naction = \"refuse\"\n",
        policy(&[BLOCKED]),
        Routed::BLOCKED_V4
    );
    let scene = Scene::at_router(&net, &refused);
    let probe = scene.probe();
    let socket = FrameSocket::receiving(&net.visitor, "eth0");
    let macs = (
        mac_of(&net.visitor, "eth0"),
        mac_of(&net.edge, Routed::VISITOR_SIDE),
    );
    let mut opening = b"\xc3\0\0\0\x01\x08destined\x05other\0".to_vec();
    opening.resize(1_200, 0);
    let to = |port| end(Routed::BLOCKED_V4, port).to_string();
    let datagrams: Vec<Vec<u8>> = THIRD_PARTIES
        .iter()
        .flat_map(|from| {
            let from = end(from, 40_000).to_string();
            let other = Packet::udp(&from, &to(53)).payload(b"a question".to_vec());
            let quic = Packet::udp(&from, &to(443)).payload(opening.clone());
            [other, quic].map(|packet| packet.macs(macs.0, macs.1).build())
        })
        .collect();
    let begin = Instant::now();
    for datagram in datagrams.iter().cycle().take(DATAGRAMS as usize) {
        socket.send(datagram);
    }
    let counted = || {
        let sent = scene.answered(Answer::Icmp) + scene.answered(Answer::VersionNegotiation);
        (sent, scene.answered(Answer::Limited))
    };
    wait_for("all of them are counted", CHANGE_MAX, || {
        let (sent, limited) = counted();
        sent + limited == DATAGRAMS
    });
    let took = begin.elapsed();
    let (sent, limited) = counted();
    let mut arrived = 0;
    while socket
        .receive(QUIET, |frame| is_for(&THIRD_PARTIES, frame))
        .is_some()
    {
        arrived += 1;
    }
    let processors = thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let per_processor = UNPROVEN_ANSWERS_BURST
        + UNPROVEN_ANSWERS_PER_SECOND * (took.as_millis() as u64 + 1_000) / 1_000;
    println!("{sent} answers and {limited} limited in {took:?}, {arrived} of them arrived");
    assert!(sent >= UNPROVEN_ANSWERS_BURST && limited > 0);
    assert!(sent <= processors * per_processor, "{sent}");
    assert!(arrived <= sent, "{arrived} {sent}");
    probe.finish();
}
