//! Whole files: what loads, and what is said about what does not.

mod errors;
mod files;
mod host;
mod rules;

use std::path::Path;

use jiff::Timestamp;

use super::{PolicyError, load::parse_policy_at, model::Policy};

/// The moment at which the tests' policies are read.
const NOW: &str = "2026-09-01T00:00:00Z";

/// Keys of a rule about which nothing is to be said.
const EXPLAINED: &str = "reason = \"r\"\nstatement = \"https://provider.example/1\"\nreview_by = 2026-10-01T00:00:00Z\n";

/// A policy whose text is given, without a directory.
fn parse(text: &str) -> Result<Policy, PolicyError> {
    let now: Timestamp = NOW.parse().unwrap();
    parse_policy_at(
        text,
        Path::new("policy.toml"),
        Path::new("/nonexistent"),
        now,
    )
}

/// A policy of rules that each have an id (`a`, `b`, …) and an explanation beside what is given.
fn policy(rules: &[&str]) -> String {
    let mut text = String::from("version = 1\n");
    for (rule, id) in rules.iter().zip('a'..='z') {
        text += &format!("[[rule]]\nid = \"{id}\"\n{EXPLAINED}{rule}\n");
    }
    text
}

/// The first error's message.
fn message(text: &str) -> String {
    parse(text).unwrap_err().report.diagnostics[0]
        .message
        .clone()
}
