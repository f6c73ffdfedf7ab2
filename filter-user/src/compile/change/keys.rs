//! The keys that a change adds, and the rules that are under them already.

use std::collections::{BTreeMap, HashMap};

use filter_common::{
    abi::SetRef,
    tables::{SET_REFS_PER_LINE, set_ref},
};

use super::{Plan, Rebuild};
use crate::{
    compile::{
        MetaRule,
        generation::Blocked,
        insert::{Edits, Growing},
        notes::Notes,
        sets::{Entry, Listed, SetError, Sets},
    },
    policy::{contradict, model::Outlined},
};

/// All rules of both policies in the order of their ids.
pub(super) struct Order<'a> {
    pub(super) listed: Vec<Listed>,
    /// By rank; what is known of those that the new policy has not.
    rules: Vec<Result<&'a Outlined, &'a MetaRule>>,
    pub(super) ranks: HashMap<&'a str, u16>,
    by_slot: HashMap<u16, u16>,
}

impl<'a> Order<'a> {
    pub(super) fn new(plan: &Plan<'a>) -> Self {
        let mut all: BTreeMap<&str, (u16, Result<&'a Outlined, &'a MetaRule>)> = plan
            .rules
            .iter()
            .map(|(id, placed)| (*id, (placed.slot.0, Ok(placed.outlined))))
            .collect();
        all.extend(
            plan.goes
                .iter()
                .map(|rule| (rule.id.as_str(), (rule.slot, Err(*rule)))),
        );
        let qualified = |rule: &Result<&Outlined, &MetaRule>| match rule {
            Ok(outlined) => !outlined.rule.ports.is_empty() || outlined.rule.protocol.is_some(),
            Err(meta) => !meta.ports.is_empty() || meta.protocol.is_some(),
        };
        Self {
            listed: all
                .values()
                .map(|(slot, rule)| Listed {
                    slot: *slot,
                    qualified: qualified(rule),
                })
                .collect(),
            ranks: all
                .keys()
                .zip(0u16..)
                .map(|(id, rank)| (*id, rank))
                .collect(),
            by_slot: all
                .values()
                .zip(0u16..)
                .map(|((slot, _), rank)| (*slot, rank))
                .collect(),
            rules: all.into_values().map(|(_, rule)| rule).collect(),
        }
    }
}

/// What the keys of all tables share.
pub(super) struct Keys<'a, 'b> {
    pub(super) plan: &'b Plan<'a>,
    pub(super) order: &'b Order<'a>,
    /// Rank among all of each rule that comes.
    pub(super) coming: Vec<u16>,
    pub(super) sets: Sets<'b>,
}

impl Keys<'_, '_> {
    /// The entries for a table: its new keys, each with the index of the set of all its rules.
    pub(super) fn entries<'k, K: Copy + PartialEq, S: Growing>(
        &mut self,
        (keys, notes): Blocked<K>,
        edits: &Edits<'_>,
        show: impl Fn(K) -> String,
        shape: &S,
        entry: impl Fn(&(K, u32)) -> S::Entry<'k>,
    ) -> Result<Vec<S::Entry<'k>>, Rebuild> {
        self.check_protection(&notes)?;
        let mut made = Vec::with_capacity(keys.len());
        for group in keys.chunk_by(|(a, _), (b, _)| a == b) {
            let key = group[0].0;
            let shared = || Rebuild::Shared { key: show(key) };
            let mut entries: Vec<Entry> = group
                .iter()
                .map(|(_, entry)| self.among_all(*entry))
                .collect();
            let hashed = shape.hash(&entry(&(key, 0)));
            if let Some(set) = shape.probe(edits, hashed) {
                let present = self.present(edits, set);
                if present.iter().any(|entry| self.hides_another(*entry)) {
                    return Err(shared());
                }
                for one in &present {
                    if entries.iter().any(|other| self.contradict(*one, *other)) {
                        return Err(shared());
                    }
                }
                entries.extend(present);
            }
            let index = self.sets.index(&mut entries);
            if entries.iter().any(|entry| self.is_gone(*entry)) && stands_twice(&entries) {
                return Err(shared());
            }
            match index {
                Ok(index) => made.push(entry(&(key, index))),
                Err(SetError::Full | SetError::TooLong) => return Err(shared()),
            }
        }
        Ok(made)
    }

    fn check_protection(&self, notes: &Notes) -> Result<(), Rebuild> {
        let ids: Vec<&str> = self.plan.comes.clone();
        let touched = notes.by_rule(&ids);
        match ids.iter().zip(touched).find(|(_, note)| note.is_some()) {
            Some((id, _)) => Err(Rebuild::Protection {
                rule: (*id).to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// An entry of the rules that come, by its rank among all.
    fn among_all(&self, entry: Entry) -> Entry {
        match entry {
            Entry::ProtectExact | Entry::ProtectSubtree => entry,
            Entry::Exact(rank) => Entry::Exact(self.coming[usize::from(rank)]),
            Entry::Subtree(rank) => Entry::Subtree(self.coming[usize::from(rank)]),
        }
    }

    /// The entries of a set in place; those of rules that are long gone are left out.
    fn present(&self, edits: &Edits<'_>, set: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        for index in set..set.saturating_add(4 * SET_REFS_PER_LINE) {
            let Some(set_ref) = set_ref(edits, index) else {
                break;
            };
            let exact = set_ref.has(SetRef::EXACT);
            let rank = self.order.by_slot.get(&set_ref.slot()).copied();
            entries.extend(match (set_ref.has(SetRef::PROTECT), exact, rank) {
                (true, true, _) => Some(Entry::ProtectExact),
                (true, false, _) => Some(Entry::ProtectSubtree),
                (false, true, Some(rank)) => Some(Entry::Exact(rank)),
                (false, false, Some(rank)) => Some(Entry::Subtree(rank)),
                (false, _, None) => None,
            });
            if set_ref.has(SetRef::LAST) {
                break;
            }
        }
        entries
    }

    /// Whether the set may have left out that the rule also lists the key as host.
    fn hides_another(&self, entry: Entry) -> bool {
        match entry {
            Entry::Subtree(rank) => match self.order.rules[usize::from(rank)] {
                Ok(outlined) => outlined.lists.hosts > 0,
                Err(meta) => meta.lists.hosts > 0,
            },
            Entry::ProtectExact | Entry::ProtectSubtree | Entry::Exact(_) => false,
        }
    }

    /// Whether the new policy has the entry's rule no more.
    fn is_gone(&self, entry: Entry) -> bool {
        match entry {
            Entry::Exact(rank) | Entry::Subtree(rank) => {
                self.order.rules[usize::from(rank)].is_err()
            }
            Entry::ProtectExact | Entry::ProtectSubtree => false,
        }
    }

    fn contradict(&self, one: Entry, other: Entry) -> bool {
        let ranks = match (one, other) {
            (Entry::Exact(a), Entry::Exact(b)) | (Entry::Subtree(a), Entry::Subtree(b)) => [a, b],
            _ => return false,
        };
        match ranks.map(|rank| self.order.rules[usize::from(rank)]) {
            [Ok(a), Ok(b)] => contradict(&a.rule, &b.rule),
            // The new policy has only one of them.
            [Err(_), _] | [_, Err(_)] => false,
        }
    }
}

/// Whether a rule stands twice in a set: only where another one stands between. Without that one, it
/// would be asked, and count, twice.
fn stands_twice(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match *entry {
        Entry::Exact(rank) => entries.contains(&Entry::Subtree(rank)),
        Entry::ProtectExact | Entry::ProtectSubtree | Entry::Subtree(_) => false,
    })
}
