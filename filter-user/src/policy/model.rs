//! A policy and a host configuration after parsing and validation: what the
//! compiler works on. Invalid values cannot be represented or were refused.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use filter_common::abi::{Action, PortRange};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::limits::{
    EVENTS_PER_WINDOW_DEFAULT, PAGE_CONNECTIONS_DEFAULT, PAGE_CONNECTIONS_PER_CLIENT_DEFAULT,
    PAGE_LIFETIME_S_DEFAULT, PAGE_TIMEOUT_S_DEFAULT,
};

/// A hostname as the tables hold it: IDNA-mapped, lower-case ASCII, no trailing dot, 1 to 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(pub(super) Box<str>);

impl HostName {
    /// The name in its canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
impl HostName {
    /// A name that is canonical already.
    pub(crate) fn canonical(name: &str) -> Self {
        Self(name.into())
    }
}

/// Everything that `policy.toml`, its list files and `policy.d/` say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The rules, sorted by id.
    pub rules: Vec<Rule>,
    /// What is remembered of each rule's lists.
    pub lists: Vec<Lists>,
    /// Non-fatal findings, ready to print.
    pub warnings: Vec<String>,
    /// SHA-256 over the canonical form of the rules, in hexadecimal: equal for equal meaning.
    pub digest: String,
    /// Every file and directory that the policy was read from, for the controller to watch;
    /// `policy.d` also if there is none.
    pub files: Vec<PathBuf>,
}

/// As a [`Policy`], where lists that are known already were not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// The rules, sorted by id.
    pub rules: Vec<Outlined>,
    /// As [`Policy::warnings`], those about lists that were not read included.
    pub warnings: Vec<String>,
    /// As [`Policy::digest`].
    pub digest: String,
    /// As [`Policy::files`].
    pub files: Vec<PathBuf>,
}

/// One rule of an [`Outline`].
#[derive(Clone, Debug, PartialEq)]
pub struct Outlined {
    /// The rule; without names and prefixes unless they were read.
    pub rule: Rule,
    /// What is known of its lists.
    pub lists: Lists,
    /// Whether its lists were read.
    pub is_read: bool,
}

impl Outline {
    /// The policy, if all its lists were read.
    ///
    /// # Errors
    ///
    /// The outline as it was, if they were not.
    pub fn into_policy(self) -> Result<Policy, Self> {
        if !self.rules.iter().all(|rule| rule.is_read) {
            return Err(self);
        }
        let rules = self.rules.into_iter();
        let (rules, lists) = rules
            .map(|outlined| (outlined.rule, outlined.lists))
            .unzip();
        Ok(Policy {
            rules,
            lists,
            warnings: self.warnings,
            digest: self.digest,
            files: self.files,
        })
    }
}

/// What is remembered of a rule's lists, so that they need not be read again while they stay the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    /// SHA-256 in hexadecimal over what they were read from: entries in the rule, bytes of list files.
    pub inputs: String,
    /// SHA-256 in hexadecimal over what they say.
    pub keys: String,
    /// SHA-256 in hexadecimal over the names among it; empty if there are none.
    pub names: String,
    /// Entries, repetitions included.
    pub entries: usize,
    /// Different exact names.
    pub hosts: usize,
    /// Different domains.
    pub domains: usize,
    /// Different prefixes.
    pub origins: usize,
    /// Findings about them, ready to print.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One `[[rule]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Stable label in counters, logs and metrics.
    pub id: String,
    /// What happens to a hit.
    pub action: Action,
    /// Where [`Action::Redirect`] leads to, and only that.
    pub target: Option<Target>,
    /// Whether QUIC that [`Action::Refuse`] or the block page is about is answered so that the client
    /// comes back over TCP at once; else it is treated as all UDP.
    pub refuses_quic: bool,
    /// Exactly these names; sorted, none twice, like the next two.
    pub hosts: Vec<HostName>,
    /// These names and everything under them.
    pub domains: Vec<HostName>,
    /// Origin prefixes without host bits.
    pub origins: Vec<IpNet>,
    /// Ports the rule is narrowed to; empty for all. At most
    /// [`filter_common::limits::PORT_RANGES_PER_RULE`], sorted, apart from each other.
    pub ports: Vec<PortRange>,
    /// IP protocol number the rule is narrowed to.
    pub protocol: Option<u8>,
    /// Headline of the block page.
    pub title: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Headline and reason in other languages, by their tags.
    pub text: BTreeMap<String, RuleText>,
    /// Link to the public statement.
    pub statement: Option<String>,
    /// Who ordered it.
    pub authority: Option<String>,
    /// File or case number.
    pub reference: Option<String>,
    /// Who approved it.
    pub approved_by: Vec<String>,
    /// In force from.
    pub from: Option<Timestamp>,
    /// In force until, not including.
    pub until: Option<Timestamp>,
    /// When it is to be looked at again.
    pub review_by: Option<Timestamp>,
}

/// Where a rule leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The page that says why.
    Page,
    /// Out of this interface, as the frame is.
    Interface(String),
    /// To this host on a link.
    NextHop {
        /// Its address.
        address: IpAddr,
        /// The interface it is on; `None` to go by the routes.
        interface: Option<String>,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page => f.write_str("the block page"),
            Self::Interface(interface) => f.write_str(interface),
            Self::NextHop {
                address,
                interface: None,
            } => address.fmt(f),
            Self::NextHop {
                address,
                interface: Some(interface),
            } => write!(f, "{address} on {interface}"),
        }
    }
}

/// What the block page says of a rule in one language.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// In place of the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// In place of the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a connection to a blocked name reaches the block page: `block_page.takeover`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// By the best that the kernel offers.
    #[default]
    Auto,
    /// By a socket that a process makes.
    Repair,
    /// Not at all: names are refused.
    Off,
}

/// The block page: `[block_page]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockPage {
    /// Directory of certificates and keys. Default: none, so that no TLS visitor sees the page.
    pub certificates: Option<PathBuf>,
    /// Ports on which the page is served for blocked addresses, beside those inspected for TLS and HTTP.
    /// Default: 80 and 443.
    pub ports: Vec<u16>,
    /// Directory of a template, a style and texts that replace those built in. Default: none.
    pub theme: Option<PathBuf>,
    /// Languages of the page, the first for visitors who want none of them. Default: all there are.
    pub languages: Vec<String>,
    /// Whom to write to about a block. Default: nobody.
    pub contact: Option<String>,
    /// User that the page's process runs as. Default: see [`crate::sink`].
    pub user: Option<String>,
    /// Most connections at once.
    pub connections: u32,
    /// Most connections at once of one client.
    pub connections_per_client: u32,
    /// How long a client may be silent, or take nothing.
    pub timeout: Duration,
    /// Longest that one connection lasts.
    pub lifetime: Duration,
    /// How connections to blocked names reach the page. Default: by the best that the kernel offers.
    pub takeover: Takeover,
}

impl Default for BlockPage {
    fn default() -> Self {
        Self {
            certificates: None,
            ports: vec![80, 443],
            theme: None,
            languages: Vec::new(),
            contact: None,
            user: None,
            connections: PAGE_CONNECTIONS_DEFAULT,
            connections_per_client: PAGE_CONNECTIONS_PER_CLIENT_DEFAULT,
            timeout: Duration::from_secs(PAGE_TIMEOUT_S_DEFAULT),
            lifetime: Duration::from_secs(PAGE_LIFETIME_S_DEFAULT),
            takeover: Takeover::Auto,
        }
    }
}

/// Everything that `edgefilter.toml` and the command line say about this host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// Interfaces to attach to. Default: none.
    pub interfaces: Vec<InterfaceConfig>,
    /// Policy file to follow. Default: none.
    pub policy: Option<PathBuf>,
    /// Addresses on which names are read; `None`, the default, for the host's own.
    pub serves: Option<Vec<IpNet>>,
    /// Ports inspected for TLS. Default: 443.
    pub tls: InspectPorts,
    /// Ports inspected for HTTP/1. Default: 80.
    pub http: InspectPorts,
    /// Ports inspected for QUIC. Default: 443.
    pub quic: InspectPorts,
    /// Of the ports inspected for TLS and HTTP/1 those on which a PROXY protocol header may precede the
    /// hello. Default: none.
    pub proxy_protocol: InspectPorts,
    /// What happens to a hello that cannot be read though a server might: malformed, too long,
    /// or lost half-way. Default: dropped.
    pub unparsed: Outcome,
    /// What happens to a hello that names no host. Default: passes.
    pub no_sni: Outcome,
    /// What happens to HTTP/2 with prior knowledge. Default: passes.
    pub http2: Outcome,
    /// What happens to the first fragment of a datagram towards an inspected port. Default: dropped.
    pub fragments: Outcome,
    /// How TCP checksums of inspected segments are judged. Default: by the interfaces' drivers.
    pub checksum: ChecksumMode,
    /// Whether QUIC to inspected ports of served addresses is answered so that clients come back over
    /// TCP, where names are read. Default: no.
    pub quic_refuse: bool,
    /// The block page.
    pub block_page: BlockPage,
    /// Prefixes that no rule may hit. Default: none.
    pub protect_prefixes: Vec<IpNet>,
    /// Names that no rule may hit. Default: none.
    pub protect_names: Vec<HostName>,
    /// Names that no rule may hit, with everything under them. Default: none.
    pub protect_domains: Vec<HostName>,
    /// Whether the host's own addresses, gateways, resolvers and the operator's SSH peer are
    /// protected. Default: yes.
    pub protect_self: bool,
    /// Most events one CPU emits per [`filter_common::limits::EVENT_WINDOW_JIFFIES`]; 0 turns events off.
    /// Default: [`EVENTS_PER_WINDOW_DEFAULT`].
    pub events_per_window: u32,
    /// Debug messages of the kernel program. Default: no.
    pub debug: bool,
    /// Control group (of version 2) whose processes are kept from connecting to blocked origins, as a
    /// directory. Default: none.
    pub local_proxies: Option<PathBuf>,
    /// Whether those connections are led to the block page where the rule leads there. Default: they fail.
    pub local_page: bool,
    /// Where a running controller tells its numbers. Default: nowhere.
    pub metrics: Metrics,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Address on which `/metrics` is served over HTTP.
    pub listen: Option<SocketAddr>,
    /// File for node_exporter's textfile collector.
    pub file: Option<PathBuf>,
}

impl Default for HostConfig {
    /// What an empty `edgefilter.toml` says.
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            policy: None,
            serves: None,
            tls: InspectPorts::List(vec![443]),
            http: InspectPorts::List(vec![80]),
            quic: InspectPorts::List(vec![443]),
            proxy_protocol: InspectPorts::List(Vec::new()),
            unparsed: Outcome::Drop,
            no_sni: Outcome::Pass,
            http2: Outcome::Pass,
            fragments: Outcome::Drop,
            checksum: ChecksumMode::Auto,
            quic_refuse: false,
            block_page: BlockPage::default(),
            protect_prefixes: Vec::new(),
            protect_names: Vec::new(),
            protect_domains: Vec::new(),
            protect_self: true,
            events_per_window: EVENTS_PER_WINDOW_DEFAULT,
            debug: false,
            local_proxies: None,
            local_page: false,
            metrics: Metrics::default(),
        }
    }
}

/// What happens to a hello that no rule can decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the host.
    Pass,
    /// Dropped.
    Drop,
}

/// How TCP checksums of inspected segments are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumMode {
    /// Partial if one of the interfaces delivers unfinished sums, else strict.
    Auto,
    /// The sum must be right.
    Strict,
    /// The pseudo-header's sum alone is accepted too: what a sender on the same machine leaves for
    /// a device to complete.
    Partial,
}

/// One interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Name in the controller's network namespace.
    pub name: String,
    /// How to attach.
    pub mode: AttachMode,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native if the driver can, else generic, and say so.
    #[default]
    Auto,
    /// In the driver; an error if it cannot.
    Native,
    /// In the network core, after the skb was made.
    Generic,
}

/// Ports inspected for one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectPorts {
    /// Every port; the first bytes decide.
    Any,
    /// These ports.
    List(Vec<u16>),
}
