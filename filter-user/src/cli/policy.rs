//! `check`, `apply` and `run`: commands about the policy as wanted.

use std::{
    io::Write,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{EXIT_NOT_CUT, env::Env};
use crate::{
    controller::{
        Applied, Cause, CommandError, Cut, CutFor, CutList, CutPlan, Desired, RunState,
        Surroundings, apply, compile_desired, page_warnings, run as run_controller, ssh_session,
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
        warnings: compiled
            .meta
            .warnings
            .into_iter()
            .chain(page_warnings(&desired.host, rules.iter()))
            .collect(),
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

/// What `apply` did.
#[derive(Clone, Debug, Serialize)]
struct AppliedOnce {
    #[serde(flatten)]
    applied: Applied,
    /// What became of open connections, if they were to be cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// Puts the policy in place once, and cuts open connections if that is wanted.
pub(super) fn apply_once(
    env: &mut Env<'_>,
    file: Option<PathBuf>,
    cut: Option<String>,
) -> Result<ExitCode, CommandError> {
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
    let facts = env.facts();
    let lock = root.lock()?;
    let plan = match &cut {
        Some(rule) => {
            let cut_for = match rule.as_str() {
                "" => CutFor::NewRules,
                id => CutFor::Rule(id.to_owned()),
            };
            let now = jiff::Timestamp::now();
            Some(CutPlan::new(
                &wanted.outline,
                root.meta()?.as_ref(),
                &cut_for,
                now,
            )?)
        }
        None => None,
    };
    let mut applied = apply(&root, &lock, &mut wanted, &facts, Cause::Command)?;
    drop(lock);
    applied
        .warnings
        .extend(controller_disagrees(&root, &wanted.policy_path));
    let operator = env.ssh_connection.as_deref().and_then(ssh_session);
    let list = plan
        .map(|plan| plan.find(&wanted.host, &facts, operator))
        .transpose()
        .map_err(|error| CommandError::NotCut(Box::new(error)))?;
    if !env.json {
        write_applied(env.out, &applied)?;
        if let Some(list) = &list {
            write_meant(env.out, &list.cut)?;
        }
        env.out.flush()?;
    }
    let cut = list.map(CutList::end);
    let complete = cut.as_ref().is_none_or(Cut::is_complete);
    env.print(&AppliedOnce { applied, cut }, |out, done| match &done.cut {
        Some(cut) => write_cut(out, cut),
        None => Ok(()),
    })?;
    Ok(match complete {
        true => ExitCode::SUCCESS,
        false => EXIT_NOT_CUT.into(),
    })
}

fn write_applied(out: &mut dyn Write, applied: &Applied) -> std::io::Result<()> {
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
}

/// Says what is about to be cut.
fn write_meant(out: &mut dyn Write, cut: &Cut) -> std::io::Result<()> {
    if cut.rules.is_empty() {
        return writeln!(
            out,
            "nothing to cut: no rule that blocks names over TCP is new with this change (`--cut=RULE` cuts for one that \
             is in place already)"
        );
    }
    write!(
        out,
        "{} open connections to served addresses may have a name of {}",
        cut.found,
        cut.rules.join(", ")
    )?;
    match cut.left_alone {
        0 => writeln!(out),
        count => writeln!(out, "; {count} from protected addresses are left alone"),
    }
}

/// Says what was cut.
fn write_cut(out: &mut dyn Write, cut: &Cut) -> std::io::Result<()> {
    if cut.rules.is_empty() {
        return Ok(());
    }
    write!(out, "cut {}", cut.ended)?;
    match cut.gone {
        0 => writeln!(out)?,
        count => writeln!(out, ", {count} had ended by themselves")?,
    }
    if let Some(error) = &cut.error {
        writeln!(out, "error: {} go on: {error}", cut.failed)?;
    }
    for prefix in &cut.elsewhere {
        writeln!(
            out,
            "error: {prefix} has addresses that are not this host's: connections that pass through to them cannot be cut \
             from here and go on; restart the server that they end on"
        )?;
    }
    Ok(())
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
