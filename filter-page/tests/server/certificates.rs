//! Certificates that come, change, break and go while the server runs.

use std::{fs, path::Path};

use filter_page::{
    certificates::{Certificates, Wanted},
    stats::Counter,
};
use rcgen::{CertificateParams, date_time_ymd};

use crate::kit::{BLOCKED, Served, wait_until, write_pair, write_params};

fn serial(served: &Served, name: &str) -> Option<String> {
    let said = served.s_client(Some(name), &[]);
    let start = said.find("-----BEGIN CERTIFICATE-----")?;
    Some(said[start..].split("-----END").next()?.to_owned())
}

#[test]
fn a_replaced_pair_is_served_and_a_broken_one_is_not() {
    let served = Served::start();
    let first = serial(&served, BLOCKED).expect("a certificate");
    write_pair(&served.certificates(), "blocked", &[BLOCKED]);
    wait_until("the second certificate", || {
        serial(&served, BLOCKED).is_some_and(|now| now != first)
    });
    let second = serial(&served, BLOCKED).expect("a certificate");

    fs::write(served.certificates().join("blocked.key"), "rubbish").expect("a file");
    served.await_count(Counter::ReloadsFailed, 1);
    assert_eq!(
        serial(&served, BLOCKED),
        Some(second.clone()),
        "the last good one stays"
    );
    let snapshot = served.snapshot();
    let problems = &snapshot.certificate_problems;
    assert!(
        problems.len() == 1 && problems[0].contains("blocked.key"),
        "{problems:?}"
    );
    assert_eq!(snapshot.certificates.len(), 2);
    assert_eq!(snapshot.certificates[0].names, [BLOCKED]);

    write_pair(&served.certificates(), "blocked", &[BLOCKED]);
    wait_until("the third certificate", || {
        serial(&served, BLOCKED).is_some_and(|now| now != second)
    });
    wait_until("no problem", || {
        served.snapshot().certificate_problems.is_empty()
    });
}

#[test]
fn pairs_come_and_go_and_acme_directories_are_read_through_links() {
    let served = Served::start();
    let live = served.certificates().join("new.example");
    let archive = tempfile::tempdir().expect("a directory");
    write_pair(archive.path(), "new", &["new.example"]);
    fs::create_dir(&live).expect("a directory");
    let link = |from: &str, to: &str| {
        std::os::unix::fs::symlink(archive.path().join(from), live.join(to)).expect("a link");
    };
    link("new.pem", "fullchain.pem");
    link("new.key", "privkey.pem");
    wait_until("a new certificate", || {
        serial(&served, "new.example").is_some()
    });
    fs::remove_dir_all(&live).expect("removed");
    wait_until("none", || serial(&served, "new.example").is_none());
}

#[test]
fn an_exact_name_goes_before_a_wildcard() {
    let served = Served::start();
    let by_wildcard = serial(&served, "x.shared.example").expect("a certificate");
    write_pair(&served.certificates(), "exact", &["x.shared.example"]);
    wait_until("the exact one", || {
        serial(&served, "x.shared.example").is_some_and(|now| now != by_wildcard)
    });
    assert_eq!(serial(&served, "y.shared.example"), Some(by_wildcard));
}

#[test]
fn an_expired_certificate_is_not_used_and_not_covered() {
    let served = Served::start();
    let mut expired = CertificateParams::new(vec!["old.example".to_owned()]).expect("a name");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    write_params(&served.certificates(), "old", expired);
    wait_until("it is known", || served.snapshot().certificates.len() == 3);
    assert_eq!(serial(&served, "old.example"), None);
    let coverage = coverage(&served.certificates(), &[Wanted::Host("old.example")]);
    assert_eq!(coverage.missing, ["old.example"]);
}

#[test]
fn the_controller_is_told_what_the_server_does() {
    let served = Served::start();
    let wanted = [
        Wanted::Host("listed.shared.example"),
        Wanted::Host("a.b.shared.example"),
        Wanted::Domain("blocked.example"),
        Wanted::Domain("shared.example"),
        Wanted::Domain("other.example"),
    ];
    let coverage = coverage(&served.certificates(), &wanted);
    let told: Vec<_> = coverage
        .covered
        .iter()
        .map(|of| (of.name.as_str(), of.has_itself, of.has_children))
        .collect();
    assert_eq!(
        told,
        [
            ("listed.shared.example", true, true),
            ("blocked.example", true, true),
            ("shared.example", false, true),
        ]
    );
    assert_eq!(coverage.missing, ["a.b.shared.example", "other.example"]);
    for (name, is_served) in [
        ("listed.shared.example", true),
        ("a.b.shared.example", false),
        ("blocked.example", true),
        ("any.blocked.example", true),
        ("shared.example", false),
        ("other.example", false),
    ] {
        assert_eq!(serial(&served, name).is_some(), is_served, "{name}");
    }
}

fn coverage(directory: &Path, wanted: &[Wanted<'_>]) -> filter_page::certificates::Coverage {
    let now = served_now();
    Certificates::load(directory).coverage(wanted.iter().copied(), now)
}

fn served_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
