//! Rule sets: the lists of rules under the keys, each stored once.

use std::collections::HashMap;

use filter_common::{
    abi::{Line, SetRef},
    limits::RULES_PER_KEY_MAX,
    tables::{SET_REFS_PER_LINE, VALUE_MAX},
};

/// What the order of a rule within a set depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Slot of the rule.
    pub(super) slot: u16,
    /// The rule is narrowed to ports or a protocol.
    pub(super) qualified: bool,
}

/// One reason for which a key is in a table. The order is the order of a set:
/// exceptions first, then what hits the name alone, then what hits all under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// No rule hits this name.
    ProtectExact,
    /// No rule hits here or under it.
    ProtectSubtree,
    /// The rule of this rank lists the name as a host.
    Exact(u16),
    /// The rule of this rank lists the key as a domain or prefix.
    Subtree(u16),
}

/// A set longer than the kernel searches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SetError {
    /// More than [`RULES_PER_KEY_MAX`] elements.
    TooLong,
    /// More elements in all sets together than a value can index.
    Full,
}

/// Lines behind the sets, for those of rules that are added while the generation is in place.
const SPARE_LINES: usize = 64;

/// Sets of one element that are no rule's: the exceptions.
const EXCEPTIONS: u32 = 2;

/// All rule sets of a generation. The sets of one element, which nearly all keys have, come first and
/// in the order of the slots: their indexes do not depend on what else the policy says, so that a
/// table whose keys did not change does not change either.
#[derive(Debug)]
pub(super) struct Sets<'a> {
    rules: &'a [Listed],
    refs: Vec<u32>,
    /// The sets of several elements.
    known: HashMap<Box<[u32]>, u32>,
}

impl<'a> Sets<'a> {
    /// No sets of several elements, for rules given in the order of their ids; none of their slots is
    /// beyond `capacity`.
    pub(super) fn new(rules: &'a [Listed], capacity: usize) -> Self {
        let slots = capacity as u32;
        let exceptions = [SetRef::EXACT, SetRef::SUBTREE].map(|kind| kind | SetRef::PROTECT);
        let singles = (0..slots).flat_map(|slot| [SetRef::EXACT | slot, SetRef::SUBTREE | slot]);
        let refs = exceptions.into_iter().chain(singles);
        Self {
            rules,
            refs: refs.map(|set_ref| set_ref | SetRef::LAST).collect(),
            known: HashMap::new(),
        }
    }

    /// The sets that are in place, for rules in the order of their ids.
    pub(super) fn in_place(rules: &'a [Listed], lines: &[Line]) -> Self {
        let words = lines.as_flattened().iter();
        let mut refs: Vec<u32> = words
            .flat_map(|word| [*word as u32, (word >> 32) as u32])
            .collect();
        // No element is zero: each says what kind it is.
        refs.truncate(
            refs.iter()
                .rposition(|set_ref| *set_ref != 0)
                .map_or(0, |last| last + 1),
        );
        Self {
            rules,
            refs,
            known: HashMap::new(),
        }
    }

    /// The sets of several elements that there are so far, when there are rules for `capacity` slots.
    pub(super) fn several(&self, capacity: usize) -> impl Iterator<Item = Vec<SetRef>> {
        let from = (EXCEPTIONS as usize + 2 * capacity).min(self.refs.len());
        let sets = self.refs[from..].split_inclusive(|set_ref| set_ref & SetRef::LAST != 0);
        sets.map(|set| set.iter().copied().map(SetRef).collect())
    }

    /// Index of the set of this entry alone.
    fn single(&self, entry: Entry) -> u32 {
        let slot = |rank: u16| u32::from(self.rules[usize::from(rank)].slot);
        match entry {
            Entry::ProtectExact => 0,
            Entry::ProtectSubtree => 1,
            Entry::Exact(rank) => EXCEPTIONS + 2 * slot(rank),
            Entry::Subtree(rank) => EXCEPTIONS + 2 * slot(rank) + 1,
        }
    }

    /// Index of the set for these entries of one key. Sorts them; an equal set
    /// gives an equal index.
    pub(super) fn index(&mut self, entries: &mut Vec<Entry>) -> Result<u32, SetError> {
        if let [entry] = entries[..] {
            return Ok(self.single(entry));
        }
        let rules = self.rules;
        let unqualified = |rank: u16| !rules[usize::from(rank)].qualified;
        entries.sort_unstable_by_key(|entry| match *entry {
            Entry::ProtectExact => (0, false, 0),
            Entry::ProtectSubtree => (1, false, 0),
            Entry::Exact(rank) => (2, unqualified(rank), rank),
            Entry::Subtree(rank) => (3, unqualified(rank), rank),
        });
        entries.dedup();
        drop_redundant(entries);
        if let [entry] = entries[..] {
            return Ok(self.single(entry));
        }
        if entries.len() > RULES_PER_KEY_MAX {
            return Err(SetError::TooLong);
        }
        let singles = entries.iter().map(|entry| self.single(*entry) as usize);
        let mut refs: Vec<u32> = singles
            .map(|single| self.refs[single] & !SetRef::LAST)
            .collect();
        if let Some(last) = refs.last_mut() {
            *last |= SetRef::LAST;
        }
        if let Some(index) = self.known.get(refs.as_slice()) {
            return Ok(*index);
        }
        let index = u32::try_from(self.refs.len()).map_err(|_| SetError::Full)?;
        if index > VALUE_MAX {
            return Err(SetError::Full);
        }
        self.refs.extend_from_slice(&refs);
        self.known.insert(refs.into_boxed_slice(), index);
        Ok(index)
    }

    /// Contents of the rule set map, with room for more.
    pub(super) fn into_lines(self) -> Vec<Line> {
        let mut lines = self.lines();
        lines.resize(lines.len() + SPARE_LINES, [0; 8]);
        lines
    }

    /// The lines that the sets take.
    pub(super) fn lines(&self) -> Vec<Line> {
        let count = self.refs.len().div_ceil(SET_REFS_PER_LINE as usize);
        let mut lines = vec![[0; 8]; count];
        for (i, set_ref) in self.refs.iter().enumerate() {
            lines[i / 16][i / 2 % 8] |= u64::from(*set_ref) << (32 * (i % 2));
        }
        lines
    }
}

/// A rule that lists a name as host and as domain is asked once: its exact entry
/// goes where that leaves the order of the rules as it is, so that an observing
/// rule counts a packet once.
fn drop_redundant(entries: &mut Vec<Entry>) {
    let is_redundant = |entry: &Entry| match *entry {
        Entry::Exact(rank) => entries.contains(&Entry::Subtree(rank)),
        Entry::ProtectExact | Entry::ProtectSubtree | Entry::Subtree(_) => false,
    };
    if !entries.iter().any(is_redundant) {
        return;
    }
    let shorter: Vec<Entry> = entries
        .iter()
        .filter(|e| !is_redundant(e))
        .copied()
        .collect();
    if first_asked(&shorter) == first_asked(entries) {
        *entries = shorter;
    }
}

/// Ranks in the order in which they are first asked about the name itself.
fn first_asked(entries: &[Entry]) -> Vec<u16> {
    let mut ranks = Vec::new();
    for entry in entries {
        if let Entry::Exact(rank) | Entry::Subtree(rank) = *entry
            && !ranks.contains(&rank)
        {
            ranks.push(rank);
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use filter_common::{abi::SetRef, limits::RULES_PER_KEY_MAX};

    use super::{Entry, Listed, SetError, Sets};

    const PLAIN: Listed = Listed {
        slot: 7,
        qualified: false,
    };
    const QUALIFIED: Listed = Listed {
        slot: 9,
        qualified: true,
    };

    #[test]
    fn exceptions_come_first_then_exact_then_qualified_then_by_rank() {
        let rules = [PLAIN, PLAIN, QUALIFIED];
        let mut sets = Sets::new(&rules, 64);
        let mut entries = vec![
            Entry::Subtree(0),
            Entry::Subtree(2),
            Entry::Exact(1),
            Entry::Exact(0),
            Entry::Exact(2),
            Entry::ProtectExact,
        ];
        sets.index(&mut entries).unwrap();
        assert_eq!(
            entries,
            [
                Entry::ProtectExact,
                Entry::Exact(2),
                Entry::Exact(0),
                Entry::Exact(1),
                Entry::Subtree(2),
                Entry::Subtree(0)
            ]
        );
    }

    #[test]
    fn equal_lists_share_storage_and_end_with_a_mark() {
        let rules = [PLAIN, QUALIFIED];
        let mut sets = Sets::new(&rules, 64);
        let both = sets.index(&mut vec![Entry::Subtree(1), Entry::Subtree(0)]);
        let both = both.unwrap() as usize;
        let swapped = sets.index(&mut vec![Entry::Subtree(0), Entry::Subtree(1)]);
        assert_eq!(swapped, Ok(both as u32));
        let lines = sets.into_lines();
        let set_ref =
            |index: usize| (lines[index / 16][index / 2 % 8] >> (32 * (index % 2))) as u32;
        assert_eq!(set_ref(both), SetRef::SUBTREE | 9);
        assert_eq!(set_ref(both + 1), SetRef::LAST | SetRef::SUBTREE | 7);
    }

    #[test]
    fn a_set_of_one_element_has_its_place_whatever_other_rules_there_are() {
        let one = [PLAIN];
        let three = [QUALIFIED, PLAIN, Listed { slot: 3, ..PLAIN }];
        let (mut few, mut many) = (Sets::new(&one, 64), Sets::new(&three, 64));
        let index = few.index(&mut vec![Entry::Exact(0)]).unwrap();
        assert_eq!(many.index(&mut vec![Entry::Exact(1)]), Ok(index));
        let twice = &mut vec![Entry::Exact(1), Entry::Exact(1)];
        assert_eq!(many.index(twice), Ok(index));
        let set_ref = few.into_lines()[index as usize / 16][index as usize / 2 % 8] as u32;
        assert_eq!(set_ref, SetRef::LAST | SetRef::EXACT | 7);
        let protect = many.index(&mut vec![Entry::ProtectSubtree]).unwrap();
        let set_ref = (many.into_lines()[0][0] >> (32 * protect)) as u32;
        assert_eq!(set_ref, SetRef::LAST | SetRef::SUBTREE | SetRef::PROTECT);
    }

    #[test]
    fn a_host_that_is_also_a_domain_of_the_same_rule_is_listed_once() {
        let rules = [PLAIN, PLAIN];
        let mut entries = vec![Entry::Exact(0), Entry::Subtree(0)];
        Sets::new(&rules, 64).index(&mut entries).unwrap();
        assert_eq!(entries, [Entry::Subtree(0)]);
        // Without its exact entry rule 1 would come after rule 0.
        let mut entries = vec![Entry::Exact(1), Entry::Subtree(0), Entry::Subtree(1)];
        Sets::new(&rules, 64).index(&mut entries).unwrap();
        assert_eq!(
            entries,
            [Entry::Exact(1), Entry::Subtree(0), Entry::Subtree(1)]
        );
    }

    #[test]
    fn a_list_may_have_sixteen_elements_and_no_more() {
        let rules = [PLAIN; RULES_PER_KEY_MAX + 1];
        let mut sets = Sets::new(&rules, 64);
        let mut entries: Vec<Entry> = (0..rules.len() as u16).map(Entry::Subtree).collect();
        assert_eq!(sets.index(&mut entries), Err(SetError::TooLong));
        entries.pop();
        assert!(sets.index(&mut entries).is_ok());
    }
}
