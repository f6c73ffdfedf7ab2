//! Requests behind others on one connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    dialer::open,
    net::{Direct, Namespace, Routed},
    page::{PageSpace, answered, enforce},
    process::wait_for,
    witness::{HTTP_PORT, Witness},
};

use super::{BLOCKED, LIMIT, METHODS, NEIGHBOUR, POLICY, Scene, endpoints};

#[test]
fn a_request_behind_others_on_a_kept_connection_is_answered_by_the_page() {
    for scene in Scene::both() {
        request_behind_others_on_a_kept_connection_is_answered_by_the_page(&scene);
    }
}

fn request_behind_others_on_a_kept_connection_is_answered_by_the_page(scene: &Scene) {
    let ends = endpoints(Direct::VISITOR_V4, Direct::EDGE_V4, HTTP_PORT);
    let names = [NEIGHBOUR, NEIGHBOUR, BLOCKED, BLOCKED];
    ask_on_one_connection(&scene.net.visitor, ends, &names, usize::MAX);
    assert_eq!(scene.server.names(), [NEIGHBOUR, NEIGHBOUR]);
    assert_eq!(scene.page().names(), [BLOCKED, BLOCKED]);
}

/// Asks for these names one after the other, each when the one before is answered, in pieces of so many bytes.
fn ask_on_one_connection(
    visitor: &Namespace,
    (from, to): (SocketAddr, SocketAddr),
    names: &[&str],
    piece: usize,
) {
    visitor.run(|| {
        let mut stream = open(from, to, LIMIT).expect("a connection");
        stream.set_nodelay(true).expect("pieces as they are");
        for name in names {
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
            for piece in request.as_bytes().chunks(piece) {
                stream.write_all(piece).expect("a request sent");
                // Otherwise what the socket has left over goes out as one.
                thread::sleep(Duration::from_millis(5));
            }
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
}

#[test]
fn a_later_request_through_a_router_is_answered_by_the_page() {
    for method in METHODS {
        let net = Routed::new();
        let space = PageSpace::new(&net.edge);
        let server = Witness::start(&net.origin, &[BLOCKED, NEIGHBOUR]);
        let page = Witness::start_for_any_address(&space.namespace, &[BLOCKED, NEIGHBOUR]);
        let host = "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n";
        let interfaces = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
        enforce(&net.edge, &interfaces, host, POLICY);
        let _maker = space.attach_by(method, &net.edge, &page);
        let names = [NEIGHBOUR, NEIGHBOUR, BLOCKED, BLOCKED];
        for (from, to) in [
            (Routed::VISITOR_V4, Routed::NEIGHBOUR_V4),
            (Routed::VISITOR_V6, Routed::NEIGHBOUR_V6),
        ] {
            for piece in [usize::MAX, 20] {
                let ends = endpoints(from, to, HTTP_PORT);
                ask_on_one_connection(&net.visitor, ends, &names, piece);
            }
        }
        assert_eq!(server.names(), [NEIGHBOUR; 8]);
        assert_eq!(page.names(), [BLOCKED; 8]);
        assert_eq!(answered(&net.edge, Answer::PageTaken), 4);
    }
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
            thread::sleep(Duration::from_millis(20));
        }
        wait_for("the second request was judged", LIMIT, || {
            answered(&net.edge, Answer::PageInFlight) > 0
        });
    });
    assert_eq!(answered(&net.edge, Answer::PageTaken), 0);
    assert!(page.names().is_empty());
}
