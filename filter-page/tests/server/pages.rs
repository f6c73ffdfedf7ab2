//! What visitors see.

use std::time::Duration;

use filter_page::stats::Counter;
use serde_json::Value;

use crate::kit::{BLOCKED, NEIGHBOUR, STATEMENT, Served, rules, wait_until, write_decisions};

#[test]
fn a_visitor_gets_the_page_over_tls_with_all_that_is_known() {
    let served = Served::start();
    let reply = served.https(BLOCKED, &[]);
    assert_eq!(reply.status, 451, "{reply:?}");
    assert!(
        reply
            .head
            .starts_with("HTTP/1.1 451 Unavailable For Legal Reasons"),
        "{reply:?}"
    );
    let link = format!("<{STATEMENT}>; rel=\"blocked-by\"");
    assert_eq!(reply.header("link"), Some(link.as_str()));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-language"), Some("en"));
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(reply.header("vary"), Some("Accept, Accept-Language"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let policy = reply.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    let seconds: i64 = reply
        .header("retry-after")
        .expect("an end")
        .parse()
        .expect("seconds");
    assert!(seconds > 365 * 24 * 3600, "{seconds}");
    for said in [
        "<html lang=\"en\" dir=\"ltr\">",
        "This site is blocked",
        BLOCKED,
        "Blocked to protect life",
        "Immediate threat to &lt;b&gt;human&lt;/b&gt; life &amp; limb",
        &format!("<a href=\"{STATEMENT}\""),
        "District Court",
        "7 K 12/26",
        "<time datetime=\"2026-01-02T03:04:00Z\">2 January 2026, 03:04 UTC</time>",
        "6 May 2099, 07:08 UTC",
        "<a href=\"mailto:appeals@provider.example\">",
    ] {
        assert!(reply.body.contains(said), "{said} in {}", reply.body);
    }
    assert!(!reply.body.contains("{{"), "{}", reply.body);
    assert_eq!(served.snapshot().pages["r-name"]["en"], 1);
}

#[test]
fn a_page_without_tls_is_the_same() {
    let served = Served::start();
    let [tls, plain] = [served.https(BLOCKED, &[]), served.http(BLOCKED, &[])];
    assert_eq!((plain.status, &plain.body), (451, &tls.body));
}

#[test]
fn german_is_spoken_and_words_of_no_known_language_say_so() {
    let served = Served::start();
    let header = "Accept-Language: fr, de-AT;q=0.9, en;q=0.5";
    let reply = served.https(BLOCKED, &["--header", header]);
    assert_eq!(reply.header("content-language"), Some("de"));
    for said in [
        "<html lang=\"de\"",
        "Diese Seite ist gesperrt",
        "<h2 lang=\"de\" dir=\"auto\">Gesperrt zum Schutz von Leben</h2>",
        "<p lang=\"\" dir=\"auto\">Immediate threat",
        "2. Januar 2026, 03:04 Uhr UTC",
    ] {
        assert!(reply.body.contains(said), "{said} in {}", reply.body);
    }
    assert_eq!(served.snapshot().pages["r-name"]["de"], 1);
}

#[test]
fn programs_get_json_and_terminals_plain_text() {
    let served = Served::start();
    let json = served.https(
        BLOCKED,
        &["--header", "Accept: application/json, text/plain, */*"],
    );
    assert_eq!(json.header("content-type"), Some("application/json"));
    let value: Value = serde_json::from_str(&json.body).expect("JSON");
    assert_eq!(value["status"], 451);
    assert_eq!(value["name"], BLOCKED);
    assert_eq!(value["statement"], STATEMENT);
    assert_eq!(
        value["reason"],
        "Immediate threat to <b>human</b> life & limb"
    );
    assert_eq!(value["until"], "2099-05-06T07:08:00Z");
    assert_eq!(value["review_by"], Value::Null);

    let plain = served.https(BLOCKED, &["--header", "Accept: text/plain"]);
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        plain
            .body
            .starts_with("451 This site is blocked\nSite: blocked.example\n")
    );
    assert!(plain.body.contains("life & limb"), "{}", plain.body);
    assert!(plain.body.contains(STATEMENT), "{}", plain.body);
}

#[test]
fn what_a_rule_does_not_say_is_left_out() {
    let served = Served::start();
    let reply = served.curl_origin();
    assert_eq!(reply.status, 451, "{reply:?}");
    assert_eq!(reply.header("link"), None);
    assert_eq!(reply.header("retry-after"), None);
    assert!(
        !reply.body.contains("<dl>") && !reply.body.contains("class=\"statement\""),
        "{}",
        reply.body
    );
    assert!(reply.body.contains("Blocked address"), "{}", reply.body);
}

#[test]
fn new_rules_are_taken_over_and_bad_ones_leave_the_last_good_in_use() {
    let served = Served::start();
    let mut decisions = rules();
    decisions.generation = 4;
    decisions.rules[0].title = Some("Another title".to_owned());
    write_decisions(&served.decisions(), &decisions);
    served.await_count(Counter::Reloads, 1);
    assert!(served.http(BLOCKED, &[]).body.contains("Another title"));

    std::fs::write(served.decisions(), "{\"generation\": 5").expect("a file");
    served.await_count(Counter::ReloadsFailed, 1);
    let snapshot = served.snapshot();
    assert_eq!((snapshot.generation, snapshot.rules), (4, 2));
    let problem = snapshot.decisions_problem.expect("a problem");
    assert!(
        problem.contains("decisions.json") && problem.contains("line 1"),
        "{problem}"
    );
    assert!(served.http(BLOCKED, &[]).body.contains("Another title"));

    decisions.rules.remove(0);
    write_decisions(&served.decisions(), &decisions);
    served.await_count(Counter::Reloads, 2);
    assert_eq!(
        served.http(BLOCKED, &[]).status,
        451,
        "for who was handed over before"
    );
    wait_until("the rule is forgotten", || {
        served.http(BLOCKED, &[]).status == 421
    });
    let snapshot = served.snapshot();
    assert_eq!(snapshot.decisions_problem, None);
    assert!(snapshot.pages.is_empty(), "counts go with their rule");
}

#[test]
fn rules_that_come_answer_beside_those_in_force_until_they_take_their_place() {
    // Nothing is looked at but when somebody asks.
    let served = Served::start_with(|config| config.reload_every = Duration::from_secs(3_600));
    let coming = filter_page::decisions::coming(&served.decisions());
    let mut decisions = rules();
    decisions.mark = 77;
    decisions.rules.remove(0);
    decisions.rules[0].hosts.push(NEIGHBOUR.to_owned());
    let statuses = || [BLOCKED, NEIGHBOUR].map(|name| served.http(name, &[]).status);
    assert_eq!(statuses(), [451, 421]);

    write_decisions(&coming, &decisions);
    wait_until("they are known", || served.snapshot().coming == Some(77));
    assert_eq!(statuses(), [451, 451], "either file answers");

    std::fs::remove_file(&coming).expect("a file");
    wait_until("they are forgotten", || served.snapshot().coming.is_none());
    assert_eq!(statuses(), [451, 421], "they were withdrawn");

    write_decisions(&coming, &decisions);
    wait_until("they are known", || served.snapshot().coming == Some(77));
    let reloads = served.count(Counter::Reloads);
    std::fs::rename(&coming, served.decisions()).expect("renamed");
    wait_until("they are in force", || served.snapshot().coming.is_none());
    assert_eq!(statuses(), [451, 451], "those before answer for a moment");
    assert_eq!(served.count(Counter::Reloads), reloads + 1);
    wait_until("those before are gone", || {
        served.snapshot();
        statuses() == [421, 451]
    });
}

#[test]
fn rules_that_come_and_are_not_usable_leave_those_in_force() {
    let served = Served::start();
    let coming = filter_page::decisions::coming(&served.decisions());
    std::fs::write(&coming, "{\"generation\": 5").expect("a file");
    served.await_count(Counter::ReloadsFailed, 1);
    let problem = served.snapshot().decisions_problem.expect("a problem");
    assert!(problem.contains("coming.json"), "{problem}");
    assert_eq!(served.http(BLOCKED, &[]).status, 451);
    std::fs::remove_file(&coming).expect("a file");
    wait_until("it is gone", || {
        served.snapshot().decisions_problem.is_none()
    });
}
