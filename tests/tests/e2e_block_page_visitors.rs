//! What visitors of a blocked site see, and what their neighbours see at the same time.

use std::{fs, thread, time::Duration};

use filter_tests::{
    client::{Answer, CURL_TIMEOUT, curl_with},
    edge::Edge,
    net::{Direct, Namespace, Routed},
    process::wait_for,
    site::Site,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

const BLOCKED: &str = "blocked.example";
const CHILD: &str = "www.blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const UNCOVERED: &str = "uncovered.example";
const NAMES: [&str; 4] = [BLOCKED, CHILD, NEIGHBOUR, UNCOVERED];

const REASON: &str = "Immediate threat to human life";
const STATEMENT: &str = "https://provider.example/statements/1";
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// A rule with the page on these names and origins.
fn policy(keys: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nid = \"page\"\n{keys}\naction = \"redirect\"\nreason = \"{REASON}\"\n\
         statement = \"{STATEMENT}\"\nreview_by = 2099-01-01T00:00:00Z\n\
         [rule.text.de]\nreason = \"Gefahr\"\n"
    )
}

fn names() -> String {
    policy(&format!("domains = [\"{BLOCKED}\", \"{UNCOVERED}\"]"))
}

/// An edge with the page and a certificate for the blocked names.
struct Blocking<'n> {
    edge: Edge<'n>,
    _certificates: TempDir,
}

/// The ways to take a connection over that there are on every kernel of these tests.
const TAKEOVERS: [&str; 2] = ["auto", "repair"];

impl<'n> Blocking<'n> {
    fn start(namespace: &'n Namespace, interfaces: &[&str], more: &str, policy: &str) -> Self {
        Self::taking_over("auto", namespace, interfaces, more, policy)
    }

    fn taking_over(
        takeover: &str,
        namespace: &'n Namespace,
        interfaces: &[&str],
        more: &str,
        policy: &str,
    ) -> Self {
        let certificates = tempfile::tempdir().expect("a temporary directory");
        let names = vec![BLOCKED.to_owned(), format!("*.{BLOCKED}")];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a self-signed certificate");
        let at = |name: &str| certificates.path().join(name);
        fs::write(at("page.key"), signing_key.serialize_pem()).expect("a key file");
        fs::write(at("page.pem"), cert.pem()).expect("a certificate file");
        let mut edge = Edge::new(namespace, interfaces, policy);
        let config = format!(
            "{more}[block_page]\ncertificates = {:?}\ntakeover = {takeover:?}\n",
            certificates.path()
        );
        edge.configure(interfaces, &config);
        edge.start();
        Self {
            edge,
            _certificates: certificates,
        }
    }

    fn page_pid(&self) -> i32 {
        let pid = self.edge.json("status")["page"]["pid"].as_i64();
        i32::try_from(pid.expect("a page")).expect("a process id")
    }
}

/// The answer with its head.
fn fetch(namespace: &Namespace, url: &str, address: &str, more: &[&str]) -> Answer {
    curl_with(namespace, url, address, &[&["--include"], more].concat())
}

fn shows_page(answer: &Answer) -> bool {
    answer.status == 0
        && answer.body.starts_with("HTTP/1.1 451 ")
        && answer
            .body
            .contains(&format!("<{STATEMENT}>; rel=\"blocked-by\""))
        && answer.body.contains(REASON)
}

fn is_served(answer: &Answer, name: &str) -> bool {
    answer.status == 0 && answer.body.contains(&format!("served {name}"))
}

/// The page for blocked names and the site for the others, at the same time, over both families.
fn assert_blocks(visitor: &Namespace, addresses: [&str; 2]) {
    for address in addresses {
        for url in [
            format!("https://{BLOCKED}/path?query"),
            format!("https://{CHILD}/"),
            format!("http://{BLOCKED}/"),
            format!("http://{UNCOVERED}/"),
        ] {
            let answer = fetch(visitor, &url, address, &[]);
            assert!(shows_page(&answer), "{url} at {address}: {answer:?}");
        }
        for url in [
            format!("https://{NEIGHBOUR}/"),
            format!("http://{NEIGHBOUR}/"),
        ] {
            let answer = fetch(visitor, &url, address, &[]);
            assert!(
                is_served(&answer, NEIGHBOUR),
                "{url} at {address}: {answer:?}"
            );
        }
        let refused = fetch(visitor, &format!("https://{UNCOVERED}/"), address, &[]);
        assert_ne!(refused.status, 0, "{refused:?}");
        assert_ne!(refused.status, CURL_TIMEOUT, "refused at once: {refused:?}");
    }
}

#[test]
fn visitors_of_a_blocked_site_on_this_host_see_the_page() {
    for takeover in TAKEOVERS {
        visitors_on_this_host_see_the_page(takeover);
    }
}

fn visitors_on_this_host_see_the_page(takeover: &str) {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &NAMES);
    let interfaces = [Direct::EDGE_IF];
    let blocking = Blocking::taking_over(takeover, &net.edge, &interfaces, "", &names());
    assert_blocks(&net.visitor, [Direct::EDGE_V4, Direct::EDGE_V6]);
    assert!(blocking.edge.rule_packets("page") > 0);

    let german = ["--header", "Accept-Language: de"];
    let url = format!("https://{BLOCKED}/");
    let answer = fetch(&net.visitor, &url, Direct::EDGE_V4, &german);
    assert!(answer.body.contains("Gefahr"), "{answer:?}");
    let other = ["--header", "Host: neighbour.example"];
    let answer = fetch(&net.visitor, &url, Direct::EDGE_V4, &other);
    assert!(answer.body.starts_with("HTTP/1.1 421 "), "{answer:?}");
}

#[test]
fn visitors_of_a_blocked_site_behind_this_router_see_the_page() {
    for takeover in TAKEOVERS {
        visitors_behind_this_router_see_the_page(takeover);
    }
}

fn visitors_behind_this_router_see_the_page(takeover: &str) {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &NAMES);
    let serves = format!(
        "[inspect]\nserves = [\"{}\", \"{}\"]\n",
        Routed::NEIGHBOUR_V4,
        Routed::NEIGHBOUR_V6
    );
    let sides = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let _blocking = Blocking::taking_over(takeover, &net.edge, &sides, &serves, &names());
    assert_blocks(&net.visitor, [Routed::NEIGHBOUR_V4, Routed::NEIGHBOUR_V6]);
}

#[test]
fn every_name_on_a_blocked_origin_has_the_page_and_the_neighbour_address_its_site() {
    let net = Routed::new();
    let _site = Site::start(&net.origin, &NAMES);
    let keys = format!(
        "origins = [\"{}\", \"{}\"]",
        Routed::BLOCKED_V4,
        Routed::BLOCKED_V6
    );
    let sides = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];
    let _blocking = Blocking::start(&net.edge, &sides, "", &policy(&keys));
    for (blocked, neighbour) in [
        (Routed::BLOCKED_V4, Routed::NEIGHBOUR_V4),
        (Routed::BLOCKED_V6, Routed::NEIGHBOUR_V6),
    ] {
        for url in [
            format!("http://{NEIGHBOUR}/"),
            format!("https://{BLOCKED}/"),
        ] {
            let answer = fetch(&net.visitor, &url, blocked, &[]);
            assert!(shows_page(&answer), "{url} at {blocked}: {answer:?}");
            let name = url.split('/').nth(2).expect("a name");
            let answer = fetch(&net.visitor, &url, neighbour, &[]);
            assert!(is_served(&answer, name), "{url} at {neighbour}: {answer:?}");
        }
    }
}

#[test]
fn the_page_is_there_without_a_controller_and_without_its_process_visitors_are_refused() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &NAMES);
    let mut blocking = Blocking::start(&net.edge, &[Direct::EDGE_IF], "", &names());
    let url = format!("https://{BLOCKED}/");
    let ask = || fetch(&net.visitor, &url, Direct::EDGE_V4, &[]);
    assert!(shows_page(&ask()));
    blocking.edge.kill_controller();
    let answer = ask();
    assert!(shows_page(&answer), "{answer:?}");

    kill(Pid::from_raw(blocking.page_pid()), Signal::SIGKILL).expect("a process");
    // The kernel takes the namespace apart in the background.
    thread::sleep(Duration::from_millis(500));
    let answer = ask();
    assert!(
        !shows_page(&answer) && !is_served(&answer, BLOCKED),
        "{answer:?}"
    );
    // The first frame that does not get there has closed the way.
    let counters = blocking.edge.json("counters").to_string();
    assert!(counters.contains("page_down"), "{counters}");
    let neighbour = format!("https://{NEIGHBOUR}/");
    let answer = fetch(&net.visitor, &neighbour, Direct::EDGE_V4, &[]);
    assert!(is_served(&answer, NEIGHBOUR), "{answer:?}");

    let _controller = blocking.edge.spawn();
    wait_for("the page is back", CHANGE_MAX, || shows_page(&ask()));
}

#[test]
fn a_crowd_of_visitors_is_answered_while_neighbours_are_served() {
    let net = Direct::new();
    let _site = Site::start(&net.edge, &NAMES);
    let _blocking = Blocking::start(&net.edge, &[Direct::EDGE_IF], "", &names());
    thread::scope(|scope| {
        for visitor in 0..8 {
            let namespace = &net.visitor;
            scope.spawn(move || {
                for _ in 0..5 {
                    let name = if visitor % 4 == 0 { NEIGHBOUR } else { BLOCKED };
                    let url = format!("https://{name}/");
                    let answer = fetch(namespace, &url, Direct::EDGE_V4, &["--max-time", "10"]);
                    match name {
                        NEIGHBOUR => assert!(is_served(&answer, name), "{answer:?}"),
                        _ => assert!(shows_page(&answer), "{answer:?}"),
                    }
                }
            });
        }
    });
}
