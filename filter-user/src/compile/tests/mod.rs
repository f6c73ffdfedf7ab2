//! Tests of the builders against naive models, and of the compiler.

mod changes;
mod policies;
mod protection;
mod tables;

use std::collections::BTreeMap;

use filter_common::{
    abi::{Action, Line, SetRef, SocketOffsets, Table},
    tables::{Lines, names, names::NameHash, set_ref, v4, v6},
};
use ipnet::IpNet;
use rand::{SeedableRng as _, rngs::StdRng};

use super::{CompileError, Compiled, HostFacts, Meta, Role, generation::compile_with};
use crate::policy::model::{HostConfig, HostName, Policy, Rule};

/// A summary and its buckets, whichever tables they stand for.
struct Pair<'a> {
    summary: &'a [Line],
    buckets: &'a [Line],
}

impl Lines for Pair<'_> {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        let lines = match table {
            Table::V4Summary | Table::V6Summary | Table::NameSummary => self.summary,
            _ => self.buckets,
        };
        lines.get(index as usize)
    }
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(42)
}

fn nets(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

fn names_of(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|name| HostName::canonical(name)).collect()
}

fn rule(id: &str) -> Rule {
    Rule {
        id: id.to_owned(),
        action: Action::Drop,
        target: None,
        refuses_quic: false,
        hosts: Vec::new(),
        domains: Vec::new(),
        origins: Vec::new(),
        ports: Vec::new(),
        protocol: None,
        title: None,
        reason: None,
        text: BTreeMap::new(),
        statement: None,
        authority: None,
        reference: None,
        approved_by: Vec::new(),
        from: None,
        until: None,
        review_by: None,
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        rules,
        digest: "digest".to_owned(),
        ..Policy::default()
    }
}

fn host() -> HostConfig {
    HostConfig {
        protect_self: false,
        events_per_window: 0,
        ..HostConfig::default()
    }
}

fn facts() -> HostFacts {
    HostFacts {
        own_addresses: vec![
            "198.51.100.1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ],
        lifelines: vec!["198.51.100.254".parse().unwrap()],
        tai_offset_s: 37,
        sockets: Some(SocketOffsets::default()),
        partial_checksums: false,
        fast_open: false,
        interfaces: 1,
    }
}

fn compiled(policy: &Policy, host: &HostConfig) -> Compiled {
    try_compile(policy, host, Role::Live, None).unwrap()
}

fn try_compile(
    policy: &Policy,
    host: &HostConfig,
    role: Role,
    previous: Option<&Meta>,
) -> Result<Compiled, CompileError> {
    compile_with(policy, host, &facts(), role, previous, &mut rng())
}

/// The set stored from `index` on.
fn set(compiled: &Compiled, mut index: u32) -> Vec<SetRef> {
    let mut refs = Vec::new();
    loop {
        let set_ref = set_ref(compiled, index).expect("sets end with LAST");
        refs.push(set_ref);
        if set_ref.has(SetRef::LAST) {
            return refs;
        }
        index += 1;
    }
}

fn id(compiled: &Compiled, set_ref: SetRef) -> String {
    let rule = compiled
        .meta
        .rules
        .iter()
        .find(|rule| rule.slot == set_ref.slot());
    rule.expect("every slot in a set has a rule").id.clone()
}

/// The rule that hits an address first, times and qualifiers left aside.
fn hit_v4(compiled: &Compiled, addr: u32) -> Option<String> {
    let params = &compiled.config.v4;
    let (_, value) = v4::longest(compiled, Table::V4Summary, Table::V4Buckets, params, addr)?;
    let first = set(compiled, value)[0];
    (!first.has(SetRef::PROTECT)).then(|| id(compiled, first))
}

/// As [`hit_v4`].
fn hit_v6(compiled: &Compiled, addr: u128) -> Option<String> {
    let params = &compiled.config.v6;
    let addr = [(addr >> 64) as u64, addr as u64];
    let (_, value) = v6::longest(compiled, Table::V6Summary, Table::V6Buckets, params, addr)?;
    let first = set(compiled, value)[0];
    (!first.has(SetRef::PROTECT)).then(|| id(compiled, first))
}

/// The rule that hits a name first, times and qualifiers left aside.
fn hit_name(compiled: &Compiled, name: &str) -> Option<String> {
    let params = &compiled.config.names;
    let mut suffix = Some(name);
    while let Some(key) = suffix {
        let fingerprint = NameHash::of(params, key.as_bytes());
        let value = if names::maybe(compiled, Table::NameSummary, params, fingerprint) {
            names::probe(compiled, Table::NameBuckets, params, fingerprint)
        } else {
            None
        };
        for set_ref in value.map(|value| set(compiled, value)).unwrap_or_default() {
            if set_ref.has(SetRef::EXACT) && key != name {
                continue;
            }
            return (!set_ref.has(SetRef::PROTECT)).then(|| id(compiled, set_ref));
        }
        suffix = key.split_once('.').map(|(_, parent)| parent);
    }
    None
}
