//! Every odd HTTP/1 request, over one segment and several, against real servers.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use std::net::SocketAddr;

use filter_tests::{
    conform::{
        POLICY, all,
        http_run::HttpStage,
        is_there,
        report::{Known, Property, Table, conclude},
        servers::Server,
        station::Station,
    },
    edge::Edge,
    net::Direct,
};

const NGINX_PORT: u16 = 80;
const HAPROXY_PORT: u16 = 8_080;

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Direct::EDGE_V4.parse().expect("an address"), port)
}

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host() {
    let net = Direct::new();
    let station = Station::direct(&net);
    let stage = |port, truth| HttpStage {
        station: &station,
        server: at(port),
        truth,
        all: all(),
    };
    let _nginx = Server::nginx(&net.edge, NGINX_PORT);
    let haproxy = is_there("haproxy").then(|| Server::haproxy(&net.edge, HAPROXY_PORT));
    let on_nginx = stage(NGINX_PORT, |trick| trick.nginx);
    let on_haproxy = stage(HAPROXY_PORT, |trick| trick.haproxy);
    let nginx_unfiltered = on_nginx.unfiltered();
    let haproxy_unfiltered = haproxy.as_ref().map(|_| on_haproxy.unfiltered());

    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    edge.configure(
        &[Direct::EDGE_IF],
        &format!("[inspect]\nhttp = [{NGINX_PORT}, {HAPROXY_PORT}]\n"),
    );
    edge.start();
    let rows = on_nginx.filtered(&nginx_unfiltered);
    let haproxy_rows = haproxy_unfiltered.map(|unfiltered| on_haproxy.filtered(&unfiltered));
    let mut tables = vec![Table {
        name: "http-nginx",
        rows: &rows,
        known: KNOWN,
        complete: all(),
    }];
    if let Some(rows) = &haproxy_rows {
        tables.push(Table {
            name: "http-haproxy",
            rows,
            known: KNOWN,
            complete: all(),
        });
    }
    conclude(&tables);
}

const LATER: &str = "a request behind another one in the same segment is not read";

const KNOWN: &[Known] = &[
    Known {
        row: "pipelined_2nd_request",
        property: Property::Blocks,
        why: LATER,
    },
    Known {
        row: "post_then_2nd_request",
        property: Property::Blocks,
        why: LATER,
    },
];
