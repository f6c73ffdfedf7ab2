//! The documents against the code: what they list is what there is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use filter_common::reason::Reason;
use filter_user::metrics::Metric;

/// Documents that people are sent to.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/LIMITS.md",
    "docs/OPERATIONS.md",
    "docs/PERFORMANCE.md",
    "docs/POLICY.md",
];

/// Files whose constants are tables in the document of limits.
const LIMITS: [&str; 2] = [
    "filter-common/src/limits.rs",
    "filter-user/src/policy/limits.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// First and second cell of the table rows whose first cell is in backticks.
fn rows(document: &str) -> BTreeSet<(String, String)> {
    document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let key = cells.next()?.trim_end_matches('`');
            Some((key.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

/// Name and value of the public constants of a source file.
fn constants(source: &str) -> Vec<(String, String)> {
    source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .map(|line| {
            let (name, rest) = line.split_once(": ").expect("a constant has a type");
            let (_, value) = rest.split_once(" = ").expect("a constant on one line");
            (
                name.to_owned(),
                with_commas(evaluate(value.trim_end_matches(';'))),
            )
        })
        .collect()
}

/// The value of a number, or of two with an operator between them.
fn evaluate(expression: &str) -> u64 {
    let number = |text: &str| {
        let text = text.replace('_', "");
        let value = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        value.unwrap_or_else(|error| panic!("`{expression}`: {error}"))
    };
    match expression.split(' ').collect::<Vec<_>>().as_slice() {
        [one] => number(one),
        [a, "+", b] => number(a) + number(b),
        [a, "*", b] => number(a) * number(b),
        [a, "<<", b] => number(a) << number(b),
        _ => panic!("`{expression}` is more than this test understands"),
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn every_limit_is_documented_with_its_value() {
    let rows = rows(&read("docs/LIMITS.md"));
    for file in LIMITS {
        let constants = constants(&read(file));
        assert!(constants.len() > 10, "{file}");
        for constant in constants {
            assert!(
                rows.contains(&constant),
                "docs/LIMITS.md lacks `{}` with the value {} ({file})",
                constant.0,
                constant.1
            );
        }
    }
}

#[test]
fn every_documented_limit_exists() {
    let known: BTreeSet<String> = LIMITS
        .iter()
        .flat_map(|file| constants(&read(file)))
        .map(|(name, _)| name)
        .collect();
    for (name, _) in rows(&read("docs/LIMITS.md")) {
        let is_constant = name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
        assert!(!is_constant || known.contains(&name), "`{name}` is gone");
    }
}

#[test]
fn every_reason_is_documented_and_no_other() {
    let document = read("docs/LIMITS.md");
    let (_, section) = document
        .split_once("\n## Reasons\n")
        .expect("the section of reasons");
    let documented: BTreeSet<String> = rows(section).into_iter().map(|(word, _)| word).collect();
    let known: BTreeSet<String> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn every_metric_is_documented_with_its_labels_and_no_other() {
    let document = read("docs/OPERATIONS.md");
    let section = document
        .split_once("\n## Metrics\n")
        .and_then(|(_, from)| from.split("\n## ").next())
        .expect("the section of metrics");
    let documented: BTreeSet<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `edgefilter_"))
        .collect();
    let known: Vec<String> = Metric::ALL.into_iter().map(metric_row).collect();
    for row in &known {
        assert!(
            documented.contains(row.as_str()),
            "docs/OPERATIONS.md lacks\n{row}"
        );
    }
    assert_eq!(documented.len(), known.len(), "a metric that is gone");
}

fn metric_row(metric: Metric) -> String {
    let labels: Vec<String> = metric
        .labels()
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let row = format!(
        "| `{}` | {} | {} | {} |",
        metric.exposed(),
        metric.kind().as_str(),
        labels.join(", "),
        metric.help()
    );
    row.replace("|  |", "| |")
}

#[test]
fn the_results_of_the_conformance_suites_are_what_they_expect() {
    let expected = filter_tests::conform::known::markdown();
    assert!(
        read("docs/LIMITS.md").contains(&expected),
        "docs/LIMITS.md lacks this, or has it otherwise:\n{expected}"
    );
}

#[test]
fn links_and_paths_in_the_documents_lead_somewhere() {
    let mut checked = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().expect("a folder").to_owned();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(folder.join(path).exists(), "{document} links to {link}");
            checked += 1;
        }
        for path in text.split('`').skip(1).step_by(2) {
            let is_source = ["filter-", "tests/", "xtask/", "benches/"]
                .iter()
                .any(|folder| path.starts_with(folder))
                && path.contains('/')
                && !path.contains(' ');
            if is_source {
                assert!(root().join(path).exists(), "{document} names {path}");
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "{checked}");
}
