//! Every odd HTTP/1 request, over one segment and several, against real servers.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use std::net::SocketAddr;

use filter_tests::conform::{
    all,
    http_run::HttpStage,
    is_there,
    report::{Known, Property::Blocks, Table, conclude},
    scene::Scene,
    servers::Server,
};

const NGINX_PORT: u16 = 80;
const HAPROXY_PORT: u16 = 8_080;

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host() {
    run(&Scene::server());
}

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host_behind_a_router() {
    // The servers judge requests alike; what differs is the flow's state, which the table of host
    // tricks tries in both roles. So this is for the long tests.
    if all() {
        run(&Scene::router());
    }
}

fn run(scene: &Scene) {
    let station = scene.station();
    let stage = |port, truth| HttpStage {
        station: &station,
        server: SocketAddr::new(scene.v4().parse().expect("an address"), port),
        truth,
        all: all(),
    };
    let _nginx = Server::nginx(scene.servers(), NGINX_PORT);
    let haproxy = is_there("haproxy").then(|| Server::haproxy(scene.servers(), HAPROXY_PORT));
    let on_nginx = stage(NGINX_PORT, |trick| trick.nginx);
    let on_haproxy = stage(HAPROXY_PORT, |trick| trick.haproxy);
    let nginx_unfiltered = on_nginx.unfiltered();
    let haproxy_unfiltered = haproxy.as_ref().map(|_| on_haproxy.unfiltered());

    let _edge = scene.enforce(&format!("http = [{NGINX_PORT}, {HAPROXY_PORT}]\n"));
    let rows = on_nginx.filtered(&nginx_unfiltered);
    let haproxy_rows = haproxy_unfiltered.map(|unfiltered| on_haproxy.filtered(&unfiltered));
    let role = scene.role();
    let names = [format!("http-nginx-{role}"), format!("http-haproxy-{role}")];
    let mut tables = vec![Table {
        name: &names[0],
        rows: &rows,
        known: KNOWN_ON_NGINX,
        complete: all(),
    }];
    if let Some(rows) = &haproxy_rows {
        tables.push(Table {
            name: &names[1],
            rows,
            known: KNOWN_ON_HAPROXY,
            complete: all(),
        });
    }
    conclude(&tables);
}

const LATER: &str =
    "a request that goes on in the next segment behind another one, or behind a body, is not read";
const NUL: &str = "by design: a name with a NUL is matched as it is, and counted";
const HTTP2: &str = "by design: HTTP/2 with prior knowledge is not read, but counted";

const KNOWN_ON_NGINX: &[Known] = &[
    Known::always("pipelined_2nd_request", Blocks, LATER),
    Known::always("post_then_2nd_request", Blocks, LATER),
];

const KNOWN_ON_HAPROXY: &[Known] = &[
    Known::always("pipelined_2nd_request", Blocks, LATER),
    Known::always("post_then_2nd_request", Blocks, LATER),
    Known::always("nul_in_value", Blocks, NUL),
    Known::always("h2c_prior_knowledge", Blocks, HTTP2),
];
