//! Every odd ClientHello, over one segment and several, against real TLS stacks.
//!
//! Known failures are listed by row in `conform::known`; a row that holds must leave its list.

use std::{net::SocketAddr, time::Duration};

use filter_tests::conform::{
    all, is_there,
    known::{Checksums, of},
    report::{Table, conclude},
    rustls_server::RustlsServer,
    scene::Scene,
    servers::Server,
    tls_run::TlsStage,
};

const OPENSSL_PORT: u16 = 443;
const JAVA_PORT: u16 = 8_443;
const RUSTLS_PORT: u16 = 9_443;

#[test]
fn no_odd_hello_takes_a_blocked_name_to_a_tls_stack() {
    run(&Scene::server(Checksums::Partial));
}

// The stacks judge hellos alike; what differs is the flow's state and the checksums, which the
// table of host tricks tries in all ways. So the rest is for the long tests.

#[test]
fn no_odd_hello_takes_a_blocked_name_to_a_tls_stack_with_strict_checksums() {
    if all() {
        run(&Scene::server(Checksums::Strict));
    }
}

#[test]
fn no_odd_hello_takes_a_blocked_name_to_a_tls_stack_behind_a_router() {
    if all() {
        for checksums in Checksums::ALL {
            run(&Scene::router(checksums));
        }
    }
}

fn run(scene: &Scene) {
    let station = scene.station();
    let at = |port| SocketAddr::new(scene.v4().parse().expect("an address"), port);
    let openssl = Server::openssl(scene.servers(), OPENSSL_PORT);
    let rustls = RustlsServer::start(scene.servers(), RUSTLS_PORT);
    // Java takes seconds to start: for the long tests.
    let java = (all() && is_there("java")).then(|| Server::java(scene.servers(), JAVA_PORT));
    let openssl_names = |port| openssl.names_from(port);
    let rustls_names = |port| rustls.names_from(port);
    let java_names = |port| {
        java.as_ref()
            .map_or(Vec::new(), |java| java.names_from(port))
    };
    let on_openssl = TlsStage {
        station: &station,
        server: at(OPENSSL_PORT),
        names_from: &openssl_names,
        truth: |trick| trick.openssl,
        replies: true,
        answer_max: Duration::from_millis(500),
        all: all(),
    };
    let on_rustls = TlsStage {
        server: at(RUSTLS_PORT),
        names_from: &rustls_names,
        truth: |trick| trick.rustls,
        replies: false,
        ..on_openssl
    };
    let on_java = TlsStage {
        server: at(JAVA_PORT),
        names_from: &java_names,
        truth: |trick| trick.java,
        // Cold code for the first hundreds of connections.
        answer_max: Duration::from_secs(3),
        ..on_openssl
    };
    let mut stages = vec![("tls-openssl", &on_openssl), ("tls-rustls", &on_rustls)];
    if java.is_some() {
        stages.push(("tls-java", &on_java));
    }
    let unfiltered: Vec<_> = stages.iter().map(|(_, stage)| stage.unfiltered()).collect();

    let ports = [OPENSSL_PORT, JAVA_PORT, RUSTLS_PORT];
    let _edge = scene.enforce(&format!("tls = {ports:?}\n"));
    let rows: Vec<_> = stages
        .iter()
        .zip(&unfiltered)
        .map(|((_, stage), unfiltered)| stage.filtered(unfiltered))
        .collect();
    let names: Vec<_> = stages
        .iter()
        .map(|(name, _)| scene.table(name, ""))
        .collect();
    let expected: Vec<_> = names.iter().map(|name| of(name)).collect();
    let tables: Vec<_> = names
        .iter()
        .zip(&rows)
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
