//! Hostnames: which ones a policy blocks on this host.

use std::collections::HashSet;

use filter_common::limits::NAME_CANDIDATES_MAX;

use super::{CompileError, notes::Notes, sets::Entry};
use crate::{policy::model::HostName, prefetch::ahead};

/// The keys of the name table, sorted: what `blocked` lists ([`Entry::Exact`] for
/// hosts, [`Entry::Subtree`] for domains), without what lies wholly inside a
/// protected name or domain, and with an exception for each protected one that
/// lies inside a blocked domain.
pub(super) fn keys<'a>(
    mut blocked: Vec<(&'a str, Entry)>,
    protected_names: &'a [HostName],
    protected_domains: &'a [HostName],
    notes: &mut Notes,
) -> Vec<(&'a str, Entry)> {
    if !is_in_order(&blocked) {
        blocked.sort_unstable();
        blocked.dedup();
    }
    let names: HashSet<&str> = protected_names.iter().map(HostName::as_str).collect();
    let domains: HashSet<&str> = protected_domains.iter().map(HostName::as_str).collect();
    let is_under_protected =
        |name| !domains.is_empty() && suffixes(name).any(|suffix| domains.contains(suffix));
    blocked.retain(|(name, entry)| {
        let (rank, is_taken) = match *entry {
            Entry::Exact(rank) => (rank, names.contains(name) || is_under_protected(name)),
            Entry::Subtree(rank) => (rank, is_under_protected(name)),
            Entry::ProtectExact | Entry::ProtectSubtree => return true,
        };
        if is_taken {
            notes.taken(rank, name);
        } else {
            notes.kept(rank);
        }
        !is_taken
    });

    let exact = names.iter().filter(|name| !is_under_protected(name));
    let subtree = domains
        .iter()
        .filter(|domain| parent(domain).is_none_or(|parent| !is_under_protected(parent)));
    let mut exceptions: Vec<(&str, Entry)> = exact
        .map(|name| (*name, Entry::ProtectExact))
        .chain(subtree.map(|domain| (*domain, Entry::ProtectSubtree)))
        .collect();
    // A set has no order, and warnings should not change from run to run.
    exceptions.sort_unstable();
    exceptions.retain(|(exception, _)| {
        let mut is_inside = false;
        for suffix in suffixes(exception) {
            let from = blocked.partition_point(|(name, _)| *name < suffix);
            for (_, entry) in blocked[from..]
                .iter()
                .take_while(|(name, _)| *name == suffix)
            {
                if let Entry::Subtree(rank) = *entry {
                    notes.spared(rank, exception);
                    is_inside = true;
                }
            }
        }
        is_inside
    });
    if !exceptions.is_empty() {
        blocked.extend(exceptions);
        blocked.sort_unstable();
    }
    blocked
}

/// Whether the names are sorted and none of the entries is there twice, as one rule's list is.
fn is_in_order(blocked: &[(&str, Entry)]) -> bool {
    let mut last = None;
    ahead(blocked, |(name, _)| name.as_bytes())
        .all(|item| last.replace(item).is_none_or(|last| last < item))
}

/// Refuses names nested deeper than the candidates that one lookup keeps. `keys` are sorted. Whether
/// there are any that could become so when others are added.
pub(super) fn check_depth(keys: &[(&str, Entry)]) -> Result<bool, CompileError> {
    let is_listed = |suffix: &&str| keys.binary_search_by_key(suffix, |(name, _)| name).is_ok();
    let mut any = false;
    for (name, _) in keys {
        if !is_deep(name) {
            continue;
        }
        any = true;
        let chain = || suffixes(name).filter(is_listed);
        if chain().count() > NAME_CANDIDATES_MAX {
            let chain = chain().map(str::to_owned).collect();
            return Err(CompileError::NamesTooDeep {
                name: (*name).to_owned(),
                chain,
            });
        }
    }
    Ok(any)
}

/// Whether a name has more labels, and so perhaps more listed suffixes, than one lookup keeps.
pub(super) fn is_deep(name: &str) -> bool {
    // Two bytes to a label: hardly any name is long enough.
    name.len() >= 2 * NAME_CANDIDATES_MAX
        && name.bytes().filter(|byte| *byte == b'.').count() >= NAME_CANDIDATES_MAX
}

/// The name, its parent domain, and so on to the top.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| parent(name))
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}
