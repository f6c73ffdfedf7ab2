//! What was tried, expected and seen.

use anyhow::{Result, bail};

/// Widths of the columns that are padded.
const TRIED: usize = 68;
const EXPECTED: usize = 12;

/// Prints each row as soon as it is known and remembers how many differ.
pub(super) struct Table {
    rows: usize,
    different: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        println!("{:TRIED$} {:EXPECTED$} seen", "tried", "expected");
        Self {
            rows: 0,
            different: 0,
        }
    }

    /// A heading.
    pub(super) fn part(&self, title: &str) {
        println!("\n{title}");
    }

    /// One attempt.
    pub(super) fn row(&mut self, tried: &str, expected: &str, seen: &str) {
        self.rows += 1;
        let mark = if expected == seen { "ok" } else { "DIFFERENT" };
        self.different += usize::from(expected != seen);
        println!(
            "  {tried:width$} {expected:EXPECTED$} {seen:EXPECTED$} {mark}",
            width = TRIED - 2
        );
    }

    /// A remark on the row above.
    pub(super) fn note(&self, text: &str) {
        println!("    ({text})");
    }

    /// Counters per rule: id, packets, bytes. The demo hits every rule of its policy.
    pub(super) fn counters(&mut self, rules: &[(String, u64, u64)]) {
        println!("\n{:TRIED$} {:EXPECTED$} bytes", "rule", "packets");
        for (id, packets, bytes) in rules {
            println!(
                "  {id:width$} {packets:<EXPECTED$} {bytes}",
                width = TRIED - 2
            );
        }
        let silent: Vec<_> = rules
            .iter()
            .filter(|(_, packets, _)| *packets == 0)
            .map(|(id, ..)| id.as_str())
            .collect();
        let seen = if silent.is_empty() && !rules.is_empty() {
            "all".to_owned()
        } else {
            format!("not {}", silent.join(", "))
        };
        self.row("rules that have counted packets", "all", &seen);
    }

    /// The sum; an error if anything differed.
    pub(super) fn finish(self) -> Result<()> {
        println!(
            "\n{} tried, {} as expected",
            self.rows,
            self.rows - self.different
        );
        if self.different > 0 {
            bail!(
                "{} of {} lines differ from what is expected",
                self.different,
                self.rows
            );
        }
        Ok(())
    }
}
