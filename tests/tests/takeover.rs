//! Connections to blocked names, taken over by a server in the block page's namespace.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    dialer::{Length, ask_http, ask_tls, ask_tls_in_pieces, open, tls_config},
    frames::FrameSocket,
    net::{Direct, Namespace, Offload, Routed, mac_of, set_offload},
    packet::{Packet, tls::ClientHello},
    page::{PageSpace, answered, answers, enforce, set_up, status, sweep},
    process::wait_for,
    witness::{HTTP_PORT, TLS_PORT, Witness},
};
use filter_user::datapath::Sweep;

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

/// Server role with a page: what most of these tests begin with.
struct Scene {
    net: Direct,
    space: PageSpace,
    server: Witness,
    page: Option<Witness>,
}

impl Scene {
    fn new() -> Self {
        let net = Direct::new();
        let space = PageSpace::new(&net.edge);
        let server = Witness::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
        let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
        enforce(&net.edge, &[Direct::EDGE_IF], "", POLICY);
        space.attach(&net.edge);
        Self {
            net,
            space,
            server,
            page: Some(page),
        }
    }

    fn page(&self) -> &Witness {
        self.page.as_ref().expect("a page that is served")
    }

    fn client(&self) -> Client<'_> {
        Client {
            namespace: &self.net.visitor,
            from: Direct::VISITOR_V4,
            to: Direct::EDGE_V4,
        }
    }
}

#[test]
fn a_hello_in_many_pieces_reaches_the_page_whole() {
    let scene = Scene::new();
    for to in [
        (Direct::VISITOR_V4, Direct::EDGE_V4),
        (Direct::VISITOR_V6, Direct::EDGE_V6),
    ] {
        for bytes in [100, 300, 700] {
            let (from, to) = endpoints(to.0, to.1, TLS_PORT);
            let config = tls_config(scene.page().authority(), Length::Long);
            let seen = scene
                .net
                .visitor
                .run(|| ask_tls_in_pieces(open(from, to, LIMIT)?, BLOCKED, config, bytes));
            assert!(
                seen.is_ok(),
                "{bytes} {to}: {seen:?} {:?}",
                answers(&scene.net.edge)
            );
        }
    }
    assert_eq!(answered(&scene.net.edge, Answer::PageTaken), 6);
}

#[test]
fn clients_that_complete_their_checksums_reach_the_page_as_well() {
    let scene = Scene::new();
    set_offload(
        &scene.net.visitor,
        Direct::VISITOR_IF,
        Offload::TransmitChecksum,
        false,
    );
    for length in [Length::Short, Length::Long] {
        let seen = scene.client().tls(BLOCKED, scene.page(), length);
        assert!(
            seen.is_ok(),
            "{length:?}: {seen:?} {:?}",
            answers(&scene.net.edge)
        );
    }
}

#[test]
fn the_servers_half_of_the_connection_is_gone() {
    let scene = Scene::new();
    let seen = scene.client().tls(BLOCKED, scene.page(), Length::Short);
    assert!(seen.is_ok(), "{seen:?}");
    wait_for("no connection is left at the server", LIMIT, || {
        let listed = scene.net.edge.command("ss").args(["-tnH"]).output();
        listed.expect("ss runs").stdout.is_empty()
    });
}

#[test]
fn a_request_behind_others_on_a_kept_connection_is_answered_by_the_page() {
    let scene = Scene::new();
    let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, HTTP_PORT);
    scene.net.visitor.run(|| {
        let mut stream = open(from, to, LIMIT).expect("a connection");
        for name in [NEIGHBOUR, NEIGHBOUR, BLOCKED, BLOCKED] {
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .expect("a request sent");
            let expected = format!("served {name}\n");
            let mut answer = Vec::new();
            while !answer.ends_with(expected.as_bytes()) {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).unwrap_or_else(|e| {
                    panic!("{name}: {e}, {:?}", String::from_utf8_lossy(&answer))
                });
                assert!(read > 0, "{name}: ended");
                answer.extend_from_slice(&part[..read]);
            }
        }
    });
    assert_eq!(scene.server.names(), [NEIGHBOUR, NEIGHBOUR]);
    assert_eq!(scene.page().names(), [BLOCKED, BLOCKED]);
}

#[test]
fn a_request_behind_one_that_waits_for_its_answer_is_not_taken_over() {
    let net = Direct::new();
    let space = PageSpace::new(&net.edge);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED]);
    // It takes requests and never answers.
    let listener = net.edge.run(|| TcpListener::bind(("::", HTTP_PORT)));
    let _silent = listener.expect("a listener");
    enforce(&net.edge, &[Direct::EDGE_IF], "", POLICY);
    space.attach(&net.edge);
    let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, HTTP_PORT);
    net.visitor.run(|| {
        let mut stream = open(from, to, LIMIT).expect("a connection");
        for name in [NEIGHBOUR, BLOCKED] {
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .expect("a request sent");
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for("the second request was judged", LIMIT, || {
            answered(&net.edge, Answer::PageInFlight) > 0
        });
    });
    assert_eq!(answered(&net.edge, Answer::PageTaken), 0);
    assert!(page.names().is_empty());
}

#[test]
fn a_forged_hello_is_neither_answered_nor_handed_over() {
    let scene = Scene::new();
    let from = format!("{}:4321", Direct::OTHER_V4);
    let to = format!("{}:{TLS_PORT}", Direct::EDGE_V4);
    let socket = FrameSocket::receiving(&scene.net.visitor, Direct::VISITOR_IF);
    let forged = Packet::tcp(&from, &to)
        .macs(
            mac_of(&scene.net.visitor, Direct::VISITOR_IF),
            mac_of(&scene.net.edge, Direct::EDGE_IF),
        )
        .payload(ClientHello::named(BLOCKED).record())
        .build();
    socket.send(&forged);
    let answer = socket.receive(Duration::from_millis(300), |frame| {
        frame.get(36..38) == Some(&4321u16.to_be_bytes()[..])
    });
    assert_eq!(answer, None);
    assert_eq!(answered(&scene.net.edge, Answer::PageTaken), 0);
    assert!(scene.page().names().is_empty());
}

#[test]
fn ports_that_are_used_again_belong_to_the_next_connection() {
    let scene = Scene::new();
    // No connection lingers at the client, so that the same ports can be used at once.
    scene.net.visitor.sysctl("net/ipv4/tcp_max_tw_buckets", "0");
    let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, TLS_PORT);
    for (name, trusted) in [
        (BLOCKED, scene.page()),
        (NEIGHBOUR, &scene.server),
        (BLOCKED, scene.page()),
    ] {
        let config = tls_config(trusted.authority(), Length::Short);
        let mut seen = Ok(String::new());
        wait_for("the ports can be used", LIMIT, || {
            let config = Arc::clone(&config);
            seen = scene
                .net
                .visitor
                .run(|| ask_tls(open(from, to, LIMIT)?, name, config));
            !matches!(&seen, Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable)
        });
        assert!(
            seen.is_ok(),
            "{name}: {seen:?} {:?}",
            answers(&scene.net.edge)
        );
    }
}

#[test]
fn without_a_server_the_page_counts_as_down_and_what_leads_there_is_not_taken_over() {
    let mut scene = Scene::new();
    let authority = scene.page().authority().clone();
    drop(scene.page.take());
    let ask = |scene: &Scene| {
        let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, TLS_PORT);
        let config = tls_config(&authority, Length::Short);
        let limit = Duration::from_millis(300);
        scene
            .net
            .visitor
            .run(|| ask_tls(open(from, to, limit)?, BLOCKED, config))
    };
    assert!(ask(&scene).is_err());
    assert!(!status(&scene.net.edge).up);
    let taken = answered(&scene.net.edge, Answer::PageTaken);
    assert!(ask(&scene).is_err());
    assert_eq!(answered(&scene.net.edge, Answer::PageTaken), taken);
    assert!(answered(&scene.net.edge, Answer::PageDown) > 0);
    let seen = scene.client().tls(NEIGHBOUR, &scene.server, Length::Short);
    assert!(seen.is_ok(), "{seen:?}");

    let page = Witness::start_for_any_address(&scene.space.namespace, &[BLOCKED]);
    set_up(&scene.net.edge, true);
    let seen = scene.client().tls(BLOCKED, &page, Length::Short);
    assert!(seen.is_ok(), "{seen:?} {:?}", answers(&scene.net.edge));
}

#[test]
fn a_blocked_address_is_answered_by_the_page_without_any_server() {
    let net = Routed::new();
    let space = PageSpace::new(&net.edge);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED]);
    let policy = r#"
version = 1
[[rule]]
id = "origin"
origins = ["203.0.113.66", "2001:db8:2::66"]
action = "drop"
"#;
    enforce(
        &net.edge,
        &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE],
        "",
        policy,
    );
    space.attach(&net.edge);
    for (from, to) in [
        (Routed::VISITOR_V4, Routed::BLOCKED_V4),
        (Routed::VISITOR_V6, Routed::BLOCKED_V6),
    ] {
        let client = Client {
            namespace: &net.visitor,
            from,
            to,
        };
        let seen = client.tls(BLOCKED, &page, Length::Short);
        assert!(seen.is_ok(), "{to}: {seen:?} {:?}", answers(&net.edge));
        let seen = client.http(BLOCKED, Length::Long);
        assert!(seen.is_ok(), "{to}: {seen:?} {:?}", answers(&net.edge));
    }
}

#[test]
fn idle_connections_are_forgotten_and_busy_ones_are_not() {
    let scene = Scene::new();
    let seen = scene.client().tls(BLOCKED, scene.page(), Length::Short);
    assert!(seen.is_ok(), "{seen:?}");
    assert_eq!(
        sweep(&scene.net.edge),
        Sweep {
            kept: 1,
            removed: 0
        }
    );
    wait_for("the connection is idle", LIMIT, || {
        sweep(&scene.net.edge).removed == 1
    });
    let seen = scene.client().tls(BLOCKED, scene.page(), Length::Short);
    assert!(seen.is_ok(), "after a sweep: {seen:?}");
}

#[test]
fn many_connections_at_once_are_all_answered_by_the_page() {
    const CLIENTS: usize = 8;
    const EACH: usize = 12;
    let scene = Scene::new();
    std::thread::scope(|threads| {
        for _ in 0..CLIENTS {
            threads.spawn(|| {
                for _ in 0..EACH {
                    let seen = scene.client().tls(BLOCKED, scene.page(), Length::Long);
                    assert!(seen.is_ok(), "{seen:?} {:?}", answers(&scene.net.edge));
                }
            });
        }
    });
    assert_eq!(
        answered(&scene.net.edge, Answer::PageTaken),
        (CLIENTS * EACH) as u64
    );
}
