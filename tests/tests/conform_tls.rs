//! Every odd ClientHello, over one segment and several, against real TLS stacks.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use std::{net::SocketAddr, time::Duration};

use filter_tests::conform::{
    all, is_there,
    report::{Known, Property::Serves, Table, conclude},
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
    run(&Scene::server());
}

#[test]
fn no_odd_hello_takes_a_blocked_name_to_a_tls_stack_behind_a_router() {
    // The stacks judge hellos alike; what differs is the flow's state, which the table of host
    // tricks tries in both roles. So this is for the long tests.
    if all() {
        run(&Scene::router());
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
    let mut stages = vec![
        ("tls-openssl", &on_openssl, KNOWN_ON_OPENSSL),
        ("tls-rustls", &on_rustls, KNOWN_ON_RUSTLS),
    ];
    if java.is_some() {
        stages.push(("tls-java", &on_java, KNOWN_ON_JAVA));
    }
    let unfiltered: Vec<_> = stages
        .iter()
        .map(|(_, stage, _)| stage.unfiltered())
        .collect();

    let ports = [OPENSSL_PORT, JAVA_PORT, RUSTLS_PORT];
    let _edge = scene.enforce(&format!("tls = {ports:?}\n"));
    let rows: Vec<_> = stages
        .iter()
        .zip(&unfiltered)
        .map(|((_, stage, _), unfiltered)| stage.filtered(unfiltered))
        .collect();
    let role = scene.role();
    let names: Vec<_> = stages
        .iter()
        .map(|(name, _, _)| format!("{name}-{role}"))
        .collect();
    let tables: Vec<_> = stages
        .iter()
        .zip(&names)
        .zip(&rows)
        .map(|(((_, _, known), name), rows)| Table {
            name,
            rows,
            known,
            complete: all(),
        })
        .collect();
    conclude(&tables);
}

const TOO_LONG: &str =
    "by design: a hello of more than 16 KiB is dropped, `[unparsed]` can say `pass`";

const MALFORMED: &str =
    "by design: a hello that breaks its lengths is dropped, `[unparsed]` can say `pass`";

const KNOWN_ON_OPENSSL: &[Known] = &[
    Known::always("padding_60000_before_sni", Serves, TOO_LONG),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];

const KNOWN_ON_RUSTLS: &[Known] = &[
    Known::always("unfragmented_hello_record_len_17000", Serves, TOO_LONG),
    Known::always("padding_60000_before_sni", Serves, TOO_LONG),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];

const KNOWN_ON_JAVA: &[Known] = &[
    Known::always("unfragmented_hello_record_len_17000", Serves, TOO_LONG),
    Known::always("hs_len_too_long_by_4", Serves, MALFORMED),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];
