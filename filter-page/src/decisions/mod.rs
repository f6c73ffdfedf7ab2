//! The rules with a page: the file that the controller writes, and which rule answers a request.
//!
//! A change comes in two steps, so that no visitor is sent here before his rule is known. The controller
//! writes the rules that come beside those in force ([`coming`]), waits until the statistics show
//! their [`Decisions::mark`], changes what the kernel does, and renames the file over the one before. In
//! between, rules of either file answer.

mod index;

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use index::{Asked, Index};

use crate::Error;

/// Size of the file beyond which it is not read.
pub const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Contents of the file, JSON. The controller writes it beside and renames it over the old one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// Number of the policy's generation, shown in the statistics.
    pub generation: u64,
    /// Chosen by the writer and shown in the statistics: who sees it there knows that these rules are in use.
    #[serde(default)]
    pub mark: u64,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Whom to write to about a block: an address of the web, of mail, or any text.
    #[serde(default)]
    pub contact: Option<String>,
    /// Languages of the page, the first for visitors who want none of them. Empty: all there are.
    #[serde(default)]
    pub languages: Vec<String>,
}

/// A rule, and what is said about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Its label in the policy.
    pub id: String,
    /// Exactly these names, as clients send them (`xn--…`), lower case, without a trailing dot.
    pub hosts: Vec<String>,
    /// These names and everything under them.
    pub domains: Vec<String>,
    /// Addresses and prefixes. A rule with one of them answers for every name on it.
    pub origins: Vec<String>,
    /// First and last port of the ranges that the rule is narrowed to; empty for all.
    pub ports: Vec<(u16, u16)>,
    /// Headline.
    pub title: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Title and reason by language, in place of the above.
    pub text: BTreeMap<String, Text>,
    /// Who ordered it.
    pub authority: Option<String>,
    /// File or case number.
    pub reference: Option<String>,
    /// Address of the public statement, `https://…` or `http://…`.
    pub statement: Option<String>,
    /// In force from.
    pub from: Option<Timestamp>,
    /// In force up to, not including.
    pub until: Option<Timestamp>,
    /// When it is looked at again.
    pub review_by: Option<Timestamp>,
    /// Whether this rule leads to the page. One that does not (it drops, say, or it protects) is
    /// told so that nothing under it is answered in the name of a wider rule.
    pub redirects: bool,
    /// Address of this host under which its own proxies are led to this rule's page, whose origins have the
    /// page in place of their answers.
    pub local: Option<Ipv4Addr>,
}

/// Words of a rule in one language.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Text {
    /// In place of [`Rule::title`].
    pub title: Option<String>,
    /// In place of [`Rule::reason`].
    pub reason: Option<String>,
}

impl Rule {
    /// Whether it is in force at a time.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// Where the rules are that come into force next: beside the file of those in force.
pub fn coming(decisions: &Path) -> PathBuf {
    decisions.with_file_name("coming.json")
}

/// Reads and indexes the file.
///
/// # Errors
/// If it cannot be read, is too large, is no JSON of this shape, or lists a prefix that is none.
pub(crate) fn load(path: &Path) -> Result<Index, Error> {
    let unreadable = |cause| Error::ReadDecisions {
        path: path.to_owned(),
        cause,
    };
    let unusable = |cause: String| Error::BadDecisions {
        path: path.to_owned(),
        cause,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(format!(
            "{size} bytes, at most {FILE_BYTES_MAX} are read"
        )));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let decisions = serde_json::from_slice(&bytes).map_err(|cause| unusable(cause.to_string()))?;
    Index::new(decisions).map_err(unusable)
}
