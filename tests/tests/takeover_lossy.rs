//! Takeover over a path that loses one frame in ten, both ways, and reorders one in four.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    conform::all,
    dialer::{Length, ask_http, ask_tls, open, tls_config},
    net::Direct,
    page::{PageSpace, answered, answers, enforce},
    path::{Path, Weather},
    witness::{HTTP_PORT, TLS_PORT, Witness},
};

const BLOCKED: &str = "blocked.example";
const POLICY: &str = r#"
version = 1
[[rule]]
id = "name"
hosts = ["blocked.example"]
action = "drop"
"#;
const WEATHER: Weather = Weather {
    seed: 0x7a6e,
    lost_percent: 10,
    reordered_percent: 25,
    delay: Duration::from_millis(2),
    detour_max: Duration::from_millis(20),
};

/// Several segments in a row may be lost, and TCP doubles its time-out each time.
const LIMIT: Duration = Duration::from_secs(60);

/// Connections of each kind.
fn of_each() -> u16 {
    if all() { 50 } else { 8 }
}

#[test]
fn over_a_bad_path_every_connection_to_a_blocked_name_is_answered_by_the_page() {
    let mut path = None;
    let net = Direct::linked(|edge, interface, visitor, visitor_interface| {
        path = Some(Path::between(
            edge,
            interface,
            visitor,
            visitor_interface,
            WEATHER,
        ));
    });
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.edge, &[BLOCKED]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED]);
    enforce(&net.edge, &[Direct::EDGE_IF], "", POLICY);
    space.attach(&net.edge);
    let address =
        |text: &str, port| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), port);
    let ask = |kind: u16, number: u16| {
        let length = if kind.is_multiple_of(2) {
            Length::Short
        } else {
            Length::Long
        };
        let port = if kind < 2 { TLS_PORT } else { HTTP_PORT };
        let from = address(Direct::VISITOR_V4, 30_000 + 1_000 * kind + number);
        let to = address(Direct::EDGE_V4, port);
        let seen = net.visitor.run(|| {
            let stream = open(from, to, LIMIT)?;
            match port {
                TLS_PORT => ask_tls(stream, BLOCKED, tls_config(page.authority(), length)),
                _ => ask_http(stream, BLOCKED, length),
            }
        });
        assert!(
            seen.is_ok(),
            "{from} {length:?}: {seen:?} {:?}",
            answers(&net.edge)
        );
    };
    std::thread::scope(|threads| {
        for kind in 0..4 {
            for number in 0..of_each() {
                threads.spawn(move || ask(kind, number));
            }
        }
    });
    assert!(server.names().is_empty(), "{:?}", server.names());
    assert_eq!(
        answered(&net.edge, Answer::PageTaken),
        u64::from(4 * of_each())
    );
    let carried = path.expect("a path").carried();
    assert!(carried.lost > 0 && carried.reordered > 0, "{carried:?}");
}
