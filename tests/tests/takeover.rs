//! Connections to blocked names, taken over by a server in the block page's namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    dialer::{Length, ask_http, ask_tls, open, tls_config},
    net::{Direct, Namespace, Routed},
    page::{PageSpace, answered, answers, enforce},
    process::wait_for,
    witness::{HTTP_PORT, TLS_PORT, Witness},
};

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const POLICY: &str = r#"
version = 1
[[rule]]
id = "name"
hosts = ["blocked.example"]
action = "drop"
"#;

/// How long an answer may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

static PORT: AtomicU16 = AtomicU16::new(20_000);

fn endpoints(from: &str, to: &str, port: u16) -> (SocketAddr, SocketAddr) {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let own = PORT.fetch_add(1, Ordering::Relaxed);
    (
        SocketAddr::new(address(from), own),
        SocketAddr::new(address(to), port),
    )
}

/// A client that asks one server and trusts another one's authority.
struct Client<'a> {
    namespace: &'a Namespace,
    from: &'a str,
    to: &'a str,
}

impl Client<'_> {
    fn tls(&self, name: &str, trusted: &Witness, length: Length) -> io::Result<String> {
        let (from, to) = endpoints(self.from, self.to, TLS_PORT);
        let config = tls_config(trusted.authority(), length);
        self.namespace
            .run(|| ask_tls(open(from, to, LIMIT)?, name, config))
    }

    fn http(&self, name: &str, length: Length) -> io::Result<String> {
        let (from, to) = endpoints(self.from, self.to, HTTP_PORT);
        self.namespace
            .run(|| ask_http(open(from, to, LIMIT)?, name, length))
    }
}

/// The four ways to a server in server role, or to one behind a router.
fn both_families<'a>(visitor: &'a Namespace, pairs: [(&'a str, &'a str); 2]) -> [Client<'a>; 2] {
    pairs.map(|(from, to)| Client {
        namespace: visitor,
        from,
        to,
    })
}

/// The blocked name is answered by the page, the other one by the server, over TLS and HTTP, with hellos
/// of one segment and of two.
fn assert_taken_over(edge: &Namespace, clients: &[Client<'_>], server: &Witness, page: &Witness) {
    for client in clients {
        for length in [Length::Short, Length::Long] {
            let context = |what: &str| format!("{what} {length:?} {}", client.to);
            let seen = client.tls(BLOCKED, page, length);
            assert!(
                seen.is_ok(),
                "{}: {seen:?}, {:?}",
                context("tls"),
                answers(edge)
            );
            let seen = client.tls(NEIGHBOUR, server, length);
            assert!(seen.is_ok(), "{}: {seen:?}", context("neighbour tls"));
            let seen = client.http(BLOCKED, length);
            assert!(
                seen.is_ok(),
                "{}: {seen:?}, {:?}",
                context("http"),
                answers(edge)
            );
            let seen = client.http(NEIGHBOUR, length);
            assert!(seen.is_ok(), "{}: {seen:?}", context("neighbour http"));
        }
    }
    let reached = |witness: &Witness, name: &str| witness.names().iter().any(|seen| seen == name);
    assert!(!reached(server, BLOCKED), "{:?}", server.names());
    assert!(!reached(page, NEIGHBOUR), "{:?}", page.names());
}

#[test]
fn a_server_on_this_host_is_replaced_by_the_page_for_the_blocked_name_only() {
    let net = Direct::new();
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
    enforce(&net.edge, &[Direct::EDGE_IF], "", POLICY);
    assert!(space.attach(&net.edge).up);
    let clients = both_families(
        &net.visitor,
        [
            (Direct::VISITOR_V4, Direct::EDGE_V4),
            (Direct::VISITOR_V6, Direct::EDGE_V6),
        ],
    );
    assert_taken_over(&net.edge, &clients, &server, &page);
    assert_eq!(answered(&net.edge, Answer::PageTaken), 8);
    assert_eq!(answered(&net.edge, Answer::SinkAssigned), 8);
    wait_for("the server's halves are reset", LIMIT, || {
        answered(&net.edge, Answer::SinkServerReset) == 8
    });
}

#[test]
fn a_server_behind_the_router_is_replaced_by_the_page_for_the_blocked_name_only() {
    let net = Routed::new();
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
    let host = "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n";
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    enforce(&net.edge, &interfaces, host, POLICY);
    assert!(space.attach(&net.edge).up);
    let clients = both_families(
        &net.visitor,
        [
            (Routed::VISITOR_V4, Routed::NEIGHBOUR_V4),
            (Routed::VISITOR_V6, Routed::NEIGHBOUR_V6),
        ],
    );
    assert_taken_over(&net.edge, &clients, &server, &page);
    assert_eq!(answered(&net.edge, Answer::PageTaken), 8);
}
