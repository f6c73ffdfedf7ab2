//! `rules`, `counters` and `explain`: what the generation in place says and did.

use std::net::IpAddr;

use filter_common::reason::Reason;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    env::{Env, table},
    status::{Connections, connections, write_weak},
};
use crate::{
    compile::{HostFacts, MetaRule, Term},
    controller::{
        CommandError, compile_desired,
        lookup::{self, Listing, Role, Tables, narrowing},
    },
    datapath::{Cost, EventLosses},
    policy::{
        model::{HostConfig, HostName},
        parse_prefix,
    },
};

/// Prints the rules in place.
pub(super) fn rules(env: &mut Env<'_>) -> Result<(), CommandError> {
    let meta = env.root()?.generation()?.meta;
    env.print(&meta.rules, |out, rules| {
        let mut rows = vec![heading(&[
            "RULE", "ACTION", "IN FORCE", "HOSTS", "DOMAINS", "ORIGINS", "ONLY", "UNTIL", "REASON",
        ])];
        let now = Timestamp::now();
        rows.extend(rules.iter().map(|rule| {
            vec![
                rule.id.clone(),
                action(rule),
                in_force(rule, now).to_owned(),
                rule.lists.hosts.to_string(),
                rule.lists.domains.to_string(),
                rule.lists.origins.to_string(),
                narrowing(rule),
                rule.until
                    .map(|until| until.to_string())
                    .unwrap_or_default(),
                rule.reason.clone().unwrap_or_default(),
            ]
        }));
        table(out, &rows)
    })
}

fn action(rule: &MetaRule) -> String {
    match &rule.target {
        Some(target) => format!("{} to {target}", rule.action),
        None => rule.action.clone(),
    }
}

fn in_force(rule: &MetaRule, now: Timestamp) -> &'static str {
    match rule.term(now) {
        Term::NotYet => "not yet",
        Term::InForce => "yes",
        Term::NoLonger => "no longer",
    }
}

fn heading(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// What `counters` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CountersReport {
    /// Per rule in place.
    pub rules: Vec<RuleCount>,
    /// Packets per reason, those that occurred.
    pub reasons: Vec<ReasonCount>,
    /// What became of packets that were to be answered, those outcomes that occurred.
    pub answers: Vec<AnswerCount>,
    /// Connections that pass through, by interface.
    pub connections: Vec<Connections>,
    /// Events that were not emitted.
    pub events: EventLosses,
    /// What the program in place costs.
    pub cost: Cost,
}

/// Hits of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleCount {
    /// Id of the rule.
    pub rule: String,
    /// Word of its action.
    pub action: String,
    /// Packets that it decided, or observed.
    pub packets: u64,
    /// Their frame bytes.
    pub bytes: u64,
}

/// Packets with one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonCount {
    /// The stable word.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
}

/// Packets that were to be answered and came to this.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerCount {
    /// The stable word.
    pub answer: &'static str,
    /// Packets.
    pub packets: u64,
}

/// Prints packets per rule and reason.
pub(super) fn counters(env: &mut Env<'_>) -> Result<(), CommandError> {
    let root = env.root()?;
    let meta = root.generation()?.meta;
    let counts = root.rule_counters(meta.rules.iter().map(|rule| rule.slot))?;
    let reasons = root.reason_counters()?;
    let report = CountersReport {
        rules: meta
            .rules
            .iter()
            .zip(counts)
            .map(|(rule, count)| RuleCount {
                rule: rule.id.clone(),
                action: rule.action.clone(),
                packets: count.packets,
                bytes: count.bytes,
            })
            .collect(),
        reasons: Reason::ALL
            .iter()
            .map(|&reason| ReasonCount {
                reason: reason.as_str(),
                packets: reasons.of(reason),
            })
            .filter(|count| count.packets > 0)
            .collect(),
        answers: root
            .answers()?
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .map(|(answer, packets)| AnswerCount {
                answer: answer.as_str(),
                packets,
            })
            .collect(),
        connections: connections(&root, &root.enforced()?)?,
        events: root.event_losses()?,
        cost: root.cost()?,
    };
    env.print(&report, |out, report| {
        let mut rows = vec![heading(&["RULE", "ACTION", "PACKETS", "BYTES"])];
        rows.extend(report.rules.iter().map(|count| {
            vec![
                count.rule.clone(),
                count.action.clone(),
                count.packets.to_string(),
                count.bytes.to_string(),
            ]
        }));
        table(out, &rows)?;
        writeln!(out)?;
        let mut rows = vec![heading(&["REASON", "PACKETS"])];
        rows.extend(
            report
                .reasons
                .iter()
                .map(|count| vec![count.reason.to_owned(), count.packets.to_string()]),
        );
        table(out, &rows)?;
        if !report.answers.is_empty() {
            writeln!(out)?;
            let mut rows = vec![heading(&["ANSWER", "PACKETS"])];
            let answers = report.answers.iter();
            rows.extend(answers.map(|it| vec![it.answer.to_owned(), it.packets.to_string()]));
            table(out, &rows)?;
        }
        writeln!(
            out,
            "\nevents: {} suppressed by the rate limit, {} lost; maps: {} KiB",
            report.events.suppressed,
            report.events.lost,
            report.cost.map_bytes / 1024
        )?;
        write_weak(out, &report.connections)
    })
}

/// What `explain` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The name in canonical form, or the address.
    pub what: String,
    /// Whether the tables in the kernel were asked, or a policy file.
    pub live: bool,
    /// Every listing that covers it, most specific first.
    pub listings: Vec<Listing>,
    /// Id of the rule that decides.
    pub decides: Option<String>,
    /// The packets that it decides for, if not all.
    pub only: Option<String>,
    /// Id of the rule that decides for packets outside all such narrowing.
    pub otherwise: Option<String>,
    /// Word of its action; `pass` if nothing decides.
    pub verdict: String,
    /// Whether no rule may hit it: a `protect` entry, an address of this host or a lifeline of it.
    pub protected: bool,
}

/// Prints which rules list a name or address.
pub(super) fn explain(env: &mut Env<'_>, what: &str) -> Result<(), CommandError> {
    let what = Subject::parse(what)?;
    let mut explained = if env.sources.policy.is_some() {
        let desired = env.sources.load()?;
        let compiled = compile_desired(&desired, &env.facts(), None)?;
        look_up(&compiled, &what, false)
    } else {
        look_up(&env.root()?.generation()?, &what, true)
    };
    let host = env.sources.host()?;
    explained.protected |= is_protected(&what, &host, &env.facts());
    env.print(&explained, |out, explained| {
        let whose = match explained.live {
            true => "in the kernel",
            false => "in this policy",
        };
        let what = &explained.what;
        match (&explained.decides, &explained.only) {
            (Some(rule), None) => {
                writeln!(
                    out,
                    "{what}: {} by rule {rule} ({whose})",
                    explained.verdict
                )?;
            }
            (Some(rule), Some(only)) => {
                writeln!(
                    out,
                    "{what}: {} by rule {rule}, only {only} ({whose})",
                    explained.verdict
                )?;
                match &explained.otherwise {
                    Some(rule) => {
                        writeln!(out, "packets that match none of these: by rule {rule}")?
                    }
                    None => writeln!(out, "packets that match none of these: pass")?,
                }
            }
            (None, _) => writeln!(out, "{what}: pass ({whose})")?,
        }
        if explained.protected {
            writeln!(out, "protected: no rule may hit it on this host")?;
        }
        if explained.listings.is_empty() {
            return Ok(());
        }
        let mut rows = vec![heading(&["KEY", "KIND", "RULE", "ACTION", "ONLY", "MEANS"])];
        rows.extend(explained.listings.iter().map(|listing| {
            vec![
                listing.key.clone(),
                listing.kind.to_owned(),
                listing
                    .rule
                    .clone()
                    .unwrap_or_else(|| "(protect)".to_owned()),
                listing.action.clone().unwrap_or_default(),
                listing.only.clone(),
                meaning(listing.role).to_owned(),
            ]
        }));
        table(out, &rows)
    })
}

fn meaning(role: Role) -> &'static str {
    match role {
        Role::Decides => "decides",
        Role::DecidesIfMatching => "decides for packets that match",
        Role::Observes => "counts, and the search goes on",
        Role::Protects => "nothing hits here",
        Role::NotInForce => "not in force now",
        Role::Shadowed => "a more specific one decides",
    }
}

/// What is asked about.
enum Subject {
    Address(IpAddr),
    Name(HostName),
}

impl Subject {
    fn parse(text: &str) -> Result<Self, CommandError> {
        if parse_prefix(text).is_ok() && text.contains('/') {
            return Err(CommandError::Usage(format!(
                "`{text}` is a prefix, whose addresses may be hit by different rules: ask about one address in it"
            )));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        HostName::parse(text).map(Self::Name).map_err(|error| {
            CommandError::Usage(format!(
                "`{text}` is neither an address nor a hostname: {error}"
            ))
        })
    }
}

fn look_up(tables: &impl Tables, what: &Subject, live: bool) -> Explained {
    let now = lookup::now_tai_ns();
    let (what, listings) = match what {
        Subject::Address(address) => (address.to_string(), lookup::address(tables, *address, now)),
        Subject::Name(name) => (
            name.as_str().to_owned(),
            lookup::name(tables, name.as_str(), now),
        ),
    };
    let decides = lookup::deciding(&listings);
    Explained {
        what,
        live,
        decides: decides.and_then(|listing| listing.rule.clone()),
        otherwise: lookup::otherwise(&listings).and_then(|listing| listing.rule.clone()),
        only: decides
            .filter(|listing| !listing.only.is_empty())
            .map(|listing| listing.only.clone()),
        verdict: decides
            .and_then(|listing| listing.action.clone())
            .unwrap_or_else(|| "pass".to_owned()),
        protected: listings
            .iter()
            .any(|listing| listing.role == Role::Protects),
        listings,
    }
}

/// Protected keys are taken out of the tables, so the configuration and this host are asked.
fn is_protected(what: &Subject, host: &HostConfig, facts: &HostFacts) -> bool {
    match what {
        Subject::Address(address) => {
            let own = facts.own_addresses.iter().chain(&facts.lifelines);
            host.protect_self && own.into_iter().any(|own| own == address)
                || host
                    .protect_prefixes
                    .iter()
                    .any(|net| net.contains(address))
        }
        Subject::Name(name) => {
            let under = |domain: &HostName| {
                let rest = name.as_str().strip_suffix(domain.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            host.protect_names.contains(name) || host.protect_domains.iter().any(under)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_covers_own_addresses_prefixes_names_and_domains() {
        let host = HostConfig {
            protect_self: true,
            protect_prefixes: vec!["198.51.100.0/24".parse().unwrap()],
            protect_names: vec![HostName::parse("a.example").unwrap()],
            protect_domains: vec![HostName::parse("b.example").unwrap()],
            ..HostConfig::default()
        };
        let facts = HostFacts {
            own_addresses: vec!["192.0.2.1".parse().unwrap()],
            ..HostFacts::default()
        };
        for (what, expected) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.2", false),
            ("198.51.100.9", true),
            ("a.example", true),
            ("x.a.example", false),
            ("b.example", true),
            ("X.b.example.", true),
            ("xb.example", false),
        ] {
            let subject = Subject::parse(what).unwrap();
            assert_eq!(is_protected(&subject, &host, &facts), expected, "{what}");
        }
    }
}
