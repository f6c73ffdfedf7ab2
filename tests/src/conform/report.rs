//! What a table came to: rows that hold, rows that are known to fail, and a Markdown table.

use std::{fmt::Write as _, fs, path::PathBuf};

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
    /// Why; rows with the same reason are fixed, or stay, together.
    pub why: &'static str,
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

/// Writes the table to `target/conformance/<name>.md` and fails for every row that is not as
/// `known` has it. `complete`: whether every case of the table was tried; only then can a known
/// failure be found to be gone.
///
/// # Panics
/// With every unexpected row.
pub fn conclude(name: &str, rows: &[Row], known: &[Known], complete: bool) {
    write(name, rows, known);
    let mut unexpected = String::new();
    let mut failing = 0;
    for row in rows {
        for property in [Property::Blocks, Property::Serves] {
            let failures = row.failures(property);
            let listed = find(known, &row.name, property);
            let word = property.word();
            failing += usize::from(!failures.is_empty());
            match listed {
                None if !failures.is_empty() => {
                    let seen = failures.join("; ");
                    writeln!(unexpected, "{}: {word}: {seen}", row.name).expect("a string");
                }
                Some(known) if failures.is_empty() && complete => writeln!(
                    unexpected,
                    "{}: {word} holds now: remove it from the list ({})",
                    row.name, known.why
                )
                .expect("a string"),
                Some(known) if !failures.is_empty() => {
                    let seen = failures.join("; ");
                    println!("known: {}: {word}: {} [{seen}]", row.name, known.why);
                }
                None | Some(_) => {}
            }
        }
    }
    for known in known {
        if !rows.iter().any(|row| row.name == known.row) && complete {
            writeln!(
                unexpected,
                "{}: listed, but there is no such row",
                known.row
            )
            .expect("a string");
        }
    }
    println!("{name}: {} rows, {failing} known failures", rows.len());
    assert!(unexpected.is_empty(), "{name}:\n{unexpected}");
}

/// `target/conformance`, beside the running test's profile.
fn directory() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test executable");
    let target = test
        .ancestors()
        .nth(3)
        .expect("target/<profile>/deps/<test>");
    target.join("conformance")
}

fn write(name: &str, rows: &[Row], known: &[Known]) {
    let mut text = String::from(
        "| row | without the filter | blocked name kept from the server | allowed name served |\n\
         |---|---|---|---|\n",
    );
    for row in rows {
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.name.replace('|', "\\|"),
            row.truth.replace('|', "\\|"),
            row.cell(Property::Blocks, known),
            row.cell(Property::Serves, known)
        )
        .expect("a string");
    }
    let directory = directory();
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join(format!("{name}.md")), text))
        .unwrap_or_else(|e| panic!("{}/{name}.md: {e}", directory.display()));
}
