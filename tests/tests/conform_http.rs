//! Every odd HTTP/1 request, over one segment and several, against real servers.
//!
//! Known failures are listed by row in `conform::known`; a row that holds must leave its list.

use std::net::SocketAddr;

use filter_tests::conform::{
    all,
    http_run::HttpStage,
    is_there,
    known::{Checksums, of},
    report::{Table, conclude},
    scene::Scene,
    servers::Server,
};

const NGINX_PORT: u16 = 80;
const HAPROXY_PORT: u16 = 8_080;

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host() {
    run(&Scene::server(Checksums::Partial));
}

// The servers judge requests alike; what differs is the flow's state and the checksums, which the
// table of host tricks tries in all ways. So the rest is for the long tests.

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host_with_strict_checksums() {
    if all() {
        run(&Scene::server(Checksums::Strict));
    }
}

#[test]
fn no_odd_request_reaches_a_blocked_virtual_host_behind_a_router() {
    if all() {
        for checksums in Checksums::ALL {
            run(&Scene::router(checksums));
        }
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
    let mut played = vec![(scene.table("http-nginx", ""), rows)];
    played.extend(haproxy_rows.map(|rows| (scene.table("http-haproxy", ""), rows)));
    let expected: Vec<_> = played.iter().map(|(name, _)| of(name)).collect();
    let tables: Vec<_> = played
        .iter()
        .zip(&expected)
        .map(|((name, rows), expected)| Table {
            name,
            rows,
            expected,
            complete: all(),
        })
        .collect();
    conclude(&tables);
}
