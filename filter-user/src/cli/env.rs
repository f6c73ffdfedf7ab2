//! Everything a command needs from outside, so that commands run in tests as functions.

use std::{ffi::OsString, io::Write};

use serde::Serialize;

use crate::{
    compile::HostFacts,
    controller::{CommandError, Sources, gather_facts},
    datapath::{DatapathError, Root},
};

/// The surroundings of a command.
pub struct Env<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Whether JSON is wanted.
    pub json: bool,
    /// Files and flags.
    pub sources: Sources,
    /// `SSH_CONNECTION`.
    pub ssh_connection: Option<String>,
    /// `NOTIFY_SOCKET`.
    pub notify_socket: Option<OsString>,
    /// Opens the pins of the network namespace; a test may refuse.
    pub open_root: fn() -> Result<Root, DatapathError>,
}

impl Env<'_> {
    /// Facts about this host.
    pub fn facts(&self) -> HostFacts {
        gather_facts(self.ssh_connection.as_deref(), &self.sources.interfaces())
    }

    /// The pins.
    ///
    /// # Errors
    ///
    /// As [`Root::open`].
    pub fn root(&self) -> Result<Root, CommandError> {
        Ok((self.open_root)()?)
    }

    /// Prints a result: as JSON if wanted, else as `text` writes it.
    ///
    /// # Errors
    ///
    /// The output is closed.
    pub fn print<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut dyn Write, &T) -> std::io::Result<()>,
    ) -> Result<(), CommandError> {
        if self.json {
            serde_json::to_writer_pretty(&mut *self.out, value)?;
            writeln!(self.out)?;
        } else {
            text(self.out, value)?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Writes rows with aligned columns; the first row is the heading.
pub(super) fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> std::io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        table(&mut out, &[row(&["A", "B"]), row(&["longer", "x"])]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A       B\nlonger  x\n");
    }
}
