//! What can be told about the block page by whoever asks: whether it is served, what the process counts,
//! and which names have no certificate.

use std::{
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use filter_page::{
    certificates::{Certificates, Coverage, Wanted},
    stats::Snapshot,
};
use jiff::Timestamp;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::Serialize;

use super::{files, spec::Files};
use crate::policy::model::{HostName, Rule, Target};

/// How long the process has to tell its counts.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Bytes of its answer that are read: 16,384 rules in a few languages.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Names that a message shows before it only counts.
const EXAMPLES_MAX: usize = 3;

/// A rule's names that have no certificate: over TLS their visitors are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncovered {
    /// Id of the rule.
    pub rule: String,
    /// How many names.
    pub count: usize,
    /// The first of them.
    pub names: Vec<String>,
}

impl Uncovered {
    fn of(rule: &str, coverage: Coverage) -> Option<Self> {
        let count = coverage.missing.len();
        let mut names = coverage.missing;
        names.truncate(EXAMPLES_MAX);
        (count > 0).then(|| Self {
            rule: rule.to_owned(),
            count,
            names,
        })
    }

    /// The same as a sentence.
    pub fn warning(&self) -> String {
        let Self { rule, count, names } = self;
        let more = match count - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "rule \"{rule}\": no usable certificate for {}{more}: over TLS visitors are refused and do not see the page",
            names.join(", ")
        )
    }
}

/// Asks the process for its counts. Neither this waits nor reading from it: a process that is stopped takes a few
/// questions, and from then on none.
///
/// # Errors
///
/// Nobody listens, or takes no question.
pub fn ask(files: &Files) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&files.stats())?)?;
    Ok(socket.into())
}

/// What the process counts; `None` if it does not answer within a second.
pub fn snapshot(files: &Files) -> Option<Snapshot> {
    let stream = ask(files).ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Names of a policy's rules without a certificate in `directory`.
pub fn uncovered<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    directory: Option<&Path>,
) -> Vec<Uncovered> {
    let mut certificates = None;
    let now = Timestamp::now();
    let led = rules.filter(|rule| rule.target == Some(Target::Page));
    let mut found = Vec::new();
    for rule in led {
        let certificates = certificates.get_or_insert_with(|| match directory {
            Some(directory) => Certificates::load(directory),
            None => Certificates::default(),
        });
        let hosts = rule.hosts.iter().map(HostName::as_str).map(Wanted::Host);
        let domains = rule.domains.iter().map(HostName::as_str);
        let wanted = hosts.chain(domains.map(Wanted::Domain));
        found.extend(Uncovered::of(&rule.id, certificates.coverage(wanted, now)));
    }
    found
}

/// The same of the rules that the process was told, and the certificates that it has.
pub fn uncovered_now(files: &Files) -> Vec<Uncovered> {
    let certificates = Certificates::load(&files.certificates());
    let now = Timestamp::now();
    let told = files::told(files);
    let led = told.iter().filter(|rule| rule.redirects);
    led.filter_map(|rule| {
        let hosts = rule.hosts.iter().map(|name| Wanted::Host(name));
        let domains = rule.domains.iter().map(|name| Wanted::Domain(name));
        Uncovered::of(&rule.id, certificates.coverage(hosts.chain(domains), now))
    })
    .collect()
}
