//! A fingerprint of what a policy means.

use filter_common::abi::PortRange;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::model::{HostName, Rule};

/// Changes whenever the serialisation below does.
const SERIALISATION: &[u8] = b"edgefilter policy 1";

/// SHA-256 in hexadecimal over the rules, which are sorted by id and whose lists are sorted: two
/// policies that say the same in other files or another order have the same digest.
pub(super) fn digest(rules: &[Rule]) -> String {
    let mut canonical = Canonical::new();
    canonical.bytes(SERIALISATION);
    canonical.count(rules.len());
    for rule in rules {
        canonical.rule(rule);
    }
    canonical.finish()
}

/// As [`digest`], of one rule: tells whether its contents changed.
pub fn rule_digest(rule: &Rule) -> String {
    digest(std::slice::from_ref(rule))
}

/// As [`rule_digest`], over what decides about a connection by its name alone: not the texts, the
/// times and the origins. Empty if the rule has no names.
pub fn names_digest(rule: &Rule) -> String {
    if rule.hosts.is_empty() && rule.domains.is_empty() {
        return String::new();
    }
    let mut canonical = Canonical::new();
    canonical.bytes(SERIALISATION);
    canonical.bytes(rule.action.as_str().as_bytes());
    canonical.names(&rule.hosts);
    canonical.names(&rule.domains);
    canonical.narrowed(&rule.ports, rule.protocol.as_ref());
    canonical.finish()
}

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
            gathered: Vec::with_capacity(2 * GATHERED_BYTES),
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

    fn rule(&mut self, rule: &Rule) {
        // Taken apart in full, so that a new field cannot be forgotten here.
        let Rule {
            id,
            action,
            redirect_interface,
            hosts,
            domains,
            origins,
            ports,
            protocol,
            title,
            reason,
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
        self.optional(redirect_interface.as_deref());
        self.names(hosts);
        self.names(domains);
        self.prefixes(origins);
        self.narrowed(ports, protocol.as_ref());
        for text in [title, reason, statement, authority, reference] {
            self.optional(text.as_deref());
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
        for name in names {
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
