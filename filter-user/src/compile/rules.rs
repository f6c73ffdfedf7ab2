//! Rules as the kernel sees them, and as they are remembered.

use filter_common::{
    abi::{self, Action, PortRange, redirect, rule_flag},
    limits::{PORT_RANGES_PER_RULE, REDIRECT_TARGETS_MAX},
};
use jiff::Timestamp;

use super::{CompileError, Meta, MetaRule, NextHop};
use crate::policy::{
    model::{Lists, Rule, Target},
    names_digest, rule_digest,
};

/// What an unused slot holds.
pub(super) fn unused(slot_version: u32) -> abi::Rule {
    abi::Rule::new(Action::Observe, u16::MAX, slot_version).inert()
}

/// Where the rules of a policy lead to, by number.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) interfaces: Vec<String>,
    pub(super) next_hops: Vec<NextHop>,
    /// By number: no rule needs the next hop, nor did one before, so that its number can be another's.
    free: Vec<bool>,
}

impl Targets {
    /// For these rules. Numbers of next hops are the same for all generations: those of `previous` stay.
    pub(super) fn new(rules: &[&Rule], previous: Option<&Meta>) -> Self {
        let next_hops = previous
            .map(|meta| meta.next_hops.clone())
            .unwrap_or_default();
        let now = rules.iter().map(|rule| &rule.target);
        let before = previous.iter().flat_map(|meta| &meta.rules);
        let targets: Vec<&Target> = now
            .chain(before.map(|rule| &rule.target))
            .flatten()
            .collect();
        let is_free = |hop: &NextHop| !targets.iter().any(|target| hop.is(target));
        Self {
            free: next_hops.iter().map(is_free).collect(),
            next_hops,
            interfaces: Vec::new(),
        }
    }

    fn add_next_hop(&mut self, hop: NextHop) {
        let free = self.free.iter().position(|free| *free);
        match free.and_then(|at| self.next_hops.get_mut(at).zip(self.free.get_mut(at))) {
            Some((place, free)) => {
                *place = hop;
                *free = false;
            }
            None => self.next_hops.push(hop),
        }
    }

    /// What a rule's [`abi::Rule::redirect_index`] says; 0 for one that does not redirect.
    pub(super) fn index(&mut self, rule: &Rule) -> Result<u32, CompileError> {
        if rule.action != Action::Redirect {
            return Ok(0);
        }
        let target = rule.target.as_ref().ok_or_else(|| CompileError::NoTarget {
            rule: rule.id.clone(),
        })?;
        if let Some(index) = target_index(target, &self.interfaces, &self.next_hops) {
            return Ok(index);
        }
        let taken = self.next_hops.len() - self.free.iter().filter(|free| **free).count();
        if self.interfaces.len() + taken >= REDIRECT_TARGETS_MAX {
            return Err(CompileError::TooManyTargets {
                rule: rule.id.clone(),
                target: target.to_string(),
            });
        }
        match target {
            Target::Page => {}
            Target::Interface(interface) => self.interfaces.push(interface.clone()),
            Target::NextHop { address, interface } => self.add_next_hop(NextHop {
                address: *address,
                interface: interface.clone(),
            }),
        }
        // It has a number now.
        Ok(target_index(target, &self.interfaces, &self.next_hops).unwrap_or_default())
    }
}

/// What [`abi::Rule::redirect_index`] says of a target among those that are known; `None` if it is not.
pub(super) fn target_index(
    target: &Target,
    interfaces: &[String],
    next_hops: &[NextHop],
) -> Option<u32> {
    match target {
        Target::Page => Some(redirect::PAGE),
        Target::Interface(interface) => {
            let at = interfaces.iter().position(|known| known == interface)?;
            Some(at as u32)
        }
        Target::NextHop { .. } => {
            let at = next_hops.iter().position(|known| known.is(target))?;
            Some(redirect::NEXT_HOP | at as u32)
        }
    }
}

/// Whether a rule needs the program that answers.
pub(super) fn is_answered(rule: &Rule) -> bool {
    match (rule.action, &rule.target) {
        (Action::Refuse, _) => true,
        (Action::Redirect, Some(Target::Page | Target::NextHop { .. })) => true,
        (Action::Redirect, Some(Target::Interface(_)) | None) => false,
        (Action::Observe | Action::Drop, _) => false,
    }
}

pub(super) fn kernel_rule(
    rule: &Rule,
    rank: u16,
    slot_version: u32,
    tai_offset_s: i64,
    redirect_index: u32,
) -> Result<abi::Rule, CompileError> {
    let mut ports = [PortRange::default(); PORT_RANGES_PER_RULE];
    if rule.ports.len() > ports.len() {
        return Err(CompileError::TooManyPortRanges {
            rule: rule.id.clone(),
            count: rule.ports.len(),
        });
    }
    ports[..rule.ports.len()].copy_from_slice(&rule.ports);
    Ok(abi::Rule {
        protocol: rule.protocol.unwrap_or(abi::Rule::ANY_PROTOCOL),
        from_tai_ns: rule.from.map_or(0, |from| tai_ns(from, tai_offset_s)),
        until_tai_ns: rule
            .until
            .map_or(u64::MAX, |until| tai_ns(until, tai_offset_s)),
        redirect_index,
        port_count: rule.ports.len() as u16,
        flags: match rule.refuses_quic {
            true => rule_flag::QUIC,
            false => 0,
        },
        ports,
        ..abi::Rule::new(rule.action, rank, slot_version)
    })
}

/// CLOCK_TAI nanoseconds of a moment. What lies before 1970 or after 2554 becomes
/// the first or last value, which mean "always" for `from` and "never" for `until`.
fn tai_ns(moment: Timestamp, tai_offset_s: i64) -> u64 {
    let ns = moment.as_nanosecond() + i128::from(tai_offset_s) * 1_000_000_000;
    ns.clamp(0, i128::from(u64::MAX)) as u64
}

pub(super) fn meta_rule(rule: &Rule, lists: &Lists, (slot, slot_version): (u16, u32)) -> MetaRule {
    let ports = rule.ports.iter().map(|range| {
        if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        }
    });
    MetaRule {
        slot,
        slot_version,
        id: rule.id.clone(),
        digest: rule_digest(rule, &lists.keys),
        names_digest: names_digest(rule, &lists.names),
        action: rule.action.as_str().to_owned(),
        target: rule.target.clone(),
        refuses_quic: rule.refuses_quic,
        lists: lists.clone(),
        note: None,
        ports: ports.collect(),
        protocol: rule.protocol,
        title: rule.title.clone(),
        reason: rule.reason.clone(),
        text: rule.text.clone(),
        statement: rule.statement.clone(),
        authority: rule.authority.clone(),
        reference: rule.reference.clone(),
        approved_by: rule.approved_by.clone(),
        from: rule.from,
        until: rule.until,
        review_by: rule.review_by,
    }
}
