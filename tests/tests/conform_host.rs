//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use filter_tests::{
    conform::{
        POLICY,
        host_run::{PORT, Stage, run},
        recorder::Recorder,
        report::{Known, Property, Table, conclude},
        station::Station,
    },
    edge::Edge,
    net::{Direct, Routed},
};

#[test]
fn no_trick_takes_a_blocked_name_to_the_host_itself() {
    let net = Direct::new();
    let recorder = Recorder::start(&net.edge, PORT);
    let station = Station::direct(&net);
    let stage = Stage {
        station: &station,
        recorder: &recorder,
        v4: Direct::EDGE_V4,
        v6: Direct::EDGE_V6,
    };
    let rows = run(&stage, true, || {
        Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY)
    });
    conclude(&[Table {
        name: "host-server",
        rows: &rows,
        known: KNOWN_AS_SERVER,
        complete: true,
    }]);
}

#[test]
fn no_trick_takes_a_blocked_name_through_a_router() {
    let net = Routed::new();
    let recorder = Recorder::start(&net.origin, PORT);
    let station = Station::routed(&net);
    let stage = Stage {
        station: &station,
        recorder: &recorder,
        v4: Routed::NEIGHBOUR_V4,
        v6: Routed::NEIGHBOUR_V6,
    };
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let rows = run(&stage, false, || {
        let mut edge = Edge::new(&net.edge, &interfaces, POLICY);
        let serves = [Routed::NEIGHBOUR_V4, Routed::NEIGHBOUR_V6];
        edge.configure(&interfaces, &format!("[inspect]\nserves = {serves:?}\n"));
        edge.start();
        edge
    });
    conclude(&[Table {
        name: "host-router",
        rows: &rows,
        known: KNOWN_AS_ROUTER,
        complete: true,
    }]);
}

const REFUSED: &str = "a decoy that the host refuses is taken as part of the stream, and what is meant then contradicts it";
const URGENT: &str = "the urgent byte is taken as part of the stream, and the host takes it out";
const RESET: &str = "a reset that the host refuses ends the stream's state";
const FRAGMENTS: &str = "first fragments towards an inspected port pass";

const fn known(row: &'static str, property: Property, why: &'static str) -> Known {
    Known { row, property, why }
}

const KNOWN_AS_SERVER: &[Known] = &[
    known("fake_no_ACK_flag (split)", Property::Serves, REFUSED),
    known("fake_null_flags (split)", Property::Serves, REFUSED),
    known("fake_SYN_flag (split)", Property::Serves, REFUSED),
    known("fake_ack_beyond_sndnxt (split)", Property::Serves, REFUSED),
    known("fake_old_timestamp (split)", Property::Serves, REFUSED),
    known("fake_bad_checksum (split)", Property::Serves, REFUSED),
    known(
        "fake_bad_checksum: partial sum (split)",
        Property::Serves,
        REFUSED,
    ),
    known("fake_md5_option (split)", Property::Serves, REFUSED),
    known("bad_ip_checksum_fake (split)", Property::Serves, REFUSED),
    known("urg_byte_in_middle", Property::Serves, URGENT),
    known("urg_separate_segment", Property::Serves, URGENT),
    known("rst_bad_checksum_then_data", Property::Blocks, RESET),
    known("ip_fragments_24B", Property::Blocks, FRAGMENTS),
    known("ip_fragments_reverse", Property::Blocks, FRAGMENTS),
    known("ip_fragment_8B_tiny", Property::Blocks, FRAGMENTS),
    known("v6_fragments", Property::Blocks, FRAGMENTS),
    known("v6_dstopts_then_fragments", Property::Blocks, FRAGMENTS),
];

/// The same, until each role has its own view of what the host accepts.
const KNOWN_AS_ROUTER: &[Known] = KNOWN_AS_SERVER;
