//! Which rules list a name or an address, asked of the tables themselves: the live
//! ones of the kernel, or freshly compiled ones.

use std::net::IpAddr;

use filter_common::{
    abi::{Action, Config, Rule, SetRef, Table},
    limits::RULES_PER_KEY_MAX,
    tables::{Lines, names, set_ref, v4, v6},
};
use serde::Serialize;

use crate::{
    compile::{Compiled, Meta, MetaRule},
    datapath::Generation,
};

/// A generation that can be asked.
pub trait Tables: Lines {
    /// Load-time constants.
    fn config(&self) -> &Config;
    /// Rule in a slot.
    fn rule(&self, slot: u16) -> Option<&Rule>;
    /// What is remembered of the rules.
    fn meta(&self) -> &Meta;
}

impl Tables for Generation {
    fn config(&self) -> &Config {
        &self.config
    }
    fn rule(&self, slot: u16) -> Option<&Rule> {
        Generation::rule(self, slot)
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Tables for Compiled {
    fn config(&self) -> &Config {
        &self.config
    }
    fn rule(&self, slot: u16) -> Option<&Rule> {
        self.rules.get(usize::from(slot))
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// One key that covers the name or address and is listed by a rule, most specific first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The name or prefix that is listed.
    pub key: String,
    /// `host`, `domain` or `origin`.
    pub kind: &'static str,
    /// The rule; `None` where the key is protected.
    pub rule: Option<String>,
    /// Slot of the rule, for counters.
    pub slot: Option<u16>,
    /// Word of the rule's action.
    pub action: Option<String>,
    /// Whether the rule is in force now.
    pub in_force: bool,
    /// What narrows the rule, as text; empty if nothing.
    pub only: String,
    /// What this listing does to a packet.
    pub role: Role,
}

/// What a listing does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It decides.
    Decides,
    /// It decides for packets that match its ports and protocol.
    DecidesIfMatching,
    /// It counts, and the search goes on.
    Observes,
    /// It stops the search: nothing less specific hits.
    Protects,
    /// Not in force: as if it were not there.
    NotInForce,
    /// A more specific listing decides.
    Shadowed,
}

/// Every listing that covers an address, most specific first.
pub fn address(tables: &impl Tables, address: IpAddr, now_tai_ns: u64) -> Vec<Listing> {
    let mut search = Search::new(tables, now_tai_ns);
    match address {
        IpAddr::V4(address) => {
            let params = &tables.config().v4;
            let bits = u32::from(address);
            let used = params.lengths.iter().take(params.length_count as usize);
            for &length in used {
                if let Some(set) = v4::probe(tables, Table::V4Buckets, params, bits, length) {
                    let prefix = ipnet::Ipv4Net::new(address, length).map(|net| net.trunc());
                    let key = prefix.map_or_else(|_| address.to_string(), |net| net.to_string());
                    search.list(set, &key, SetRef::SUBTREE, true);
                }
            }
        }
        IpAddr::V6(address) => {
            let params = &tables.config().v6;
            let bits = u128::from(address);
            let bits = [(bits >> 64) as u64, bits as u64];
            let used = params.lengths.iter().take(params.length_count as usize);
            for &length in used {
                if let Some(set) = v6::probe(tables, Table::V6Buckets, params, bits, length) {
                    let prefix = ipnet::Ipv6Net::new(address, length).map(|net| net.trunc());
                    let key = prefix.map_or_else(|_| address.to_string(), |net| net.to_string());
                    search.list(set, &key, SetRef::SUBTREE, true);
                }
            }
        }
    }
    search.listings
}

/// Every listing that covers a name (canonical form), most specific first.
pub fn name(tables: &impl Tables, name: &str, now_tai_ns: u64) -> Vec<Listing> {
    let mut search = Search::new(tables, now_tai_ns);
    let params = &tables.config().names;
    let mut suffix = name;
    loop {
        let fingerprint = names::NameHash::of(params, suffix.as_bytes());
        let listed = names::maybe(tables, Table::NameSummary, params, fingerprint);
        let set = match listed {
            true => names::probe(tables, Table::NameBuckets, params, fingerprint),
            false => None,
        };
        if let Some(set) = set {
            let kinds = match suffix.len() == name.len() {
                true => SetRef::EXACT | SetRef::SUBTREE,
                false => SetRef::SUBTREE,
            };
            search.list(set, suffix, kinds, false);
        }
        match suffix.split_once('.') {
            Some((_, rest)) => suffix = rest,
            None => return search.listings,
        }
    }
}

/// The first listing that decides, be it only for packets that match its ports and protocol.
pub fn deciding(listings: &[Listing]) -> Option<&Listing> {
    listings
        .iter()
        .find(|listing| matches!(listing.role, Role::Decides | Role::DecidesIfMatching))
}

/// The listing that decides for packets that match no ports and protocol of narrowed ones.
pub fn otherwise(listings: &[Listing]) -> Option<&Listing> {
    listings
        .iter()
        .find(|listing| matches!(listing.role, Role::Decides | Role::Protects))
}

/// CLOCK_TAI in nanoseconds, as the kernel program reads it.
pub fn now_tai_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_TAI, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

struct Search<'a, T> {
    tables: &'a T,
    now_tai_ns: u64,
    decided: bool,
    listings: Vec<Listing>,
}

impl<'a, T: Tables> Search<'a, T> {
    fn new(tables: &'a T, now_tai_ns: u64) -> Self {
        Self {
            tables,
            now_tai_ns,
            decided: false,
            listings: Vec::new(),
        }
    }

    fn list(&mut self, set: u32, key: &str, kinds: u32, origin: bool) {
        for position in 0..RULES_PER_KEY_MAX as u32 {
            let Some(set_ref) = set_ref(self.tables, set + position) else {
                return;
            };
            if set_ref.has(kinds) {
                let kind = match (origin, set_ref.has(SetRef::EXACT)) {
                    (true, _) => "origin",
                    (false, true) => "host",
                    (false, false) => "domain",
                };
                self.add(set_ref, key, kind);
            }
            if set_ref.has(SetRef::LAST) {
                return;
            }
        }
    }

    fn add(&mut self, set_ref: SetRef, key: &str, kind: &'static str) {
        let key = key.to_owned();
        if set_ref.has(SetRef::PROTECT) {
            let role = if self.decided {
                Role::Shadowed
            } else {
                Role::Protects
            };
            self.decided = true;
            self.listings.push(Listing {
                key,
                kind,
                rule: None,
                slot: None,
                action: None,
                in_force: true,
                only: String::new(),
                role,
            });
            return;
        }
        let slot = set_ref.slot();
        let Some(rule) = self.tables.rule(slot) else {
            return;
        };
        let meta = self
            .tables
            .meta()
            .rules
            .iter()
            .find(|meta| meta.slot == slot);
        // The keys of a rule that was removed stay until the tables are made anew.
        let Some(meta) = meta else {
            return;
        };
        let in_force = (rule.from_tai_ns..rule.until_tai_ns).contains(&self.now_tai_ns);
        let action = Action::from_u8(rule.action);
        let narrowed = rule.port_count > 0 || rule.protocol != Rule::ANY_PROTOCOL;
        let role = match (in_force, self.decided, action, narrowed) {
            (false, ..) => Role::NotInForce,
            (true, true, ..) => Role::Shadowed,
            (true, false, Action::Observe, _) => Role::Observes,
            (true, false, Action::Drop | Action::Refuse | Action::Redirect, true) => {
                Role::DecidesIfMatching
            }
            (true, false, Action::Drop | Action::Refuse | Action::Redirect, false) => {
                self.decided = true;
                Role::Decides
            }
        };
        self.listings.push(Listing {
            key,
            kind,
            rule: Some(meta.id.clone()),
            slot: Some(slot),
            action: Some(action.as_str().to_owned()),
            in_force,
            only: narrowing(meta),
            role,
        });
    }
}

/// What narrows a rule, as text; empty if nothing does.
pub fn narrowing(rule: &MetaRule) -> String {
    let protocol = rule.protocol.map(|protocol| match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    });
    let ports = match rule.ports.as_slice() {
        [] => None,
        [port] => Some(format!("port {port}")),
        ports => Some(format!("ports {}", ports.join(","))),
    };
    [protocol, ports]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}
