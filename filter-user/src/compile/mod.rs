//! A policy compiled into a generation: tables, rules, constants and the metadata
//! that lets any later process say what the kernel enforces.
//!
//! [`compile()`] makes no system call but to draw random keys and the time. What a
//! policy says and what this host protects are brought together here, so that the
//! kernel looks up one table and need not know about protection:
//!
//! - what lies wholly inside a protected prefix or name is left out;
//! - a protected prefix or name inside a blocked one becomes a key of its own whose
//!   set says [`filter_common::abi::SetRef::PROTECT`].

pub mod build;
pub mod error;

mod change;
mod generation;
mod host;
mod hostnames;
mod insert;
mod notes;
mod place;
mod prefixes;
mod rules;
mod sets;
mod slots;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use filter_common::{
    abi::{Config, Line, Rule, SocketOffsets, Table},
    limits,
    tables::Lines,
};
use serde::{Deserialize, Serialize};

use crate::policy::model::{RuleText, Target};

pub use self::{
    change::{Change, Rebuild, Stage, Standing, change},
    error::CompileError,
    generation::compile,
    host::{config_digest, digest as host_digest, ports, protected, served_prefixes},
    insert::Store,
};

/// Facts about this host and moment that a compilation depends on, gathered by the caller
/// so that compiling is a pure function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// The host's own addresses: served by default, and protected.
    pub own_addresses: Vec<std::net::IpAddr>,
    /// Gateways, resolvers, the operator's SSH peer: protected.
    pub lifelines: Vec<std::net::IpAddr>,
    /// Kernel's offset of CLOCK_TAI from UTC in seconds.
    pub tai_offset_s: i64,
    /// Where this kernel keeps what it knows of connections; `None` if that could not be found out.
    pub sockets: Option<SocketOffsets>,
    /// Whether the host takes payload in a SYN (TCP Fast Open).
    pub fast_open: bool,
    /// Whether an interface delivers TCP checksums that a device is still to complete.
    pub partial_checksums: bool,
    /// How many interfaces the filter is to be attached to.
    pub interfaces: usize,
}

/// Whether names are read on a live interface or in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Attached to interfaces.
    Live,
    /// Fed with captured frames: every destination is served, outcomes are traced, names are
    /// read even if no rule has one.
    Replay {
        /// Judge IP and TCP checksums.
        checksums: bool,
    },
}

/// Everything the kernel needs for one generation, before any system call.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Load-time constants; `generation` is filled in by the datapath.
    pub config: Config,
    /// Contents of each table, in the order of [`Table::ALL`]; never empty (one zero line at least).
    pub tables: [Vec<Line>; Table::ALL.len()],
    /// The rule table by slot, at most [`limits::RULES_MAX`]; unused slots hold a rule that is never in force.
    pub rules: Vec<Rule>,
    /// `port_class` bits of every port.
    pub ports: Box<[u8; 65_536]>,
    /// Interfaces that rules redirect to, by key of the redirect map.
    pub redirect_interfaces: Vec<String>,
    /// Next hops that rules redirect to, by number.
    pub next_hops: Vec<NextHop>,
    /// Indexes of the interfaces that they are on, by number, as far as they are known.
    pub next_hop_devices: Vec<(u32, u32)>,
    /// Control group whose processes are kept from connecting to blocked origins.
    pub local_proxies: Option<PathBuf>,
    /// What is stored with the generation.
    pub meta: Meta,
}

impl Lines for Compiled {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        self.tables.get(table as usize)?.get(index as usize)
    }
}

/// Stored as JSON with the generation's pins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// [`filter_common::abi::ABI_VERSION`] of the writer.
    pub abi: u32,
    /// Version of the edgefilter that wrote it.
    pub version: String,
    /// Number of the generation; 0 before it is installed.
    pub generation: u64,
    /// When it was compiled.
    pub compiled_at: jiff::Timestamp,
    /// Digest of the policy, see [`crate::policy::model::Policy::digest`].
    pub policy_digest: String,
    /// Digest of everything else the tables depend on (host configuration and facts).
    pub host_digest: String,
    /// Digest of the host configuration alone; empty if the writer did not note it.
    #[serde(default)]
    pub config_digest: String,
    /// The policy file, for people.
    pub policy_path: Option<String>,
    /// The rules, in the order of their ids.
    pub rules: Vec<MetaRule>,
    /// Interfaces that rules redirect to, by key of the redirect map.
    #[serde(default)]
    pub redirect_interfaces: Vec<String>,
    /// Next hops that rules redirect to, by number.
    #[serde(default)]
    pub next_hops: Vec<NextHop>,
    /// As [`Compiled::local_proxies`].
    #[serde(default)]
    pub local_proxies: Option<PathBuf>,
    /// Whether their connections are led to the block page where the rule leads there.
    #[serde(default)]
    pub local_page: bool,
    /// Slots of the previous generation's rules that are gone: not given away until the next generation.
    pub retired_slots: Vec<u16>,
    /// Slots of rules that were removed in place: the tables still lead to them.
    #[serde(default)]
    pub burnt_slots: Vec<u16>,
    /// Keys that came or went in place since the tables were made.
    #[serde(default)]
    pub added_keys: usize,
    /// Whether a name has so many labels that adding others could nest it too deeply.
    #[serde(default)]
    pub deep_names: bool,
    /// Slot versions handed out so far, by slot.
    pub slot_versions: Vec<u32>,
    /// Findings of the compiler, ready to print.
    pub warnings: Vec<String>,
}

/// A host on a link to which rules redirect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// The interface it is on; `None` to go by the routes.
    pub interface: Option<String>,
}

impl NextHop {
    /// Whether it is what a rule leads to.
    fn is(&self, target: &Target) -> bool {
        match target {
            Target::NextHop { address, interface } => {
                self.address == *address && self.interface == *interface
            }
            Target::Page | Target::Interface(_) => false,
        }
    }
}

impl Meta {
    /// The next hops that rules lead to, with their numbers.
    pub fn next_hops_in_use(&self) -> Vec<(u32, NextHop)> {
        let is_used = |hop: &NextHop| {
            let targets = self.rules.iter().filter_map(|rule| rule.target.as_ref());
            targets.into_iter().any(|target| hop.is(target))
        };
        let numbered = (0u32..).zip(&self.next_hops);
        numbered
            .filter(|(_, hop)| is_used(hop))
            .map(|(number, hop)| (number, hop.clone()))
            .collect()
    }

    /// Whether a rule leads to the block page.
    pub fn has_page(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.target == Some(Target::Page))
    }
}

/// Where a moment lies in respect of a rule's `from` and `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Before `from`.
    NotYet,
    /// Between.
    InForce,
    /// At or after `until`.
    NoLonger,
}

impl MetaRule {
    /// Whether the rule is in force at a moment, as the kernel sees it.
    pub fn term(&self, now: jiff::Timestamp) -> Term {
        if self.until.is_some_and(|until| now >= until) {
            return Term::NoLonger;
        }
        match self.from {
            Some(from) if now < from => Term::NotYet,
            Some(_) | None => Term::InForce,
        }
    }
}

/// What is remembered of one rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetaRule {
    /// Index in the rule table and the counters.
    pub slot: u16,
    /// Version of the slot.
    pub slot_version: u32,
    /// The rule's id.
    pub id: String,
    /// Digest of all that the rule says: its lists are not kept here.
    #[serde(default)]
    pub digest: String,
    /// Digest of what it says about names, see [`crate::policy::names_digest`].
    #[serde(default)]
    pub names_digest: String,
    /// Word of the action.
    pub action: String,
    /// Where a redirect leads to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Target>,
    /// Whether QUIC is answered, as in the policy.
    #[serde(default)]
    pub refuses_quic: bool,
    /// What is remembered of its lists, before protection.
    #[serde(flatten)]
    pub lists: crate::policy::model::Lists,
    /// What protection did to it, ready to print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// As in the policy, `443` or `8000-8010`.
    pub ports: Vec<String>,
    /// As in the policy.
    pub protocol: Option<u8>,
    /// As in the policy.
    pub title: Option<String>,
    /// As in the policy.
    pub reason: Option<String>,
    /// As in the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text: BTreeMap<String, RuleText>,
    /// As in the policy.
    pub statement: Option<String>,
    /// As in the policy.
    pub authority: Option<String>,
    /// As in the policy.
    pub reference: Option<String>,
    /// As in the policy.
    pub approved_by: Vec<String>,
    /// As in the policy.
    pub from: Option<jiff::Timestamp>,
    /// As in the policy.
    pub until: Option<jiff::Timestamp>,
    /// As in the policy.
    pub review_by: Option<jiff::Timestamp>,
}

const _: () = assert!(limits::RULES_MAX <= u16::MAX as usize);
