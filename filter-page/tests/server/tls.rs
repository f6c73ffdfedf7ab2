//! Handshakes, by OpenSSL and curl.

use std::io::Write as _;

use filter_page::stats::Counter;

use crate::kit::{BLOCKED, NEIGHBOUR, Served};

#[test]
fn a_name_without_certificate_gets_the_alert_for_that() {
    let served = Served::start();
    for name in ["other.example", "a.b.shared.example", "shared.example"] {
        let said = served.s_client(Some(name), &[]);
        assert!(said.contains("unrecognized name"), "{name}: {said}");
        assert!(
            said.contains("no peer certificate available"),
            "{name}: {said}"
        );
    }
    served.await_count(Counter::HandshakeNoCertificate, 3);
    let said = served.s_client(None, &[]);
    assert!(said.contains("unrecognized name"), "{said}");
    assert_eq!(served.count(Counter::Handshakes), 0);
}

#[test]
fn nothing_is_kept_for_another_connection() {
    let served = Served::start();
    for version in ["-tls1_3", "-tls1_2"] {
        let said = served.s_client(Some(BLOCKED), &[version, "-ign_eof", "-no_ign_eof"]);
        assert!(said.contains("BEGIN CERTIFICATE"), "{version}: {said}");
        assert!(!said.contains("TLS session ticket"), "{version}: {said}");
        assert!(
            !said.contains("Post-Handshake New Session Ticket"),
            "{version}: {said}"
        );
        assert!(said.contains("New, TLSv1."), "{version}: {said}");
    }
    let session = tempfile::NamedTempFile::new().expect("a file");
    let path = session.path().to_str().expect("a path in UTF-8");
    served.s_client(Some(BLOCKED), &["-tls1_2", "-sess_out", path]);
    let kept = std::fs::read_to_string(path).expect("a file");
    assert_eq!(kept, "", "there is nothing to come back with");
}

#[test]
fn http1_is_the_only_protocol() {
    let served = Served::start();
    let said = served.s_client(Some(BLOCKED), &["-alpn", "h2,http/1.1"]);
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    let said = served.s_client(Some(BLOCKED), &["-alpn", "h2"]);
    assert!(said.contains("no application protocol"), "{said}");
    served.await_count(Counter::HandshakeNoProtocol, 1);
    let reply = served.https(BLOCKED, &["--http2"]);
    assert!(reply.head.starts_with("HTTP/1.1 451 "), "{reply:?}");
    let reply = served.https(BLOCKED, &["--http2-prior-knowledge"]);
    assert_ne!(reply.status, 200, "{reply:?}");
}

#[test]
fn handshakes_that_fail_are_counted_by_reason() {
    let served = Served::start();
    let said = served.s_client(Some(NEIGHBOUR), &["-verify_return_error"]);
    assert!(said.contains("verify error"), "{said}");
    served.await_count(Counter::HandshakeRefusedByClient, 1);

    let said = served.s_client(Some(BLOCKED), &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
    served.await_count(Counter::HandshakeIncompatible, 1);

    let said = served.say(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff");
    assert!(said.starts_with('\x15'), "an alert: {said:?}");
    served.await_count(Counter::HandshakeMalformed, 1);

    let mut socket = served.connect();
    socket.write_all(b"\x16\x03\x01").expect("the server reads");
    drop(socket);
    served.await_count(Counter::HandshakeAborted, 1);
    assert_eq!(served.count(Counter::Handshakes), 0);
}

#[test]
fn a_request_inside_tls_that_is_none_gets_400() {
    let served = Served::start();
    let reply = served.https(BLOCKED, &["--header", "Host: a b"]);
    assert_eq!(reply.status, 400, "{reply:?}");
    served.await_count(Counter::BadRequests, 1);
}
