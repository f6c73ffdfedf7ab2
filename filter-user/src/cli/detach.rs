//! `detach`.

use serde::Serialize;

use super::{env::Env, policy::write_warnings};
use crate::{
    controller::{CommandError, dismiss_page},
    sink::spec::Files,
};

/// What `detach` did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detached {
    /// Interfaces that are no longer filtered.
    pub detached: Vec<String>,
    /// Interfaces that still are.
    pub remaining: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Stops enforcing.
pub(super) fn detach(env: &mut Env<'_>) -> Result<(), CommandError> {
    let root = env.root()?;
    let lock = root.lock()?;
    let mut detached = Vec::new();
    match env.sources.interfaces.as_slice() {
        [] => detached = root.detach(&lock, None)?,
        chosen => {
            for interface in chosen {
                detached.extend(root.detach(&lock, Some(&interface.name))?);
            }
        }
    }
    let remaining: Vec<String> = root
        .enforced()?
        .into_iter()
        .map(|link| link.interface)
        .collect();
    if remaining.is_empty() {
        dismiss_page(&root, &lock, &Files::of(root.run_dir()))?;
    }
    root.remove_run_state(lock)?;
    let warnings = root.controller_pid().map(|pid| {
        format!(
            "the controller (pid {pid}) goes on running, and leaves what was detached alone until `edgefilter apply` or \
             its restart"
        )
    });
    let report = Detached {
        detached,
        remaining,
        warnings: warnings.into_iter().collect(),
    };
    env.print(&report, |out, report| {
        match report.detached.as_slice() {
            [] => writeln!(out, "nothing was attached")?,
            names => writeln!(out, "no longer filtering on {}", names.join(", "))?,
        }
        write_warnings(out, &report.warnings)
    })
}
