//! Captures of real clients: the repository's own, and others where they are found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::super::testing::*;
use crate::{
    host::HostRunner,
    replay::{Findings, capture::CaptureError},
};

/// Why the names read of a capture are not those that its source documents.
#[derive(Clone, Copy, Debug)]
enum Difference {
    /// The names are reported as unsupported, with this word.
    Unsupported(&'static str),
    /// The link type is refused.
    LinkType,
    /// The source documents its names for several captures together; these it does not hold.
    NotInCapture(&'static [&'static str]),
    /// There are more names than the source documents: the browser called home.
    More(&'static [&'static str]),
}

use Difference::{LinkType, More, NotInCapture, Unsupported};

const CLOUDFLARE: &str = "cloudflare-ech.com";
const GOOGLE: &str = "lh3.google.com";
const MOZILLA: &str = "tls13.crypto.mozilla.org";

/// Every capture whose names differ from the documented ones, with the reason.
const DIFFERENCES: &[(&str, Difference)] = &[
    (
        "captured-real-clients/chromium156-quic.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "captured-real-clients/chromium156-tcp.pcap",
        More(&["clients2.google.com"]),
    ),
    (
        "captured-real-clients/firefox153-quic.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "captured-real-clients/quinn011-awslc.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "captured-real-clients/quinn011-ring.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/chromium-115.0.5790.110-api-cirrus-com.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/chromium-115.0.5790.110-google-de-fragmented.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/chromium-dpd-custom-port-4433.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/curl-8.1.2-dev-http3-www-google-de.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/firefox-102.13.0esr-blog-cloudflare-com.pcap",
        Unsupported("quic_unread"),
    ),
    ("zeek/quic/interop/quic-go_quic-go/handshake.pcap", LinkType),
    ("zeek/quic/interop/quic-go_quic-go/retry.pcap", LinkType),
    ("zeek/quic/interop/quic-go_quic-go/zerortt.pcap", LinkType),
    ("zeek/quic/quic-39264-rand.pcap", Unsupported("quic_unread")),
    (
        "zeek/quic/quic-decrypt-fail-google-de-51833.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/quic-multiple-initial-fragmented-crypto-only-initial.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/quic-multiple-initial-fragmented-crypto.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/quic/quic_win11_firefox_google.pcap",
        Unsupported("quic_unread"),
    ),
    ("zeek/quic/quicv2-echo-443.pcap", Unsupported("quic_unread")),
    (
        "zeek/quic/quicv2-echo-dpd-custom-port-4433.pcap",
        Unsupported("quic_unread"),
    ),
    (
        "zeek/tls/chrome-1250-tls-x25519-kyber.pcap",
        NotInCapture(&[MOZILLA]),
    ),
    ("zeek/tls/dhe.pcap", NotInCapture(&[CLOUDFLARE, MOZILLA])),
    ("zeek/tls/dtls1_0.pcap", Unsupported("dtls")),
    ("zeek/tls/dtls1_2.pcap", Unsupported("dtls")),
    ("zeek/tls/ecdhe.pcap", NotInCapture(&[CLOUDFLARE, MOZILLA])),
    ("zeek/tls/hrr.pcap", NotInCapture(&[GOOGLE, MOZILLA])),
    ("zeek/tls/ssl.v3.pcap", NotInCapture(&[CLOUDFLARE, MOZILLA])),
    ("zeek/tls/tls13-ech.pcap", NotInCapture(&[MOZILLA])),
    (
        "zeek/tls/tls13_psk_succesfull.pcap",
        NotInCapture(&[GOOGLE, MOZILLA]),
    ),
    (
        "zeek/tls/tls13_wolfssl.pcap",
        NotInCapture(&[CLOUDFLARE, MOZILLA]),
    ),
    (
        "zeek/tls/tls13draft16-chrome55.0.2879.0-canary-aborted.pcap",
        NotInCapture(&[GOOGLE]),
    ),
    (
        "zeek/tls/tls13draft16-chrome55.0.2879.0-canary.pcap",
        NotInCapture(&[GOOGLE, MOZILLA]),
    ),
    (
        "zeek/tls/tls13draft16-ff52.a01-aborted.pcap",
        NotInCapture(&[GOOGLE]),
    ),
    (
        "zeek/tls/tls13draft16-ff52.a01.pcap",
        NotInCapture(&[GOOGLE, MOZILLA]),
    ),
    (
        "zeek/tls/tls13draft23-chrome67.0.3368.0-canary.pcap",
        NotInCapture(&[CLOUDFLARE]),
    ),
    ("zeek/tls/tls1_1.pcap", NotInCapture(&[CLOUDFLARE, MOZILLA])),
    ("zeek/tunnels/Teredo.pcap", Unsupported("teredo")),
    ("zeek/tunnels/ayiya3.pcap", Unsupported("ayiya")),
    ("zeek/tunnels/gre-over-udp-4754.pcap", Unsupported("gre")),
    (
        "zeek/tunnels/gtp/gtp1_gn_normal_incl_fragmentation.pcap",
        Unsupported("gtp"),
    ),
    (
        "zeek/tunnels/gtp/gtp2_different_udp_port.pcap",
        Unsupported("gtp"),
    ),
    (
        "zeek/tunnels/teredo_bubble_with_payload.pcap",
        Unsupported("teredo"),
    ),
    (
        "zeek/tunnels/vxlan-encapsulated-http.pcap",
        Unsupported("vxlan"),
    ),
    (
        "zeek/websocket/wstunnel-https.pcap",
        Unsupported("http_upgrade"),
    ),
];

fn replayed(path: &Path) -> (Findings, Option<CaptureError>) {
    let (frames, error) = frames_of_file(path);
    let mut runner = HostRunner::new(names_only(), 0);
    (replay(&mut runner, frames), error)
}

/// All names of all flows, as they are compared: neither case nor port nor trailing dot counts.
fn names(findings: &Findings) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for flow in &findings.flows {
        let first = flow.tally.name().map(|named| &named.name);
        for name in first.into_iter().chain(&flow.tally.more_names) {
            names.insert(plain(&String::from_utf8_lossy(name)));
        }
    }
    names
}

fn plain(name: &str) -> String {
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => name,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// What is wrong about a capture for which a table lists `documented`, if anything.
fn judged(
    capture: &str,
    path: &Path,
    documented: &[&str],
    difference: Option<Difference>,
) -> Option<String> {
    let (findings, error) = replayed(path);
    let names = names(&findings);
    let mut expected: BTreeSet<String> = documented.iter().map(|name| plain(name)).collect();
    match difference {
        Some(LinkType) => {
            let refused = matches!(error, Some(CaptureError::UnsupportedLink { .. }));
            return (!refused).then(|| format!("{capture}: {error:?}, not a refused link type"));
        }
        Some(Unsupported(word)) => {
            let said = findings.flows.iter().any(|flow| {
                let unsupported = flow.tally.unsupported();
                unsupported.is_some_and(|unsupported| unsupported.as_str() == word)
            });
            let missing = expected.is_subset(&names);
            return (!said || missing)
                .then(|| format!("{capture}: {word} reported: {said}, names {names:?}"));
        }
        Some(NotInCapture(absent)) => {
            let removed = absent.iter().filter(|name| expected.remove(**name)).count();
            assert_eq!(
                removed,
                absent.len(),
                "{capture}: documented {documented:?}"
            );
        }
        Some(More(more)) => expected.extend(more.iter().map(|&name| name.to_owned())),
        None => {}
    }
    if let Some(error) = error {
        return Some(format!("{capture}: {error}"));
    }
    (names != expected).then(|| format!("{capture}: expected {expected:?}, read {names:?}"))
}

/// Compares all captures of a folder with the table in it: path, names, further names.
fn compare(folder: &Path, table: &str, prefix: &str) -> usize {
    let table = folder.join(table);
    let table = fs::read_to_string(&table).unwrap_or_else(|e| panic!("{}: {e}", table.display()));
    let mut wrong = Vec::new();
    let mut captures = 0;
    for row in table.lines().skip(1) {
        let (capture, documented) = row.split_once('\t').expect("columns");
        let documented: Vec<&str> = documented
            .split(['\t', ','])
            .filter(|name| !name.is_empty())
            .collect();
        let listed = format!("{prefix}{capture}");
        let difference = DIFFERENCES.iter().find(|(path, _)| *path == listed);
        captures += 1;
        wrong.extend(judged(
            capture,
            &folder.join(capture),
            &documented,
            difference.map(|(_, difference)| *difference),
        ));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    captures
}

#[test]
fn names_of_real_clients_are_those_that_they_were_told_to_ask_for() {
    let captures = compare(
        &fixtures().join("captures"),
        "expected_names.tsv",
        "captured-real-clients/",
    );
    assert_eq!(captures, 22);
}

#[test]
fn names_in_the_corpora_are_those_that_their_sources_document() {
    let Some(folder) = corpora() else {
        println!("skipped: neither EDGEFILTER_CORPORA nor ../shared/corpora has captures");
        return;
    };
    let captures = compare(&folder, "expected_hostnames.tsv", "");
    assert!(captures > 100, "only {captures} captures");
}

/// The folder with captures that are not in this repository.
fn corpora() -> Option<PathBuf> {
    let folder = std::env::var_os("EDGEFILTER_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"),
        PathBuf::from,
    );
    folder
        .join("expected_hostnames.tsv")
        .exists()
        .then_some(folder)
}

fn captures_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            captures_under(&path, found);
        } else if path.to_string_lossy().contains(".pcap") {
            found.push(path);
        }
    }
}

#[test]
fn every_capture_of_the_corpora_is_read_to_its_end() {
    let Some(folder) = corpora() else {
        println!("skipped: neither EDGEFILTER_CORPORA nor ../shared/corpora has captures");
        return;
    };
    let mut captures = Vec::new();
    captures_under(&folder, &mut captures);
    assert!(captures.len() > 100, "only {} captures", captures.len());
    for path in captures {
        let (frames, error) = frames_of_file(&path);
        match error {
            None => assert!(!frames.is_empty(), "{}", path.display()),
            Some(CaptureError::UnsupportedLink { .. }) => assert!(frames.is_empty()),
            Some(error) => panic!("{}: {error}", path.display()),
        }
        let total = frames.len() as u64;
        let mut runner = HostRunner::new(names_only(), 0);
        let summary = replay(&mut runner, frames).summary;
        assert_eq!(summary.frames, total, "{}", path.display());
        assert_eq!(
            summary.reasons.values().sum::<u64>(),
            total,
            "{}",
            path.display()
        );
    }
}
