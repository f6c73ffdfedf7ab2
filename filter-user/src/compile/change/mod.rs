//! From the policy in place to another one, under a running program.
//!
//! Rules that come are given free slots, and their keys are added to the tables, word by word; rules
//! that go stay in the tables as rules that nothing matches. The program has two of every rule and
//! takes those that the number of the generation says: until it is switched, none of this does anything.
//! What cannot be done this way is a [`Rebuild`].

mod keys;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use filter_common::abi::{self, Action, Config, Line, SetRef, Table, feature};
use jiff::Timestamp;
use thiserror::Error;

use self::keys::{Keys, Order};
use super::{
    CompileError, HostFacts, Meta, MetaRule,
    build::{NameEntry, V4Entry, V6Entry},
    generation::{blocked_names, blocked_prefixes, name_entry, v4_entry, v6_entry},
    host, hostnames,
    insert::{Edits, Full, Store, areas_have_room, narrow_has_room},
    prefixes::{Family, Prefix},
    rules::{is_answered, kernel_rule, meta_rule, target_index},
    sets::{Entry, Sets},
};
use crate::policy::{
    contradict,
    limits::IN_PLACE_KEYS_MAX,
    model::{HostConfig, Outline, Outlined, Rule},
    policy_digest,
};

/// The generation in place.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What is stored with it.
    pub meta: &'a Meta,
    /// Constants of its program.
    pub config: &'a Config,
    /// Its tables, in the order of [`Table::ALL`].
    pub tables: [&'a [Line]; Table::ALL.len()],
    /// Its rules by slot.
    pub rules: &'a [abi::Rule],
}

/// How to get to another policy under a running program.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Slots that will be in use: to be noted in the rules in use before anything leads to them, so
    /// that a change which is broken off is known by them.
    pub taken: Vec<(u16, abi::Rule)>,
    /// What is added to the tables, in this order.
    pub stores: Vec<Store>,
    /// Generations to be switched to, one after the other: if rules come and others go, first to all of
    /// them, so that a packet that sees both sides of a switch passes nothing that either would stop.
    pub stages: Vec<Stage>,
}

/// One generation on the way.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its rules by slot.
    pub rules: Vec<abi::Rule>,
    /// What is to be stored with it; the number is the datapath's.
    pub meta: Meta,
}

/// Why a policy cannot be put in place under the running program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rebuild {
    /// What the tables depend on beside the policy.
    #[error("addresses or the configuration of this host changed")]
    Host,
    /// A rule lists something else.
    #[error("rule `{rule}` lists other names or prefixes")]
    Keys {
        /// Its id.
        rule: String,
    },
    /// A rule's place in the order of the rules of a key changed.
    #[error("rule `{rule}` has other ports or another protocol")]
    Narrowing {
        /// Its id.
        rule: String,
    },
    /// The program was loaded without what a rule needs.
    #[error("the program was loaded without {what}")]
    Feature {
        /// What.
        what: &'static str,
    },
    /// Something protected is concerned.
    #[error("rule `{rule}` lists something protected, or something around it")]
    Protection {
        /// Its id.
        rule: String,
    },
    /// The rules of a key contradict each other, or are too many, or their order cannot be told.
    #[error("{key} is listed by other rules too")]
    Shared {
        /// The key.
        key: String,
    },
    /// No place.
    #[error("there is no room for more in {what}")]
    Room {
        /// Where.
        what: &'static str,
    },
    /// No order of switches is without a gap.
    #[error("several rules change, one of them in its times or where it leads to")]
    Several,
    /// A full compilation would refuse it.
    #[error("{0}")]
    Refused(String),
}

impl From<Full> for Rebuild {
    fn from(Full(table): Full) -> Self {
        Self::Room { what: table.name() }
    }
}

impl From<CompileError> for Rebuild {
    fn from(error: CompileError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// How to get from what is in place to `outline`.
///
/// # Errors
///
/// [`Rebuild`] if the tables have to be made anew, which also tells better what is wrong with a policy.
pub fn change(
    standing: Standing<'_>,
    outline: &Outline,
    host: &HostConfig,
    facts: &HostFacts,
) -> Result<Change, Rebuild> {
    if standing.meta.host_digest != host::digest(host, facts) {
        return Err(Rebuild::Host);
    }
    let plan = Plan::new(standing, outline)?;
    plan.check_features()?;
    plan.check_contradictions()?;
    let mut edits = Edits::new(standing.tables);
    let added_keys = plan.add_keys(&mut edits, host, facts)?;
    let stores = edits.into_stores();
    let mut stages = Vec::with_capacity(2);
    if plan.needs_two_stages()? {
        stages.push(plan.stage(Part::Union, added_keys, facts)?);
    }
    stages.push(plan.stage(Part::All, added_keys, facts)?);
    for stage in &mut stages {
        let of_host = host::warnings(host, facts, has(standing.config, feature::NAMES));
        let notes = stage.meta.rules.iter().filter_map(|rule| rule.note.clone());
        let of_policy = outline.warnings.iter().cloned();
        stage.meta.warnings = of_policy.chain(notes).chain(of_host).collect();
    }
    Ok(Change {
        taken: plan.taken(),
        stores,
        stages,
    })
}

fn has(config: &Config, feature: u32) -> bool {
    config.features & feature != 0
}

/// A rule of the new policy and its slot.
struct Placed<'a> {
    outlined: &'a Outlined,
    slot: (u16, u32),
    /// What it was, if it was.
    before: Option<&'a MetaRule>,
}

/// How much of a change a stage contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What either policy blocks.
    Union,
    /// All of it.
    All,
}

/// What a rule that stays does to packets, compared with before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Same,
    Stronger,
    Weaker,
    /// At other times.
    Other,
}

impl Placed<'_> {
    fn effect(&self) -> Effect {
        let Some(before) = self.before else {
            return Effect::Same;
        };
        let after = &self.outlined.rule;
        if before.from != after.from || before.until != after.until {
            return Effect::Other;
        }
        let strength = |word: &str| {
            let all = [
                Action::Observe,
                Action::Drop,
                Action::Refuse,
                Action::Redirect,
            ];
            all.iter().position(|action| action.as_str() == word)
        };
        match strength(&before.action).cmp(&strength(after.action.as_str())) {
            Ordering::Less => Effect::Stronger,
            Ordering::Greater => Effect::Weaker,
            Ordering::Equal
                if before.target != after.target || before.refuses_quic != after.refuses_quic =>
            {
                Effect::Other
            }
            Ordering::Equal => Effect::Same,
        }
    }
}

struct Plan<'a> {
    standing: Standing<'a>,
    /// By id.
    rules: BTreeMap<&'a str, Placed<'a>>,
    /// Ids of those that are new.
    comes: Vec<&'a str>,
    /// Rules of the policy in place that the new one has not.
    goes: Vec<&'a MetaRule>,
    /// Slots that nothing may use, since a change that was broken off has used them.
    burnt: Vec<u16>,
    versions: Vec<u32>,
}

impl<'a> Plan<'a> {
    fn new(standing: Standing<'a>, outline: &'a Outline) -> Result<Self, Rebuild> {
        let meta = standing.meta;
        let mut present: HashMap<&str, &MetaRule> = meta
            .rules
            .iter()
            .map(|rule| (rule.id.as_str(), rule))
            .collect();
        let mut plan = Self {
            standing,
            rules: BTreeMap::new(),
            comes: Vec::new(),
            goes: Vec::new(),
            burnt: meta.burnt_slots.clone(),
            versions: meta.slot_versions.clone(),
        };
        plan.versions.resize(standing.rules.len(), 0);
        for (slot, (rule, version)) in standing.rules.iter().zip(&mut plan.versions).enumerate() {
            let slot = slot as u16;
            if rule.slot_version > *version {
                *version = rule.slot_version;
                plan.burnt.push(slot);
            }
        }
        let mut free = plan.free_slots().into_iter();
        for outlined in &outline.rules {
            let id = outlined.rule.id.as_str();
            let placed = match present.remove(id) {
                Some(before) => {
                    check_same(before, outlined)?;
                    Placed {
                        outlined,
                        slot: (before.slot, before.slot_version),
                        before: Some(before),
                    }
                }
                None => {
                    if !outlined.is_read {
                        return Err(Rebuild::Keys {
                            rule: id.to_owned(),
                        });
                    }
                    let slot = free.next().ok_or(Rebuild::Room { what: "the slots" })?;
                    let version = &mut plan.versions[usize::from(slot)];
                    *version = version.wrapping_add(1).max(1);
                    plan.comes.push(id);
                    Placed {
                        outlined,
                        slot: (slot, *version),
                        before: None,
                    }
                }
            };
            if plan.rules.insert(id, placed).is_some() {
                return Err(Rebuild::Refused(format!("two rules have the id {id}")));
            }
        }
        plan.goes = present.into_values().collect();
        Ok(plan)
    }

    fn free_slots(&self) -> Vec<u16> {
        let meta = self.standing.meta;
        let mut occupied = vec![false; self.standing.rules.len()];
        let of_rules = meta.rules.iter().map(|rule| rule.slot);
        let resting = meta.retired_slots.iter().chain(&self.burnt).copied();
        for slot in of_rules.chain(resting) {
            if let Some(occupied) = occupied.get_mut(usize::from(slot)) {
                *occupied = true;
            }
        }
        (0u16..)
            .zip(occupied)
            .filter_map(|(slot, occupied)| (!occupied).then_some(slot))
            .collect()
    }

    /// Whether the change takes something away and adds something, so that all of both comes between.
    fn needs_two_stages(&self) -> Result<bool, Rebuild> {
        let count = |effect| {
            self.rules
                .values()
                .filter(|rule| rule.effect() == effect)
                .count()
        };
        let [stronger, weaker, other] =
            [Effect::Stronger, Effect::Weaker, Effect::Other].map(count);
        let (more, less) = (self.comes.len() + stronger, self.goes.len() + weaker);
        if other > 0 && other + more + less > 1 {
            return Err(Rebuild::Several);
        }
        Ok(more > 0 && less > 0)
    }

    fn check_features(&self) -> Result<(), Rebuild> {
        let config = self.standing.config;
        let missing = |what| Err(Rebuild::Feature { what });
        for Placed { outlined, .. } in self.rules.values() {
            let rule = &outlined.rule;
            let names = outlined.lists.hosts + outlined.lists.domains > 0;
            if (rule.from.is_some() || rule.until.is_some()) && !has(config, feature::TIMES) {
                return missing("the times of rules");
            }
            if rule.action == Action::Observe && !has(config, feature::OBSERVE) {
                return missing("rules that observe");
            }
            if names && !has(config, feature::NAMES) {
                return missing("names");
            }
            if names && rule.action as u32 > config.name_action_max {
                return missing("names with so strong an action");
            }
            if is_answered(rule) && !has(config, feature::RESPOND) {
                return missing("the answers of rules that refuse or lead to the block page");
            }
            if rule.action == Action::Redirect && self.redirect_index(rule).is_none() {
                return missing("what a rule redirects to");
            }
        }
        Ok(())
    }

    fn redirect_index(&self, rule: &Rule) -> Option<u32> {
        let Meta {
            redirect_interfaces,
            next_hops,
            ..
        } = self.standing.meta;
        target_index(rule.target.as_ref()?, redirect_interfaces, next_hops)
    }

    /// Rules that stay and do something else than before may now contradict those they share keys with.
    fn check_contradictions(&self) -> Result<(), Rebuild> {
        let by_slot: HashMap<u16, &Placed<'_>> = self
            .rules
            .values()
            .map(|placed| (placed.slot.0, placed))
            .collect();
        let sets = Sets::in_place(&[], self.standing.tables[Table::RuleSets as usize]);
        for set in sets.several(self.standing.rules.len()) {
            // See `stands_twice`.
            let is_gone = |set_ref: &SetRef| {
                !set_ref.has(SetRef::PROTECT) && !by_slot.contains_key(&set_ref.slot())
            };
            let twice = |(at, set_ref): (usize, &SetRef)| {
                let later = &set[at + 1..];
                !set_ref.has(SetRef::PROTECT)
                    && later.iter().any(|other| other.slot() == set_ref.slot())
            };
            if set.iter().any(is_gone) && set.iter().enumerate().any(twice) {
                let key = "something that a rule lists as host and as domain".to_owned();
                return Err(Rebuild::Shared { key });
            }
            let rules = set.iter().filter(|set_ref| !set_ref.has(SetRef::PROTECT));
            let rules: Vec<_> = rules
                .filter_map(|set_ref| {
                    Some((set_ref.has(SetRef::EXACT), *by_slot.get(&set_ref.slot())?))
                })
                .collect();
            for (at, (exact, a)) in rules.iter().enumerate() {
                for (other_exact, b) in &rules[at + 1..] {
                    if exact == other_exact && contradict(&a.outlined.rule, &b.outlined.rule) {
                        let key = format!("something in rule `{}`", a.outlined.rule.id);
                        return Err(Rebuild::Shared { key });
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the keys of the rules that come; how many came or went since the tables were made.
    fn add_keys(
        &self,
        edits: &mut Edits<'_>,
        host: &HostConfig,
        facts: &HostFacts,
    ) -> Result<usize, Rebuild> {
        let coming: Vec<&Rule> = self
            .comes
            .iter()
            .filter_map(|id| Some(&self.rules.get(id)?.outlined.rule))
            .collect();
        let count = |rule: &Rule| rule.hosts.len() + rule.domains.len() + rule.origins.len();
        let coming_keys: usize = coming.iter().map(|rule| count(rule)).sum();
        let gone = self.goes.iter().map(|rule| &rule.lists);
        let gone_keys: usize = gone.map(|l| l.hosts + l.domains + l.origins).sum();
        // Keys that lead nowhere any more cost as those that lead somewhere.
        let added = self.standing.meta.added_keys + coming_keys + gone_keys;
        if added > IN_PLACE_KEYS_MAX {
            return Err(Rebuild::Room { what: "the tables" });
        }
        if coming.is_empty() {
            return Ok(added);
        }
        let protected = host::protected(host, facts);
        let v4 = blocked_prefixes(&coming, &protected, Family::V4);
        let v6 = blocked_prefixes(&coming, &protected, Family::V6);
        let names = blocked_names(&coming, host);
        self.check_reach(&v4.0, &v6.0, &names.0)?;

        let order = Order::new(self);
        let sets = self.standing.tables[Table::RuleSets as usize];
        let mut keys = Keys {
            plan: self,
            coming: coming
                .iter()
                .map(|rule| order.ranks[rule.id.as_str()])
                .collect(),
            sets: Sets::in_place(&order.listed, sets),
            order: &order,
        };
        let config = self.standing.config;
        let v4 = keys.entries(
            v4,
            edits,
            |p| Family::V4.show(p).to_string(),
            &config.v4,
            v4_entry,
        )?;
        let v6 = keys.entries(
            v6,
            edits,
            |p| Family::V6.show(p).to_string(),
            &config.v6,
            v6_entry,
        )?;
        let names = keys.entries(names, edits, str::to_owned, &config.names, name_entry)?;
        let lines = keys.sets.lines();
        edits.put_lines(Table::RuleSets, &lines)?;
        v4.iter()
            .try_for_each(|entry: &V4Entry| edits.put(&config.v4, entry))?;
        v6.iter()
            .try_for_each(|entry: &V6Entry| edits.put(&config.v6, entry))?;
        names
            .iter()
            .try_for_each(|entry: &NameEntry<'_>| edits.put(&config.names, entry))?;
        Ok(added)
    }

    /// Whether lookups get to keys like these.
    fn check_reach(
        &self,
        v4: &[(Prefix, Entry)],
        v6: &[(Prefix, Entry)],
        names: &[(&str, Entry)],
    ) -> Result<(), Rebuild> {
        let config = self.standing.config;
        let missing = |what| Err(Rebuild::Feature { what });
        let is_used = |lengths: &[u8], count: u32, prefix: &Prefix| {
            lengths
                .iter()
                .take(count as usize)
                .any(|length| *length == prefix.length())
        };
        if !v4.is_empty() && !has(config, feature::V4)
            || !v6.is_empty() && !has(config, feature::V6)
        {
            return missing("origins of this family");
        }
        let (p4, p6) = (&config.v4, &config.v6);
        if !v4
            .iter()
            .all(|(prefix, _)| is_used(&p4.lengths, p4.length_count, prefix))
            || !v6
                .iter()
                .all(|(prefix, _)| is_used(&p6.lengths, p6.length_count, prefix))
        {
            return missing("prefixes of this length");
        }
        let summary = |table: Table| self.standing.tables[table as usize];
        let lengths = v4.iter().map(|(prefix, _)| prefix.length());
        if !narrow_has_room(summary(Table::V4Summary), p4, lengths) {
            return Err(Full(Table::V4Summary).into());
        }
        let lengths = v6.iter().map(|(prefix, _)| prefix.length());
        if !areas_have_room(summary(Table::V6Summary), p6, lengths) {
            return Err(Full(Table::V6Summary).into());
        }
        let deep =
            self.standing.meta.deep_names || names.iter().any(|(name, _)| hostnames::is_deep(name));
        if !names.is_empty() && deep {
            return Err(Rebuild::Room {
                what: "the names under one domain",
            });
        }
        Ok(())
    }

    /// The records that mark the slots of rules that come as taken.
    fn taken(&self) -> Vec<(u16, abi::Rule)> {
        let slots = self
            .comes
            .iter()
            .filter_map(|id| Some(self.rules.get(id)?.slot));
        slots
            .map(|(slot, version)| (slot, super::rules::unused(version)))
            .collect()
    }

    /// The generation with this part of the change.
    fn stage(&self, part: Part, added_keys: usize, facts: &HostFacts) -> Result<Stage, Rebuild> {
        let before = self.standing.meta;
        let mut rules = self.standing.rules.to_vec();
        // With each the new rule, unless it stays as it is for now.
        let mut all: BTreeMap<&str, (MetaRule, Option<&Rule>)> = BTreeMap::new();
        for (id, placed) in &self.rules {
            let waits = part == Part::Union && placed.effect() == Effect::Weaker;
            let stage = match placed.before {
                Some(before) if waits => (before.clone(), None),
                Some(_) | None => (placed.meta(), Some(&placed.outlined.rule)),
            };
            all.insert(id, stage);
        }
        let mut burnt_slots = self.burnt.clone();
        for gone in &self.goes {
            match (part, rules.get_mut(usize::from(gone.slot))) {
                (Part::Union, _) => {
                    all.insert(&gone.id, ((*gone).clone(), None));
                }
                (Part::All, Some(rule)) => {
                    *rule = rule.inert();
                    burnt_slots.push(gone.slot);
                }
                (Part::All, None) => {}
            }
        }
        burnt_slots.sort_unstable();
        for (rank, (meta, rule)) in (0u16..).zip(all.values()) {
            let Some(place) = rules.get_mut(usize::from(meta.slot)) else {
                return Err(Rebuild::Room { what: "the slots" });
            };
            *place = match rule {
                Some(rule) => {
                    // A packet that the rule as it was has hit may still be on its way out.
                    let redirect = self.redirect_index(rule).unwrap_or(place.redirect_index);
                    kernel_rule(rule, rank, meta.slot_version, facts.tai_offset_s, redirect)?
                }
                None => abi::Rule { rank, ..*place },
            };
        }
        let rules_of_meta: Vec<MetaRule> = all.into_values().map(|(meta, _)| meta).collect();
        Ok(Stage {
            rules,
            meta: Meta {
                compiled_at: Timestamp::now(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                policy_digest: policy_digest(rules_of_meta.iter().map(|rule| rule.digest.as_str())),
                rules: rules_of_meta,
                slot_versions: self.versions.clone(),
                burnt_slots,
                added_keys,
                ..before.clone()
            },
        })
    }
}

impl Placed<'_> {
    fn meta(&self) -> MetaRule {
        MetaRule {
            note: self.before.and_then(|before| before.note.clone()),
            ..meta_rule(&self.outlined.rule, &self.outlined.lists, self.slot)
        }
    }
}

/// Whether a rule that stays lists the same, and stands at the same place among those of a key.
fn check_same(before: &MetaRule, after: &Outlined) -> Result<(), Rebuild> {
    let rule = || before.id.clone();
    if before.lists.keys != after.lists.keys || before.lists.keys.is_empty() {
        return Err(Rebuild::Keys { rule: rule() });
    }
    let now = meta_rule(
        &after.rule,
        &after.lists,
        (before.slot, before.slot_version),
    );
    if now.ports != before.ports || now.protocol != before.protocol {
        return Err(Rebuild::Narrowing { rule: rule() });
    }
    Ok(())
}
