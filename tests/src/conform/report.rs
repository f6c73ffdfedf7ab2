//! What a table came to: rows that hold, rows that are known to fail, and a Markdown table.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::known::Expected;

/// What is asked of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// No server obtains the blocked name.
    Blocks,
    /// What the server accepts for an allowed name without the filter it gets with it.
    Serves,
}

impl Property {
    fn word(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Serves => "serves",
        }
    }
}

/// A row that does not hold, and why. It must be taken out as soon as the row holds.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The row's name.
    pub row: &'static str,
    /// What does not hold.
    pub property: Property,
    /// Whether it depends on the moment: then it need not be taken out when it holds once.
    pub sometimes: bool,
    /// Why; rows with the same reason are fixed, or stay, together.
    pub why: &'static str,
}

impl Known {
    /// What never holds.
    pub const fn always(row: &'static str, property: Property, why: &'static str) -> Self {
        Self {
            row,
            property,
            sometimes: false,
            why,
        }
    }

    /// What does not always hold.
    pub const fn sometimes(row: &'static str, property: Property, why: &'static str) -> Self {
        Self {
            sometimes: true,
            ..Self::always(row, property, why)
        }
    }
}

/// What became of one row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the truth.
    pub name: String,
    /// What the server does without the filter.
    pub truth: String,
    /// What was seen that contradicts [`Property::Blocks`].
    pub obtained: Vec<String>,
    /// What was seen that contradicts [`Property::Serves`].
    pub withheld: Vec<String>,
}

impl Row {
    /// A row that holds.
    pub fn new(name: &str, truth: &str) -> Self {
        Self {
            name: name.to_owned(),
            truth: truth.to_owned(),
            obtained: Vec::new(),
            withheld: Vec::new(),
        }
    }

    fn failures(&self, property: Property) -> &[String] {
        match property {
            Property::Blocks => &self.obtained,
            Property::Serves => &self.withheld,
        }
    }

    fn cell(&self, property: Property, known: &[Known]) -> String {
        if self.failures(property).is_empty() {
            return "yes".to_owned();
        }
        match find(known, &self.name, property) {
            Some(known) => format!("**no**: {}", known.why),
            None => "**no**".to_owned(),
        }
    }
}

fn find<'k>(known: &'k [Known], row: &str, property: Property) -> Option<&'k Known> {
    known
        .iter()
        .find(|known| known.row == row && known.property == property)
}

/// One table's rows, and those that are known to fail.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its file's name, without the ending.
    pub name: &'a str,
    /// What became of every row.
    pub rows: &'a [Row],
    /// What is known of it.
    pub expected: &'a Expected,
    /// Whether every case was tried; only then can a known failure be found to be gone.
    pub complete: bool,
}

/// Writes each table to `target/conformance/<name>.md` and fails for every row that is not as
/// [`Table::expected`] has it.
///
/// # Panics
/// With every unexpected row of every table.
pub fn conclude(tables: &[Table]) {
    let unexpected: String = tables.iter().map(Table::unexpected).collect();
    assert!(unexpected.is_empty(), "{unexpected}");
}

impl Table<'_> {
    /// Writes the table, prints the known failures; a line for each row that is not as expected.
    fn unexpected(&self) -> String {
        self.write();
        let mut lines = String::new();
        let mut failing = 0;
        for row in self.rows {
            for property in [Property::Blocks, Property::Serves] {
                failing += usize::from(!row.failures(property).is_empty());
                if let Some(line) = self.judge(row, property) {
                    writeln!(lines, "{}: {}: {line}", self.name, row.name).expect("a string");
                }
            }
        }
        for known in &self.expected.known {
            if !self.rows.iter().any(|row| row.name == known.row) {
                writeln!(lines, "{}: no row {}", self.name, known.row).expect("a string");
            }
        }
        if self.rows.len() != self.expected.rows {
            let (rows, expected) = (self.rows.len(), self.expected.rows);
            writeln!(lines, "{}: {rows} rows, not {expected}", self.name).expect("a string");
        }
        println!(
            "{}: {} rows, {failing} failures",
            self.name,
            self.rows.len()
        );
        lines
    }

    fn judge(&self, row: &Row, property: Property) -> Option<String> {
        let seen = row.failures(property).join("; ");
        let word = property.word();
        match (
            find(&self.expected.known, &row.name, property),
            seen.is_empty(),
        ) {
            (None, true) => None,
            (None, false) => Some(format!("{word}: {seen}")),
            (Some(known), false) => {
                println!(
                    "known: {}: {}: {word}: {} [{seen}]",
                    self.name, row.name, known.why
                );
                None
            }
            (Some(known), true) if self.complete && !known.sometimes => Some(format!(
                "{word} holds now: remove it from the list ({})",
                known.why
            )),
            (Some(_), true) => None,
        }
    }

    fn write(&self) {
        let mut text = String::from(
            "| row | without the filter | blocked name kept from the server | allowed name served |\n\
             |---|---|---|---|\n",
        );
        for row in self.rows {
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.name.replace('|', "\\|"),
                row.truth.replace('|', "\\|"),
                row.cell(Property::Blocks, &self.expected.known),
                row.cell(Property::Serves, &self.expected.known)
            )
            .expect("a string");
        }
        write(self.name, &text);
    }
}

/// Writes `target/conformance/<name>.md`.
///
/// # Panics
/// If it cannot be written.
pub fn write(name: &str, text: &str) {
    let directory = directory();
    let file = directory.join(format!("{name}.md"));
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&file, text))
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

fn directory() -> PathBuf {
    target().join("conformance")
}

/// `target`, of which the running test is part.
///
/// # Panics
/// If the test does not run in `target/<profile>/deps`.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test executable");
    let target = test.ancestors().nth(3);
    target.expect("target/<profile>/deps/<test>").to_owned()
}
