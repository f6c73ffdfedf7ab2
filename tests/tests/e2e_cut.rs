//! `apply --cut`: connections that were open when a rule came.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use filter_tests::{
    client::{PATIENCE, exchange},
    edge::{Edge, exit},
    net::{Direct, Namespace, Routed},
    site::Site,
};

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const NOTHING: &str =
    "version = 1\n[[rule]]\nid = \"old\"\nhosts = [\"old.example\"]\naction = \"drop\"\n";

/// The policy with one rule more, which covers the ports.
fn with_rule(ports: &str) -> String {
    format!(
        "{NOTHING}[[rule]]\nid = \"new\"\nhosts = [\"{BLOCKED}\"]\naction = \"drop\"\nports = {ports}\n"
    )
}

fn request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// An open connection of a visitor.
struct Open(TcpStream);

impl Open {
    fn to(from: &Namespace, address: &str, port: u16) -> Self {
        let to = SocketAddr::new(address.parse().expect("an address"), port);
        let stream = from
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a read timeout");
        Self(stream)
    }

    /// Asks for a name on a kept-alive connection; the answer, or how the connection ended.
    fn ask(&mut self, host: &str) -> Result<String, ErrorKind> {
        let kind = |error: std::io::Error| error.kind();
        self.0.write_all(request(host).as_bytes()).map_err(kind)?;
        let mut answer = vec![0; 4096];
        let read = self.0.read(&mut answer).map_err(kind)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    /// How the connection stands while nobody sends.
    fn state(&mut self) -> Result<usize, ErrorKind> {
        self.0.read(&mut [0; 16]).map_err(|error| error.kind())
    }
}

fn serves(answer: &Result<String, ErrorKind>, host: &str) -> bool {
    answer
        .as_ref()
        .is_ok_and(|text| text.contains(&format!("served {host}")))
}

#[test]
fn open_connections_that_a_new_rule_may_be_about_are_cut_and_others_are_not() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], NOTHING);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let mut open = Open::to(&net.visitor, Direct::EDGE_V4, 80);
    let mut open_v6 = Open::to(&net.visitor, Direct::EDGE_V6, 80);
    let mut other_port = Open::to(&net.visitor, Direct::EDGE_V4, 443);
    for open in [&mut open, &mut open_v6] {
        assert!(serves(&open.ask(BLOCKED), BLOCKED), "no rule yet");
    }

    // Without `--cut` it goes on; requests that begin a segment are judged, others are not.
    edge.write_policy(&with_rule("[80]"));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR));
    let nothing_new = edge.run(&["apply", "--cut"]);
    assert_eq!(nothing_new.code, exit::OK, "{nothing_new:?}");
    assert!(
        nothing_new.stdout.contains("nothing to cut"),
        "{nothing_new:?}"
    );
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR));

    // The rule goes and comes again, now with `--cut`.
    edge.write_policy(NOTHING);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    edge.write_policy(&with_rule("[80]"));
    let cut = edge.run(&["apply", "--cut"]);
    assert_eq!(cut.code, exit::OK, "{cut:?}");
    assert!(cut.stdout.contains("under the same program"), "{cut:?}");
    let said = |line: &str| cut.stdout.find(line);
    let (counted, done) = (said("2 open connections"), said("cut 2"));
    assert!(counted.is_some() && counted < done, "{cut:?}");
    assert_eq!(open.state(), Err(ErrorKind::ConnectionReset));
    assert_eq!(open_v6.state(), Err(ErrorKind::ConnectionReset));
    assert_eq!(
        other_port.state(),
        Err(ErrorKind::WouldBlock),
        "another port goes on"
    );

    // Whoever comes back is judged.
    let to: SocketAddr = format!("{}:80", Direct::EDGE_V4).parse().expect("a socket");
    assert!(exchange(&net.visitor, to, request(BLOCKED).as_bytes()).is_err());
    assert!(exchange(&net.visitor, to, request(NEIGHBOUR).as_bytes()).is_ok());
}

#[test]
fn a_rule_that_is_in_place_already_is_cut_for_by_its_id() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED, NEIGHBOUR]);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &with_rule("[80]"));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let mut open = Open::to(&net.visitor, Direct::EDGE_V4, 80);
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR));
    let unknown = edge.run(&["apply", "--cut=nowhere"]);
    assert_eq!(unknown.code, exit::USAGE, "{unknown:?}");
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR), "nothing was cut");
    let ended = edge.run(&["apply", "--cut=new", "--json"]);
    assert_eq!(ended.code, exit::OK, "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["unchanged"], true, "{report}");
    assert_eq!(report["cut"]["ended"], 1, "{report}");
    assert_eq!(open.state(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn protected_peers_and_the_operators_session_are_left_alone_and_counted() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED]);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], NOTHING);
    let protect = format!(
        "[inspect]\ntls = \"any\"\n[protect]\nprefixes = [\"{}/32\"]\nself = false\n",
        Direct::VISITOR_V4
    );
    edge.configure(&[Direct::EDGE_IF], &protect);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let mut protected = Open::to(&net.visitor, Direct::EDGE_V4, 80);
    let mut session = Open::to(&net.visitor, Direct::EDGE_V6, 443);
    let mut other = Open::to(&net.visitor, Direct::EDGE_V6, 443);
    let end = session.0.local_addr().expect("an address");
    edge.write_policy(&with_rule("[80, 443]"));
    let ssh = format!("{} {} {} 443", end.ip(), end.port(), Direct::EDGE_V6);
    let ended = edge.run_with(&["apply", "--cut"], &[("SSH_CONNECTION", &ssh)]);
    assert_eq!(ended.code, exit::OK, "{ended:?}");
    assert!(
        ended.stdout.contains("1 open connections")
            && ended.stdout.contains("2 from protected addresses")
            && ended.stdout.contains("cut 1"),
        "{ended:?}"
    );
    assert_eq!(other.state(), Err(ErrorKind::ConnectionReset));
    for spared in [&mut protected, &mut session] {
        assert_eq!(spared.state(), Err(ErrorKind::WouldBlock));
    }
}

#[test]
fn connections_that_end_behind_a_router_are_not_claimed_to_be_cut() {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
    let edge = Edge::new(&net.edge, &[Routed::VISITOR_SIDE], NOTHING);
    let serves_behind = "[inspect]\nserves = [\"203.0.113.0/24\"]\n";
    edge.configure(&[Routed::VISITOR_SIDE], serves_behind);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let mut open = Open::to(&net.visitor, Routed::NEIGHBOUR_V4, 80);
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR));
    edge.write_policy(&with_rule("[80]"));
    let ended = edge.run(&["apply", "--cut"]);
    assert_eq!(ended.code, exit::NOT_CUT, "{ended:?}");
    assert!(
        ended.stdout.contains("cut 0") && ended.stdout.contains("203.0.113.0/24 has addresses"),
        "{ended:?}"
    );
    assert!(serves(&open.ask(NEIGHBOUR), NEIGHBOUR), "it goes on");
    let to: SocketAddr = format!("{}:80", Routed::NEIGHBOUR_V4)
        .parse()
        .expect("a socket");
    assert!(
        exchange(&net.visitor, to, request(BLOCKED).as_bytes()).is_err(),
        "the rule is in force"
    );
}

#[test]
fn a_blocked_connection_is_free_as_soon_as_its_rule_is_gone_and_not_before() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &[BLOCKED]);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &with_rule("[80]"));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    // However long the changes take, the client repeats every second (Linux 6.15; before that less often).
    for (setting, value) in [("tcp_rto_max_ms", "1000"), ("tcp_retries2", "255")] {
        let path = format!("/proc/sys/net/ipv4/{setting}");
        drop(net.visitor.run(|| std::fs::write(path, value)));
    }
    let mut open = Open::to(&net.visitor, Direct::EDGE_V4, 80);
    assert_eq!(open.ask(BLOCKED), Err(ErrorKind::WouldBlock), "blocked");
    assert!(edge.reason_packets("blocked_flow") > 0, "remembered");

    // Another generation in which the rule stays.
    let more = "[[rule]]\nid = \"more\"\nhosts = [\"more.example\"]\naction = \"drop\"\n";
    edge.write_policy(&format!("{}{more}", with_rule("[80]")));
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    assert_eq!(open.state(), Err(ErrorKind::WouldBlock), "still blocked");

    // The client's TCP goes on repeating what was dropped.
    edge.write_policy(NOTHING);
    assert_eq!(edge.run(&["apply"]).code, exit::OK);
    let patience = Some(PATIENCE * 10);
    open.0.set_read_timeout(patience).expect("a read timeout");
    let answered = open.state();
    assert!(answered.is_ok_and(|read| read > 0), "free: {answered:?}");
}
