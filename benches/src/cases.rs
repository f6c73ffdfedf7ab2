//! The frames that are measured, what must become of them, and what they may cost.

use std::net::Ipv4Addr;

use filter_tests::packet::{Packet, flag, tls::ClientHello};

use crate::{connections::Connections, sources::Family};

/// The address on which names are read.
pub(crate) const SERVED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The name that the policy blocks, beside the long list.
pub(crate) const BLOCKED_NAME: &str = "blocked.example";

/// `XDP_PASS` and `XDP_DROP` of linux/bpf.h.
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;

/// Bytes that the mutator wants of every frame.
const FRAME_BYTES_MIN: usize = 74;

/// Connections of which both segments are sent in one go: all of them fit the flow table.
const TWO_SEGMENT_FLOWS: u32 = 2_048;

/// Which source addresses the frames get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Not blocked, a new one for each frame.
    Outside(Family),
    /// Blocked, a new one for each frame.
    Inside(Family),
    /// One that is blocked.
    OneInside(Family),
    /// This one.
    Only(Ipv4Addr),
}

/// Where the filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the host on which the connections end, and whose sockets tell about them.
    Server,
    /// Before it.
    Router,
}

/// One kind of packet.
pub(crate) struct Case {
    /// The stable word in the report.
    pub(crate) name: &'static str,
    /// Ethernet to payload; what is measured is all of them, one after the other.
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) from: From,
    /// Where the filter stands, if that matters.
    pub(crate) place: Place,
    /// What a filter of names and addresses must return for the last frame.
    pub(crate) action: u32,
    /// Whether a filter of addresses is worth comparing with.
    pub(crate) by_address: bool,
    /// Nanoseconds over the empty program that the issue allows, with the large policy.
    pub(crate) budget_ns: Option<u64>,
    /// Likewise with three rules.
    pub(crate) budget_small_ns: Option<u64>,
    /// Frames per sample, if it may not be as many as one likes.
    pub(crate) repeat_max: Option<u32>,
}

const V4: From = From::Outside(Family::V4);
const V6: From = From::Outside(Family::V6);

/// Every case. The connections are open, to the address on which names are read.
pub(crate) fn all(connections: &Connections) -> Vec<Case> {
    let case = |name, frame: Vec<u8>, from, action, budget_ns| Case {
        name,
        frames: vec![frame],
        from,
        place: Place::Server,
        action,
        by_address: false,
        budget_ns: Some(budget_ns),
        budget_small_ns: None,
        repeat_max: None,
    };
    let by_address = |case: Case| Case {
        by_address: true,
        ..case
    };
    let router = |case: Case| Case {
        place: Place::Router,
        ..case
    };
    let unrelated = |name, frame| Case {
        budget_small_ns: Some(12),
        ..by_address(case(name, frame, V4, XDP_PASS, 20))
    };
    let hello = |name| ClientHello::new().sni(name).padding(200).record();
    let whole = |name| https(0x100, flag::ACK | flag::PSH, hello(name));
    let inside = From::Inside;
    vec![
        unrelated("unrelated_tcp", tcp("192.0.2.7", 8022)),
        unrelated("unrelated_udp", udp()),
        by_address(case(
            "blocked_v4_random",
            tcp("192.0.2.7", 8022),
            inside(Family::V4),
            XDP_DROP,
            200,
        )),
        by_address(case(
            "blocked_v4_hot",
            tcp("192.0.2.7", 8022),
            From::OneInside(Family::V4),
            XDP_DROP,
            40,
        )),
        by_address(case("unrelated_v6", tcp_v6(), V6, XDP_PASS, 130)),
        by_address(case(
            "blocked_v6_random",
            tcp_v6(),
            inside(Family::V6),
            XDP_DROP,
            300,
        )),
        case("syn_server", https(0xff, flag::SYN, []), V4, XDP_PASS, 25),
        router(case(
            "syn_router",
            https(0xff, flag::SYN, []),
            V4,
            XDP_PASS,
            300,
        )),
        case(
            "data_server",
            connections.in_use.segment(application_data()),
            From::Only(SERVED),
            XDP_PASS,
            130,
        ),
        router(case(
            "data_router",
            https(0x4000, flag::ACK | flag::PSH, application_data()),
            V4,
            XDP_PASS,
            60,
        )),
        case(
            "hello_server",
            connections.fresh.segment(hello("www.neighbour.example")),
            From::Only(SERVED),
            XDP_PASS,
            650,
        ),
        case(
            "hello_server_blocked",
            connections.fresh.segment(hello(BLOCKED_NAME)),
            From::Only(SERVED),
            XDP_DROP,
            950,
        ),
        router(case(
            "hello_router",
            whole("www.neighbour.example"),
            V4,
            XDP_PASS,
            650,
        )),
        router(case(
            "hello_router_blocked",
            whole(BLOCKED_NAME),
            V4,
            XDP_DROP,
            950,
        )),
        router(Case {
            frames: two_segments("www.neighbour.example"),
            repeat_max: Some(TWO_SEGMENT_FLOWS),
            ..case("hello_two_segments", Vec::new(), V4, XDP_PASS, 1_500)
        }),
    ]
}

pub(crate) fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    // What follows the IP packet in a frame is padding.
    frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
    frame
}

fn tcp(from: &str, port: u16) -> Vec<u8> {
    let packet = Packet::tcp(&format!("{from}:51514"), &format!("{SERVED}:{port}"));
    padded(packet.payload([0x5A; 64]).build())
}

fn udp() -> Vec<u8> {
    let packet = Packet::udp("192.0.2.7:51514", &format!("{SERVED}:5353"));
    padded(packet.payload([0x5A; 64]).build())
}

fn tcp_v6() -> Vec<u8> {
    let packet = Packet::tcp("[2001:db8::7]:51514", "[2001:db8:1::1]:8022");
    padded(packet.payload([0x5A; 64]).build())
}

fn https(seq: u32, flags: u8, payload: impl Into<Vec<u8>>) -> Vec<u8> {
    let packet = Packet::tcp("192.0.2.7:51514", &format!("{SERVED}:443"));
    padded(packet.seq(seq).flags(flags).payload(payload).build())
}

/// A TLS record of a connection long decided.
fn application_data() -> Vec<u8> {
    [&[0x17, 0x03, 0x03, 0x00, 0x80][..], &[0xA5; 0x80]].concat()
}

/// A hello of 1,800 bytes, as with post-quantum keys, in segments of 1,400 and 400.
fn two_segments(name: &str) -> Vec<Vec<u8>> {
    let short = ClientHello::new().sni(name).padding(0).record().len();
    let record = ClientHello::new().sni(name).padding(1_800 - short).record();
    let (first, second) = record.split_at(1_400);
    vec![
        https(0x100, flag::ACK, first),
        https(0x100 + 1_400, flag::ACK | flag::PSH, second),
    ]
}
