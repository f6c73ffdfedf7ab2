//! Fingerprints of what a policy means, and of what it was read from.
//!
//! A policy's digest is made of those of its rules, a rule's of its fields and of that of its lists:
//! who knows that a list is unchanged need not read it.

use std::{panic, thread};

use filter_common::abi::PortRange;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::model::{HostName, Rule, Target};
use crate::prefetch::ahead;

/// Changes whenever the serialisation below does.
const SERIALISATION: &[u8] = b"edgefilter policy 3";

/// Changes whenever the same bytes are read as something else.
const READING: &str = concat!("edgefilter lists ", env!("CARGO_PKG_VERSION"));

/// SHA-256 in hexadecimal over the digests of the rules, in the order of their ids: two policies that
/// say the same in other files or another order have the same digest.
pub fn policy_digest<'a>(rules: impl ExactSizeIterator<Item = &'a str>) -> String {
    let mut canonical = Canonical::new();
    canonical.bytes(SERIALISATION);
    canonical.count(rules.len());
    for rule in rules {
        canonical.bytes(rule.as_bytes());
    }
    canonical.finish()
}

/// SHA-256 in hexadecimal over all that a rule says; `keys` is that of its [`KeyDigests`].
pub fn rule_digest(rule: &Rule, keys: &str) -> String {
    let mut canonical = Canonical::new();
    canonical.bytes(SERIALISATION);
    canonical.rule(rule, keys);
    canonical.finish()
}

/// SHA-256 in hexadecimal over what decides about a connection by its name alone: not the texts, the
/// times and the origins. `names` is that of the rule's [`KeyDigests`]. Empty if the rule has no names.
pub fn names_digest(rule: &Rule, names: &str) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut canonical = Canonical::new();
    canonical.bytes(SERIALISATION);
    canonical.bytes(rule.action.as_str().as_bytes());
    canonical.bytes(names.as_bytes());
    canonical.narrowed(&rule.ports, rule.protocol.as_ref());
    canonical.finish()
}

/// Digests of what a rule lists, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDigests {
    /// SHA-256 over its names; empty if it has none.
    pub names: String,
    /// SHA-256 over names and prefixes.
    pub keys: String,
}

/// [`KeyDigests`] of lists, which are sorted, so that order does not count.
pub fn key_digests(hosts: &[HostName], domains: &[HostName], origins: &[IpNet]) -> KeyDigests {
    let names = |names: &[HostName]| {
        let mut canonical = Canonical::new();
        canonical.names(names);
        canonical.finish()
    };
    let (of_hosts, of_domains, of_origins) = thread::scope(|scope| {
        let hosts = scope.spawn(|| names(hosts));
        let domains = scope.spawn(|| names(domains));
        let mut canonical = Canonical::new();
        canonical.prefixes(origins);
        let join = |thread: thread::ScopedJoinHandle<'_, String>| {
            let joined = thread.join();
            joined.unwrap_or_else(|panic| panic::resume_unwind(panic))
        };
        (join(hosts), join(domains), canonical.finish())
    });
    let over = |digests: &[&String]| {
        let mut canonical = Canonical::new();
        for digest in digests {
            canonical.bytes(digest.as_bytes());
        }
        canonical.finish()
    };
    KeyDigests {
        names: match (hosts, domains) {
            ([], []) => String::new(),
            _ => over(&[&of_hosts, &of_domains]),
        },
        keys: over(&[&of_hosts, &of_domains, &of_origins]),
    }
}

/// What a rule's lists are read from, as far as their digest goes.
pub(super) struct Inputs(Canonical);

impl Inputs {
    pub(super) fn new(guardrails: [bool; 2]) -> Self {
        let mut canonical = Canonical::new();
        canonical.bytes(READING.as_bytes());
        canonical.raw(&guardrails.map(u8::from));
        Self(canonical)
    }

    /// Entries written in the rule itself, and the digest of the list file.
    pub(super) fn add<'a>(
        &mut self,
        inline: impl ExactSizeIterator<Item = &'a str>,
        file: Option<&FileDigest>,
    ) {
        self.0.count(inline.len());
        for entry in inline {
            self.0.bytes(entry.as_bytes());
        }
        self.0.bytes(file.map_or(&[], FileDigest::as_slice));
    }

    pub(super) fn finish(self) -> String {
        self.0.finish()
    }
}

/// SHA-256 of a file.
pub(super) type FileDigest = [u8; 32];

/// Bytes gathered before they are hashed: the hash function is slow on millions of short pieces.
const GATHERED_BYTES: usize = 1 << 16;

/// Every item is preceded by its length, so that no two policies run together to the same bytes.
struct Canonical {
    hash: Sha256,
    gathered: Vec<u8>,
}

impl Canonical {
    fn new() -> Self {
        Self {
            hash: Sha256::new(),
            gathered: Vec::new(),
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_BYTES {
            self.hash.update(&self.gathered);
            self.gathered.clear();
        }
    }

    fn finish(mut self) -> String {
        self.hash.update(&self.gathered);
        let hash = self.hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn rule(&mut self, rule: &Rule, keys: &str) {
        // Taken apart in full, so that a new field cannot be forgotten here.
        let Rule {
            id,
            action,
            target,
            refuses_quic,
            hosts: _,
            domains: _,
            origins: _,
            ports,
            protocol,
            title,
            reason,
            text,
            statement,
            authority,
            reference,
            approved_by,
            from,
            until,
            review_by,
        } = rule;
        self.bytes(id.as_bytes());
        self.bytes(action.as_str().as_bytes());
        self.optional(target.as_ref().map(Target::to_string).as_deref());
        self.raw(&[u8::from(*refuses_quic)]);
        self.bytes(keys.as_bytes());
        self.narrowed(ports, protocol.as_ref());
        for text in [title, reason, statement, authority, reference] {
            self.optional(text.as_deref());
        }
        self.count(text.len());
        for (language, text) in text {
            self.bytes(language.as_bytes());
            self.optional(text.title.as_deref());
            self.optional(text.reason.as_deref());
        }
        self.count(approved_by.len());
        for approver in approved_by {
            self.bytes(approver.as_bytes());
        }
        for time in [from, until, review_by] {
            self.optional(time.map(|time| time.to_string()).as_deref());
        }
    }

    fn narrowed(&mut self, ports: &[PortRange], protocol: Option<&u8>) {
        self.count(ports.len());
        for range in ports {
            self.raw(&range.first.to_be_bytes());
            self.raw(&range.last.to_be_bytes());
        }
        self.bytes(protocol.map_or(&[], std::slice::from_ref));
    }

    fn names(&mut self, names: &[HostName]) {
        self.count(names.len());
        for name in ahead(names, |name| name.as_str().as_bytes()) {
            self.bytes(name.as_str().as_bytes());
        }
    }

    fn prefixes(&mut self, prefixes: &[IpNet]) {
        self.count(prefixes.len());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => self.bytes(&net.addr().octets()),
                IpNet::V6(net) => self.bytes(&net.addr().octets()),
            }
            self.raw(&[prefix.prefix_len()]);
        }
    }

    fn optional(&mut self, text: Option<&str>) {
        self.raw(&[u8::from(text.is_some())]);
        self.bytes(text.unwrap_or_default().as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    fn count(&mut self, count: usize) {
        self.raw(&(count as u64).to_be_bytes());
    }
}
