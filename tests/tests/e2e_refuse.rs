//! Rules that refuse: the client knows at once, and the server's half of the connection is gone.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use filter_tests::{
    client::{Answer, curl, curl_with, s_client},
    echo::Echo,
    edge::Edge,
    foreign::ForeignProgram,
    frames::FrameSocket,
    net::{Direct, Namespace, Routed, mac_of},
    packet::{Packet, tls::ClientHello},
    probe::answers,
    process::wait_for,
    site::Site,
};

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const NAMES: &str = r#"
version = 1
[[rule]]
id = "host"
hosts = ["blocked.example"]
action = "refuse"
"#;
const ORIGINS: &str = r#"
version = 1
[[rule]]
id = "origin"
origins = ["203.0.113.66", "2001:db8:2::66"]
action = "refuse"
"#;
const PORT: u16 = 7;

/// "At once": a busy machine, but no time limit of anybody.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long the server's half may stay.
const HALF_OPEN_MAX: Duration = Duration::from_secs(2);

/// Where clients are, where the server is, and its addresses.
struct Scene<'n> {
    visitor: &'n Namespace,
    server: &'n Namespace,
    addresses: [&'static str; 2],
}

/// The other end of a veth receives what the program sends back only if it has a program as well.
fn receives(visitor: &Namespace) -> ForeignProgram {
    ForeignProgram::attach(visitor, "eth0")
}

/// A controller between visitors and the servers behind the edge.
fn in_between<'n>(net: &'n Routed, policy: &str, inspect: &str) -> Edge<'n> {
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let mut edge = Edge::new(&net.edge, &interfaces, policy);
    let inspect =
        format!("[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n{inspect}");
    edge.configure(&interfaces, &inspect);
    edge.start();
    edge
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Connections of the namespace to this port that are neither closed nor listening.
fn half_open(namespace: &Namespace, port: u16) -> String {
    let mut command = namespace.command("ss");
    command.args(["-Htn", "state", "connected", "exclude", "time-wait"]);
    command.arg(format!("( sport = :{port} )"));
    let output = command.output().expect("run ss");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told_at_once(what: &str, answer: &Answer, took: Duration, expected: &str) {
    let said = format!("{}{}", answer.body, answer.errors);
    assert!(said.contains(expected), "{what}: {answer:?}");
    assert!(took < AT_ONCE, "{what} took {took:?}");
}

/// Names are refused over TLS and HTTP, the neighbour is served, and the server keeps nothing.
fn names_are_refused(scene: &Scene<'_>) {
    let visitor = scene.visitor;
    for address in scene.addresses {
        let served = |name: &str, scheme: &str| {
            let answer = curl(visitor, &format!("{scheme}://{name}/"), address);
            assert!(answer.is_served(name), "{name} {address}: {answer:?}");
        };
        served(NEIGHBOUR, "https");
        let url = format!("https://{BLOCKED}/");
        let (answer, took) = timed(|| curl(visitor, &url, address));
        told_at_once("curl", &answer, took, "unrecognized name");
        let (answer, took) = timed(|| s_client(visitor, address, Some(BLOCKED)));
        told_at_once("openssl", &answer, took, "unrecognized name");

        let url = format!("http://{BLOCKED}/");
        let (answer, took) = timed(|| curl_with(visitor, &url, address, &["--include"]));
        told_at_once("curl", &answer, took, "HTTP/1.1 451 Unavailable");
        assert_eq!(answer.status, 0, "{answer:?}");
        served(NEIGHBOUR, "http");
        for port in [80, 443] {
            wait_for("the server's half is gone", HALF_OPEN_MAX, || {
                half_open(scene.server, port).is_empty()
            });
        }
    }
}

/// A later request on a connection that carried another host's.
fn later_requests_are_refused(scene: &Scene<'_>) {
    for address in scene.addresses {
        scene.visitor.run(|| {
            let mut stream = TcpStream::connect(at(address, 80)).expect("a connection");
            stream
                .set_read_timeout(Some(AT_ONCE))
                .expect("a time limit");
            let ask = |stream: &mut TcpStream, name: &str| {
                let head = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
                stream.write_all(head.as_bytes()).expect("a request");
            };
            ask(&mut stream, NEIGHBOUR);
            let mut first = [0; 4_096];
            let read = stream.read(&mut first).expect("the neighbour's answer");
            let first = String::from_utf8_lossy(&first[..read]);
            assert!(first.contains("served neighbour"), "{first}");
            ask(&mut stream, BLOCKED);
            let mut rest = String::new();
            stream
                .read_to_string(&mut rest)
                .expect("an answer and its end");
            assert!(rest.starts_with("HTTP/1.1 451 "), "{rest}");
        });
        wait_for("the server's half is gone", HALF_OPEN_MAX, || {
            half_open(scene.server, 80).is_empty()
        });
    }
}

#[test]
fn blocked_names_are_refused_in_server_role() {
    let net = Direct::new();
    let _receives = receives(&net.visitor);
    let _site = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], NAMES);
    let scene = Scene {
        visitor: &net.visitor,
        server: &net.edge,
        addresses: [Direct::EDGE_V4, Direct::EDGE_V6],
    };
    names_are_refused(&scene);
    later_requests_are_refused(&scene);
    assert!(edge.rule_packets("host") >= 8);
    assert_eq!(edge.reason_packets("refuse_failed"), 0);
}

#[test]
fn blocked_names_are_refused_in_router_role() {
    let net = Routed::new();
    let _receives = receives(&net.visitor);
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = in_between(&net, NAMES, "");
    let scene = Scene {
        visitor: &net.visitor,
        server: &net.origin,
        addresses: [Routed::NEIGHBOUR_V4, Routed::NEIGHBOUR_V6],
    };
    names_are_refused(&scene);
    assert!(edge.rule_packets("host") >= 6);
    assert_eq!(edge.reason_packets("refuse_failed"), 0);
}

#[test]
fn a_forged_hello_is_not_answered() {
    let net = Direct::new();
    let _receives = receives(&net.visitor);
    let _site = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], NAMES);
    let socket = FrameSocket::receiving(&net.visitor, Direct::VISITOR_IF);
    let macs = (
        mac_of(&net.visitor, Direct::VISITOR_IF),
        mac_of(&net.edge, Direct::EDGE_IF),
    );
    for (from, to) in [
        (Direct::VISITOR_V4, Direct::EDGE_V4),
        (Direct::VISITOR_V6, Direct::EDGE_V6),
    ] {
        let before = edge.rule_packets("host");
        let from = SocketAddr::new(from.parse().expect("an address"), 50_000);
        for number in 0..20 {
            let frame = Packet::tcp(&from.to_string(), &at(to, 443).to_string())
                .macs(macs.0, macs.1)
                .shift_seq(number * 1_000_003)
                .shift_ack(number * 77_777)
                .payload(ClientHello::named(BLOCKED).record())
                .build();
            socket.send(&frame);
        }
        wait_for("the hellos are judged", AT_ONCE, || {
            edge.rule_packets("host") == before + 20
        });
        let ipv4 = from.is_ipv4();
        let answer = socket.receive(Duration::from_millis(300), |frame| {
            let ports = if ipv4 { 34 } else { 54 };
            frame.get(ports..ports + 4) == Some(&[0x01, 0xbb, 0xc3, 0x50][..])
        });
        assert_eq!(answer, None, "{from}");
    }
}

#[test]
fn a_refused_origin_turns_connections_away_and_its_neighbour_answers() {
    let net = Routed::new();
    let _receives = receives(&net.visitor);
    let _echo = Echo::start(&net.origin, &Routed::ORIGINS, PORT);
    let edge = in_between(&net, ORIGINS, "");
    for (blocked, neighbour, from) in [
        (Routed::BLOCKED_V4, Routed::NEIGHBOUR_V4, Routed::VISITOR_V4),
        (Routed::BLOCKED_V6, Routed::NEIGHBOUR_V6, Routed::VISITOR_V6),
    ] {
        let connect = || TcpStream::connect_timeout(&at(blocked, PORT), 2 * AT_ONCE);
        let (error, took) = timed(|| net.visitor.run(connect).expect_err("no connection"));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{blocked}");
        assert!(took < AT_ONCE, "{blocked}: {took:?}");

        let (error, took) = timed(|| net.visitor.run(|| datagram(from, blocked)));
        let expected = if from.contains(':') {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::HostUnreachable
        };
        assert_eq!(error.expect_err("no answer").kind(), expected, "{blocked}");
        assert!(took < AT_ONCE, "{blocked}: {took:?}");

        let neighbour = at(neighbour, PORT).to_string();
        assert!(answers(&net.visitor, from, &neighbour), "{neighbour}");
    }
    assert_eq!(edge.reason_packets("refuse_failed"), 0);
}

/// Sends a datagram and waits for what comes of it.
fn datagram(from: &str, to: &str) -> std::io::Result<usize> {
    let socket = UdpSocket::bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
    socket.set_read_timeout(Some(2 * AT_ONCE))?;
    socket.connect(at(to, PORT))?;
    socket.send(b"probe")?;
    socket.recv(&mut [0; 16])
}

/// The edge itself is a client of the blocked origin: only the origin's frames are seen.
#[test]
fn this_hosts_connections_to_a_refused_origin_fail_at_once() {
    let net = Direct::new();
    let _receives = receives(&net.visitor);
    let policy = format!(
        "version = 1\n[[rule]]\nid = \"origin\"\naction = \"refuse\"\norigins = [\"{}\", \"{}\"]\n",
        Direct::VISITOR_V4,
        Direct::VISITOR_V6
    );
    let addresses = [Direct::VISITOR_V4, Direct::VISITOR_V6];
    for address in addresses {
        let listener = net
            .visitor
            .run(|| TcpListener::bind(at(address, PORT)).expect("a listener"));
        let mut open = net
            .edge
            .run(|| TcpStream::connect(at(address, PORT)).expect("a connection"));
        open.set_read_timeout(Some(2 * AT_ONCE))
            .expect("a time limit");
        let (mut origin, _) = listener.accept().expect("the connection");
        let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy);

        origin.write_all(b"more").expect("the origin sends on");
        let error = open.read(&mut [0; 16]).expect_err("the connection is over");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}");

        let connect = || TcpStream::connect_timeout(&at(address, PORT), 2 * AT_ONCE);
        let (error, took) = timed(|| net.edge.run(connect).expect_err("no connection"));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
        assert!(took < AT_ONCE, "{address}: {took:?}");
        assert!(edge.rule_packets("origin") >= 2);
    }
}

/// The beginning of a QUIC connection, as far as servers look at it before they know the version.
fn initial() -> Vec<u8> {
    let mut datagram = b"\xc3\0\0\0\x01\x08destined\x05other\0".to_vec();
    datagram.resize(1_200, 0);
    datagram
}

fn negotiated(namespace: &Namespace, to: SocketAddr) -> std::io::Result<Vec<u8>> {
    namespace.run(|| {
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0_u16; 8].into()
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_read_timeout(Some(AT_ONCE))?;
        socket.connect(to)?;
        socket.send(&initial())?;
        let mut answer = vec![0; 1_500];
        let read = socket.recv(&mut answer)?;
        answer.truncate(read);
        Ok(answer)
    })
}

const NEGOTIATION: &[u8] = b"\xc0\0\0\0\0\x05other\x08destined\x1a\x1a\x1a\x1a";

#[test]
fn quic_to_a_refused_origin_is_negotiated_away() {
    let net = Routed::new();
    let _receives = receives(&net.visitor);
    let _edge = in_between(&net, ORIGINS, "");
    for address in [Routed::BLOCKED_V4, Routed::BLOCKED_V6] {
        let answer = negotiated(&net.visitor, at(address, 443));
        assert_eq!(answer.expect("an answer"), NEGOTIATION, "{address}");
    }
}

#[test]
fn a_host_that_refuses_quic_answers_for_its_server() {
    let net = Direct::new();
    let _receives = receives(&net.visitor);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], NAMES);
    edge.configure(&[Direct::EDGE_IF], "[inspect]\nquic_refuse = true\n");
    edge.start();
    for address in [Direct::EDGE_V4, Direct::EDGE_V6] {
        let answer = negotiated(&net.visitor, at(address, 443));
        assert_eq!(answer.expect("an answer"), NEGOTIATION, "{address}");
    }
    assert_eq!(edge.reason_packets("quic_refused"), 2);
}
