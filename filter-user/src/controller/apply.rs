//! From what is wanted to what the kernel enforces.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{CommandError, Desired, probes::probes};
use crate::{
    compile::{Compiled, HostFacts, Meta, Role, compile},
    datapath::{Installed, InstalledOn, Lock, Root, netdev, object_digest},
    policy::model::InterfaceConfig,
};

/// What an application changed.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Whether everything was in place already.
    pub unchanged: bool,
    /// Number of the generation in place.
    pub generation: u64,
    /// Interfaces that run it.
    pub interfaces: Vec<InstalledOn>,
    /// Number of rules.
    pub rules: usize,
    /// Ids of rules that were not there before.
    pub added: Vec<String>,
    /// Ids of rules that are no longer there.
    pub removed: Vec<String>,
    /// Ids of rules that say something else than before.
    pub changed: Vec<String>,
    /// Findings about the policy, the host and the interfaces.
    pub warnings: Vec<String>,
    /// Milliseconds that the kernel took to verify the program.
    pub load_ms: u128,
    /// Configured interfaces that do not exist right now.
    pub missing_interfaces: Vec<String>,
    /// Configured interfaces that somebody detached, and that were left alone.
    pub held_back: Vec<String>,
    /// What is stored with the generation.
    #[serde(skip)]
    pub meta: Meta,
}

/// On whose account a policy is applied: what to do about configured interfaces that do not exist or
/// were detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A person's: all of them are to be enforced, and what does not exist is an error.
    Command,
    /// A running controller's: enforce on the others and report them.
    Following,
}

/// Compiles for this host, following the slots of the generation in place.
///
/// # Errors
///
/// The policy exceeds a limit.
pub fn compile_desired(
    desired: &Desired,
    facts: &HostFacts,
    previous: Option<&Meta>,
) -> Result<Compiled, CommandError> {
    let mut compiled = compile(&desired.policy, &desired.host, facts, Role::Live, previous)?;
    compiled.meta.policy_path = Some(desired.policy_path.display().to_string());
    compiled
        .meta
        .warnings
        .splice(0..0, desired.policy.warnings.iter().cloned());
    Ok(compiled)
}

/// Puts in place what is wanted; nothing is swapped if it is enforced already.
///
/// # Errors
///
/// Nothing was changed.
pub fn apply(
    root: &Root,
    lock: &Lock,
    desired: &Desired,
    facts: &HostFacts,
    cause: Cause,
) -> Result<Applied, CommandError> {
    let previous = root.meta()?;
    let Present {
        interfaces,
        missing: missing_interfaces,
        held_back,
    } = present(root, &desired.host.interfaces, cause)?;
    if interfaces.is_empty() && root.enforced()?.iter().all(|link| link.defunct) {
        if !held_back.is_empty() {
            return Err(CommandError::HeldBack {
                interfaces: held_back,
            });
        }
        return Err(CommandError::Usage(match missing_interfaces.as_slice() {
            [] => "no interface is named: give `--interface NAME`, or `interfaces = [\"NAME\"]` in the \
                   configuration"
                .to_owned(),
            names => format!("none of the configured interfaces exists: {}", names.join(", ")),
        }));
    }
    let mut compiled = compile_desired(desired, facts, previous.as_ref())?;
    let deaf = deaf_targets(&compiled.redirect_interfaces);
    compiled.meta.warnings.extend(deaf);
    let mut warnings = compiled.meta.warnings.clone();
    let meta = compiled.meta.clone();
    let changes = Changes::between(previous.as_ref(), &meta);

    if let Some(previous) = previous
        && in_place(root, &previous, &meta, &interfaces)?
    {
        release(root, lock, &interfaces)?;
        return Ok(Applied {
            unchanged: true,
            generation: previous.generation,
            interfaces: running(root)?,
            rules: previous.rules.len(),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            warnings,
            load_ms: 0,
            missing_interfaces,
            held_back,
            meta: previous,
        });
    }
    let probes = probes(&compiled, &desired.policy);
    let wanted = interfaces;
    let Installed {
        generation,
        interfaces,
        warnings: more,
        load_time,
        ..
    } = root.install(lock, compiled, &wanted, &probes)?;
    release(root, lock, &wanted)?;
    warnings.extend(more);
    Ok(Applied {
        unchanged: false,
        generation,
        interfaces,
        rules: meta.rules.len(),
        added: changes.added,
        removed: changes.removed,
        changed: changes.changed,
        warnings,
        load_ms: load_time.as_millis(),
        missing_interfaces,
        held_back,
        meta: Meta { generation, ..meta },
    })
}

/// Redirect targets whose driver loses what is redirected to them.
fn deaf_targets(interfaces: &[String]) -> Vec<String> {
    let deaf = interfaces.iter().filter(|interface| {
        netdev::index(interface).is_ok_and(|index| netdev::takes_redirects(index) == Some(false))
    });
    deaf.map(|interface| {
        format!(
            "`{interface}` takes no frames that native XDP redirects: the kernel loses them and nothing counts them; on \
             a veth, turn on GRO at its other end (`ethtool -K NAME gro on`)"
        )
    })
    .collect()
}

/// The configured interfaces.
#[derive(Default)]
struct Present {
    /// To be enforced.
    interfaces: Vec<InterfaceConfig>,
    /// Do not exist.
    missing: Vec<String>,
    /// Detached by somebody.
    held_back: Vec<String>,
}

fn present(
    root: &Root,
    interfaces: &[InterfaceConfig],
    cause: Cause,
) -> Result<Present, CommandError> {
    let detached = root.held_back();
    let mut present = Present::default();
    for interface in interfaces {
        if cause == Cause::Following && detached.contains(&interface.name) {
            present.held_back.push(interface.name.clone());
            continue;
        }
        match netdev::index(&interface.name) {
            Ok(_) => present.interfaces.push(interface.clone()),
            Err(error) if cause == Cause::Command => return Err(error.into()),
            Err(_) => present.missing.push(interface.name.clone()),
        }
    }
    Ok(present)
}

fn release(root: &Root, lock: &Lock, interfaces: &[InterfaceConfig]) -> Result<(), CommandError> {
    for interface in interfaces {
        root.release(lock, &interface.name)?;
    }
    Ok(())
}

/// Whether the same policy, host and program run on every wanted interface.
fn in_place(
    root: &Root,
    previous: &Meta,
    wanted: &Meta,
    interfaces: &[InterfaceConfig],
) -> Result<bool, CommandError> {
    let same = previous.policy_digest == wanted.policy_digest
        && previous.host_digest == wanted.host_digest
        && previous.policy_path == wanted.policy_path
        && root
            .generation()
            .is_ok_and(|live| live.object_digest == object_digest());
    if !same || !root.lost_redirects()?.is_empty() {
        return Ok(false);
    }
    let enforced = root.enforced()?;
    Ok(interfaces.iter().all(|interface| {
        enforced.iter().any(|link| {
            link.interface == interface.name
                && !link.defunct
                && link.mode.is_some()
                && link.generation == Some(previous.generation)
        })
    }))
}

fn running(root: &Root) -> Result<Vec<InstalledOn>, CommandError> {
    let links = root.enforced()?.into_iter();
    Ok(links
        .filter_map(|link| {
            Some(InstalledOn {
                mode: link.mode?,
                name: link.interface,
                attached_now: false,
            })
        })
        .collect())
}

struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    fn between(before: Option<&Meta>, after: &Meta) -> Self {
        let ids = |meta: &Meta| meta.rules.iter().map(|rule| rule.id.clone()).collect();
        let old: BTreeSet<String> = before.map(ids).unwrap_or_default();
        let new: BTreeSet<String> = ids(after);
        let changed = after.rules.iter().filter(|rule| {
            before.is_some_and(|before| {
                before
                    .rules
                    .iter()
                    .any(|earlier| earlier.id == rule.id && earlier != *rule)
            })
        });
        Self {
            added: new.difference(&old).cloned().collect(),
            removed: old.difference(&new).cloned().collect(),
            changed: changed.map(|rule| rule.id.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::MetaRule;

    fn meta(rules: &[(&str, &str)]) -> Meta {
        let rules = rules.iter().map(|(id, action)| MetaRule {
            id: (*id).to_owned(),
            action: (*action).to_owned(),
            ..MetaRule::default()
        });
        Meta {
            rules: rules.collect(),
            ..Meta::default()
        }
    }

    #[test]
    fn changes_name_what_was_added_removed_and_reworded() {
        let before = meta(&[("a", "drop"), ("b", "drop"), ("c", "drop")]);
        let after = meta(&[("b", "observe"), ("c", "drop"), ("d", "drop")]);
        let changes = Changes::between(Some(&before), &after);
        assert_eq!(changes.added, ["d"]);
        assert_eq!(changes.removed, ["a"]);
        assert_eq!(changes.changed, ["b"]);
        assert_eq!(Changes::between(None, &after).added, ["b", "c", "d"]);
    }
}
