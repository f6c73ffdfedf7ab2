//! `check`, `apply` and `run`: commands about the policy as wanted.

use std::{
    io::Write,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::env::Env;
use crate::{
    controller::{
        Applied, Cause, CommandError, Desired, RunState, Surroundings, apply, compile_desired,
        run as run_controller,
    },
    datapath::Root,
};

/// What `check` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// The file.
    pub policy: String,
    /// Its digest.
    pub digest: String,
    /// Number of rules.
    pub rules: usize,
    /// Exact names in all rules.
    pub hosts: usize,
    /// Domains in all rules.
    pub domains: usize,
    /// Prefixes in all rules.
    pub origins: usize,
    /// Bytes of the tables.
    pub table_bytes: usize,
    /// Findings.
    pub warnings: Vec<String>,
}

/// Parses and compiles in memory.
pub(super) fn check(env: &mut Env<'_>, file: Option<PathBuf>) -> Result<(), CommandError> {
    env.sources.policy = file.or(env.sources.policy.take());
    let desired = loaded(env)?;
    let compiled = compile_desired(&desired, &env.facts(), None)?;
    let rules = &desired.policy.rules;
    let checked = Checked {
        policy: desired.policy_path.display().to_string(),
        digest: desired.policy.digest.clone(),
        rules: rules.len(),
        hosts: rules.iter().map(|rule| rule.hosts.len()).sum(),
        domains: rules.iter().map(|rule| rule.domains.len()).sum(),
        origins: rules.iter().map(|rule| rule.origins.len()).sum(),
        table_bytes: compiled
            .tables
            .iter()
            .map(|lines| size_of_val(lines.as_slice()))
            .sum(),
        warnings: compiled.meta.warnings,
    };
    env.print(&checked, |out, checked| {
        writeln!(
            out,
            "{}: good. {} rules, {} hosts, {} domains, {} origins; {} KiB of tables",
            checked.policy,
            checked.rules,
            checked.hosts,
            checked.domains,
            checked.origins,
            checked.table_bytes.div_ceil(1024)
        )?;
        write_warnings(out, &checked.warnings)
    })
}

/// The wishes, never freed: the process ends with the command, and freeing a million names takes
/// longer than many a command.
fn loaded(env: &Env<'_>) -> Result<ManuallyDrop<Desired>, CommandError> {
    env.sources.load().map(ManuallyDrop::new)
}

/// Puts the policy in place once.
pub(super) fn apply_once(env: &mut Env<'_>, file: Option<PathBuf>) -> Result<(), CommandError> {
    env.sources.policy = file.or(env.sources.policy.take());
    // A bad policy is told also to those who may not apply it.
    let root = env.root();
    let in_place = root
        .as_ref()
        .ok()
        .and_then(|root| root.meta().ok().flatten());
    // Never freed, as in `loaded`.
    let mut wanted = ManuallyDrop::new(env.sources.outline(in_place.as_ref())?);
    let root = root?;
    let lock = root.lock()?;
    let mut applied = apply(&root, &lock, &mut wanted, &env.facts(), Cause::Command)?;
    drop(lock);
    applied
        .warnings
        .extend(controller_disagrees(&root, &wanted.policy_path));
    env.print(&applied, |out, applied| {
        for (sign, ids) in [
            ("+", &applied.added),
            ("-", &applied.removed),
            ("~", &applied.changed),
        ] {
            for id in ids {
                writeln!(out, "{sign} {id}")?;
            }
        }
        writeln!(out, "{}", summary(applied))?;
        write_warnings(out, &applied.warnings)
    })
}

/// A running controller puts its own policy back at the next occasion.
fn controller_disagrees(root: &Root, policy_path: &Path) -> Option<String> {
    let pid = root.controller_pid()?;
    let followed = RunState::read(root.run_dir())?.policy_path?;
    (followed != policy_path.display().to_string()).then(|| {
        format!("the controller (pid {pid}) follows {followed} and puts that in place again when anything changes")
    })
}

/// Runs the controller.
pub(super) fn run(env: &mut Env<'_>) -> Result<(), CommandError> {
    let root = env.root()?;
    let json = env.json;
    let out = &mut env.out;
    let mut ready = |applied: &Applied| {
        let line = match json {
            true => serde_json::to_string(applied).unwrap_or_default(),
            false => summary(applied),
        };
        // The controller goes on without anybody reading.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    let surroundings = Surroundings {
        sources: env.sources.clone(),
        ssh_connection: env.ssh_connection.clone(),
        notify_socket: env.notify_socket.clone(),
        ready: &mut ready,
    };
    run_controller(root, surroundings)
}

fn summary(applied: &Applied) -> String {
    let interfaces: Vec<String> = applied
        .interfaces
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.mode))
        .collect();
    format!(
        "enforcing generation {} on {}, {} rules{}",
        applied.generation,
        interfaces.join(", "),
        applied.rules,
        match (applied.unchanged, applied.in_place) {
            (true, _) => " (in place already)",
            (false, true) => " (under the same program)",
            (false, false) => "",
        }
    )
}

pub(super) fn write_warnings(out: &mut dyn Write, warnings: &[String]) -> std::io::Result<()> {
    warnings
        .iter()
        .try_for_each(|warning| writeln!(out, "warning: {warning}"))
}
