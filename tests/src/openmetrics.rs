//! Reads the text format of OpenMetrics, strictly: what a monitoring system may refuse is a panic.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name, with `_total` if it is a counter's.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

/// What was told at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// Names of the families, with their types.
    pub families: BTreeMap<String, String>,
    /// The numbers.
    pub samples: Vec<Sample>,
}

impl Exposition {
    /// Parses a whole text.
    ///
    /// # Panics
    /// If it is none: the end is missing, a sample's family was not announced, families are mixed, a
    /// counter has no `_total`, a label or number cannot be read, or a sample is told twice.
    pub fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut exposition = Self::default();
        let mut helped = None;
        let mut family: Option<(String, String)> = None;
        let mut told = BTreeSet::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and its help");
                assert!(!help.is_empty(), "{line}");
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and its type");
                assert_eq!(helped.as_deref(), Some(name), "help comes first: {line}");
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                let known = exposition.families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "a family in two places: {line}");
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let sample = sample(line);
                let (name, kind) = family.as_ref().expect("a type before the first sample");
                let suffix = sample.name.strip_prefix(name.as_str());
                let expected = if kind == "counter" { "_total" } else { "" };
                assert_eq!(suffix, Some(expected), "{line} under {name}");
                assert!(
                    kind == "gauge" || sample.value >= 0.0 && sample.value.fract() == 0.0,
                    "{line}"
                );
                assert!(
                    told.insert((sample.name.clone(), sample.labels.clone())),
                    "told twice: {line}"
                );
                exposition.samples.push(sample);
            }
        }
        exposition
    }

    /// The number with this name and at least these labels; `None` without one.
    ///
    /// # Panics
    /// If there are several.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|it| it == value))
        };
        let mut found = self.samples.iter().filter(fits);
        let first = found.next()?;
        assert_eq!(found.next(), None, "several of {name}{labels:?}");
        Some(first.value)
    }

    /// Every number with this name.
    pub fn all(&self, name: &str) -> Vec<&Sample> {
        let named = self.samples.iter().filter(|sample| sample.name == name);
        named.collect()
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a name");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, after) = rest.split_once("=\"").expect("a label and its value");
            assert!(is_name(key), "{line}");
            let (value, after) = quoted(after);
            assert_eq!(labels.insert(key.to_owned(), value), None, "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').expect("the end of the labels");
                    break;
                }
            }
        }
    }
    let number = rest.strip_prefix(' ').expect("a blank before the number");
    Sample {
        name: name.to_owned(),
        labels,
        value: number.parse().unwrap_or_else(|e| panic!("{line}: {e}")),
    }
}

/// A value up to its closing quote, and what is behind that.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                other => panic!("{other:?} behind a backslash in {text}"),
            },
            '\n' => panic!("a line ends within a value: {text}"),
            other => value.push(other),
        }
    }
    panic!("no closing quote in {text}")
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_it_was_meant() {
        let text = "# HELP a_b words\n# TYPE a_b counter\na_b_total{x=\"1\\\"\\n\",y=\"}\"} 7\n\
                    # HELP g words\n# TYPE g gauge\ng -1.5\n# EOF\n";
        let read = Exposition::parse(text);
        assert_eq!(
            read.get("a_b_total", &[("x", "1\"\n"), ("y", "}")]),
            Some(7.0)
        );
        assert_eq!(read.get("g", &[]), Some(-1.5));
        assert_eq!(read.get("h", &[]), None);
    }

    #[test]
    fn what_is_no_such_text_is_refused() {
        for text in [
            "",
            "a 1\n# EOF\n",
            "# HELP a b\n# TYPE a counter\na 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na 1\na 2\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na{x=\"\\d\"} 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na one\n# EOF\n",
        ] {
            let read = std::panic::catch_unwind(|| Exposition::parse(text));
            assert!(read.is_err(), "{text}");
        }
    }
}
