//! What a machine's tests printed, as figures.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What one kernel came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// `uname -r`.
    pub release: String,
    /// Shapes of the program that loaded.
    pub variants: Vec<Variant>,
    /// Rows of the fixture table, and those of them that differ.
    pub rows: u32,
    pub rows_wrong: u32,
    /// What the kernel lacks, and what is done instead.
    pub lacks: Vec<String>,
    /// Each run of a test binary.
    pub runs: Vec<Run>,
}

/// A shape of the program.
#[derive(Debug, PartialEq)]
pub(crate) struct Variant {
    pub name: String,
    pub verified_instructions: u32,
    pub load_ms: u32,
}

/// One run of a test binary.
#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    pub name: String,
    /// Tests that passed.
    pub passed: u32,
    /// Its exit status; `None` if it did not come to its end.
    pub status: Option<i32>,
    /// All that it printed.
    pub output: String,
}

impl Outcome {
    /// Reads what the machine's second serial port gave.
    pub(crate) fn parse(results: &str) -> Self {
        let mut outcome = Self::default();
        for line in results.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "release" => outcome.release = rest.to_owned(),
                "begin" => outcome.runs.push(Run {
                    name: rest.to_owned(),
                    passed: 0,
                    status: None,
                    output: String::new(),
                }),
                "end" => {
                    if let Some(run) = outcome.runs.last_mut() {
                        run.status = rest.rsplit(' ').next().and_then(|it| it.parse().ok());
                    }
                }
                "variant" => outcome.variants.extend(variant(rest)),
                "lacks" => outcome.lacks.push(rest.to_owned()),
                _ => outcome.take(line),
            }
        }
        outcome
    }

    fn take(&mut self, line: &str) {
        // "test NAME ... 1240 rows", or "3 of 1240 rows differ:".
        let words: Vec<&str> = line.split(' ').collect();
        if let [.., rows, "rows"] = words[..] {
            self.rows = rows.parse().unwrap_or(self.rows);
        } else if let [wrong, "of", rows, "rows", "differ:"] = words[..] {
            self.rows_wrong = wrong.parse().unwrap_or(self.rows_wrong);
            self.rows = rows.parse().unwrap_or(self.rows);
        }
        let Some(run) = self.runs.last_mut() else {
            return;
        };
        if let Some(rest) = line.strip_prefix("test result: ") {
            let count = rest.split(' ').nth(1).and_then(|it| it.parse().ok());
            run.passed = count.unwrap_or(0);
        }
        run.output.push_str(line);
        run.output.push('\n');
    }

    /// Runs that failed, or passed no test at all.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Run> {
        let failed = |run: &&Run| run.status != Some(0) || run.passed == 0;
        self.runs.iter().filter(failed)
    }

    /// Whether every test of `expected` ran and passed.
    pub(crate) fn is_good(&self, expected: usize) -> bool {
        self.runs.len() == expected && self.failed().next().is_none()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let width = self.variants.iter().map(|it| it.name.len()).max();
        let width = width.unwrap_or(0);
        for Variant {
            name,
            verified_instructions,
            load_ms,
        } in &self.variants
        {
            let _ = writeln!(
                text,
                "  loads     {name:width$} {verified_instructions:>9} verified instructions {load_ms:>7} ms"
            );
        }
        let (rows, wrong) = (self.rows, self.rows_wrong);
        let _ = writeln!(
            text,
            "  fixtures  {} of {rows} rows as expected",
            rows - wrong.min(rows)
        );
        for run in &self.runs {
            let end = match run.status {
                Some(0) => "passed".to_owned(),
                Some(status) => format!("FAILED, exit status {status}"),
                None => "FAILED, did not end".to_owned(),
            };
            let _ = writeln!(text, "  {:9} {} tests passed: {end}", run.name, run.passed);
        }
        for lacking in &self.lacks {
            let _ = writeln!(text, "  lacks     {lacking}");
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let variants = self.variants.iter().map(|it| {
            json!({
                "name": it.name,
                "verified_instructions": it.verified_instructions,
                "load_ms": it.load_ms,
            })
        });
        let runs = self
            .runs
            .iter()
            .map(|it| json!({ "name": it.name, "passed": it.passed, "status": it.status }));
        json!({
            "release": self.release,
            "variants": variants.collect::<Vec<_>>(),
            "fixtures": { "rows": self.rows, "wrong": self.rows_wrong },
            "runs": runs.collect::<Vec<_>>(),
            "lacks": self.lacks,
        })
    }
}

/// `INSTRUCTIONS MILLISECONDS NAME`.
fn variant(text: &str) -> Option<Variant> {
    let mut words = text.splitn(3, ' ');
    Some(Variant {
        verified_instructions: words.next()?.parse().ok()?,
        load_ms: words.next()?.parse().ok()?,
        name: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS: &str = "release 6.1.0\nbegin variants\nvariant 120 30 three rules\n\
        test result: ok. 2 passed; 0 failed; 0 ignored\n\nend variants 0\n\
        begin fixtures\n3 of 40 rows differ:\n  ports: a row\n\
        test result: FAILED. 0 passed; 1 failed\n\nend fixtures 101\n\
        begin smoke\nlacks sight (Linux 9.9): guessing\n";

    #[test]
    fn figures_are_read_from_what_the_tests_print() {
        let outcome = Outcome::parse(RESULTS);
        assert_eq!(outcome.release, "6.1.0");
        let three_rules = Variant {
            name: "three rules".to_owned(),
            verified_instructions: 120,
            load_ms: 30,
        };
        assert_eq!(outcome.variants, [three_rules]);
        assert_eq!((outcome.rows, outcome.rows_wrong), (40, 3));
        assert_eq!(outcome.lacks, ["sight (Linux 9.9): guessing"]);
        let ends: Vec<_> = outcome
            .runs
            .iter()
            .map(|run| (run.passed, run.status))
            .collect();
        assert_eq!(ends, [(2, Some(0)), (0, Some(101)), (0, None)]);
    }

    #[test]
    fn rows_are_counted_behind_the_name_of_their_test() {
        let outcome = Outcome::parse("begin fixtures\ntest every_row ... 1240 rows\nok\n");
        assert_eq!((outcome.rows, outcome.rows_wrong), (1240, 0));
    }

    #[test]
    fn what_fails_does_not_end_or_tests_nothing_is_not_good() {
        let failed: Vec<_> = Outcome::parse(RESULTS)
            .failed()
            .map(|run| run.name.clone())
            .collect();
        assert_eq!(failed, ["fixtures", "smoke"]);
        let nothing = "begin a\ntest result: ok. 0 passed; 0 failed\nend a 0\n";
        assert!(!Outcome::parse(nothing).is_good(1));
        assert!(!Outcome::parse("").is_good(1));
        let good = "begin a\ntest result: ok. 1 passed; 0 failed\nend a 0\n";
        assert!(Outcome::parse(good).is_good(1));
    }
}
