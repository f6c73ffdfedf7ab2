//! What protection did to each rule, as one warning per rule.

use std::fmt::Display;

/// Keys that a warning names before it only counts.
const EXAMPLES_MAX: usize = 3;

/// What became of the keys of every rule, by rank.
#[derive(Debug)]
pub(super) struct Notes {
    rules: Vec<Effect>,
}

#[derive(Clone, Debug, Default)]
struct Effect {
    kept: usize,
    taken: Keys,
    spared: Keys,
}

#[derive(Clone, Debug, Default)]
struct Keys {
    count: usize,
    examples: Vec<String>,
}

impl Notes {
    /// Nothing to report yet on that many rules.
    pub(super) fn new(rules: usize) -> Self {
        Self {
            rules: vec![Effect::default(); rules],
        }
    }

    /// A key of the rule is in the tables.
    pub(super) fn kept(&mut self, rank: u16) {
        self.rules[usize::from(rank)].kept += 1;
    }

    /// A key of the rule lies wholly inside a protected one and is left out.
    pub(super) fn taken(&mut self, rank: u16, key: impl Display) {
        self.rules[usize::from(rank)].taken.add(key);
    }

    /// A protected key lies inside a key of the rule and is excepted from it.
    pub(super) fn spared(&mut self, rank: u16, key: impl Display) {
        self.rules[usize::from(rank)].spared.add(key);
    }

    /// Adds what is noted elsewhere about the same rules.
    pub(super) fn absorb(&mut self, others: Self) {
        for (effect, other) in self.rules.iter_mut().zip(others.rules) {
            effect.kept += other.kept;
            effect.taken.absorb(other.taken);
            effect.spared.absorb(other.spared);
        }
    }

    /// A line for each rule that protection touched; `ids` in the order of the ranks.
    pub(super) fn by_rule(&self, ids: &[&str]) -> Vec<Option<String>> {
        let rules = ids.iter().zip(&self.rules);
        rules
            .map(|(id, effect)| Some(format!("rule \"{id}\": {}", effect.text()?)))
            .collect()
    }
}

impl Effect {
    fn text(&self) -> Option<String> {
        let taken = (self.taken.count > 0).then(|| {
            let rest = if self.kept == 0 {
                "; nothing of the rule is left"
            } else {
                ""
            };
            format!(
                "{} not blocked, protected on this host{rest}",
                self.taken.text()
            )
        });
        let spared = (self.spared.count > 0).then(|| {
            format!(
                "{} excepted from its keys, protected on this host",
                self.spared.text()
            )
        });
        match (taken, spared) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(one),
            (Some(taken), Some(spared)) => Some(format!("{taken}; {spared}")),
        }
    }
}

impl Keys {
    fn add(&mut self, key: impl Display) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(key.to_string());
        }
    }

    fn absorb(&mut self, other: Self) {
        self.count += other.count;
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }

    fn text(&self) -> String {
        let named = self.examples.join(", ");
        let verb = if self.count == 1 { "is" } else { "are" };
        match self.count - self.examples.len() {
            0 => format!("{named} {verb}"),
            more => format!("{named} and {more} more {verb}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;

    #[test]
    fn one_line_per_touched_rule_names_three_keys_and_counts_the_rest() {
        let mut notes = Notes::new(3);
        notes.kept(0);
        for i in 0..5 {
            notes.taken(1, format_args!("k{i}"));
        }
        notes.kept(2);
        notes.taken(2, "t");
        notes.spared(2, "s");
        assert_eq!(
            notes.by_rule(&["a", "b", "c"]),
            [
                None,
                Some("rule \"b\": k0, k1, k2 and 2 more are not blocked, protected on this host; nothing of the rule is left".to_owned()),
                Some("rule \"c\": t is not blocked, protected on this host; s is excepted from its keys, protected on this host".to_owned()),
            ]
        );
    }
}
