//! Ending connections that were open when a hostname rule came: their names were read and forgotten, so
//! all that may have one of its names are meant.

use std::{collections::BTreeSet, net::SocketAddr};

use filter_common::abi::{Action, PortRange, port_class};
use ipnet::IpNet;
use serde::Serialize;

use super::CommandError;
use crate::{
    compile::{self, HostFacts, Meta, MetaRule, Term},
    datapath::{Connection, Connections},
    policy::{
        model::{HostConfig, InspectPorts, Outline, Outlined, Rule},
        names_digest,
    },
};

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// Whose connections are to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutFor {
    /// Of the hostname rules that a change brings.
    NewRules,
    /// Of the rule with this id, new or not.
    Rule(String),
}

/// What a cut is about: determined before the change, so that nothing is changed if it makes no sense.
pub struct CutPlan {
    connections: Connections,
    rules: Vec<CutRule>,
}

/// What a cut has to know of a rule.
struct CutRule {
    id: String,
    /// Empty for all.
    ports: Vec<PortRange>,
}

impl CutRule {
    fn new(rule: &Rule) -> Self {
        Self {
            id: rule.id.clone(),
            ports: rule.ports.clone(),
        }
    }
}

/// Connections that a cut is about.
pub struct CutList {
    connections: Connections,
    meant: Vec<Connection>,
    /// What is to be said of it.
    pub cut: Cut,
}

/// What became of a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Ids of the rules that it was about; none if there was nothing to cut.
    pub rules: Vec<String>,
    /// Open connections to served addresses and to inspected ports that the rules cover.
    pub found: usize,
    /// Connections that would be among them, but come from a protected address or are the operator's own
    /// session: left alone.
    pub left_alone: usize,
    /// How many were ended.
    pub ended: usize,
    /// How many had ended by themselves in between.
    pub gone: usize,
    /// How many could not be ended.
    pub failed: usize,
    /// Why the first of these could not be ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Served prefixes with addresses that are not this host's: what ends behind it goes on.
    pub elsewhere: Vec<String>,
}

impl Cut {
    /// Whether all open connections that were meant are gone.
    pub fn is_complete(&self) -> bool {
        self.rules.is_empty() || self.failed == 0 && self.elsewhere.is_empty()
    }
}

impl CutPlan {
    /// Finds the rules, and whether this kernel can do it.
    ///
    /// # Errors
    ///
    /// No rule of that id is about names on TCP and enforced now; or connections cannot be ended.
    pub fn new(
        outline: &Outline,
        previous: Option<&Meta>,
        wanted: &CutFor,
        now: jiff::Timestamp,
    ) -> Result<Self, CommandError> {
        let enforced = outline.rules.iter().filter(|rule| cuts(rule, now));
        let rules: Vec<CutRule> = enforced
            .filter(|outlined| match wanted {
                CutFor::NewRules => !was_there(outlined, previous, now),
                CutFor::Rule(id) => outlined.rule.id == *id,
            })
            .map(|outlined| CutRule::new(&outlined.rule))
            .collect();
        if let (CutFor::Rule(id), []) = (wanted, rules.as_slice()) {
            return Err(CommandError::Usage(format!(
                "nothing was changed: the policy has no rule `{id}` that blocks names over TCP now"
            )));
        }
        let connections = Connections::open()?;
        connections.check()?;
        Ok(Self { connections, rules })
    }

    /// Finds the connections. After the change, so that whoever is cut and comes back is judged by it.
    ///
    /// # Errors
    ///
    /// The kernel does not list them.
    pub fn find(
        self,
        host: &HostConfig,
        facts: &HostFacts,
        operator: Option<SocketAddr>,
    ) -> Result<CutList, CommandError> {
        let mut cut = Cut {
            rules: self.rules.iter().map(|rule| rule.id.clone()).collect(),
            ..Cut::default()
        };
        let mut meant = Vec::new();
        if !self.rules.is_empty() {
            let scope = Scope::new(host, facts, &self.rules, &self.connections)?;
            let protected = compile::protected(host, facts);
            for connection in self.connections.established()? {
                if !scope.holds(&connection) {
                    continue;
                }
                let peer = connection.peer;
                if operator == Some(peer) || contain(&protected, peer) {
                    cut.left_alone += 1;
                } else {
                    meant.push(connection);
                }
            }
            cut.found = meant.len();
            cut.elsewhere = elsewhere(host, facts, forwards());
        }
        Ok(CutList {
            connections: self.connections,
            meant,
            cut,
        })
    }
}

impl CutList {
    /// Ends them.
    pub fn end(mut self) -> Cut {
        for connection in &self.meant {
            match self.connections.end(connection) {
                Ok(true) => self.cut.ended += 1,
                Ok(false) => self.cut.gone += 1,
                Err(error) => {
                    self.cut.failed += 1;
                    self.cut.error.get_or_insert_with(|| error.to_string());
                }
            }
        }
        self.cut
    }
}

/// Whether a rule blocks names over TCP at a moment.
fn cuts(Outlined { rule, lists, .. }: &Outlined, now: jiff::Timestamp) -> bool {
    let times = MetaRule {
        from: rule.from,
        until: rule.until,
        ..MetaRule::default()
    };
    rule.action != Action::Observe
        && lists.hosts + lists.domains > 0
        && rule.protocol.is_none_or(|protocol| protocol == TCP)
        && times.term(now) == Term::InForce
}

/// Whether the generation in place blocks the same names already.
fn was_there(
    Outlined { rule, lists, .. }: &Outlined,
    previous: Option<&Meta>,
    now: jiff::Timestamp,
) -> bool {
    let earlier = previous.and_then(|meta| meta.rules.iter().find(|earlier| earlier.id == rule.id));
    earlier.is_some_and(|earlier| {
        earlier.term(now) == Term::InForce
            && earlier.names_digest == names_digest(rule, &lists.names)
    })
}

/// The connections that rules may be about.
struct Scope<'a> {
    rules: &'a [CutRule],
    classes: Box<[u8; 65_536]>,
    served: Vec<IpNet>,
    own: BTreeSet<std::net::IpAddr>,
    /// Where every port is inspected, those that somebody listens on: the others are this host's own
    /// connections to elsewhere.
    listening: Option<BTreeSet<u16>>,
}

impl<'a> Scope<'a> {
    fn new(
        host: &HostConfig,
        facts: &HostFacts,
        rules: &'a [CutRule],
        connections: &Connections,
    ) -> Result<Self, CommandError> {
        let every_port = [&host.tls, &host.http].contains(&&InspectPorts::Any);
        let listening = match every_port {
            true => Some(connections.listening_ports()?.into_iter().collect()),
            false => None,
        };
        Ok(Self {
            rules,
            classes: compile::ports(host),
            served: compile::served_prefixes(host, facts),
            own: facts.own_addresses.iter().copied().collect(),
            listening,
        })
    }

    fn holds(&self, connection: &Connection) -> bool {
        let port = connection.local.port();
        let inspected = self.classes[usize::from(port)] & (port_class::TLS | port_class::HTTP) != 0;
        let covered = self.rules.iter().any(|rule| {
            let mut ranges = rule.ports.iter();
            rule.ports.is_empty() || ranges.any(|range| (range.first..=range.last).contains(&port))
        });
        let listened = self
            .listening
            .as_ref()
            .is_none_or(|ports| ports.contains(&port));
        // What this host says to itself does not come in on an interface.
        let from_elsewhere = !self.own.contains(&connection.peer.ip());
        inspected
            && covered
            && listened
            && from_elsewhere
            && contain(&self.served, connection.local)
    }
}

fn contain(prefixes: &[IpNet], end: SocketAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&end.ip()))
}

/// Which families this host forwards: what it does not forward cannot end behind it.
fn forwards() -> [bool; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|setting| {
        // What cannot be read counts as on: rather a warning too many.
        std::fs::read_to_string(format!("/proc/sys/net/{setting}"))
            .map_or(true, |value| value.trim() != "0")
    })
}

/// Served prefixes that connections may pass through to.
fn elsewhere(host: &HostConfig, facts: &HostFacts, [v4, v6]: [bool; 2]) -> Vec<String> {
    let mut prefixes = compile::served_prefixes(host, facts);
    prefixes.retain(|prefix| {
        let (forwarded, length_max) = match prefix {
            IpNet::V4(_) => (v4, 32),
            IpNet::V6(_) => (v6, 128),
        };
        let own = prefix.prefix_len() == length_max && facts.own_addresses.contains(&prefix.addr());
        forwarded && !own
    });
    prefixes.iter().map(IpNet::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Known, load_outline};

    /// A policy as it is read while `known` is in place.
    fn outline(policy: &str, known: Option<&Meta>) -> Outline {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, format!("version = 1\n{policy}")).unwrap();
        let rules = known.iter().flat_map(|meta| &meta.rules);
        let known: Known<'_> = rules.map(|rule| (rule.id.as_str(), &rule.lists)).collect();
        load_outline(&path, &known).unwrap()
    }

    fn meta(policy: &str) -> Meta {
        let (host, facts) = (HostConfig::default(), HostFacts::default());
        let policy = outline(policy, None).into_policy().unwrap();
        compile::compile(&policy, &host, &facts, compile::Role::Live, None)
            .unwrap()
            .meta
    }

    /// Whether or not lists that were there before are read again.
    fn new_rules(before: &str, after: &str) -> Vec<String> {
        let before = meta(before);
        let now = jiff::Timestamp::now();
        let [read, known] = [None, Some(&before)].map(|known| {
            let rules = outline(after, known).rules.into_iter();
            let new = rules.filter(|rule| cuts(rule, now) && !was_there(rule, Some(&before), now));
            new.map(|outlined| outlined.rule.id).collect::<Vec<_>>()
        });
        assert_eq!(read, known);
        known
    }

    const RULE: &str = "[[rule]]\nid = \"a\"\nhosts = [\"x.example\"]\naction = \"drop\"\n";

    #[test]
    fn only_rules_that_block_more_names_now_are_new() {
        let with = |more: &str| format!("{RULE}{more}\n");
        assert_eq!(new_rules("", RULE), ["a"], "a new rule");
        assert!(new_rules(RULE, RULE).is_empty(), "the same");
        assert!(new_rules(RULE, "").is_empty(), "one less");
        let other = RULE.replace("x.example", "y.example");
        assert_eq!(new_rules(RULE, &other), ["a"], "another name");
        let watched = RULE.replace("drop", "observe");
        assert_eq!(new_rules(&watched, RULE), ["a"], "a stronger action");
        assert!(new_rules(RULE, &watched).is_empty(), "a weaker one");
        assert!(new_rules(RULE, &with("title = \"t\"")).is_empty(), "words");
        assert_eq!(new_rules(RULE, &with("ports = [443]")), ["a"], "ports");
        let later = with("from = 2499-01-01T00:00:00Z");
        assert!(new_rules("", &later).is_empty(), "not yet in force");
        assert_eq!(new_rules(&later, RULE), ["a"], "in force from now on");
        assert!(new_rules("", &with("protocol = \"udp\"")).is_empty(), "UDP");
        let origin = "[[rule]]\nid = \"o\"\norigins = [\"192.0.2.1\"]\naction = \"drop\"\n";
        assert!(new_rules("", origin).is_empty(), "origins need no cut");
    }

    #[test]
    fn what_ends_behind_the_host_is_told_apart_from_its_own_addresses() {
        let facts = HostFacts {
            own_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ..HostFacts::default()
        };
        let host = |serves: &[&str]| HostConfig {
            serves: Some(
                serves
                    .iter()
                    .map(|prefix| prefix.parse().unwrap())
                    .collect(),
            ),
            ..HostConfig::default()
        };
        let show = |host: HostConfig, forwards| elsewhere(&host, &facts, forwards);
        let both = ["192.0.2.1/32", "192.0.2.0/24", "2001:db8::2/128"];
        assert_eq!(
            show(host(&both), [true, true]),
            ["192.0.2.0/24", "2001:db8::2/128"]
        );
        assert_eq!(show(host(&both), [false, true]), ["2001:db8::2/128"]);
        assert!(show(HostConfig::default(), [true, true]).is_empty());
    }
}
