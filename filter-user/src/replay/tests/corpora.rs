//! Captures of real clients: the repository's own, and Zeek's where they are found.

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

fn names_in(path: &Path) -> (BTreeSet<String>, Findings) {
    let (frames, error) = frames_of_file(path);
    assert!(error.is_none(), "{}: {error:?}", path.display());
    let mut runner = HostRunner::new(names_only(), 0);
    let findings = replay(&mut runner, frames);
    let mut names = BTreeSet::new();
    for flow in &findings.flows {
        let first = flow.tally.named.iter().map(|named| &named.name);
        for name in first.chain(&flow.tally.more_names) {
            names.insert(String::from_utf8_lossy(name).into_owned());
        }
    }
    (names, findings)
}

#[test]
fn names_of_real_clients_are_those_that_they_were_told_to_ask_for() {
    let directory = fixtures().join("captures");
    let expected = fs::read_to_string(directory.join("expected_names.tsv")).expect("a fixture");
    let mut wrong = Vec::new();
    let mut captures = 0;
    for row in expected.lines().skip(1) {
        let (capture, expected) = row.split_once('\t').expect("two columns");
        let (names, findings) = names_in(&directory.join(capture));
        captures += 1;
        let expected: BTreeSet<String> = expected
            .split(',')
            .map(|name| name.trim_end_matches('.').to_owned())
            .collect();
        if capture.contains("quic") || capture.contains("quinn") {
            assert!(
                findings.summary.reasons.contains_key("quic_unread"),
                "{capture}"
            );
        } else if capture.contains("chromium") || capture.contains("firefox") {
            // Browsers also call home.
            assert!(names.is_superset(&expected), "{capture}: {names:?}");
        } else if names != expected {
            wrong.push(format!("{capture}: expected {expected:?}, read {names:?}"));
        }
    }
    assert_eq!(captures, 22);
    assert!(wrong.is_empty(), "{wrong:#?}");
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
