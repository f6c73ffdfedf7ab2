//! The report for people, as Markdown.

use std::fmt::{self, Write as _};

use crate::report::{Report, Row};

/// The text; `picture` is the name of the plot's file beside it, if there is one.
pub(crate) fn markdown(report: &Report, picture: Option<&str>) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut text, report, picture);
    text
}

fn write(text: &mut String, report: &Report, picture: Option<&str>) -> fmt::Result {
    writeln!(text, "# What the filter costs\n\n{}\n", report.headline())?;
    if let Some(picture) = picture {
        writeln!(
            text,
            "![nanoseconds per packet over the number of entries]({picture})\n"
        )?;
    }
    writeln!(
        text,
        "| case | contender | entries | median | unit | over | min | max | p99 | budget | met |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in &report.rows {
        writeln!(text, "{}", Line(row))?;
    }
    writeln!(
        text,
        "\nA budget is the most there may be, and for `mpps` and `per_second` the least. Over: nanoseconds over the \
         empty program, microseconds over the real server; there the budget is of that.\n\n\
         | contender | entries | verified instructions | load, ms | maps, KiB |\n|---|---|---|---|---|"
    )?;
    for cost in &report.costs {
        let facts = &cost.facts;
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            cost.contender,
            cost.entries,
            shown(facts.verified_instructions),
            shown(facts.load_us.map(|us| us.div_ceil(1_000))),
            shown(facts.map_bytes.map(|bytes| bytes.div_ceil(1_024)))
        )?;
    }
    Ok(())
}

/// A row of the table.
struct Line<'a>(&'a Row);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let precision = row.unit.precision();
        write!(
            f,
            "| `{}` | {} | {} | {:.precision$} | {} | {} | {:.precision$} | {:.precision$} | {} | {} | {} |",
            row.case,
            row.contender,
            row.entries,
            row.median,
            row.unit.name(),
            shown(row.over().map(|over| format!("{over:.1}"))),
            row.min,
            row.max,
            shown(row.p99.map(|p99| format!("{p99:.precision$}"))),
            shown(row.budget),
            match row.met {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            }
        )
    }
}

/// The figure, or a dash.
pub(crate) fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
