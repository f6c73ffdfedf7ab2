use std::fs;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::SignatureScheme;

use super::*;

const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

fn pem(params: CertificateParams) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn named(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("good names")
}

fn now() -> Timestamp {
    Timestamp::now()
}

#[test]
fn every_kind_of_unusable_pair_is_named_and_the_others_are_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    let (chain, key) = pem(named(&["good.example"]));
    let (nameless, nameless_key) = pem(CertificateParams::default());
    let (_, other_key) = pem(named(&["other.example"]));
    write("good.crt", &chain);
    write("good.key", &key);
    write("nameless.pem", &nameless);
    write("nameless.key", &nameless_key);
    write("mixed.pem", &chain);
    write("mixed.key", &other_key);
    write("empty.pem", "");
    write("empty.key", &key);
    write(
        "rubbish.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    write("rubbish.key", &key);
    write("keyless.pem", &chain);
    write("large.pem", &" ".repeat(FILE_BYTES_MAX as usize + 1));
    write("large.key", &key);
    write(".hidden.pem", "");
    write("README", "");
    let certificates = Certificates::load(directory.path());
    let files: Vec<_> = certificates.entries().map(|entry| entry.file).collect();
    assert!(
        files.len() == 1 && files[0].ends_with("good.crt"),
        "{files:?}"
    );
    let problems = certificates.problems();
    assert_eq!(problems.len(), 6, "{problems:#?}");
    for (file, cause) in [
        ("nameless.pem", "it is for no name"),
        ("mixed.key", "do not belong together"),
        ("empty.pem", "no certificate in it"),
        ("rubbish.pem", "no X.509 certificate"),
        ("keyless.pem", "no key"),
        ("large.pem", "at most"),
    ] {
        let is_named = |problem: &String| problem.contains(file) && problem.contains(cause);
        assert!(
            problems.iter().any(is_named),
            "{file}: {cause} in {problems:#?}"
        );
    }
}

#[test]
fn a_missing_directory_is_a_problem_and_keeps_what_was_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let (chain, key) = pem(named(&["x.example"]));
    fs::write(directory.path().join("x.pem"), chain).expect("a file");
    fs::write(directory.path().join("x.key"), key).expect("a file");
    let before = Certificates::load(directory.path());
    assert!(
        before.changed(directory.path()).is_none(),
        "nothing changed"
    );
    let gone = directory.path().join("gone");
    let after = before.changed(&gone).expect("a problem");
    assert_eq!((after.problems().len(), after.entries().count()), (1, 1));
    assert!(after.changed(&gone).is_none(), "told once");
}

#[test]
fn names_addresses_wildcards_and_case_are_read_from_the_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut params = named(&["X.Example", "*.Wild.example"]);
    let address: IpAddr = "192.0.2.1".parse().expect("an address");
    params.subject_alt_names.push(SanType::IpAddress(address));
    let (chain, key) = pem(params);
    fs::write(directory.path().join("x.pem"), chain).expect("a file");
    fs::write(directory.path().join("x.key"), key).expect("a file");
    let certificates = Certificates::load(directory.path());
    let is_served = |name: &str| {
        certificates
            .server_for_name(name, &SCHEMES, now())
            .is_some()
    };
    assert!(is_served("x.example") && is_served("a.wild.example"));
    assert!(
        !is_served("wild.example") && !is_served("a.b.wild.example") && !is_served("a.x.example")
    );
    assert!(!is_served("") && !is_served(".") && !is_served(".example"));
    let served = certificates.server_for_address(address, &SCHEMES, now());
    assert!(served.is_some());
    let other = "192.0.2.2".parse().expect("an address");
    assert!(
        certificates
            .server_for_address(other, &SCHEMES, now())
            .is_none()
    );
}

#[test]
fn of_two_certificates_the_one_valid_longest_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    for (file, year) in [("a", 2050), ("b", 2080), ("c", 2060)] {
        let mut params = named(&["x.example"]);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let (chain, key) = pem(params);
        fs::write(directory.path().join(format!("{file}.pem")), chain).expect("a file");
        fs::write(directory.path().join(format!("{file}.key")), key).expect("a file");
    }
    let certificates = Certificates::load(directory.path());
    let coverage = certificates.coverage([Wanted::Host("x.example")], now());
    assert!(coverage.covered[0].file.ends_with("b.pem"), "{coverage:?}");
    let later = "2070-01-01T00:00:00Z".parse().expect("a time");
    let earlier = "1970-01-01T00:00:00Z".parse().expect("a time");
    let is_covered = |at| {
        certificates
            .coverage([Wanted::Host("x.example")], at)
            .missing
            .is_empty()
    };
    assert!(is_covered(later));
    assert!(!is_covered(earlier), "not yet valid");
}
