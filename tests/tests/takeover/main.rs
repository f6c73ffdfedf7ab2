//! Connections to blocked names, taken over by a server in the block page's namespace.

mod later_requests;

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    dialer::{Length, ask_http, ask_tls, ask_tls_in_pieces, open, tls_config},
    foreign::ForeignProgram,
    frames::FrameSocket,
    net::{Direct, Namespace, Offload, Routed, mac_of, set_offload},
    packet::{Packet, TPID_8021Q, flag, tls::ClientHello},
    page::{PageSpace, SocketMaker, answered, answers, enforce, enforce_in, status, sweep},
    process::wait_for,
    witness::{HTTP_PORT, TLS_PORT, Witness},
};
use filter_user::{
    datapath::{SinkMethod, Sweep},
    policy::model::AttachMode,
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

/// The ways in which a connection is handed over.
const METHODS: [SinkMethod; 2] = [SinkMethod::Kfunc, SinkMethod::Repair];

/// What is counted of a connection that is handed over.
fn handed_over(method: SinkMethod) -> Answer {
    match method {
        SinkMethod::Repair => Answer::SinkTold,
        SinkMethod::Kfunc | SinkMethod::None => Answer::SinkAssigned,
    }
}

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
    METHODS
        .into_iter()
        .for_each(server_on_this_host_is_replaced);
}

fn server_on_this_host_is_replaced(method: SinkMethod) {
    let net = Direct::new();
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
    enforce(&net.edge, &[Direct::EDGE_IF], "", POLICY);
    let _maker = space.attach_by(method, &net.edge, &page);
    assert_eq!(status(&net.edge).method, method);
    let clients = both_families(
        &net.visitor,
        [
            (Direct::VISITOR_V4, Direct::EDGE_V4),
            (Direct::VISITOR_V6, Direct::EDGE_V6),
        ],
    );
    assert_taken_over(&net.edge, &clients, &server, &page);
    assert_eq!(answered(&net.edge, Answer::PageTaken), 8);
    assert_eq!(answered(&net.edge, handed_over(method)), 8);
    wait_for("the server's halves are reset", LIMIT, || {
        answered(&net.edge, Answer::SinkServerReset) == 8
    });
}

#[test]
fn a_server_behind_the_router_is_replaced_by_the_page_for_the_blocked_name_only() {
    METHODS
        .into_iter()
        .for_each(server_behind_the_router_is_replaced);
}

fn server_behind_the_router_is_replaced(method: SinkMethod) {
    let net = Routed::new();
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
    let host = "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n";
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    enforce(&net.edge, &interfaces, host, POLICY);
    let _maker = space.attach_by(method, &net.edge, &page);
    assert_eq!(status(&net.edge).method, method);
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
    method: SinkMethod,
    _maker: Option<SocketMaker>,
    page: Option<Witness>,
}

impl Scene {
    fn new() -> Self {
        Self::attached(AttachMode::Native, SinkMethod::Kfunc)
    }

    fn both() -> [Self; 2] {
        METHODS.map(|method| Self::attached(AttachMode::Native, method))
    }

    fn attached(mode: AttachMode, method: SinkMethod) -> Self {
        let net = Direct::new();
        let space = PageSpace::new(&net.edge);
        let server = Witness::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
        let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
        enforce_in(mode, &net.edge, &[Direct::EDGE_IF], "", POLICY);
        let maker = space.attach_by(method, &net.edge, &page);
        Self {
            net,
            space,
            server,
            method,
            _maker: maker,
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
    for scene in Scene::both() {
        hello_in_many_pieces_reaches_the_page_whole(&scene);
    }
}

fn hello_in_many_pieces_reaches_the_page_whole(scene: &Scene) {
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

/// Who waits before a hello of two segments gives back an old timestamp with both, and may have the server's
/// acknowledgement of the first, with a new one, before the page's answer.
#[test]
fn what_the_page_says_is_not_older_than_what_the_server_said() {
    for scene in Scene::both() {
        let visitor = &scene.net.visitor;
        for _ in 0..20 {
            let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, TLS_PORT);
            let config = tls_config(scene.page().authority(), Length::Long);
            let seen = visitor.run(|| {
                let stream = open(from, to, LIMIT)?;
                thread::sleep(Duration::from_millis(50));
                ask_tls(stream, BLOCKED, config)
            });
            assert!(seen.is_ok(), "{seen:?} {:?}", answers(&scene.net.edge));
        }
        assert_eq!(visitor.tcp_counter("PAWSEstab"), 0, "{:?}", scene.method);
    }
}

#[test]
fn clients_that_complete_their_checksums_reach_the_page_as_well() {
    for scene in Scene::both() {
        with_clients_that_complete_their_checksums_reach_the_page_as_well(&scene);
    }
}

fn with_clients_that_complete_their_checksums_reach_the_page_as_well(scene: &Scene) {
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
fn behind_the_driver_the_program_hands_over_as_well() {
    for method in METHODS {
        hands_over_behind_the_driver(&Scene::attached(AttachMode::Generic, method));
    }
}

fn hands_over_behind_the_driver(scene: &Scene) {
    for length in [Length::Short, Length::Long] {
        let client = scene.client();
        let seen = client.tls(BLOCKED, scene.page(), length);
        assert!(
            seen.is_ok(),
            "{length:?}: {seen:?} {:?}",
            answers(&scene.net.edge)
        );
        let seen = client.tls(NEIGHBOUR, &scene.server, length);
        assert!(seen.is_ok(), "{length:?}: {seen:?}");
    }
    no_connection_is_left(&scene.net.edge);
}

/// At the server, whose half of a connection that was taken over is reset.
fn no_connection_is_left(edge: &Namespace) {
    wait_for("no connection is left at the server", LIMIT, || {
        let listed = edge.command("ss").args(["-tnH"]).output();
        listed.expect("ss runs").stdout.is_empty()
    });
}

#[test]
fn the_servers_half_of_the_connection_is_gone() {
    for scene in Scene::both() {
        with_the_servers_half_of_the_connection_is_gone(&scene);
    }
}

fn with_the_servers_half_of_the_connection_is_gone(scene: &Scene) {
    let seen = scene.client().tls(BLOCKED, scene.page(), Length::Short);
    assert!(seen.is_ok(), "{seen:?}");
    no_connection_is_left(&scene.net.edge);
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
    for scene in Scene::both() {
        with_ports_that_are_used_again_belong_to_the_next_connection(&scene);
    }
}

fn with_ports_that_are_used_again_belong_to_the_next_connection(scene: &Scene) {
    // No connection lingers at the client, so that the same ports can be used at once.
    scene.net.visitor.sysctl("net/ipv4/tcp_max_tw_buckets", "0");
    let ends = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, TLS_PORT);
    for (name, trusted) in [
        (BLOCKED, scene.page()),
        (NEIGHBOUR, &scene.server),
        (BLOCKED, scene.page()),
    ] {
        let seen = ask_again(&scene.net.visitor, ends, name, trusted);
        assert!(
            seen.is_ok(),
            "{name}: {seen:?} {:?}",
            answers(&scene.net.edge)
        );
    }
}

#[test]
fn a_forged_syn_and_what_agrees_with_it_do_not_end_a_connection_to_the_page() {
    for scene in Scene::both() {
        forged_syn_and_what_agrees_with_it_do_not_end_a_connection_to_the_page(&scene);
    }
}

fn forged_syn_and_what_agrees_with_it_do_not_end_a_connection_to_the_page(scene: &Scene) {
    const FORGED_SEQ: u32 = 0x1234_5678;
    let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, HTTP_PORT);
    let macs = [
        mac_of(&scene.net.visitor, Direct::VISITOR_IF),
        mac_of(&scene.net.edge, Direct::EDGE_IF),
    ];
    let forge = |flags, seq| {
        let packet = Packet::tcp(&from.to_string(), &to.to_string());
        packet.macs(macs[0], macs[1]).flags(flags).seq(seq).build()
    };
    let socket = FrameSocket::open(&scene.net.visitor, Direct::VISITOR_IF);
    scene.net.visitor.run(|| {
        let mut stream = open(from, to, LIMIT).expect("a connection");
        for round in 0..2 {
            let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .expect("a request sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"served blocked.example\n") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part);
                let read = read.unwrap_or_else(|e| panic!("{round}: {e}"));
                assert!(read > 0, "{round}: ended");
                answer.extend_from_slice(&part[..read]);
            }
            socket.send(&forge(flag::SYN, FORGED_SEQ));
            socket.send(&forge(flag::ACK, FORGED_SEQ + 1));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(scene.page().names(), [BLOCKED, BLOCKED]);
}

#[test]
fn ports_that_are_used_again_behind_the_router_belong_to_the_next_connection() {
    let net = Routed::new();
    let space = PageSpace::new(&net.edge);
    let server = Witness::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
    let host = "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n";
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    enforce(&net.edge, &interfaces, host, POLICY);
    space.attach(&net.edge);
    net.visitor.sysctl("net/ipv4/tcp_max_tw_buckets", "0");
    let ends = endpoints(Routed::VISITOR_V6, Routed::NEIGHBOUR_V6, TLS_PORT);
    for (name, trusted) in [(BLOCKED, &page), (NEIGHBOUR, &server), (BLOCKED, &page)] {
        let seen = ask_again(&net.visitor, ends, name, trusted);
        assert!(seen.is_ok(), "{name}: {seen:?} {:?}", answers(&net.edge));
    }
}

/// Asks from ports that were used before, as soon as they can be.
fn ask_again(
    visitor: &Namespace,
    (from, to): (SocketAddr, SocketAddr),
    name: &str,
    trusted: &Witness,
) -> io::Result<String> {
    let config = tls_config(trusted.authority(), Length::Short);
    let mut seen = Ok(String::new());
    wait_for("the ports can be used", LIMIT, || {
        let config = Arc::clone(&config);
        seen = visitor.run(|| ask_tls(open(from, to, LIMIT)?, name, config));
        !matches!(&seen, Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable)
    });
    seen
}

#[test]
fn on_a_port_that_nobody_serves_the_page_on_the_client_is_refused_and_others_get_it() {
    for mut scene in Scene::both() {
        let authority = scene.page().authority().clone();
        drop(scene.page.take());
        // What the filter sends back into a veth is not taken otherwise.
        let _receives = ForeignProgram::attach(&scene.net.visitor, Direct::VISITOR_IF);
        let (from, to) = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, TLS_PORT);
        let config = tls_config(&authority, Length::Short);
        let ask = || ask_tls(open(from, to, LIMIT)?, BLOCKED, config);
        let begin = Instant::now();
        let refused = scene.net.visitor.run(ask).expect_err("nobody answers");
        assert!(
            refused.to_string().contains("UnrecognisedName"),
            "{refused} {:?}",
            answers(&scene.net.edge)
        );
        assert!(begin.elapsed() < LIMIT, "told when the hello came again");
        assert_eq!(answered(&scene.net.edge, Answer::SinkNobody), 1);
        assert!(status(&scene.net.edge).up);
        let seen = scene.client().tls(NEIGHBOUR, &scene.server, Length::Short);
        assert!(seen.is_ok(), "{seen:?}");

        let page = Witness::start_for_any_address(&scene.space.namespace, &[BLOCKED]);
        let _maker = scene.space.attach_by(scene.method, &scene.net.edge, &page);
        let seen = scene.client().tls(BLOCKED, &page, Length::Short);
        assert!(seen.is_ok(), "{seen:?} {:?}", answers(&scene.net.edge));
    }
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

/// The kernel of this machine needs no VLAN devices for this: all but the page is played by hand.
#[test]
fn frames_with_a_vlan_tag_are_handed_over_without_it_and_with_two_tags_they_are_not() {
    const ISN: u32 = 1_000;
    const SERVER_ISN: u32 = 5_000;
    let net = Routed::new();
    let space = PageSpace::new(&net.edge);
    let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED]);
    let host = "[inspect]\nserves = [\"203.0.113.0/24\"]\n";
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    enforce(&net.edge, &interfaces, host, POLICY);
    space.attach(&net.edge);
    let visitor = FrameSocket::receiving(&net.visitor, "eth0");
    let origin = FrameSocket::open(&net.origin, "eth0");
    for (tags, taken) in [(1, 1), (2, 1)] {
        let (from, to) = endpoints(Routed::VISITOR_V4, Routed::NEIGHBOUR_V4, TLS_PORT);
        let (client, server) = (from.to_string(), to.to_string());
        let tagged = |mut packet: Packet| {
            for tag in 0..tags {
                packet = packet.vlan(TPID_8021Q, 42 + tag);
            }
            packet.build()
        };
        let of_client = |flags, seq: u32| Packet::tcp(&client, &server).flags(flags).seq(seq);
        visitor.send(&tagged(of_client(flag::SYN, ISN)));
        let answer = Packet::tcp(&server, &client)
            .flags(flag::SYN | flag::ACK)
            .seq(SERVER_ISN)
            .ack(ISN + 1);
        origin.send(&tagged(answer));
        let hello = of_client(flag::ACK | flag::PSH, ISN + 1)
            .ack(SERVER_ISN + 1)
            .payload(ClientHello::named(BLOCKED).record());
        visitor.send(&tagged(hello));
        // The socket shows what the kernel has left of the frame: it takes the tag off.
        let port = from.port().to_be_bytes();
        let reply = visitor.receive(Duration::from_secs(1), |frame| {
            frame.get(36..38) == Some(&port[..]) && frame.get(26..30) == Some(&[203, 0, 113, 67])
        });
        assert_eq!(reply.is_some(), tags == 1, "{:?}", answers(&net.edge));
        assert_eq!(answered(&net.edge, Answer::PageTaken), taken);
    }
    assert_eq!(answered(&net.edge, Answer::PageTags), 1);
    assert_eq!(page.names(), [BLOCKED]);
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
    for scene in Scene::both() {
        answers_many::<CLIENTS, EACH>(&scene);
        assert_eq!(
            answered(&scene.net.edge, Answer::PageTaken),
            (CLIENTS * EACH) as u64
        );
    }
}

fn answers_many<const CLIENTS: usize, const EACH: usize>(scene: &Scene) {
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
}
