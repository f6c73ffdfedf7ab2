//! What people see: the block page and its neighbours in Chromium and Firefox. One wildcard
//! certificate stands for all names, and the real server speaks HTTP/2, by which browsers share a
//! connection between them where they can. The pictures stay in `target/block-page/`.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use filter_tests::{
    browser::{Browser, Kind, Settings, Shown},
    certificate::Wildcard,
    client::curl_with,
    conform::{all, report::target},
    edge::Edge,
    net::{Direct, Namespace, Routed},
    process::wait_for,
    site::Site,
};

const ZONE: &str = "zone.example";
const BLOCKED: &str = "blocked.zone.example";
const NEIGHBOUR: &str = "neighbour.zone.example";
const NAMES: [&str; 2] = [BLOCKED, NEIGHBOUR];
const BLOCKED_URL: &str = "https://blocked.zone.example/";
const NEIGHBOUR_URL: &str = "https://neighbour.zone.example/";

const POLICY: &str = r#"
version = 1
[[rule]]
id = "page"
hosts = ["blocked.zone.example"]
action = "redirect"
title = "Blocked to protect life"
reason = "Immediate threat to human life"
statement = "https://provider.example/statements/1"
authority = "District Court"
reference = "12 C 345/26"
review_by = 2099-01-01T00:00:00Z
[rule.text.de]
title = "Gesperrt zum Schutz von Leben"
reason = "Unmittelbare Gefahr für Menschenleben"
"#;
/// A policy that blocks none of the names.
const OTHER_POLICY: &str =
    "version = 1\n[[rule]]\nid = \"page\"\nhosts = [\"other.example\"]\naction = \"redirect\"\n";

const GERMAN: &str = "de-DE,de";
const ENGLISH: &str = "en-US,en";
const SAID_IN_GERMAN: [&str; 5] = [
    "Diese Seite ist gesperrt",
    BLOCKED,
    "Gesperrt zum Schutz von Leben",
    "Unmittelbare Gefahr für Menschenleben",
    "District Court",
];
const SAID_IN_ENGLISH: [&str; 3] = [BLOCKED, "Blocked to protect life", "12 C 345/26"];

/// Pictures that show nothing are smaller.
const PICTURE_BYTES_MIN: usize = 10_000;
/// QUIC that is not refused but lost is given up later than this.
const RETURN_MAX: Duration = Duration::from_secs(5);
const CHANGE_MAX: Duration = Duration::from_secs(10);

#[test]
fn chromium_shows_the_page_and_loads_the_neighbour_of_the_same_certificate() {
    compare_here(Kind::Chromium, Direct::EDGE_V4, "chromium.png");
}

#[test]
fn firefox_shows_the_page_and_loads_the_neighbour_of_the_same_certificate() {
    compare_here(Kind::Firefox, Direct::EDGE_V6, "firefox.png");
}

#[test]
fn both_show_the_page_and_load_the_neighbour_behind_a_router() {
    if !all() {
        return;
    }
    let net = Routed::new();
    let inspect = format!(
        "[inspect]\nserves = [\"{}\", \"{}\"]\n",
        Routed::NEIGHBOUR_V4,
        Routed::NEIGHBOUR_V6
    );
    for (kind, address, picture) in [
        (
            Kind::Chromium,
            Routed::NEIGHBOUR_V6,
            "chromium-by-router.png",
        ),
        (Kind::Firefox, Routed::NEIGHBOUR_V4, "firefox-by-router.png"),
    ] {
        let hosts = Hosts {
            visitor: &net.visitor,
            server: &net.origin,
            edge: &net.edge,
            interfaces: &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE],
            address,
            inspect: &inspect,
        };
        compare(kind, &hosts, picture);
    }
}

#[test]
fn chromium_comes_back_from_refused_quic_and_sees_the_page() {
    let net = Direct::new();
    let hosts = Hosts {
        visitor: &net.visitor,
        server: &net.edge,
        edge: &net.edge,
        interfaces: &[Direct::EDGE_IF],
        address: Direct::EDGE_V4,
        inspect: "[inspect]\nquic_refuse = true\n",
    };
    let certificate = Wildcard::new(ZONE);
    let site = Site::start_with(hosts.server, &NAMES, &certificate);
    let edge = hosts.enforce(OTHER_POLICY, &certificate);
    let mut browser = hosts.browser(Kind::Chromium, &certificate, ENGLISH, true);
    // The server's answer offers HTTP/3: the browser asks for it from now on.
    assert_served(browser.visit(BLOCKED_URL), BLOCKED);

    edge.replace_policy(POLICY);
    wait_for("the page is there", CHANGE_MAX, || {
        let answer = curl_with(&net.visitor, BLOCKED_URL, Direct::EDGE_V4, &["--include"]);
        answer.body.contains(" 451 ")
    });
    // A connection that was open before the rule would be used again.
    drop(site);
    let _site = Site::start_with(hosts.server, &NAMES, &certificate);
    let start = Instant::now();
    assert_page(browser.visit(BLOCKED_URL), &SAID_IN_ENGLISH, "en");
    let took = start.elapsed();
    let refused = edge.reason_packets("quic_refused");
    assert!(refused > 0, "QUIC was tried");
    assert!(took < RETURN_MAX, "back at once: {took:?}");
    println!("Chromium: the page {took:?} after the click, {refused} packets of QUIC refused");
}

/// [`compare`] with a server on the host of the filter.
fn compare_here(kind: Kind, address: &str, picture: &str) {
    let net = Direct::new();
    let hosts = Hosts {
        visitor: &net.visitor,
        server: &net.edge,
        edge: &net.edge,
        interfaces: &[Direct::EDGE_IF],
        address,
        inspect: "",
    };
    compare(kind, &hosts, picture);
}

/// The blocked name, its neighbour and the blocked name again, in one session.
fn compare(kind: Kind, hosts: &Hosts<'_>, picture: &str) {
    let certificate = Wildcard::new(ZONE);
    let _site = Site::start_with(hosts.server, &NAMES, &certificate);
    let edge = hosts.enforce(POLICY, &certificate);

    let mut browser = hosts.browser(kind, &certificate, GERMAN, false);
    assert_page(browser.visit(BLOCKED_URL), &SAID_IN_GERMAN, "de");
    keep(picture, &browser.screenshot());
    for _ in 0..2 {
        assert_served(browser.visit(NEIGHBOUR_URL), NEIGHBOUR);
        assert_page(browser.visit(BLOCKED_URL), &SAID_IN_GERMAN, "de");
    }
    assert!(edge.rule_packets("page") > 0);
}

/// Who is where.
struct Hosts<'a> {
    visitor: &'a Namespace,
    server: &'a Namespace,
    edge: &'a Namespace,
    interfaces: &'a [&'a str],
    /// The server's.
    address: &'a str,
    /// More of the edge's configuration.
    inspect: &'a str,
}

impl<'a> Hosts<'a> {
    fn enforce(&self, policy: &str, certificate: &Wildcard) -> Edge<'a> {
        let mut edge = Edge::new(self.edge, self.interfaces, policy);
        let page = format!(
            "{}[block_page]\ncertificates = {:?}\n",
            self.inspect,
            certificate.directory()
        );
        edge.configure(self.interfaces, &page);
        edge.start();
        edge
    }

    fn browser(&self, kind: Kind, trusted: &Wildcard, languages: &str, quic: bool) -> Browser {
        let address: IpAddr = self.address.parse().expect("an address");
        let settings = Settings {
            address,
            trusted,
            languages,
            quic,
        };
        Browser::start(kind, self.visitor, settings)
    }
}

/// The page never comes by HTTP/2: its connection is nobody else's.
fn assert_page(seen: Result<Shown, String>, said: &[&str], language: &str) {
    let shown = seen.unwrap_or_else(|e| panic!("no page: {e}"));
    assert_eq!(
        (shown.status, shown.protocol.as_str()),
        (451, "http/1.1"),
        "{shown:?}"
    );
    assert_eq!(shown.language, language, "{shown:?}");
    for text in said {
        assert!(shown.text.contains(text), "{text} in {shown:?}");
    }
}

fn assert_served(seen: Result<Shown, String>, name: &str) {
    let shown = seen.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(
        (shown.status, shown.protocol.as_str()),
        (200, "h2"),
        "{shown:?}"
    );
    assert_eq!(shown.text.trim(), format!("served {name}"));
}

fn keep(picture: &str, bytes: &[u8]) {
    let directory = target().join("block-page");
    let path: &Path = &directory.join(picture);
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(path, bytes))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        bytes.len() > PICTURE_BYTES_MIN,
        "{} shows something",
        path.display()
    );
}
