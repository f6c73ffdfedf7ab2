use hyper::header::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(field: HeaderName, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(
            field.clone(),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    headers
}

fn chosen(values: &[&str], available: &[&'static str]) -> &'static str {
    let headers = headers(ACCEPT_LANGUAGE, values);
    language(&headers, available).expect("there is one")
}

#[test]
fn the_language_is_the_one_wanted_most() {
    for (wanted, language) in [
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-Latn-DE-1996", "de"),
        ("fr", "en"),
        ("fr, de;q=0.1", "de"),
        ("en;q=0.5, de;q=0.6", "de"),
        ("en;q=0.6, de;q=0.5", "en"),
        ("de, en", "de"),
        ("en, de", "en"),
        ("*, en;q=0.1", "de"),
        ("*", "en"),
        ("en;q=0, *", "de"),
        ("de;q=0", "en"),
        ("en-GB;q=0.8, en;q=0.3, de;q=0.5", "en"),
        ("deutsch", "en"),
        ("de;q=2, de;q=x, de;q=0.1234, ;q=1, ,", "en"),
        ("de ; q=0.9 , en ; q=0.8", "de"),
    ] {
        assert_eq!(chosen(&[wanted], &["en", "de"]), language, "{wanted}");
    }
    assert_eq!(
        chosen(&["fr", "de"], &["en", "de"]),
        "de",
        "lists in several fields"
    );
    assert_eq!(chosen(&["en"], &["de", "en-GB"]), "en-GB");
    assert_eq!(
        chosen(&["fr"], &["de", "en"]),
        "de",
        "the first is for all others"
    );
}

#[test]
fn the_format_is_the_one_wanted_most() {
    use Format::{Html, Json, Plain};
    for (wanted, expected) in [
        ("", Html),
        ("*/*", Html),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            Html,
        ),
        ("application/json", Json),
        ("application/json, text/plain, */*", Json),
        ("text/plain", Plain),
        ("TEXT/PLAIN;charset=utf-8", Plain),
        ("text/*", Html),
        ("text/*, text/html;q=0.1", Plain),
        ("text/html;q=0.4, application/json;q=0.5", Json),
        ("image/png", Html),
        ("application/json;q=0", Html),
        ("*/*, text/html;q=0", Json),
    ] {
        assert_eq!(format(&headers(ACCEPT, &[wanted])), expected, "{wanted}");
    }
}

fn of(target: &str, version: Version, hosts: &[&str]) -> Result<Authority, Bad> {
    let mut request = Request::new(());
    *request.uri_mut() = target.parse().expect("a target");
    *request.version_mut() = version;
    *request.headers_mut() = headers(HOST, hosts);
    authority(&request)
}

#[test]
fn hosts_are_read_as_the_rules_have_them() {
    let name = |name: &str| Ok(Authority::Name(name.to_owned()));
    let address = |text: &str| Ok(Authority::Address(text.parse().expect("an address")));
    for (host, expected) in [
        ("x.example", name("x.example")),
        ("X.eXample.:443", name("x.example")),
        ("x.example:", name("x.example")),
        ("_x-1.example", name("_x-1.example")),
        ("192.0.2.1:80", address("192.0.2.1")),
        ("[2001:db8::1]:80", address("2001:db8::1")),
        ("[::ffff:192.0.2.1]", address("192.0.2.1")),
        ("", Ok(Authority::Absent)),
        (".", Err(Bad)),
        ("user@x.example", Err(Bad)),
        ("x.example/", Err(Bad)),
        ("a b", Err(Bad)),
        ("[::1", Err(Bad)),
        ("[x]", Err(Bad)),
        ("x%41.example", Err(Bad)),
    ] {
        assert_eq!(of("/", Version::HTTP_11, &[host]), expected, "{host:?}");
    }
}

#[test]
fn the_target_counts_before_the_host_and_hosts_are_counted() {
    let name = |name: &str| Ok(Authority::Name(name.to_owned()));
    assert_eq!(
        of("http://a.example/", Version::HTTP_11, &["b.example"]),
        name("a.example")
    );
    assert_eq!(
        of("a.example:443", Version::HTTP_11, &["b.example"]),
        name("a.example")
    );
    assert_eq!(
        of(
            "http://a.example/",
            Version::HTTP_11,
            &["b.example", "c.example"]
        ),
        Err(Bad)
    );
    assert_eq!(of("/", Version::HTTP_11, &[]), Err(Bad));
    assert_eq!(of("/", Version::HTTP_10, &[]), Ok(Authority::Absent));
}

proptest! {
    #[test]
    fn no_list_of_preferences_is_too_odd(text in "[ -~]{0,200}") {
        let language_headers = headers(ACCEPT_LANGUAGE, &[&text]);
        let language = language(&language_headers, &["en", "de"]);
        prop_assert!(matches!(language, Some("en" | "de")));
        format(&headers(ACCEPT, &[&text]));
    }

    #[test]
    fn what_is_taken_for_a_name_has_a_names_characters(host in "\\PC{0,40}") {
        if let Some(name) = normal_name(&host) {
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)));
            prop_assert_eq!(normal_name(&name), Some(name.clone()));
        }
    }
}
