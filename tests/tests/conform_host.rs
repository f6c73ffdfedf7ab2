//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use filter_tests::{
    conform::{
        POLICY,
        host_run::{PORT, Stage, run},
        recorder::Recorder,
        report::{Known, conclude},
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
    conclude("host-server", &rows, KNOWN_AS_SERVER, true);
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
    conclude("host-router", &rows, KNOWN_AS_ROUTER, true);
}

const KNOWN_AS_SERVER: &[Known] = &[];

const KNOWN_AS_ROUTER: &[Known] = &[];
