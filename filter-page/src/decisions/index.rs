//! Which rule answers: the most specific in force, as in the kernel.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Decisions, Rule};

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The name, lower case, without port and trailing dot; none if an address stands in its place.
    pub(crate) name: Option<&'a str>,
    /// The connection's destination: where the visitor wanted to go.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) now: Timestamp,
}

/// The rules, by what they list.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// What the rules list is in the fields below only.
    decisions: Decisions,
    /// Numbers of the rules, by name, sorted by id.
    hosts: HashMap<String, Vec<u32>>,
    domains: HashMap<String, Vec<u32>>,
    origins: HashMap<IpNet, Vec<u32>>,
    locals: HashMap<IpAddr, u32>,
    /// Lengths among them, by family.
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

/// A rule that fits: the longer key wins, then the exact one, then the id that sorts first.
type Ranked<'a> = (usize, bool, Reverse<&'a str>);

impl Index {
    /// # Errors
    /// Which origin of which rule is no address or prefix.
    pub(crate) fn new(mut decisions: Decisions) -> Result<Self, String> {
        decisions.rules.sort_by(|a, b| a.id.cmp(&b.id));
        let mut index = Self::default();
        for (number, rule) in (0..).zip(&mut decisions.rules) {
            // Taken out: from here on they are keys, and there may be millions.
            for host in mem::take(&mut rule.hosts) {
                index.hosts.entry(host).or_default().push(number);
            }
            for domain in mem::take(&mut rule.domains) {
                index.domains.entry(domain).or_default().push(number);
            }
            if let Some(local) = rule.local {
                index.locals.insert(local.into(), number);
            }
            for origin in mem::take(&mut rule.origins) {
                let prefix = parse_prefix(&origin)
                    .ok_or_else(|| format!("rule {}: {origin:?} is no prefix", rule.id))?;
                match prefix {
                    IpNet::V4(_) => index.v4_lengths.insert(prefix.prefix_len()),
                    IpNet::V6(_) => index.v6_lengths.insert(prefix.prefix_len()),
                };
                index.origins.entry(prefix).or_default().push(number);
            }
        }
        index.decisions = decisions;
        Ok(index)
    }

    pub(crate) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    pub(crate) fn has_rule(&self, id: &str) -> bool {
        self.decisions
            .rules
            .binary_search_by(|rule| rule.id.as_str().cmp(id))
            .is_ok()
    }

    /// The rule whose page answers; none if nothing blocks this, or something without a page does.
    pub(crate) fn page_rule(&self, asked: Asked<'_>) -> Option<&Rule> {
        if let Some(number) = self.locals.get(&asked.address) {
            // The kernel has decided, by an address that is not seen here.
            let rule = self.decisions.rules.get(*number as usize)?;
            return (rule.redirects && rule.is_in_force(asked.now)).then_some(rule);
        }
        let by_name = asked.name.and_then(|name| self.by_name(name, &asked));
        let by_origin = self.by_origin(&asked);
        let (_, rule) = by_name
            .into_iter()
            .chain(by_origin)
            .max_by_key(|(rank, _)| *rank)?;
        rule.redirects.then_some(rule)
    }

    fn by_name(&self, name: &str, asked: &Asked<'_>) -> Option<(Ranked<'_>, &Rule)> {
        if let Some(rule) = self.first_fitting(self.hosts.get(name), asked) {
            return Some(((name.len(), true, Reverse(&rule.id)), rule));
        }
        let label_starts = name.match_indices('.').map(|(dot, _)| dot + 1);
        std::iter::once(0).chain(label_starts).find_map(|start| {
            let suffix = &name[start..];
            let rule = self.first_fitting(self.domains.get(suffix), asked)?;
            Some(((suffix.len(), false, Reverse(rule.id.as_str())), rule))
        })
    }

    fn by_origin(&self, asked: &Asked<'_>) -> Option<(Ranked<'_>, &Rule)> {
        let lengths = match asked.address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        lengths.iter().rev().find_map(|&length| {
            let prefix = IpNet::new(asked.address, length).ok()?.trunc();
            let rule = self.first_fitting(self.origins.get(&prefix), asked)?;
            Some(((length.into(), false, Reverse(rule.id.as_str())), rule))
        })
    }

    fn first_fitting(&self, numbers: Option<&Vec<u32>>, asked: &Asked<'_>) -> Option<&Rule> {
        let fits = |rule: &&Rule| {
            let (ports, port) = (&rule.ports, asked.port);
            let has_port = ports
                .iter()
                .any(|&(first, last)| first <= port && port <= last);
            rule.is_in_force(asked.now) && (ports.is_empty() || has_port)
        };
        let rules = &self.decisions.rules;
        let mut listed = numbers?
            .iter()
            .filter_map(|&number| rules.get(number as usize));
        listed.find(fits)
    }
}

fn parse_prefix(text: &str) -> Option<IpNet> {
    let prefix = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    Some(prefix.ok()?.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(id: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            redirects: true,
            ..Rule::default()
        }
    }

    fn index(rules: Vec<Rule>) -> Index {
        let decisions = Decisions {
            rules,
            ..Decisions::default()
        };
        Index::new(decisions).expect("good prefixes")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn asked<'a>(name: Option<&'a str>, address: &str) -> Asked<'a> {
        Asked {
            name,
            address: address.parse().expect("an address"),
            port: 443,
            now: time("2026-06-01T00:00:00Z"),
        }
    }

    fn answers<'a>(index: &'a Index, asked: Asked<'_>) -> Option<&'a str> {
        index.page_rule(asked).map(|rule| rule.id.as_str())
    }

    const ELSEWHERE: &str = "198.51.100.1";

    #[test]
    fn a_host_is_exact_and_a_domain_ends_at_a_label() {
        let mut hosts = rule("host");
        hosts.hosts = vec!["x.example".to_owned()];
        let mut domains = rule("domain");
        domains.domains = vec!["bad.example".to_owned()];
        let index = index(vec![hosts, domains]);
        let of = |name| answers(&index, asked(Some(name), ELSEWHERE));
        assert_eq!(of("x.example"), Some("host"));
        assert_eq!(of("sub.x.example"), None);
        assert_eq!(of("bad.example"), Some("domain"));
        assert_eq!(of("a.b.bad.example"), Some("domain"));
        assert_eq!(of("notbad.example"), None);
        assert_eq!(of("example"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_most_specific_in_force_answers() {
        let mut wide = rule("wide");
        wide.domains = vec!["example".to_owned()];
        let mut near = rule("near");
        near.domains = vec!["bad.example".to_owned()];
        near.until = Some(time("2026-06-01T00:00:00Z"));
        let mut exact = rule("exact");
        exact.hosts = vec!["bad.example".to_owned()];
        exact.ports = vec![(8443, 8443)];
        let index = index(vec![wide, near, exact]);
        let at = |now: &str, port| {
            let asked = Asked {
                now: time(now),
                port,
                ..asked(Some("bad.example"), ELSEWHERE)
            };
            answers(&index, asked)
        };
        assert_eq!(at("2026-05-31T23:59:59Z", 443), Some("near"));
        assert_eq!(at("2026-05-31T23:59:59Z", 8443), Some("exact"));
        assert_eq!(
            at("2026-06-01T00:00:00Z", 443),
            Some("wide"),
            "until is not included"
        );
    }

    #[test]
    fn a_rule_without_a_page_stands_before_a_wider_one_with_it() {
        let mut page = rule("page");
        page.domains = vec!["bad.example".to_owned()];
        let mut dropped = rule("dropped");
        dropped.redirects = false;
        dropped.hosts = vec!["quiet.bad.example".to_owned()];
        let index = index(vec![page, dropped]);
        assert_eq!(
            answers(&index, asked(Some("quiet.bad.example"), ELSEWHERE)),
            None
        );
        assert_eq!(
            answers(&index, asked(Some("loud.bad.example"), ELSEWHERE)),
            Some("page")
        );
    }

    #[test]
    fn an_origin_answers_for_any_name_and_for_none() {
        let mut origin = rule("origin");
        origin.origins = vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()];
        let mut single = rule("single");
        single.origins = vec!["192.0.2.7".to_owned()];
        let index = index(vec![origin, single]);
        assert_eq!(
            answers(&index, asked(Some("any.example"), "192.0.2.1")),
            Some("origin")
        );
        assert_eq!(answers(&index, asked(None, "192.0.2.7")), Some("single"));
        assert_eq!(
            answers(&index, asked(None, "2001:db8:9::1")),
            Some("origin")
        );
        assert_eq!(answers(&index, asked(None, "192.0.3.1")), None);
    }

    #[test]
    fn an_address_that_stands_for_a_rule_has_its_page_whatever_is_asked_for() {
        let mut origin = rule("origin");
        origin.origins = vec!["192.0.2.7".to_owned()];
        origin.ports = vec![(443, 443)];
        origin.local = Some([127, 64, 3, 1].into());
        let mut name = rule("name");
        name.hosts = vec!["x.example".to_owned()];
        let index = index(vec![name, origin]);
        let local = |name| Asked {
            port: 40_000,
            ..asked(name, "127.64.3.1")
        };
        assert_eq!(answers(&index, local(None)), Some("origin"));
        assert_eq!(answers(&index, local(Some("x.example"))), Some("origin"));
        assert_eq!(answers(&index, asked(None, "127.64.4.1")), None);
    }

    #[test]
    fn equal_keys_go_to_the_id_that_sorts_first() {
        let mut b = rule("b");
        b.hosts = vec!["x.example".to_owned()];
        let mut a = rule("a");
        a.hosts = vec!["x.example".to_owned()];
        let index = index(vec![b, a]);
        assert_eq!(
            answers(&index, asked(Some("x.example"), ELSEWHERE)),
            Some("a")
        );
    }

    #[test]
    fn a_bad_prefix_is_named() {
        let mut bad = rule("r1");
        bad.origins = vec!["192.0.2.0/33".to_owned()];
        let decisions = Decisions {
            rules: vec![bad],
            ..Decisions::default()
        };
        let error = Index::new(decisions).expect_err("33 bits");
        assert!(
            error.contains("r1") && error.contains("192.0.2.0/33"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_looking_at_every_rule(
            listed in prop::collection::vec(("[ab](\\.[ab]){0,3}", any::<bool>(), any::<bool>()), 0..12),
            name in "[ab](\\.[ab]){0,4}",
        ) {
            let rules: Vec<_> = listed
                .iter()
                .enumerate()
                .map(|(number, (key, is_exact, redirects))| {
                    let keys = vec![key.clone()];
                    let (hosts, domains) = if *is_exact { (keys, vec![]) } else { (vec![], keys) };
                    Rule { hosts, domains, redirects: *redirects, ..rule(&format!("{number:02}")) }
                })
                .collect();
            let covers = |rule: &&Rule| {
                rule.hosts.contains(&name)
                    || rule.domains.iter().any(|of| name == *of || name.ends_with(&format!(".{of}")))
            };
            let rank = |rule: &&Rule| {
                let key = rule.hosts.first().or(rule.domains.first()).map_or(0, String::len);
                (key, rule.hosts.len(), Reverse(rule.id.clone()))
            };
            let best = rules.iter().filter(covers).max_by_key(rank).filter(|rule| rule.redirects);
            let best = best.map(|rule| rule.id.clone());
            let index = index(rules);
            prop_assert_eq!(answers(&index, asked(Some(&name), ELSEWHERE)), best.as_deref());
        }
    }
}
