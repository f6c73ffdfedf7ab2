//! Rules that contradict each other.

use filter_common::{abi::PortRange, limits::RULES_PER_KEY_MAX};

use super::{
    diagnostics::{Finding, Findings, quoted},
    keys::Key,
    model::Rule,
    ports::PROTOCOLS_WITH_PORTS,
    rule::Draft,
    source::{Located, Span},
};

/// Notes every key that two rules list with different actions, if one packet at one moment could
/// be meant by both; and every key that too many rules list.
pub(super) fn check_conflicts(drafts: &[Draft], findings: &mut Findings) {
    check_kind("host", drafts, |draft| &draft.hosts, findings);
    check_kind("domain", drafts, |draft| &draft.domains, findings);
    check_kind("origin", drafts, |draft| &draft.origins, findings);
}

/// A key as one rule lists it.
struct Use<'a, K> {
    rank: u128,
    key: &'a K,
    span: Span,
    draft: &'a Draft,
}

fn check_kind<'a, K: Key + 'a>(
    kind: &str,
    drafts: &'a [Draft],
    keys: impl Fn(&'a Draft) -> &'a Vec<Located<K>>,
    findings: &mut Findings,
) {
    if drafts
        .iter()
        .filter(|draft| !keys(draft).is_empty())
        .count()
        < 2
    {
        return;
    }
    let mut uses: Vec<Use<'_, K>> = Vec::with_capacity(drafts.iter().map(|d| keys(d).len()).sum());
    for draft in drafts {
        uses.extend(keys(draft).iter().map(|key| Use {
            rank: key.value.rank(),
            key: &key.value,
            span: key.span,
            draft,
        }));
    }
    // Stable, since it recognises that each rule's keys are sorted already.
    uses.sort_by(|a, b| a.rank.cmp(&b.rank).then_with(|| a.key.cmp(b.key)));
    for same in uses.chunk_by(|a, b| a.rank == b.rank && a.key == b.key) {
        check_key(kind, same, findings);
    }
}

fn check_key<K: Key>(kind: &str, uses: &[Use<'_, K>], findings: &mut Findings) {
    if let Some(beyond) = uses.get(RULES_PER_KEY_MAX) {
        findings.error_with(|| {
            let (key, count) = (beyond.key.show(), uses.len());
            let message =
                format!("{count} rules list the {kind} {key}, at most {RULES_PER_KEY_MAX} may");
            Finding::at(beyond.span, message).help("join rules that do the same")
        });
        return;
    }
    for (at, earlier) in uses.iter().enumerate() {
        for later in &uses[at + 1..] {
            let (a, b) = (&earlier.draft.rule, &later.draft.rule);
            if !contradict(a, b) {
                continue;
            }
            findings.error_with(|| {
                let message = format!(
                    "rules {} and {} list the {kind} {} with different actions",
                    quoted(&a.id),
                    quoted(&b.id),
                    later.key.show(),
                );
                Finding::at(later.span, message)
                    .label(format!("{} says {}", quoted(&b.id), action(b)))
                    .related(earlier.span, format!("{} says {}", quoted(&a.id), action(a)))
                    .help("remove it from one of them, or narrow them by `ports`, `protocol` or times that do not overlap")
            });
            return;
        }
    }
}

fn action(rule: &Rule) -> String {
    match &rule.target {
        Some(target) => format!("{} to {target}", rule.action.as_str()),
        None => rule.action.as_str().into(),
    }
}

/// Whether one packet at one moment could be meant by both rules, and they do different things.
pub(crate) fn contradict(a: &Rule, b: &Rule) -> bool {
    let differ = a.action != b.action || a.target != b.target;
    // Equal ids are an error of their own.
    differ
        && a.id != b.id
        && protocols_overlap(a, b)
        && ports_overlap(&a.ports, &b.ports)
        && times_overlap(a, b)
}

fn protocols_overlap(a: &Rule, b: &Rule) -> bool {
    match (a.protocol, b.protocol) {
        (Some(a), Some(b)) => a == b,
        (Some(only), None) => b.ports.is_empty() || PROTOCOLS_WITH_PORTS.contains(&only),
        (None, Some(only)) => a.ports.is_empty() || PROTOCOLS_WITH_PORTS.contains(&only),
        (None, None) => true,
    }
}

fn ports_overlap(a: &[PortRange], b: &[PortRange]) -> bool {
    let meet = |a: &PortRange| b.iter().any(|b| a.first <= b.last && b.first <= a.last);
    a.is_empty() || b.is_empty() || a.iter().any(meet)
}

fn times_overlap(a: &Rule, b: &Rule) -> bool {
    let begins_before_end = |a: &Rule, b: &Rule| match (a.from, b.until) {
        (Some(from), Some(until)) => from < until,
        (Some(_), None) | (None, Some(_) | None) => true,
    };
    begins_before_end(a, b) && begins_before_end(b, a)
}
