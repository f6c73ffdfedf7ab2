//! The compiler itself.

use std::{panic, thread};

use filter_common::abi::{ABI_VERSION, Action, Config, Line, Table, feature};
use ipnet::IpNet;
use jiff::Timestamp;
use rand::{RngCore, SeedableRng as _, rngs::StdRng};

use super::{
    Compiled, HostFacts, Meta, MetaRule, Role,
    build::{Built, NameEntry, V4Entry, V6Entry, build_names, build_v4, build_v6},
    error::CompileError,
    host, hostnames,
    notes::Notes,
    prefixes::{self, Family, Prefix},
    rules::{Targets, is_answered, kernel_rule, meta_rule, unused},
    sets::{Entry, Listed, SetError, Sets},
    slots,
};
use crate::policy::{
    KeyDigests, key_digests,
    model::{HostConfig, InspectPorts, Lists, Outcome, Policy, Rule},
};

/// Compiles a policy for this host.
///
/// `previous` is the metadata of the generation in place: rules keep the slots
/// they have there. The tables are sized to the policy and hashed with random
/// keys, so two compilations of one policy differ in their bytes.
///
/// # Errors
///
/// [`CompileError`] if the policy exceeds a limit of the data path.
pub fn compile(
    policy: &Policy,
    host: &HostConfig,
    facts: &HostFacts,
    role: Role,
    previous: Option<&Meta>,
) -> Result<Compiled, CompileError> {
    compile_with(policy, host, facts, role, previous, &mut rand::rng())
}

/// [`compile`] with the random keys drawn from `rng`.
pub(super) fn compile_with(
    policy: &Policy,
    host: &HostConfig,
    facts: &HostFacts,
    role: Role,
    previous: Option<&Meta>,
    rng: &mut dyn RngCore,
) -> Result<Compiled, CompileError> {
    let mut rules: Vec<&Rule> = policy.rules.iter().collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CompileError::DuplicateId {
            id: twice[0].to_owned(),
        });
    }
    let slots = slots::assign(&ids, previous)?;
    let mut targets = Targets::new(&rules, previous);
    let capacity = slots::capacity(slots.versions.len());
    let mut kernel_rules = vec![unused(0); capacity];
    for (rule, version) in kernel_rules.iter_mut().zip(&slots.versions) {
        *rule = unused(*version);
    }
    for ((rank, rule), (slot, version)) in rules.iter().enumerate().zip(&slots.assigned) {
        let redirect_index = targets.index(rule)?;
        // Slots and ranks are below RULES_MAX, checked when they were assigned.
        kernel_rules[usize::from(*slot)] = kernel_rule(
            rule,
            rank as u16,
            *version,
            facts.tai_offset_s,
            redirect_index,
        )?;
    }

    let listed: Vec<Listed> = rules
        .iter()
        .zip(&slots.assigned)
        .map(|(rule, (slot, _))| Listed {
            slot: *slot,
            qualified: !rule.ports.is_empty() || rule.protocol.is_some(),
        })
        .collect();
    let protected = host::protected(host, facts);
    let ((v4, v6), names) = both(
        || {
            (
                blocked_prefixes(&rules, &protected, Family::V4),
                blocked_prefixes(&rules, &protected, Family::V6),
            )
        },
        || blocked_names(&rules, host),
    );
    let mut keys = Keys {
        rules: &rules,
        notes: Notes::new(rules.len()),
        sets: Sets::new(&listed, capacity),
    };
    let v4 = keys.entries(v4, |prefix| Family::V4.show(prefix).to_string(), v4_entry)?;
    let v6 = keys.entries(v6, |prefix| Family::V6.show(prefix).to_string(), v6_entry)?;
    let deep_names = hostnames::check_depth(&names.0)?;
    let names = keys.entries(names, str::to_owned, name_entry)?;
    let has_names = !names.is_empty();
    let mut rng = rng;
    let mut prefix_rng = StdRng::from_rng(&mut rng);
    let mut name_rng = StdRng::from_rng(&mut rng);
    let (prefix_tables, names) = both(
        || {
            (
                build_v4(&v4, &mut prefix_rng),
                build_v6(&v6, &mut prefix_rng),
            )
        },
        || build_names(&names, &mut name_rng),
    );
    let (v4, v6, names) = (prefix_tables.0?, prefix_tables.1?, names?);

    let notes = keys.notes.by_rule(&ids);
    let mut warnings: Vec<String> = notes.iter().flatten().cloned().collect();
    warnings.extend(host::warnings(host, facts, has_names && role == Role::Live));
    let served = if has_names && role == Role::Live {
        host::serves(host, facts)
    } else {
        Vec::new()
    };
    let served_v4 = build_v4(&valued(Family::V4, &served, v4_entry), &mut prefix_rng)?;
    let served_v6 = build_v6(&valued(Family::V6, &served, v6_entry), &mut prefix_rng)?;

    let sockets = if has_names && role == Role::Live {
        facts.sockets
    } else {
        None
    };

    let refuses_quic = host.quic_refuse && has_names && role == Role::Live;
    let answers = refuses_quic || rules.iter().any(|rule| is_answered(rule));
    let features = [
        (feature::V4, v4.params.length_count > 0),
        (feature::V6, v6.params.length_count > 0),
        (feature::NAMES, has_names),
        (feature::SERVED_V4, served_v4.params.length_count > 0),
        (feature::SERVED_V6, served_v6.params.length_count > 0),
        (
            feature::TIMES,
            rules
                .iter()
                .any(|rule| rule.from.is_some() || rule.until.is_some()),
        ),
        (
            feature::OBSERVE,
            rules.iter().any(|rule| rule.action == Action::Observe),
        ),
        (feature::REDIRECT, !targets.interfaces.is_empty()),
        // Nothing is answered in a replay; the verdict is what counts.
        (feature::RESPOND, answers && role == Role::Live),
        (feature::QUIC_REFUSE, refuses_quic),
        (feature::DEBUG, host.debug),
        // A replay traces every packet and has no reader of events.
        (
            feature::EVENTS,
            host.events_per_window > 0 && role == Role::Live,
        ),
        (
            feature::SERVE_ANY | feature::TRACE | feature::READ_NAMES,
            role != Role::Live,
        ),
        (feature::CHECKSUMS, role == Role::Replay { checksums: true }),
        (
            host::checksums(host, facts),
            has_names && role == Role::Live,
        ),
        (feature::SOCKETS, sockets.is_some()),
        (host::directions(&served, facts), true),
        (
            // A capture has no sides, and may have been taken of one direction.
            feature::ANSWERS | feature::ANSWERS_ANYWHERE | feature::ONE_SIDED,
            role != Role::Live,
        ),
        (feature::UNPARSED_PASS, host.unparsed == Outcome::Pass),
        (feature::FRAGMENTS_PASS, host.fragments == Outcome::Pass),
        (feature::FAST_OPEN, sockets.is_some() && facts.fast_open),
        (feature::NO_SNI_DROP, host.no_sni == Outcome::Drop),
        (feature::HTTP2_DROP, host.http2 == Outcome::Drop),
        (
            feature::PROXY,
            host.proxy_protocol != InspectPorts::List(Vec::new()),
        ),
    ];
    let config = Config {
        abi: ABI_VERSION,
        features: features
            .iter()
            .filter(|(_, on)| *on)
            .fold(0, |all, (bits, _)| all | bits),
        generation: 0,
        events_per_window: host.events_per_window,
        name_action_max: rules
            .iter()
            .filter(|rule| !rule.hosts.is_empty() || !rule.domains.is_empty())
            .map(|rule| rule.action as u32)
            .max()
            .unwrap_or_default(),
        sockets: sockets.unwrap_or_default(),
        v4: v4.params,
        served_v4: served_v4.params,
        v6: v6.params,
        served_v6: served_v6.params,
        names: names.params,
    };
    let meta = Meta {
        abi: ABI_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: 0,
        compiled_at: Timestamp::now(),
        policy_digest: policy.digest.clone(),
        host_digest: host::digest(host, facts),
        config_digest: host::config_digest(host),
        policy_path: host.policy.as_ref().map(|path| path.display().to_string()),
        rules: rules
            .iter()
            .zip(&slots.assigned)
            .zip(notes)
            .map(|((rule, slot), note)| MetaRule {
                note,
                ..meta_rule(rule, &lists(policy, rule), *slot)
            })
            .collect(),
        redirect_interfaces: targets.interfaces.clone(),
        next_hops: targets.next_hops.clone(),
        local_proxies: host.local_proxies.clone(),
        local_page: host.local_page,
        retired_slots: slots.retired,
        burnt_slots: Vec::new(),
        added_keys: 0,
        deep_names,
        slot_versions: slots.versions,
        warnings,
    };
    Ok(Compiled {
        config,
        tables: tables(v4, v6, served_v4, served_v6, names, keys.sets.into_lines()),
        rules: kernel_rules,
        ports: host::ports(host),
        redirect_interfaces: targets.interfaces,
        next_hops: targets.next_hops,
        next_hop_devices: Vec::new(),
        local_proxies: host.local_proxies.clone(),
        meta,
    })
}

/// What is remembered of a rule's lists; made now for a policy that was not read from files.
fn lists(policy: &Policy, rule: &Rule) -> Lists {
    let at = policy
        .rules
        .iter()
        .position(|other| std::ptr::eq(other, rule));
    let known = at.and_then(|at| policy.lists.get(at));
    known.cloned().unwrap_or_else(|| {
        let KeyDigests { names, keys } = key_digests(&rule.hosts, &rule.domains, &rule.origins);
        Lists {
            keys,
            names,
            hosts: rule.hosts.len(),
            domains: rule.domains.len(),
            origins: rule.origins.len(),
            ..Lists::default()
        }
    })
}

/// The tables in the order of [`Table::ALL`].
fn tables(
    v4: Built<impl Sized>,
    v6: Built<impl Sized>,
    served_v4: Built<impl Sized>,
    served_v6: Built<impl Sized>,
    names: Built<impl Sized>,
    rule_sets: Vec<Line>,
) -> [Vec<Line>; Table::ALL.len()] {
    let mut tables: [Vec<Line>; Table::ALL.len()] = Default::default();
    for (table, lines) in [
        (Table::V4Summary, v4.summary),
        (Table::V4Buckets, v4.buckets),
        (Table::V6Summary, v6.summary),
        (Table::V6Buckets, v6.buckets),
        (Table::ServedV4Summary, served_v4.summary),
        (Table::ServedV4Buckets, served_v4.buckets),
        (Table::ServedV6Summary, served_v6.summary),
        (Table::ServedV6Buckets, served_v6.buckets),
        (Table::NameSummary, names.summary),
        (Table::NameBuckets, names.buckets),
        (Table::RuleSets, rule_sets),
    ] {
        tables[table as usize] = lines;
    }
    tables
}

/// Runs one on a thread of its own beside the other.
fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic));
        (one, other)
    })
}

/// Sorted keys, and what protection did to the rules that list them.
pub(super) type Blocked<K> = (Vec<(K, Entry)>, Notes);

/// The blocked prefixes of a family.
pub(super) fn blocked_prefixes(
    rules: &[&Rule],
    protected: &[IpNet],
    family: Family,
) -> Blocked<Prefix> {
    let mut notes = Notes::new(rules.len());
    let blocked = rules
        .iter()
        .zip(0u16..)
        .flat_map(|(rule, rank)| {
            rule.origins
                .iter()
                .filter_map(move |net| Some((family.prefix(net)?, rank)))
        })
        .collect();
    let protected: Vec<Prefix> = protected
        .iter()
        .filter_map(|net| family.prefix(net))
        .collect();
    let keys = prefixes::keys(family, blocked, &protected, &mut notes);
    (keys, notes)
}

/// The blocked names.
pub(super) fn blocked_names<'a>(rules: &[&'a Rule], host: &'a HostConfig) -> Blocked<&'a str> {
    let mut notes = Notes::new(rules.len());
    let blocked = rules
        .iter()
        .zip(0u16..)
        .flat_map(|(rule, rank)| {
            let hosts = rule
                .hosts
                .iter()
                .map(move |name| (name.as_str(), Entry::Exact(rank)));
            let domains = rule.domains.iter();
            hosts.chain(domains.map(move |name| (name.as_str(), Entry::Subtree(rank))))
        })
        .collect();
    let keys = hostnames::keys(
        blocked,
        &host.protect_names,
        &host.protect_domains,
        &mut notes,
    );
    (keys, notes)
}

/// What the keys of all tables share.
struct Keys<'a> {
    /// By rank.
    rules: &'a [&'a Rule],
    notes: Notes,
    sets: Sets<'a>,
}

impl Keys<'_> {
    /// The entries of a table: its keys, each with the index of its set.
    fn entries<K: Copy + PartialEq, E>(
        &mut self,
        (keys, notes): Blocked<K>,
        show: impl Fn(K) -> String,
        entry: impl Fn(&(K, u32)) -> E,
    ) -> Result<Vec<E>, CompileError> {
        self.notes.absorb(notes);
        let mut made = Vec::with_capacity(keys.len());
        let mut entries = Vec::new();
        for group in keys.chunk_by(|(a, _), (b, _)| a == b) {
            let key = group[0].0;
            entries.clear();
            entries.extend(group.iter().map(|(_, entry)| *entry));
            match self.sets.index(&mut entries) {
                Ok(index) => made.push(entry(&(key, index))),
                Err(SetError::Full) => return Err(CompileError::TooManySets),
                Err(SetError::TooLong) => {
                    let rules = entries.iter().map(|entry| self.show_entry(entry)).collect();
                    return Err(CompileError::TooManyRulesPerKey {
                        key: show(key),
                        rules,
                    });
                }
            }
        }
        Ok(made)
    }

    fn show_entry(&self, entry: &Entry) -> String {
        match *entry {
            Entry::ProtectExact | Entry::ProtectSubtree => "(protection)".to_owned(),
            Entry::Exact(rank) | Entry::Subtree(rank) => self.rules[usize::from(rank)].id.clone(),
        }
    }
}

pub(super) fn v4_entry((prefix, value): &(Prefix, u32)) -> V4Entry {
    V4Entry {
        addr: prefix.v4(),
        length: prefix.length(),
        value: *value,
    }
}

pub(super) fn v6_entry((prefix, value): &(Prefix, u32)) -> V6Entry {
    V6Entry {
        addr: prefix.v6(),
        length: prefix.length(),
        value: *value,
    }
}

pub(super) fn name_entry<'a>((name, value): &(&'a str, u32)) -> NameEntry<'a> {
    NameEntry {
        name,
        value: *value,
    }
}

/// Entries whose value has no meaning.
fn valued<E>(family: Family, nets: &[(IpNet, u32)], entry: fn(&(Prefix, u32)) -> E) -> Vec<E> {
    nets.iter()
        .filter_map(|(net, value)| Some(entry(&(family.prefix(net)?, *value))))
        .collect()
}
