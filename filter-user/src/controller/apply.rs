//! From what is wanted to what the kernel enforces.

use std::{collections::BTreeSet, path::Path};

use filter_common::abi::Table;
use serde::Serialize;

use super::{
    CommandError, Desired, Wanted,
    announce::{Announced, tell_again},
    next_hop, page,
    probes::probes,
};
use crate::{
    compile::{
        Compiled, HostFacts, Meta, Rebuild, Role, Stage, Standing, change, compile, host_digest,
    },
    datapath::{
        DatapathError, Enforced, Generation, Installed, InstalledOn, Lock, Root, netdev,
        object_digest,
    },
    policy::model::{HostConfig, InterfaceConfig, Policy},
};

/// What an application changed.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Whether everything was in place already.
    pub unchanged: bool,
    /// Whether the program that ran before does it, with what was added to its tables.
    pub in_place: bool,
    /// Why tables and program were made anew, if there were any before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<String>,
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
    let Desired {
        host,
        policy,
        policy_path,
    } = desired;
    compile_policy(host, policy, policy_path, facts, previous)
}

fn compile_policy(
    host: &HostConfig,
    policy: &Policy,
    policy_path: &Path,
    facts: &HostFacts,
    previous: Option<&Meta>,
) -> Result<Compiled, CommandError> {
    let mut compiled = compile(policy, host, facts, Role::Live, previous)?;
    compiled.meta.policy_path = Some(policy_path.display().to_string());
    compiled
        .meta
        .warnings
        .splice(0..0, policy.warnings.iter().cloned());
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
    wanted: &mut Wanted,
    facts: &HostFacts,
    cause: Cause,
) -> Result<Applied, CommandError> {
    let standing = match root.generation() {
        Ok(standing) => Some(standing),
        Err(DatapathError::NothingEnforced) => None,
        Err(error) => return Err(error.into()),
    };
    let present = present(root, &wanted.host.interfaces, cause)?;
    if present.interfaces.is_empty() && root.enforced()?.iter().all(|link| link.defunct) {
        return Err(match present {
            Present { held_back, .. } if !held_back.is_empty() => CommandError::HeldBack {
                interfaces: held_back,
            },
            Present { missing, .. } => CommandError::Usage(match missing.as_slice() {
                [] => "no interface is named: give `--interface NAME`, or `interfaces = [\"NAME\"]` in the \
                       configuration"
                    .to_owned(),
                names => format!("none of the configured interfaces exists: {}", names.join(", ")),
            }),
        });
    }
    let interfaces = present.interfaces.clone();
    let rebuilt = match &standing {
        Some(standing) if runs_everywhere(root, standing, &interfaces)? => {
            let path = wanted.policy_path.display().to_string();
            if standing.meta.policy_digest == wanted.outline.digest
                && standing.meta.host_digest == host_digest(&wanted.host, facts)
                && standing.meta.policy_path.as_ref() == Some(&path)
            {
                release(root, lock, &interfaces)?;
                let meta = standing.meta.clone();
                let untold = tell_again(root, wanted, &meta);
                let mut applied = unchanged(root, standing, wanted, present)?;
                applied.warnings.extend(untold);
                return Ok(applied);
            }
            match alter(root, lock, standing, wanted, facts)? {
                Ok((meta, untold)) => {
                    release(root, lock, &interfaces)?;
                    let changes = Changes::between(Some(&standing.meta), &meta);
                    return Ok(Applied {
                        in_place: true,
                        warnings: meta.warnings.iter().cloned().chain(untold).collect(),
                        ..Applied::new(meta, running(root)?, changes, present)
                    });
                }
                Err(reason) => Some(reason.to_string()),
            }
        }
        Some(_) | None => None,
    };
    if let Some(reason) = &rebuilt {
        tracing::debug!("tables and program are made anew: {reason}");
    }
    let previous = standing.as_ref().map(|standing| &standing.meta);
    let (host, policy_path) = (wanted.host.clone(), wanted.policy_path.clone());
    let policy = wanted.policy()?;
    let mut compiled = compile_policy(&host, policy, &policy_path, facts, previous)?;
    let deaf = deaf_targets(&compiled.redirect_interfaces);
    compiled.meta.warnings.extend(deaf);
    let unseen = page::warnings(&host, policy.rules.iter());
    compiled.next_hop_devices = next_hop::devices(&compiled.next_hops);
    let meta = compiled.meta.clone();
    let changes = Changes::between(previous, &meta);
    let probes = probes(&compiled, policy.rules.iter());
    let announced = Announced::new(root, wanted, &meta, root.next_number()?);
    let Installed {
        generation,
        interfaces: running,
        warnings,
        load_time,
        ..
    } = root.install(lock, compiled, &interfaces, &probes)?;
    let untold = announced.come_into_force();
    release(root, lock, &interfaces)?;
    let meta = Meta { generation, ..meta };
    next_hop::refresh(root, &meta.next_hops_in_use())?;
    Ok(Applied {
        warnings: meta
            .warnings
            .iter()
            .cloned()
            .chain(warnings)
            .chain(unseen)
            .chain(untold)
            .collect(),
        load_ms: load_time.as_millis(),
        rebuilt,
        ..Applied::new(meta, running, changes, present)
    })
}

impl Applied {
    fn new(
        meta: Meta,
        interfaces: Vec<InstalledOn>,
        changes: Changes,
        Present {
            missing, held_back, ..
        }: Present,
    ) -> Self {
        Self {
            unchanged: false,
            in_place: false,
            rebuilt: None,
            generation: meta.generation,
            interfaces,
            rules: meta.rules.len(),
            added: changes.added,
            removed: changes.removed,
            changed: changes.changed,
            warnings: Vec::new(),
            load_ms: 0,
            missing_interfaces: missing,
            held_back,
            meta,
        }
    }
}

fn unchanged(
    root: &Root,
    standing: &Generation,
    wanted: &Wanted,
    present: Present,
) -> Result<Applied, CommandError> {
    let meta = &standing.meta;
    // What depends on the moment, such as a date for review, is as it is now.
    let of_policy = wanted.outline.warnings.iter();
    let others = meta
        .warnings
        .iter()
        .filter(|w| !wanted.outline.warnings.contains(w));
    Ok(Applied {
        unchanged: true,
        warnings: of_policy.chain(others).cloned().collect(),
        ..Applied::new(meta.clone(), running(root)?, Changes::default(), present)
    })
}

/// Changes what the running program does to what is wanted, or says why that is not possible. What is in place
/// then, and what is wrong with telling the block page.
fn alter(
    root: &Root,
    lock: &Lock,
    standing: &Generation,
    wanted: &mut Wanted,
    facts: &HostFacts,
) -> Result<Result<(Meta, Option<String>), Rebuild>, CommandError> {
    let in_place = Standing {
        meta: &standing.meta,
        config: &standing.config,
        tables: Table::ALL.map(|table| standing.table(table)),
        rules: standing.rules(),
    };
    let mut change = match change(in_place, &wanted.outline, &wanted.host, facts) {
        Ok(change) => change,
        Err(reason) => return Ok(Err(reason)),
    };
    for Stage { meta, .. } in &mut change.stages {
        meta.policy_path = Some(wanted.policy_path.display().to_string());
        meta.warnings
            .extend(deaf_targets(&meta.redirect_interfaces));
    }
    let Some(last) = change.stages.last() else {
        return Ok(Err(Rebuild::Several));
    };
    let meta = last.meta.clone();
    let later = standing.meta.generation + change.stages.len() as u64;
    let announced = Announced::new(root, wanted, &meta, later);
    let rules = wanted.read_rules();
    let generation = root.alter(lock, standing, &change, |after| {
        probes(after, rules.into_iter())
    })?;
    let untold = announced.come_into_force();
    Ok(Ok((Meta { generation, ..meta }, untold)))
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

/// Whether this program, of this build, runs on every wanted interface, and everything it redirects to
/// is there.
fn runs_everywhere(
    root: &Root,
    standing: &Generation,
    interfaces: &[InterfaceConfig],
) -> Result<bool, CommandError> {
    if standing.object_digest != object_digest() || !root.lost_redirects()?.is_empty() {
        return Ok(false);
    }
    if let Some(group) = &standing.meta.local_proxies
        && !root.local_hooked(group)?
    {
        return Ok(false);
    }
    let enforced = root.enforced()?;
    let runs = |link: &Enforced| {
        !link.defunct && link.mode.is_some() && link.generation == Some(standing.meta.generation)
    };
    Ok(interfaces.iter().all(|interface| {
        enforced
            .iter()
            .any(|link| link.interface == interface.name && runs(link))
    }) && enforced.iter().all(|link| link.defunct || runs(link)))
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

#[derive(Default)]
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
