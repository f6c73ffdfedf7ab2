//! Slots of the rule table: stable by rule id over generations.

use std::collections::{HashMap, HashSet};

use filter_common::limits::RULES_MAX;

use super::{CompileError, Meta};

/// Slots of a generation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// Slot and slot version, in the order of the ids.
    pub(super) assigned: Vec<(u16, u32)>,
    /// Version last handed out, by slot; 0 for a slot that never had a rule.
    pub(super) versions: Vec<u32>,
    /// Slots of rules that the previous generation had and this one has not: a
    /// running program may still count in them, so they stay empty for one generation.
    pub(super) retired: Vec<u16>,
}

/// Slots without a rule that a generation has at least, so that rules can be added while it is in place.
const SPARE_SLOTS: usize = 64;

/// Slots are laid out in multiples of this, so that a few more rules do not move the sets of others.
const SLOTS_STEP: usize = 64;

/// Slots that a generation has whose rules take `used` of them.
pub(super) fn capacity(used: usize) -> usize {
    (used + SPARE_SLOTS)
        .next_multiple_of(SLOTS_STEP)
        .min(RULES_MAX)
}

/// Gives every id the slot it had in `previous`, or else the lowest free one with
/// a new version.
pub(super) fn assign(ids: &[&str], previous: Option<&Meta>) -> Result<Slots, CompileError> {
    if ids.len() > RULES_MAX {
        return Err(CompileError::TooManyRules { count: ids.len() });
    }
    let wanted: HashSet<&str> = ids.iter().copied().collect();
    let mut versions = previous
        .map(|meta| meta.slot_versions.clone())
        .unwrap_or_default();
    versions.truncate(RULES_MAX);
    let mut kept: HashMap<&str, (u16, u32)> = HashMap::new();
    let mut occupied = vec![false; RULES_MAX];
    let mut retired = Vec::new();
    for rule in previous.iter().flat_map(|meta| &meta.rules) {
        let slot = usize::from(rule.slot);
        if slot >= RULES_MAX || occupied[slot] {
            continue;
        }
        occupied[slot] = true;
        if versions.len() <= slot {
            versions.resize(slot + 1, 0);
        }
        versions[slot] = versions[slot].max(rule.slot_version);
        if wanted.contains(rule.id.as_str()) {
            kept.entry(&rule.id)
                .or_insert((rule.slot, rule.slot_version));
        } else {
            retired.push(rule.slot);
        }
    }
    // The tables of the previous generation still lead to these.
    for burnt in previous.iter().flat_map(|meta| &meta.burnt_slots) {
        if let Some(occupied) = occupied.get_mut(usize::from(*burnt))
            && !*occupied
        {
            *occupied = true;
            retired.push(*burnt);
        }
    }
    retired.sort_unstable();

    let mut free = (0..RULES_MAX).filter(|slot| !occupied[*slot]);
    let mut assigned = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(slot) = kept.get(id) {
            assigned.push(*slot);
            continue;
        }
        let Some(slot) = free.next() else {
            return Err(CompileError::NoFreeSlot {
                count: ids.len(),
                retired: retired.len(),
            });
        };
        if versions.len() <= slot {
            versions.resize(slot + 1, 0);
        }
        versions[slot] = versions[slot].wrapping_add(1).max(1);
        assigned.push((slot as u16, versions[slot]));
    }
    Ok(Slots {
        assigned,
        versions,
        retired,
    })
}

#[cfg(test)]
mod tests {
    use filter_common::limits::RULES_MAX;

    use super::{CompileError, Meta, Slots, assign};
    use crate::compile::MetaRule;

    /// The metadata that a generation with these ids and slots leaves behind.
    fn meta(ids: &[&str], slots: &Slots) -> Meta {
        let rules = ids
            .iter()
            .zip(&slots.assigned)
            .map(|(id, (slot, slot_version))| MetaRule {
                id: (*id).to_owned(),
                slot: *slot,
                slot_version: *slot_version,
                ..MetaRule::default()
            });
        Meta {
            rules: rules.collect(),
            retired_slots: slots.retired.clone(),
            slot_versions: slots.versions.clone(),
            ..Meta::default()
        }
    }

    #[test]
    fn a_rule_keeps_its_slot_and_version_while_others_come_and_go() {
        let first = assign(&["b", "d"], None).unwrap();
        assert_eq!(first.assigned, [(0, 1), (1, 1)]);
        let second = assign(&["a", "c", "d"], Some(&meta(&["b", "d"], &first))).unwrap();
        assert_eq!(second.assigned, [(2, 1), (3, 1), (1, 1)]);
        assert_eq!(second.retired, [0]);
    }

    #[test]
    fn a_retired_slot_rests_one_generation_and_comes_back_with_a_new_version() {
        let first = assign(&["a"], None).unwrap();
        let second = assign(&["b"], Some(&meta(&["a"], &first))).unwrap();
        assert_eq!(
            (second.assigned.as_slice(), second.retired.as_slice()),
            ([(1, 1)].as_slice(), [0].as_slice())
        );
        let third = assign(&["b", "c"], Some(&meta(&["b"], &second))).unwrap();
        assert_eq!(third.assigned, [(1, 1), (0, 2)]);
        assert!(third.retired.is_empty());
    }

    #[test]
    fn a_rule_that_returns_after_an_absence_is_another_rule() {
        let first = assign(&["a"], None).unwrap();
        let second = assign(&[], Some(&meta(&["a"], &first))).unwrap();
        let third = assign(&["a"], Some(&meta(&[], &second))).unwrap();
        assert_eq!(third.assigned, [(0, 2)]);
    }

    #[test]
    fn every_slot_can_be_used_and_no_more() {
        let ids: Vec<String> = (0..=RULES_MAX).map(|i| format!("r{i:05}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let full = assign(&ids[..RULES_MAX], None).unwrap();
        assert_eq!(usize::from(full.assigned[RULES_MAX - 1].0), RULES_MAX - 1);
        assert_eq!(
            assign(&ids, None),
            Err(CompileError::TooManyRules {
                count: RULES_MAX + 1
            })
        );
        let previous = meta(&ids[..RULES_MAX], &full);
        assert_eq!(
            assign(&ids[1..], Some(&previous)),
            Err(CompileError::NoFreeSlot {
                count: RULES_MAX,
                retired: 1
            })
        );
    }

    #[test]
    fn damaged_metadata_never_gives_two_rules_one_slot() {
        let rule = |id: &str, slot| MetaRule {
            id: id.to_owned(),
            slot,
            ..MetaRule::default()
        };
        let rules = vec![rule("a", 3), rule("b", 3), rule("c", u16::MAX)];
        let previous = Meta {
            rules,
            ..Meta::default()
        };
        let slots = assign(&["a", "b", "c"], Some(&previous)).unwrap();
        assert_eq!(slots.assigned, [(3, 0), (0, 1), (1, 1)]);
    }
}
