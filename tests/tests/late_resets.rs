//! Servers whose client was answered in their place hear of it, also where the client brings them no reset.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    edge::Edge,
    net::{Direct, Namespace, Routed},
    packet::{http::Request, tls::ClientHello},
    page::answered,
    process::wait_for,
};

const BLOCKED: &str = "blocked.example";
const REFUSES: &str = r#"
version = 1
[[rule]]
id = "name"
hosts = ["blocked.example"]
action = "refuse"
"#;
const LEADS_TO_PAGE: &str = r#"
version = 1
[[rule]]
id = "name"
hosts = ["blocked.example"]
action = "redirect"
reason = "Immediate threat to human life"
statement = "https://provider.example/statements/1"
review_by = 2099-01-01T00:00:00Z
"#;
const SERVES: &str = "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n";

/// How long a server keeps its half at most.
const TOLD_MAX: Duration = Duration::from_secs(6);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Connections of the namespace that are neither closed nor listening.
fn connections(namespace: &Namespace) -> String {
    let mut command = namespace.command("ss");
    command.args(["-Htn", "state", "connected", "exclude", "time-wait"]);
    let output = command.output().expect("run ss");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that accepts and says nothing.
fn silent(namespace: &Namespace, port: u16) -> TcpListener {
    let bound = namespace.run(|| TcpListener::bind(("::", port)));
    bound.unwrap_or_else(|e| panic!("listen on port {port}: {e}"))
}

fn connect(visitor: &Namespace, address: &str, port: u16) -> TcpStream {
    let to = SocketAddr::new(address.parse().expect("an address"), port);
    let stream = visitor.run(|| TcpStream::connect_timeout(&to, ANSWER_MAX));
    stream.unwrap_or_else(|e| panic!("connect to {to}: {e}"))
}

/// Clients say whom they want and are never heard of again.
fn vanish(visitor: &Namespace, server: &Namespace, edge: &Namespace, addresses: [&str; 2]) {
    let _listener = silent(server, 443);
    let mut streams = addresses.map(|address| connect(visitor, address, 443));
    let hello = ClientHello::named(BLOCKED).record();
    for stream in &mut streams {
        stream.write_all(&hello).expect("a hello sent");
    }
    wait_for("both are refused", ANSWER_MAX, || {
        answered(edge, Answer::TlsAlert) >= 2
    });
    visitor.ip(&["link", "set", "eth0", "down"]);
    assert_ne!(connections(server), "");
    wait_for("the server has heard", TOLD_MAX, || {
        connections(server).is_empty()
    });
    assert!(answered(edge, Answer::LateReset) >= 2);
    assert_eq!(answered(edge, Answer::ServerReset), 0);
}

#[test]
fn a_server_on_this_host_is_told_once_although_its_refused_client_has_vanished() {
    let net = Direct::new();
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], REFUSES);
    edge.start();
    let addresses = [Direct::EDGE_V4, Direct::EDGE_V6];
    vanish(&net.visitor, &net.edge, &net.edge, addresses);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(answered(&net.edge, Answer::LateReset), 2);
}

#[test]
fn a_server_behind_the_router_is_told_although_its_refused_client_has_vanished() {
    let net = Routed::new();
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let mut edge = Edge::new(&net.edge, &interfaces, REFUSES);
    edge.configure(&interfaces, SERVES);
    edge.start();
    let addresses = [Routed::NEIGHBOUR_V4, Routed::NEIGHBOUR_V6];
    vanish(&net.visitor, &net.origin, &net.edge, addresses);
}

#[test]
fn a_server_behind_the_router_that_has_lost_its_reset_gets_another() {
    let net = Routed::new();
    let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let mut edge = Edge::new(&net.edge, &interfaces, LEADS_TO_PAGE);
    edge.configure(&interfaces, SERVES);
    edge.start();
    let _listener = silent(&net.origin, 80);
    let mut stream = connect(&net.visitor, Routed::NEIGHBOUR_V4, 80);
    net.origin.ip(&["link", "set", "eth0", "down"]);
    stream
        .write_all(&Request::to(BLOCKED).bytes())
        .expect("a request sent");
    stream
        .set_read_timeout(Some(ANSWER_MAX))
        .expect("a time limit");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 451");
    wait_for("the first reset was sent", ANSWER_MAX, || {
        answered(&net.edge, Answer::SinkServerReset) == 1
    });
    net.origin.ip(&["link", "set", "eth0", "up"]);
    assert_ne!(connections(&net.origin), "");
    wait_for("the server has heard", TOLD_MAX, || {
        connections(&net.origin).is_empty()
    });
    assert!((1..=2).contains(&answered(&net.edge, Answer::LateReset)));
}
