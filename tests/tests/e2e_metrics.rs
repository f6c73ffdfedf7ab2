//! What monitoring is told: over HTTP, in a file and by a command, and when it cannot be told.

use std::{fs, net::TcpListener, time::Duration};

use filter_common::{reason::Reason, respond::counted::Answer};
use filter_tests::{
    certificate::Wildcard,
    client::{curl, curl_with},
    echo::Echo,
    edge::{Edge, exit},
    net::{Direct, Namespace},
    openmetrics::Exposition,
    probe::answers,
    process::wait_for,
    site::Site,
};
use serde_json::Value;

const ZONE: &str = "zone.example";
const BLOCKED: &str = "blocked.zone.example";
const NEIGHBOUR: &str = "neighbour.zone.example";
const UNCOVERED: &str = "elsewhere.example";
const PORT: u16 = 7;
const LISTEN: &str = "127.0.0.1:9469";
/// Longer than a controller waits before it tries an address again.
const SOON: Duration = Duration::from_secs(20);

fn policy() -> String {
    format!(
        "version = 1\n\
         [[rule]]\nid = \"page\"\nhosts = [\"{BLOCKED}\", \"{UNCOVERED}\"]\naction = \"redirect\"\n\
         until = 2096-11-23T00:00:00Z\nreview_by = 2095-01-01T00:00:00Z\n\
         [[rule]]\nid = \"origin\"\norigins = [\"{}\"]\naction = \"drop\"\n\
         [[rule]]\nid = \"over\"\nhosts = [\"x.example\"]\naction = \"drop\"\n\
         until = 2020-01-01T00:00:00Z\n",
        Direct::OTHER_V4
    )
}

/// What a scraper on the edge gets of a path: status and body.
fn scrape(edge: &Namespace, path: &str) -> (String, String) {
    let output = edge
        .command("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "10"])
        .args(["--write-out", "%{stderr}%{http_code} %{content_type}"])
        .arg(format!("http://{LISTEN}{path}"))
        .output()
        .expect("curl");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stderr), text(output.stdout))
}

fn unix(text: &str) -> f64 {
    let moment: jiff::Timestamp = text.parse().expect("a time");
    moment.as_second() as f64
}

/// `packets` of the objects in a list of `counters`, by the word under `key`.
fn counted<'a>(counters: &'a Value, list: &str, key: &'a str) -> Vec<(&'a str, f64)> {
    let items = counters[list].as_array().expect("a list");
    let packets = |item: &'a Value| {
        let word = item[key].as_str().expect("a word");
        (word, item["packets"].as_f64().expect("a count"))
    };
    items.iter().map(packets).collect()
}

/// All numbers are those of `counters`.
fn agrees(told: &Exposition, counters: &Value) {
    let of = |list, key, name| {
        for (word, packets) in counted(counters, list, key) {
            assert_eq!(
                told.get(name, &[(key, word)]),
                Some(packets),
                "{name} {word}"
            );
        }
    };
    of("rules", "rule", "edgefilter_rule_packets_total");
    of("reasons", "reason", "edgefilter_packets_total");
    of("answers", "answer", "edgefilter_answers_total");
    for reason in Reason::ALL {
        let is_told = told.get("edgefilter_packets_total", &[("reason", reason.as_str())]);
        assert!(is_told.is_some(), "{}", reason.as_str());
    }
    for answer in Answer::ALL {
        let is_told = told.get("edgefilter_answers_total", &[("answer", answer.as_str())]);
        assert!(is_told.is_some(), "{}", answer.as_str());
    }
}

#[test]
fn monitoring_is_told_what_counters_and_status_say() {
    let net = Direct::new();
    let certificate = Wildcard::new(ZONE);
    let _site = Site::start_with(&net.edge, &[BLOCKED, NEIGHBOUR, UNCOVERED], &certificate);
    let _echo = Echo::start(&net.edge, &[Direct::EDGE_V4], PORT);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("edgefilter.prom");
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    let configuration = format!(
        "[block_page]\ncertificates = {:?}\n[metrics]\nlisten = \"{LISTEN}\"\nfile = {file:?}\n",
        certificate.directory()
    );
    edge.configure(&[Direct::EDGE_IF], &configuration);
    edge.start();

    let url = |name: &str| format!("https://{name}/");
    assert!(curl(&net.visitor, &url(NEIGHBOUR), Direct::EDGE_V4).is_served(NEIGHBOUR));
    let page = curl_with(&net.visitor, &url(BLOCKED), Direct::EDGE_V4, &["--http1.1"]);
    assert!(page.body.contains("</html>"), "{page:?}");
    let refused = curl(&net.visitor, &url(UNCOVERED), Direct::EDGE_V4);
    assert!(!refused.is_served(UNCOVERED), "{refused:?}");
    let to = format!("{}:{PORT}", Direct::EDGE_V4);
    assert!(!answers(&net.visitor, Direct::OTHER_V4, &to));

    wait_for("the page's counts are told", SOON, || {
        let (status, text) = scrape(&net.edge, "/metrics");
        assert_eq!(
            status, "200 application/openmetrics-text; version=1.0.0; charset=utf-8",
            "{text}"
        );
        Exposition::parse(&text).get("edgefilter_page_served_total", &[("rule", "page")])
            == Some(1.0)
    });
    let (_, text) = scrape(&net.edge, "/metrics");
    assert!(!text.contains(NEIGHBOUR), "names of allowed connections");
    let by_http = Exposition::parse(&text);
    let ended = edge.run(&["metrics"]);
    assert_eq!(ended.code, exit::OK, "{ended:?}");
    let by_command = Exposition::parse(&ended.stdout);
    assert_eq!(by_command.families, by_http.families);
    for told in [&by_http, &by_command] {
        agrees(told, &edge.json("counters"));
        let is = |name: &str, labels: &[(&str, &str)], value: f64| {
            assert_eq!(told.get(name, labels), Some(value), "{name}{labels:?}");
        };
        is("edgefilter_enforcing", &[], 1.0);
        is("edgefilter_as_wanted", &[], 1.0);
        is("edgefilter_differences", &[], 0.0);
        is("edgefilter_controller_running", &[], 1.0);
        is("edgefilter_last_apply_failed", &[], 0.0);
        is("edgefilter_generation", &[], 1.0);
        is("edgefilter_rules", &[("term", "in_force")], 2.0);
        is("edgefilter_rules", &[("term", "no_longer")], 1.0);
        let until = unix("2096-11-23T00:00:00Z");
        is("edgefilter_next_end_timestamp_seconds", &[], until);
        let review = unix("2095-01-01T00:00:00Z");
        is("edgefilter_next_review_timestamp_seconds", &[], review);
        let here = [("interface", Direct::EDGE_IF)];
        is("edgefilter_interface_attached", &here, 1.0);
        is("edgefilter_page_up", &[], 1.0);
        is(
            "edgefilter_page_events_total",
            &[("event", "handshakes")],
            1.0,
        );
        let without = [("event", "handshake_no_certificate")];
        is("edgefilter_page_events_total", &without, 1.0);
        is(
            "edgefilter_names_without_certificate",
            &[("rule", "page")],
            1.0,
        );
        is(
            "edgefilter_name_without_certificate",
            &[("rule", "page"), ("name", UNCOVERED)],
            1.0,
        );
        let age = told.get("edgefilter_last_apply_age_seconds", &[]);
        assert!(
            age.is_some_and(|age| (0.0..120.0).contains(&age)),
            "{age:?}"
        );
    }
    let status = edge.json("status");
    let end = status["page"]["served"]["certificates"][0]["not_after"]
        .as_str()
        .map(unix);
    assert_eq!(
        by_http.get(
            "edgefilter_certificate_expiry_timestamp_seconds",
            &[("file", "zone.pem")]
        ),
        end
    );

    assert!(scrape(&net.edge, "/").0.starts_with("404 "));
    wait_for("the file is written anew", SOON, || {
        fs::read_to_string(&file).is_ok_and(|text| {
            let told = Exposition::parse(&text);
            told.get("edgefilter_page_served_total", &[("rule", "page")]) == Some(1.0)
        })
    });
    assert!(
        fs::read_dir(folder.path()).expect("the directory").count() == 1,
        "nothing beside it"
    );

    // A policy that is refused is seen, and so is the end of enforcing.
    edge.write_policy("version = 1\n[[rule]]\n");
    wait_for("the failure is told", SOON, || {
        let told = Exposition::parse(&scrape(&net.edge, "/metrics").1);
        told.get("edgefilter_last_apply_failed", &[]) == Some(1.0)
            && told.get("edgefilter_as_wanted", &[]) == Some(0.0)
    });
    assert_eq!(edge.run(&["metrics"]).code, exit::DIFFERS);
}

#[test]
fn nothing_enforced_is_told_and_ends_with_the_code_of_status() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    let ended = edge.run(&["metrics"]);
    assert_eq!(ended.code, exit::DIFFERS, "{ended:?}");
    let told = Exposition::parse(&ended.stdout);
    assert_eq!(told.get("edgefilter_enforcing", &[]), Some(0.0));
    assert_eq!(told.get("edgefilter_as_wanted", &[]), Some(0.0));
    assert_eq!(told.get("edgefilter_generation", &[]), None);
    assert!(told.all("edgefilter_packets_total").is_empty());
}

#[test]
fn an_address_in_use_is_said_stops_nothing_and_is_tried_again() {
    let net = Direct::new();
    let taken = net
        .edge
        .run(|| TcpListener::bind(LISTEN).expect("a free port"));
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy());
    let more =
        format!("[metrics]\nlisten = \"{LISTEN}\"\nfile = \"/nowhere/at/all/edgefilter.prom\"\n");
    edge.configure(&[Direct::EDGE_IF], &more);
    edge.start();
    let said = |part: &str| {
        let problem = edge.json("status")["metrics_problem"].to_string();
        problem.contains(part)
    };
    wait_for("the address in use is said", SOON, || {
        said(LISTEN) && said("Address already in use")
    });
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");
    assert!(
        status.stdout.contains("metrics are not served"),
        "{status:?}"
    );

    drop(taken);
    wait_for("metrics are served", SOON, || {
        scrape(&net.edge, "/metrics").0.starts_with("200 ")
    });
    wait_for("the directory that is not there is said", SOON, || {
        said("/nowhere/at/all/edgefilter.prom")
    });

    // Another address is followed without a restart; and none ends it.
    edge.configure(&[Direct::EDGE_IF], "[metrics]\nlisten = 9470\n");
    wait_for("the other address is followed", SOON, || {
        !scrape(&net.edge, "/metrics").0.starts_with("200 ")
    });
    edge.configure(&[Direct::EDGE_IF], "");
    wait_for("there is no problem", SOON, || {
        edge.json("status")["metrics_problem"].is_null()
    });
}
