//! Clients that take what they can get.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use filter_page::stats::Counter;

use crate::kit::{BLOCKED, Served, read_all, wait_until};

fn request() -> String {
    format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n")
}

/// Whether the server ended it without a word.
fn is_reset(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    socket
        .read(&mut byte)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_client_beyond_its_connections_is_reset_and_others_are_not() {
    let served = Served::start_with(|config| config.limits.connections_per_client = 3);
    let open: Vec<_> = (0..3).map(|_| served.connect()).collect();
    wait_until("three open", || served.snapshot().open == 3);
    assert!(is_reset(&mut served.connect()));
    served.await_count(Counter::OverConnectionsPerClient, 1);

    let mut other = TcpStream::connect(("::1", served.port())).expect("a server");
    other
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("the server reads");
    assert!(read_all(&mut other).contains(" 451 "));
    drop(open);
    wait_until("none open", || served.snapshot().open == 0);
    assert_eq!(served.http(BLOCKED, &[]).status, 451);
}

#[test]
fn a_flood_is_bounded_and_over_when_it_is_over() {
    let served = Served::start_with(|config| config.limits.connections = 20);
    let mut flood: Vec<_> = (0..60).map(|_| served.connect()).collect();
    served.await_count(Counter::Connections, 60);
    assert_eq!(served.snapshot().open, 20);
    assert_eq!(served.count(Counter::OverConnections), 40);
    let reset = flood.drain(20..).map(|mut socket| is_reset(&mut socket));
    assert_eq!(reset.filter(|is_reset| *is_reset).count(), 40);
    drop(flood);
    wait_until("none open", || served.snapshot().open == 0);
    assert_eq!(served.https(BLOCKED, &[]).status, 451);
}

#[test]
fn who_says_nothing_or_little_is_closed_in_time() {
    let served = Served::start_with(|config| {
        config.limits.handshake = Duration::from_millis(300);
        config.limits.request_head = Duration::from_millis(300);
    });
    let start = Instant::now();
    read_all(&mut served.connect());
    served.await_count(Counter::SilentTimeout, 1);

    let mut hello = served.connect();
    hello
        .write_all(b"\x16\x03\x01\x02\x00\x01")
        .expect("the server reads");
    read_all(&mut hello);
    served.await_count(Counter::HandshakeTimeout, 1);

    // A header now and then does not keep it open.
    let mut head = served.connect();
    head.write_all(b"GET / HTTP/1.1\r\n")
        .expect("the server reads");
    while head.write_all(b"X: y\r\n").is_ok() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(50));
    }
    served.await_count(Counter::HeadTimeout, 1);

    let mut idle = served.connect();
    idle.write_all(request().as_bytes())
        .expect("the server reads");
    assert!(read_all(&mut idle).ends_with("</html>\n"));
    served.await_count(Counter::IdleClosed, 1);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn who_takes_nothing_of_the_answers_is_closed_in_time() {
    let served = Served::start_with(|config| {
        config.limits.requests = 1_000_000;
        config.limits.write = Duration::from_millis(300);
    });
    let mut socket = served.connect();
    let requests = request().repeat(1000);
    // Until the buffers of both sides are full and the server has given up.
    while socket.write_all(requests.as_bytes()).is_ok() {}
    served.await_count(Counter::WriteTimeout, 1);
    wait_until("none open", || served.snapshot().open == 0);
    assert_eq!(served.count(Counter::Broken), 0, "counted once");
}

#[test]
fn a_connection_ends_with_its_lifetime() {
    let served = Served::start_with(|config| config.limits.lifetime = Duration::from_millis(400));
    let mut socket = served.connect();
    while socket.write_all(request().as_bytes()).is_ok() {
        thread::sleep(Duration::from_millis(20));
        assert_eq!(served.snapshot().open.max(1), 1);
    }
    served.await_count(Counter::LifetimeEnded, 1);
}

#[test]
fn a_huge_body_is_answered_and_not_read() {
    let served = Served::start();
    let mut socket = served.connect();
    let head = format!("POST / HTTP/1.1\r\nHost: {BLOCKED}\r\nContent-Length: 1000000000\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("the server reads");
    let mut reader = socket.try_clone().expect("a descriptor");
    let answer = thread::spawn(move || read_all(&mut reader));
    let chunk = [0; 65536];
    let mut sent = 0_u64;
    while socket.write_all(&chunk).is_ok() {
        sent += chunk.len() as u64;
        assert!(sent < 500_000_000, "it reads on");
    }
    served.await_count(Counter::Cut, 1);
    assert!(
        served.count(Counter::BytesIn) < 1_000_000,
        "{}",
        served.count(Counter::BytesIn)
    );
    drop(answer.join().expect("a reader"));
}

#[test]
fn a_body_within_bounds_does_not_cost_the_answer() {
    let served = Served::start();
    let mut socket = served.connect();
    let head = format!("POST / HTTP/1.1\r\nHost: {BLOCKED}\r\nContent-Length: 50000\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("the server reads");
    thread::sleep(Duration::from_millis(100));
    socket.write_all(&[b'x'; 50000]).expect("the server reads");
    let said = read_all(&mut socket);
    assert!(said.ends_with("</html>\n"), "{said}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(60_000).expect("a file");
    let data = format!("@{}", file.path().display());
    for arguments in [["--data-binary", &data], ["--upload-file", &data[1..]]] {
        let reply = served.https(BLOCKED, &arguments);
        assert_eq!(reply.status, 451, "{reply:?}");
    }
}

#[test]
fn clients_that_vanish_leave_nothing() {
    let served = Served::start();
    for bytes in [&b""[..], b"G", b"\x16", b"GET / HTTP/1.1\r\nHost: x"] {
        for _ in 0..20 {
            let mut socket = served.connect();
            socket.write_all(bytes).expect("the server reads");
        }
    }
    served.await_count(Counter::Connections, 80);
    wait_until("none open", || served.snapshot().open == 0);
}

#[test]
fn it_stops_when_told_and_ends_connections_that_do_not() {
    let mut served = Served::start_with(|config| config.limits.stop = Duration::from_millis(300));
    let silent = served.connect();
    let mut idle = served.connect();
    idle.write_all(request().as_bytes())
        .expect("the server reads");
    wait_until("two open", || {
        served.snapshot().open == 2 && served.count(Counter::Pages) == 1
    });
    let start = Instant::now();
    served.stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(read_all(&mut idle).ends_with("</html>\n"));
    assert!(
        TcpStream::connect(served.address()).is_err(),
        "it listens no more"
    );
    assert!(served.count(Counter::Stopped) >= 1, "the silent one");
    drop(silent);
}
