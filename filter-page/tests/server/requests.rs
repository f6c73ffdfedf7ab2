//! Which requests are answered, whatever they look like.

use std::io::{Read as _, Write as _};

use filter_page::stats::Counter;

use crate::kit::{BLOCKED, NEIGHBOUR, SIBLING, Served, read_all};

#[test]
fn a_neighbour_under_the_same_certificate_is_misdirected_and_the_connection_ends() {
    let served = Served::start();
    assert_eq!(served.https(SIBLING, &[]).status, 451);
    // On the connection that was taken over for its sibling.
    let header = format!("Host: {NEIGHBOUR}");
    let reply = served.https(SIBLING, &["--header", &header]);
    assert_eq!(reply.status, 421, "{reply:?}");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(served.count(Counter::Misdirected), 1);
    assert_eq!(served.count(Counter::Pages), 1);
}

#[test]
fn case_ports_and_dots_make_no_difference() {
    let served = Served::start();
    for host in [
        "BLOCKED.Example",
        "blocked.example.",
        "a.b.blocked.example:8443",
        "Blocked.EXAMPLE.:1",
    ] {
        let said = served
            .say(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 451 "), "{host}: {said}");
    }
    for host in [
        "notblocked.example",
        "blocked.example.org",
        "example",
        "192.0.2.1",
        "[2001:db8::1]:80",
    ] {
        let said = served
            .say(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 421 "), "{host}: {said}");
    }
}

#[test]
fn the_target_beats_the_host() {
    let served = Served::start();
    let target = format!(
        "GET http://{BLOCKED}/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
    );
    assert!(served.say(target.as_bytes()).starts_with("HTTP/1.1 451 "));
    let target = format!(
        "GET http://other.example/ HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n"
    );
    assert!(served.say(target.as_bytes()).starts_with("HTTP/1.1 421 "));
}

#[test]
fn an_origin_answers_for_any_name_and_without_one() {
    let served = Served::start();
    let reply = served.curl_origin();
    assert_eq!(reply.status, 451, "{reply:?}");
    let mut socket = std::net::TcpStream::connect(("::1", served.port())).expect("a server");
    socket
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("the server reads");
    let said = read_all(&mut socket);
    assert!(
        said.starts_with("HTTP/1.0 451 ") || said.starts_with("HTTP/1.1 451 "),
        "{said}"
    );
    assert!(said.contains("<p class=\"name\">::1</p>"), "{said}");
}

#[test]
fn old_clients_without_a_host_get_the_page_of_their_tls_name_only() {
    let served = Served::start();
    let said = served.say(b"GET / HTTP/1.0\r\n\r\n");
    assert!(said.contains(" 421 "), "{said}");
    let reply = served.https(BLOCKED, &["--http1.0", "--header", "Host;"]);
    assert_eq!(reply.status, 451, "{reply:?}");
    let reply = served.https(BLOCKED, &["--http1.0", "--header", "Host:"]);
    assert_eq!(reply.status, 451, "{reply:?}");
}

#[test]
fn every_method_is_answered() {
    let served = Served::start();
    for method in [
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "PROPFIND",
        "X-UNKNOWN",
    ] {
        let request =
            format!("{method} /x HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n");
        let said = served.say(request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 451 "), "{method}: {said}");
        assert!(said.contains("</html>"), "{method}: {said}");
    }
    let said =
        served.say(format!("CONNECT {BLOCKED}:443 HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n").as_bytes());
    assert!(said.starts_with("HTTP/1.1 451 "), "{said}");
    let said = served.say(
        format!("OPTIONS * HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!(said.starts_with("HTTP/1.1 451 "), "{said}");
    let upgrade = format!(
        "GET /chat HTTP/1.1\r\nHost: {BLOCKED}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    );
    let mut socket = served.connect();
    socket
        .write_all(upgrade.as_bytes())
        .expect("the server reads");
    let mut start = [0; 13];
    socket.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 451 ");
}

#[test]
fn head_says_what_get_would_and_no_more() {
    let served = Served::start();
    let [head, get] = [
        served.https(BLOCKED, &["--head"]),
        served.https(BLOCKED, &[]),
    ];
    assert_eq!((head.status, head.body.as_str()), (451, ""));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(head.header("link"), get.header("link"));
}

#[test]
fn a_form_is_answered() {
    let served = Served::start();
    let reply = served.https(BLOCKED, &["--data", "a=b"]);
    assert_eq!(reply.status, 451, "{reply:?}");
    assert_eq!(reply.header("connection"), Some("close"));
}

#[test]
fn who_asks_whether_to_continue_is_told_the_end_at_once() {
    let served = Served::start();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {BLOCKED}\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    );
    let said = served.say(request.as_bytes());
    assert!(said.starts_with("HTTP/1.1 451 "), "{said}");
    assert!(!said.contains("100 Continue"), "{said}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let served = Served::start();
    let one = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let all =
        one("/1", BLOCKED) + &one("/2", SIBLING) + &one("/3", NEIGHBOUR) + &one("/4", BLOCKED);
    let said = served.say(all.as_bytes());
    assert_eq!(said.matches("HTTP/1.1 451 ").count(), 2, "{said}");
    assert_eq!(said.matches("HTTP/1.1 421 ").count(), 1, "{said}");
    let [first, second] = [BLOCKED, SIBLING].map(|name| format!("<p class=\"name\">{name}</p>"));
    assert!(said.find(&first).expect("the first") < said.find(&second).expect("the second"));
    assert_eq!(
        served.count(Counter::Requests),
        3,
        "nothing is read behind 421"
    );
}

#[test]
fn a_kept_connection_serves_up_to_its_number_of_requests() {
    let served = Served::start_with(|config| config.limits.requests = 2);
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n");
    let said = served.say(request.repeat(3).as_bytes());
    assert_eq!(said.matches("HTTP/1.1 451 ").count(), 2, "{said}");
    assert_eq!(said.matches("connection: close").count(), 1, "{said}");
}

#[test]
fn requests_that_are_none_get_400() {
    let served = Served::start();
    for request in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\nHost: {BLOCKED}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: user@{BLOCKED}\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(300)),
        format!("GET /\r\nHost: {BLOCKED}\r\n\r\n"),
        "\0\0\0\0\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\nContent-Length: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost : {BLOCKED}\r\n\r\n"),
    ] {
        let before = served.count(Counter::BadRequests);
        let said = served.say(request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 400 "), "{request:?}: {said}");
        served.await_count(Counter::BadRequests, before + 1);
    }
    assert_eq!(served.count(Counter::Pages), 0);
}

#[test]
fn heads_beyond_the_limits_get_431() {
    let served = Served::start();
    let long = format!(
        "GET / HTTP/1.1\r\nHost: {BLOCKED}\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let said = served.say(long.as_bytes());
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    let many = format!(
        "GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n{}\r\n",
        "X: y\r\n".repeat(150)
    );
    let said = served.say(many.as_bytes());
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    served.await_count(Counter::BadRequests, 2);
}

#[test]
fn http2_without_tls_is_sent_back_to_http1() {
    let served = Served::start();
    let mut socket = served.connect();
    // In two parts, so that the preface is waited for.
    socket
        .write_all(b"PRI * HTTP/2.0\r\n")
        .expect("the server reads");
    std::thread::sleep(std::time::Duration::from_millis(50));
    socket
        .write_all(b"\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("the server reads");
    let mut said = [0; 26];
    socket.read_exact(&mut said).expect("an answer");
    assert_eq!(
        (said[3], said[12], said[25]),
        (4, 7, 13),
        "SETTINGS, GOAWAY, HTTP_1_1_REQUIRED"
    );
    served.await_count(Counter::Http2Refused, 1);
    let reply = served.http(BLOCKED, &["--http2-prior-knowledge"]);
    assert_eq!(reply.status, 0, "{reply:?}");
    // An upgrade is an offer, which a server may leave.
    assert_eq!(served.http(BLOCKED, &["--http2"]).status, 451);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let served = Served::start();
    let mut socket = served.connect();
    for byte in format!("PRI / HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n").bytes() {
        socket.write_all(&[byte]).expect("the server reads");
    }
    assert!(read_all(&mut socket).starts_with("HTTP/1.1 451 "));
}
