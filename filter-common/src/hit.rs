//! What a lookup found, and how rules are compared.

use crate::{
    abi::{Action, NO_SLOT, Rule, SetRef},
    env::Rules,
    limits::{PORT_RANGES_PER_RULE, RULES_PER_KEY_MAX},
    reason::Reason,
    tables::set_ref,
};

/// What narrows a rule, of one packet and one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qualifiers {
    /// IP protocol number.
    pub protocol: u8,
    /// The port on the side of the address (or the destination's, for a name).
    pub port: u16,
    /// Whether the packet shows it.
    pub port_shown: bool,
    /// What a hit means: the reason that goes with it.
    pub reason: Reason,
}

impl Qualifiers {
    const NO_PORT: u64 = 1 << 24;

    /// As one scalar, for a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let shown = if self.port_shown { 0 } else { Self::NO_PORT };
        (self.reason as u64) << 32 | (self.protocol as u64) << 16 | self.port as u64 | shown
    }

    /// Back from [`Qualifiers::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self {
            protocol: (packed >> 16) as u8,
            port: packed as u16,
            port_shown: packed & Self::NO_PORT == 0,
            reason: match Reason::from_u8((packed >> 32) as u8) {
                Some(reason) => reason,
                None => Reason::NoMatch,
            },
        }
    }
}

/// The rule that decides so far, as one comparable scalar: strength of the action, then
/// specificity, then the id's rank (lower first). Zero is "no rule".
///
/// Layout: `strength + 1` in bits 48..56, specificity in 32..48, `0xffff - rank` in 16..32,
/// slot in 0..16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub struct Hit(pub u64);

impl Hit {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// A hit of the rule in `slot` at a key of the given specificity (a prefix's or name's length).
    #[inline(always)]
    pub const fn new(rule: &Rule, slot: u16, specificity: u16) -> Self {
        Self(
            (rule.action as u64 + 1) << 48
                | (specificity as u64) << 32
                | (0xffff - rule.rank as u64) << 16
                | slot as u64,
        )
    }

    /// What the rule in `slot` has led to: nothing else of it matters any more, and it may be gone
    /// ([`NO_SLOT`]).
    #[inline(always)]
    pub const fn before(action: Action, slot: u16) -> Self {
        Self((action as u64 + 1) << 48 | slot as u64)
    }

    /// Whether there is no rule.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Slot of the rule, [`NO_SLOT`] if there is none.
    #[inline(always)]
    pub const fn slot(self) -> u16 {
        if self.is_none() {
            NO_SLOT
        } else {
            self.0 as u16
        }
    }

    /// How strong the rule's action is; 0 if there is no rule.
    #[inline(always)]
    pub const fn strength(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Specificity of the key that hit.
    #[inline(always)]
    pub const fn specificity(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Discriminant of the rule's [`Action`].
    #[inline(always)]
    pub const fn action(self) -> Action {
        Action::from_u8(self.strength() - !self.is_none() as u8)
    }

    /// The stronger of two hits.
    #[inline(always)]
    pub const fn stronger(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }
}

/// What the rules listed under one key say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// This rule decides, or nothing may (a protected key).
    Decided(Hit),
    /// None is in force and matches; look at the next less specific key.
    Nothing,
}

impl Listed {
    const NOTHING: u64 = u64::MAX;

    /// As one scalar, for a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        match self {
            Self::Decided(hit) => hit.0,
            Self::Nothing => Self::NOTHING,
        }
    }

    /// Back from [`Listed::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        if packed == Self::NOTHING {
            Self::Nothing
        } else {
            Self::Decided(Hit(packed))
        }
    }
}

/// Tries the rules of the set at `index` whose kind is in `kinds`, in their order.
/// Rules that observe are counted and passed over.
///
/// Touches one line of the rule sets and one of the rule table per rule tried.
#[inline(always)]
pub fn listed<R: Rules>(
    rules: &R,
    index: u32,
    kinds: u32,
    specificity: u16,
    qualifiers: Qualifiers,
) -> Listed {
    for position in 0..RULES_PER_KEY_MAX as u32 {
        let Some(set_ref) = set_ref(rules, index + position) else {
            return Listed::Nothing;
        };
        if set_ref.has(kinds) {
            if set_ref.has(SetRef::PROTECT) {
                return Listed::Decided(Hit::NONE);
            }
            let hit = rules.apply(set_ref.slot(), specificity, qualifiers);
            if !hit.is_none() {
                return Listed::Decided(hit);
            }
        }
        if set_ref.has(SetRef::LAST) {
            return Listed::Nothing;
        }
    }
    Listed::Nothing
}

/// The hit if the rule in `slot` is in force, matches and enforces; counts it if it observes.
#[inline(always)]
pub fn apply<R: Rules>(rules: &R, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
    let Some(rule) = rules.rule(slot) else {
        return Hit::NONE;
    };
    if !matches(rule, qualifiers) || !in_force(rules, rule) {
        return Hit::NONE;
    }
    if rule.action == Action::Observe as u8 {
        rules.observe(slot, qualifiers.reason);
        return Hit::NONE;
    }
    Hit::new(rule, slot, specificity)
}

#[inline(always)]
fn matches(rule: &Rule, qualifiers: Qualifiers) -> bool {
    if rule.protocol != Rule::ANY_PROTOCOL && rule.protocol != qualifiers.protocol {
        return false;
    }
    if rule.port_count == 0 {
        return true;
    }
    // A later fragment shows no port: a rule for a port does not hit it, and without
    // the first fragment nothing is reassembled.
    if !qualifiers.port_shown {
        return false;
    }
    let port = qualifiers.port;
    let mut i = 0;
    while i < PORT_RANGES_PER_RULE {
        if i >= rule.port_count as usize {
            return false;
        }
        let range = rule.ports[i];
        if range.first <= port && port <= range.last {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn in_force<R: Rules>(rules: &R, rule: &Rule) -> bool {
    use crate::abi::feature::TIMES;
    if rules.config().features & TIMES == 0 {
        return true;
    }
    if rule.from_tai_ns == 0 && rule.until_tai_ns == u64::MAX {
        return true;
    }
    let now = rules.now_tai_ns();
    rule.from_tai_ns <= now && now < rule.until_tai_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, rank: u16) -> Rule {
        Rule::new(action, rank, 0)
    }

    #[test]
    fn strength_beats_specificity_beats_id() {
        let strong = Hit::new(&rule(Action::Redirect, 9), 1, 0);
        let specific = Hit::new(&rule(Action::Drop, 9), 2, 32);
        let early = Hit::new(&rule(Action::Drop, 0), 3, 24);
        let late = Hit::new(&rule(Action::Drop, 1), 4, 24);
        assert_eq!(strong.stronger(specific), strong);
        assert_eq!(specific.stronger(early), specific);
        assert_eq!(late.stronger(early), early);
        assert_eq!(Hit::NONE.stronger(late), late);
        assert_eq!((strong.action(), strong.slot()), (Action::Redirect, 1));
        assert_eq!((late.action(), late.slot()), (Action::Drop, 4));
        assert_eq!(Hit::NONE.slot(), NO_SLOT);
    }

    #[test]
    fn qualifiers_survive_packing() {
        for protocol in [0, 6, 17, 254] {
            for (port, port_shown) in [(0, false), (0, true), (443, true), (65_535, true)] {
                let qualifiers = Qualifiers {
                    protocol,
                    port,
                    port_shown,
                    reason: Reason::Hostname,
                };
                assert_eq!(Qualifiers::unpack(qualifiers.pack()), qualifiers);
            }
        }
    }
}
