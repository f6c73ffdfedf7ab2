use std::{
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};

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
    // Not the version of a request without a target.
    let head = "GET http://HTTP/ HTTP/1.1\r\n\r\n";
    assert_eq!(read(head), named(&["HTTP"]));
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
    ] {
        assert_eq!(read(&format!("{first}{rest}")), named(names), "{rest:?}");
    }
    assert_eq!(read(&format!("{first}GET / HTT")).0, Progress::Incomplete);
    let plain = "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(read(&format!("{plain}{first}")), named(&["a.example"]));
    assert_eq!(read(&format!("{plain}(body)")).0, Progress::NoName);
}

#[test]
fn behind_a_body_of_a_stated_length_the_next_request_is_read() {
    let next = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    for (method, length, names) in [
        ("POST", "Content-Length: 4", &["a.example", "b.example"][..]),
        (
            "PUT",
            "content-length:\t 0004 \t",
            &["a.example", "b.example"],
        ),
        ("PATCH", "CONTENT-LENGTH:4", &["a.example", "b.example"]),
        // One byte further or less, and what is there is no request.
        ("POST", "Content-Length: 8", &["a.example"]),
        ("POST", "Content-Length: 3", &["a.example"]),
        ("GET", "Content-Length: 4", &["a.example", "b.example"]),
        // Servers may disagree: only what follows directly counts.
        (
            "POST",
            "Content-Length: 4\r\nContent-Length: 4",
            &["a.example"],
        ),
        (
            "POST",
            "Content-Length: 4\r\nTransfer-Encoding: x",
            &["a.example"],
        ),
        (
            "POST",
            "Transfer-Encoding: x\r\nContent-Length: 4",
            &["a.example"],
        ),
        (
            "POST",
            "Expect: 100-continue\r\nContent-Length: 4",
            &["a.example"],
        ),
        ("POST", "Content-Length: +4", &["a.example"]),
        ("POST", "Content-Length: 4,4", &["a.example"]),
        ("POST", "Content-Length: 4 4", &["a.example"]),
        ("POST", "Content-Length:", &["a.example"]),
        ("POST", "Content-Length:\r\n 4", &["a.example"]),
        ("POST", "Content-Length: 4\r\n 4", &["a.example"]),
        ("POST", "Content-Length: 42949672964", &["a.example"]),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n{length}\r\n\r\n");
        assert_eq!(
            read(&format!("{head}{{()}}{next}")),
            named(names),
            "{head:?}"
        );
    }
}

#[test]
fn a_body_in_what_may_be_a_body_is_not_made_out() {
    let hidden = "GET / HTTP/1.1\r\nHost: hidden.example\r\n\r\n";
    for inner in [
        "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n{()}",
        "GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n{()}",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let body = format!("{inner}{hidden}");
        let outer = format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(read(&outer).0, Progress::Malformed, "{inner:?}");
        assert_eq!(
            read_http(outer.as_bytes(), false),
            named(&["a.example"]),
            "{inner:?}"
        );
    }
}

#[test]
fn where_the_next_request_starts_is_told() {
    let rest = |head: &str| {
        let mut work = crate::testing::work(head.as_bytes());
        let _ = crate::testing::walk_http(&mut work, head.len() as u32, true);
        super::rest(&work)
    };
    let plain = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n";
    for (stream, behind, next, known) in [
        (plain.to_string(), plain.len(), plain.len(), true),
        (format!("{plain}\r\n"), plain.len(), plain.len() + 2, true),
        (post.to_string(), post.len(), post.len() + 1_000_000, true),
        (
            format!("{post}body"),
            post.len(),
            post.len() + 1_000_000,
            true,
        ),
        (
            format!("{plain}{post}"),
            plain.len() + post.len(),
            plain.len() + post.len() + 1_000_000,
            true,
        ),
        (post.replace("POST", "HEAD"), post.len(), 0, false),
        (format!("{plain}()"), plain.len(), 0, false),
    ] {
        let rest = rest(&stream);
        assert_eq!(rest.known, known, "{stream:?}");
        assert_eq!(rest.behind as usize, behind, "{stream:?}");
        assert!(!known || rest.next as usize == next, "{stream:?}: {rest:?}");
    }
}

#[test]
fn a_body_that_servers_leave_for_the_next_request_is_read_as_one_too() {
    let second = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let third = "GET / HTTP/1.1\r\nHost: c.example\r\n\r\n";
    for body in [second, &format!("{second}bo"), "(", "body", "GET / HT"] {
        let length = body.len();
        let stream = format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{body}{third}"
        );
        let (progress, names) = read(&stream);
        assert_eq!(progress, Progress::Named, "{body:?}");
        assert_eq!(names[0], "a.example");
        assert!(
            names.contains(&"c.example".to_string()),
            "{body:?}: {names:?}"
        );
        let has_second = names.contains(&"b.example".to_string());
        assert_eq!(has_second, body.starts_with(second), "{body:?}");
    }
}

#[test]
fn the_same_host_again_and_again_is_one_name() {
    let one = |name: &str| format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let apt = one("a.example").repeat(20);
    assert_eq!(read(&apt), named(&["a.example"]));
    let other = format!("{apt}{}", one("b.example"));
    assert_eq!(read(&other), named(&["a.example", "b.example"]));
    for near in ["a.exampl", "a.example2", "b.example"] {
        let both = format!("{}{}", one("a.example"), one(near));
        assert_eq!(read(&both), named(&["a.example", near]));
    }
}

#[test]
fn more_names_than_are_looked_up_hide_none() {
    let heads: String = (0..9)
        .map(|i| format!("GET / HTTP/1.1\r\nHost: {i}.example\r\n\r\n"))
        .collect();
    assert_eq!(read(&heads).0, Progress::Malformed);
    // In mid-stream what looks like a request may be none.
    assert_eq!(read_http(heads.as_bytes(), false).0, Progress::Named);
}

#[test]
fn a_nul_behind_the_name_is_no_part_of_it() {
    let read_nul = read("GET / HTTP/1.1\r\nHost: a.example\0\r\n\r\n");
    assert_eq!(read_nul, named(&["a.example"]));
    let inside = read("GET / HTTP/1.1\r\nHost: a\0.example\r\n\r\n");
    assert_eq!(inside, named(&["a\0.example"]));
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
