use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use crate::{hello::Progress, testing::read_http};

fn read(head: &str) -> (Progress, Vec<String>) {
    read_http(head.as_bytes(), true)
}

fn named(names: &[&str]) -> (Progress, Vec<String>) {
    (
        Progress::Named,
        names.iter().map(|name| String::from(*name)).collect(),
    )
}

#[test]
fn host_in_every_spelling_that_a_server_accepts() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\t  a.example \t \r\n\r\n",
        "GET / HTTP/1.1\nHost: a.example\n\n",
        "\r\n\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET  \t / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "FROBNICATE / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nX: y\r\nHo: no\r\nHostile: no\r\nXHost: no\r\nHost: a.example\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /with a blank HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET http:/odd HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ] {
        assert_eq!(read(head), named(&["a.example"]), "{head:?}");
    }
}

#[test]
fn target_and_host_both_count() {
    for (head, names) in [
        (
            "GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n",
            vec!["a.example", "b.example"],
        ),
        (
            "GET HTTP://a.example HTTP/1.1\r\nHost: b.example\r\n\r\n",
            vec!["a.example", "b.example"],
        ),
        (
            "GET http://u:p@a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
            vec!["a.example", "b.example"],
        ),
        (
            "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
            vec!["a.example:443", "b.example:443"],
        ),
        (
            "GET /?u=http://c.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            vec!["a.example"],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            vec!["a.example", "b.example"],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example,b.example\r\n\r\n",
            vec!["a.example", "b.example"],
        ),
        ("GET http://a.example/\r\n", vec!["a.example"]),
        (
            "GET http://a.example:/ HTTP/1.1\r\n\r\n",
            vec!["a.example:"],
        ),
        (
            "GET http://a.example://b HTTP/1.1\r\n\r\n",
            vec!["a.example:"],
        ),
        (
            "GET http:/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            vec!["a.example"],
        ),
    ] {
        assert_eq!(read(head), named(&names), "{head:?}");
    }
}

#[test]
fn pipelined_requests_are_read_and_bodies_are_not() {
    let first = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let second = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    for (rest, names) in [
        (second, &["a.example", "b.example"][..]),
        ("get b.example\r\nHost: b.example\r\n\r\n", &["a.example"]),
        ("{\"host\": \"b.example\"}", &["a.example"]),
        ("GET / HTT", &["a.example"]),
    ] {
        assert_eq!(read(&format!("{first}{rest}")), named(names), "{rest:?}");
    }
    let plain = "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(read(&format!("{plain}{first}")), named(&["a.example"]));
    assert_eq!(read(&format!("{plain}body")).0, Progress::NoName);
}

#[test]
fn what_is_not_a_request_is_told_apart() {
    assert_eq!(read("\x16\x03\x01").0, Progress::Other);
    for line in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "SSH-2.0-OpenSSH_9.2 Debian\r\n",
        "AUTH TLS\r\n",
        "EHLO a.example\r\n",
        "USER a.example b c\r\n",
        "MAIL FROM:<a@a.example> SIZE=1\r\n",
    ] {
        assert_eq!(read(line).0, Progress::Other, "{line:?}");
    }
    assert_eq!(read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").0, Progress::Http2);
    assert_eq!(read("GET / HTTP/1.1\r\nX: y\r\n\r\n").0, Progress::NoName);
    assert_eq!(read("GET /\r\n").0, Progress::NoName);
}

#[test]
fn a_method_may_have_any_length_where_the_stream_is_known_to_start() {
    let head = format!("{} / HTTP/1.1\r\nHost: a.example\r\n\r\n", "X".repeat(500));
    assert_eq!(read(&head), named(&["a.example"]));
    assert_eq!(read_http(head.as_bytes(), false).0, Progress::Other);
}

#[test]
fn in_mid_stream_only_a_request_with_a_version_counts() {
    for body in [
        "to a.example\r\n\r\n",
        "get a.example now\r\n",
        "one two HTTX\r\n",
    ] {
        assert_eq!(
            read_http(body.as_bytes(), false).0,
            Progress::Other,
            "{body:?}"
        );
    }
    let head = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(read_http(head.as_bytes(), false), named(&["a.example"]));
}

#[test]
fn every_prefix_of_a_head_is_incomplete() {
    let head = "GET http://a.example/ HTTP/1.1\r\nX: y\r\nHost: b.example\r\n\r\n";
    for end in 0..head.len() {
        assert_eq!(read(&head[..end]).0, Progress::Incomplete, "{end}");
    }
    assert_eq!(read(head).0, Progress::Named);
}

proptest! {
    #[test]
    fn any_bytes_end_in_some_progress(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_http(&bytes, true);
        let _ = read_http(&bytes, false);
    }

    #[test]
    fn other_fields_before_and_after_do_not_matter(
        before in proptest::collection::vec("[A-GI-Za-gi-z][a-z-]{0,20}: [ -~]{0,60}", 0..20),
        after in proptest::collection::vec("[A-GI-Za-gi-z][a-z-]{0,20}: [ -~]{0,60}", 0..5),
        name in "[a-z0-9]{1,20}\\.example",
    ) {
        let mut head = String::from("GET / HTTP/1.1\r\n");
        for field in &before {
            head += &format!("{field}\r\n");
        }
        head += &format!("Host: {name}\r\n");
        for field in &after {
            head += &format!("{field}\r\n");
        }
        head += "\r\n";
        prop_assert_eq!(read(&head), named(&[&name]));
    }
}
