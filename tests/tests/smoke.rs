//! Whether the product works on this kernel at all: the real commands, and connections through a
//! veth pair. Needs no program but `ip`, so that it runs in a small virtual machine as well.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use filter_tests::{
    client::exchange,
    echo::Echo,
    edge::{Edge, exit},
    kernel::{running, version},
    net::{ControlGroup, Direct},
    packet::{http::Request, tls::ClientHello},
    probe::answers,
    process::wait_for,
};

const POLICY: &str = r#"
version = 1
[[rule]]
id = "name"
domains = ["blocked.example"]
action = "drop"
[[rule]]
id = "origin"
origins = ["198.51.100.3", "2001:db8:1::3"]
action = "drop"
"#;

const BLOCKED: &str = "www.blocked.example";
const ALLOWED: &str = "allowed.example";

/// Whether the server, which echoes, answers a hello or a request with this name, over either
/// family.
fn served(net: &Direct, port: u16, bytes: &[u8]) -> [bool; 2] {
    [Direct::EDGE_V4, Direct::EDGE_V6].map(|address| {
        let to = SocketAddr::new(address.parse().expect("an address"), port);
        exchange(&net.visitor, to, bytes).is_ok()
    })
}

#[test]
fn what_is_blocked_is_cut_and_all_else_is_served_until_detached() {
    let net = Direct::new();
    let addresses = [Direct::EDGE_V4, Direct::EDGE_V6];
    let _servers = [80, 443].map(|port| Echo::start(&net.edge, &addresses, port));
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let hello = |name| ClientHello::named(name).record();
    let request = |name| Request::to(name).bytes();

    assert_eq!(
        served(&net, 443, &hello(BLOCKED)),
        [true; 2],
        "no filter yet"
    );
    let applied = edge.run(&["apply"]);
    assert_eq!(applied.code, exit::OK, "{applied:?}");
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");

    assert_eq!(served(&net, 443, &hello(ALLOWED)), [true; 2]);
    assert_eq!(served(&net, 80, &request(ALLOWED)), [true; 2]);
    assert_eq!(served(&net, 443, &hello(BLOCKED)), [false; 2]);
    assert_eq!(served(&net, 80, &request(BLOCKED)), [false; 2]);
    for (from, to, expected) in [
        (Direct::VISITOR_V4, Direct::EDGE_V4, true),
        (Direct::OTHER_V4, Direct::EDGE_V4, false),
        (Direct::VISITOR_V6, Direct::EDGE_V6, true),
        (Direct::OTHER_V6, Direct::EDGE_V6, false),
    ] {
        let to = SocketAddr::new(to.parse().expect("an address"), 443).to_string();
        assert_eq!(answers(&net.visitor, from, &to), expected, "{from}");
    }
    assert!(edge.rule_packets("name") >= 4);
    assert!(edge.rule_packets("origin") >= 2);

    let detached = edge.run(&["detach"]);
    assert_eq!(detached.code, exit::OK, "{detached:?}");
    assert_eq!(served(&net, 443, &hello(BLOCKED)), [true; 2], "detached");
}

#[test]
fn the_programs_for_local_proxies_are_verified_and_attached() {
    let net = Direct::new();
    let group = ControlGroup::new("smoke");
    let policy = format!(
        "{POLICY}[[rule]]\nid = \"page\"\norigins = [\"192.0.2.1\", \"2001:db8:9::1\"]\naction = \"refuse\"\n"
    );
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy);
    let more = format!(
        "[local_proxies]\ncgroup = {:?}\naction = \"page\"\n",
        group.path()
    );
    edge.configure(&[Direct::EDGE_IF], &more);
    let applied = edge.run(&["apply"]);
    assert_eq!(applied.code, exit::OK, "{applied:?}");
    for program in ["connect_v4", "connect_v6"] {
        let pin = net.edge.pin_dir().join("local").join(program);
        assert!(pin.exists(), "{}", pin.display());
    }
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");
    assert_eq!(edge.run(&["detach"]).code, exit::OK);
}

/// A line that begins with `lacks` is read by `cargo xtask vm`.
#[test]
fn status_names_what_this_kernel_lacks_and_what_is_done_instead() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let applied = edge.run(&["apply"]);
    assert_eq!(applied.code, exit::OK, "{applied:?}");
    let status = edge.json("status");
    let kernel = &status["kernel"];
    let release = kernel["release"].as_str().expect("a release");
    let shown = edge.run(&["status"]).stdout;
    for lacking in kernel["lacks"].as_array().expect("a list") {
        let text = |key| lacking[key].as_str().unwrap_or_else(|| panic!("{lacking}"));
        println!(
            "\nlacks {} (Linux {}): {}",
            text("feature"),
            text("since"),
            text("instead")
        );
        assert!(
            running() < version(text("since")),
            "{release} should have it: {lacking}"
        );
        assert!(shown.contains(text("instead")), "{shown}");
    }
}

#[test]
fn a_hello_in_one_jumbo_frame_of_several_buffers_is_read() {
    let net = Direct::new();
    for (namespace, interface) in [
        (&net.visitor, Direct::VISITOR_IF),
        (&net.edge, Direct::EDGE_IF),
    ] {
        namespace.ip(&["link", "set", interface, "mtu", "9000"]);
    }
    let addresses = [Direct::EDGE_V4, Direct::EDGE_V6];
    let _servers = Echo::start(&net.edge, &addresses, 443);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let applied = edge.run(&["apply"]);
    assert_eq!(applied.code, exit::OK, "{applied:?}");

    // Beyond a page, behind which the kernel begins another buffer; in front of the name.
    let hello = |name| ClientHello::new().padding(8_000).sni(name).record();
    assert_eq!(served(&net, 443, &hello(BLOCKED)), [false; 2]);
    assert_eq!(served(&net, 443, &hello(ALLOWED)), [true; 2]);
    assert_eq!(
        edge.reason_packets("hello_incomplete"),
        0,
        "each hello came in one frame"
    );
    wait_for("both hellos count", Duration::from_secs(5), || {
        edge.rule_packets("name") >= 2
    });
}

const LED: &str = r#"
version = 1
[[rule]]
id = "page"
domains = ["blocked.example"]
action = "redirect"
reason = "Immediate threat to human life"
statement = "https://provider.example/statements/1"
review_by = 2099-01-01T00:00:00Z
"#;

/// Longest that an answer may take in a machine under emulation.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What comes back until the end, for parts that are sent one after the other.
fn ask(net: &Direct, to: &str, port: u16, parts: &[&[u8]]) -> io::Result<String> {
    let to = SocketAddr::new(to.parse().expect("an address"), port);
    net.visitor.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        for part in parts {
            stream.write_all(part)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

#[test]
fn who_asks_for_a_blocked_name_gets_the_page_by_every_way_that_this_kernel_has() {
    for takeover in ["auto", "repair"] {
        let net = Direct::new();
        let addresses = [Direct::EDGE_V4, Direct::EDGE_V6];
        // What has answered the half of a request is not replaced while its answer is under way.
        let _silent = net.edge.run(|| TcpListener::bind(("::", 80)));
        let _server = Echo::start(&net.edge, &addresses, 443);
        let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], LED);
        let config = format!("[block_page]\ntakeover = \"{takeover}\"\n");
        edge.configure(&[Direct::EDGE_IF], &config);
        edge.start_patiently();
        let page = &edge.json("status")["page"];
        assert_eq!(page["is_up"], true, "{takeover}: {page}");
        let by = if takeover == "repair" || running() < version("6.9") {
            "repair"
        } else {
            "kfunc"
        };
        assert_eq!(page["method"], by, "{takeover}");

        let head = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\nConnection: close\r\n\r\n");
        let head = head.as_bytes();
        for address in addresses {
            for parts in [&[head][..], &[&head[..10], &head[10..]]] {
                let answer = ask(&net, address, 80, parts);
                let context = format!("{takeover} {address} in {} parts", parts.len());
                let answer =
                    answer.unwrap_or_else(|e| panic!("{context}: {e}, {}", edge.json("counters")));
                assert!(answer.starts_with("HTTP/1.1 451 "), "{context}: {answer}");
                assert!(answer.contains("Immediate threat"), "{context}: {answer}");
            }
        }
        let hello = ClientHello::named(ALLOWED).record();
        assert_eq!(served(&net, 443, &hello), [true; 2]);
    }
}
