//! Rules as the kernel sees them, and as they are remembered.

use filter_common::{
    abi::{self, Action, PortRange},
    limits::{PORT_RANGES_PER_RULE, REDIRECT_TARGETS_MAX},
};
use jiff::Timestamp;

use super::{CompileError, MetaRule};
use crate::policy::{
    model::{Lists, Rule},
    names_digest, rule_digest,
};

/// What an unused slot holds.
pub(super) fn unused(slot_version: u32) -> abi::Rule {
    abi::Rule::new(Action::Observe, u16::MAX, slot_version).inert()
}

/// Key of the redirect map for a rule that redirects, else 0.
pub(super) fn redirect_index(
    rule: &Rule,
    interfaces: &mut Vec<String>,
) -> Result<u32, CompileError> {
    if rule.action != Action::Redirect {
        return Ok(0);
    }
    let Some(interface) = &rule.redirect_interface else {
        return Err(CompileError::NoRedirectInterface {
            rule: rule.id.clone(),
        });
    };
    if let Some(index) = interfaces.iter().position(|known| known == interface) {
        return Ok(index as u32);
    }
    if interfaces.len() >= REDIRECT_TARGETS_MAX {
        return Err(CompileError::TooManyRedirectInterfaces {
            rule: rule.id.clone(),
            interface: interface.clone(),
        });
    }
    interfaces.push(interface.clone());
    Ok(interfaces.len() as u32 - 1)
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
        redirect_interface: rule.redirect_interface.clone(),
        lists: lists.clone(),
        note: None,
        ports: ports.collect(),
        protocol: rule.protocol,
        title: rule.title.clone(),
        reason: rule.reason.clone(),
        statement: rule.statement.clone(),
        authority: rule.authority.clone(),
        reference: rule.reference.clone(),
        approved_by: rule.approved_by.clone(),
        from: rule.from,
        until: rule.until,
        review_by: rule.review_by,
    }
}
