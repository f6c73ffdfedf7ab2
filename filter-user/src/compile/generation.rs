//! The compiler itself.

use std::{panic, thread};

use filter_common::{
    abi::{self, ABI_VERSION, Action, Config, Line, PortRange, Table, feature},
    limits::{PORT_RANGES_PER_RULE, REDIRECT_TARGETS_MAX},
};
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
    sets::{Entry, Listed, SetError, Sets},
    slots,
};
use crate::policy::{
    model::{HostConfig, InspectPorts, Outcome, Policy, Rule},
    names_digest, rule_digest,
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
    let mut redirect_interfaces = Vec::new();
    let mut kernel_rules = vec![never_in_force(0); slots.versions.len().max(1)];
    for (rule, version) in kernel_rules.iter_mut().zip(&slots.versions) {
        *rule = never_in_force(*version);
    }
    for ((rank, rule), (slot, version)) in rules.iter().enumerate().zip(&slots.assigned) {
        let redirect_index = redirect_index(rule, &mut redirect_interfaces)?;
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
        sets: Sets::new(&listed),
    };
    let v4 = keys.entries(v4, |prefix| Family::V4.show(prefix).to_string(), v4_entry)?;
    let v6 = keys.entries(v6, |prefix| Family::V6.show(prefix).to_string(), v6_entry)?;
    hostnames::check_depth(&names.0)?;
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

    let mut warnings = keys.notes.warnings(&ids);
    let served = if has_names && role == Role::Live {
        host::serves(host, facts)
    } else {
        Vec::new()
    };
    if has_names && role == Role::Live && served.is_empty() {
        warnings.push(
            "the policy has hostnames, but this host serves no address: names are not read \
             anywhere; list addresses under `serves`"
                .to_owned(),
        );
    }
    let served_v4 = build_v4(&valued(Family::V4, &served, v4_entry), &mut prefix_rng)?;
    let served_v6 = build_v6(&valued(Family::V6, &served, v6_entry), &mut prefix_rng)?;

    let sockets = if has_names && role == Role::Live {
        if facts.sockets.is_none() {
            warnings.push(
                "this kernel does not tell where it keeps its connections (no BTF): streams are \
                 followed by what passes by alone, see LIMITS"
                    .to_owned(),
            );
        }
        facts.sockets
    } else {
        None
    };

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
        (feature::REDIRECT, !redirect_interfaces.is_empty()),
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
            .map(|(rule, slot)| meta_rule(rule, *slot))
            .collect(),
        retired_slots: slots.retired,
        slot_versions: slots.versions,
        warnings,
    };
    Ok(Compiled {
        config,
        tables: tables(v4, v6, served_v4, served_v6, names, keys.sets.into_lines()),
        rules: kernel_rules,
        ports: host::ports(host),
        redirect_interfaces,
        meta,
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
type Blocked<K> = (Vec<(K, Entry)>, Notes);

/// The blocked prefixes of a family.
fn blocked_prefixes(rules: &[&Rule], protected: &[IpNet], family: Family) -> Blocked<Prefix> {
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
fn blocked_names<'a>(rules: &[&'a Rule], host: &'a HostConfig) -> Blocked<&'a str> {
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

fn v4_entry((prefix, value): &(Prefix, u32)) -> V4Entry {
    V4Entry {
        addr: prefix.v4(),
        length: prefix.length(),
        value: *value,
    }
}

fn v6_entry((prefix, value): &(Prefix, u32)) -> V6Entry {
    V6Entry {
        addr: prefix.v6(),
        length: prefix.length(),
        value: *value,
    }
}

fn name_entry<'a>((name, value): &(&'a str, u32)) -> NameEntry<'a> {
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

/// What an unused slot holds.
fn never_in_force(slot_version: u32) -> abi::Rule {
    abi::Rule {
        from_tai_ns: u64::MAX,
        until_tai_ns: 0,
        ..abi::Rule::new(Action::Observe, u16::MAX, slot_version)
    }
}

/// Key of the redirect map for a rule that redirects, else 0.
fn redirect_index(rule: &Rule, interfaces: &mut Vec<String>) -> Result<u32, CompileError> {
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

fn kernel_rule(
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
        port_count: rule.ports.len() as u32,
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

fn meta_rule(rule: &Rule, (slot, slot_version): (u16, u32)) -> MetaRule {
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
        digest: rule_digest(rule),
        names_digest: names_digest(rule),
        action: rule.action.as_str().to_owned(),
        redirect_interface: rule.redirect_interface.clone(),
        hosts: rule.hosts.len(),
        domains: rule.domains.len(),
        origins: rule.origins.len(),
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
