//! Counts of what happened, and what the statistics socket shows.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[doc = $text:literal])+ $variant:ident $name:literal,)+) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[doc = $text])+ $variant,)+
        }

        impl Counter {
            /// Every counter, in the order of its declaration.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The key in [`Snapshot::counters`].
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    Connections "connections",
    /// Connections reset, since too many were open.
    OverConnections "over_connections",
    /// Connections reset, since the client had too many.
    OverConnectionsPerClient "over_connections_per_client",
    /// Times that accepting failed: mostly a lack of descriptors.
    AcceptFailed "accept_failed",
    /// Connections taken over that did not get here, mostly since there were too many at once.
    HandoverLost "handover_lost",
    /// TLS handshakes completed.
    Handshakes "handshakes",
    /// Handshakes refused: no usable certificate for the name (alert `unrecognized_name`).
    HandshakeNoCertificate "handshake_no_certificate",
    /// Handshakes refused: the client wants only protocols other than HTTP/1.1, or none offered here.
    HandshakeNoProtocol "handshake_no_protocol",
    /// Handshakes refused: no version, cipher or key exchange in common.
    HandshakeIncompatible "handshake_incompatible",
    /// Handshakes that the client ended with an alert: mostly one that does not trust the certificate.
    HandshakeRefusedByClient "handshake_refused_by_client",
    /// Handshakes with messages that are not as they should be.
    HandshakeMalformed "handshake_malformed",
    /// Handshakes during which the client closed or went away.
    HandshakeAborted "handshake_aborted",
    /// Handshakes not done in time.
    HandshakeTimeout "handshake_timeout",
    /// Connections on which nothing was said in time.
    SilentTimeout "silent_timeout",
    /// Requests whose heads were read.
    Requests "requests",
    /// Answers with the page, status 451.
    Pages "pages",
    /// Requests for something that no rule blocks, status 421.
    Misdirected "misdirected",
    /// Requests that could not be understood, status 400, 414 or 431.
    BadRequests "bad_requests",
    /// Connections with the preface of HTTP/2 and without TLS, answered by GOAWAY.
    Http2Refused "http2_refused",
    /// Requests whose heads were not there in time.
    HeadTimeout "head_timeout",
    /// Connections closed because no further request came.
    IdleClosed "idle_closed",
    /// Clients that took nothing of an answer in time.
    WriteTimeout "write_timeout",
    /// Connections closed at the end of their time.
    LifetimeEnded "lifetime_ended",
    /// Connections closed after the last answer although the client went on sending or kept its end open.
    Cut "cut",
    /// Connections broken by the client or the network.
    Broken "broken",
    /// Connections ended because the server was told to stop.
    Stopped "stopped",
    /// Bytes of visitors, TLS records and all.
    BytesIn "bytes_in",
    /// Bytes to visitors, TLS records and all.
    BytesOut "bytes_out",
    /// Files replaced and taken over.
    Reloads "reloads",
    /// Files replaced and not usable: the last good ones are in use.
    ReloadsFailed "reloads_failed",
}

/// The counts of a running server; they begin at zero with it.
#[derive(Debug)]
pub struct Stats {
    counters: [AtomicU64; Counter::ALL.len()],
    /// Rule id, then language.
    pages: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            pages: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(crate) fn add(&self, counter: Counter, by: u64) {
        self.counters[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// One count.
    pub fn value(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_page(&self, rule: &str, language: &str) {
        self.count(Counter::Pages);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pages.get_mut(rule).and_then(|of| of.get_mut(language)) {
            *count += 1;
            return;
        }
        *pages
            .entry(rule.to_owned())
            .or_default()
            .entry(language.to_owned())
            .or_default() += 1;
    }

    /// Forgets the pages of rules that are no more, so that their number stays bounded.
    pub(crate) fn retain_rules(&self, is_there: impl Fn(&str) -> bool) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|rule, _| is_there(rule));
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let named = |counter: &Counter| (counter.name().to_owned(), self.value(*counter));
        Counter::ALL.iter().map(named).collect()
    }

    pub(crate) fn pages(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.clone()
    }
}

/// The server at one moment: the line of JSON on the statistics socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`Counter::name`] to count since the server's start.
    pub counters: BTreeMap<String, u64>,
    /// Rule id to language to pages served.
    pub pages: BTreeMap<String, BTreeMap<String, u64>>,
    /// Connections open now.
    pub open: u64,
    /// When the server started.
    pub since: Timestamp,
    /// Generation of the rules in use.
    pub generation: u64,
    /// Rules in use.
    pub rules: usize,
    /// [`crate::decisions::Decisions::mark`] of the rules that come into force next, once they are in use.
    #[serde(default)]
    pub coming: Option<u64>,
    /// Why the newest file of rules is not in use.
    pub decisions_problem: Option<String>,
    /// The certificates in use.
    pub certificates: Vec<CertificateInfo>,
    /// What in the directory of certificates cannot be used; older versions of it may be in use.
    pub certificate_problems: Vec<String>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// File of the chain.
    pub file: String,
    /// Names and addresses it is for, lower case, `*.` for wildcards.
    pub names: Vec<String>,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid up to.
    pub not_after: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let stats = Stats::new();
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
            stats.add(counter, index as u64);
            assert_eq!(stats.value(counter), index as u64);
        }
        let names: BTreeSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        assert_eq!(stats.counters().len(), Counter::ALL.len());
    }

    #[test]
    fn every_counter_is_documented() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
        let document = std::fs::read_to_string(document).expect("the document");
        let section = document.split("\n### Statistics of the server\n").nth(1);
        let section = section
            .and_then(|from| from.split("\n## ").next())
            .expect("the section");
        for counter in Counter::ALL {
            let word = format!("`{}`", counter.name());
            assert!(
                section.contains(&word),
                "{word} is not in docs/OPERATIONS.md"
            );
        }
    }

    #[test]
    fn pages_of_rules_that_are_gone_are_forgotten() {
        let stats = Stats::new();
        stats.count_page("a", "en");
        stats.count_page("a", "de");
        stats.count_page("b", "en");
        stats.retain_rules(|rule| rule == "a");
        assert_eq!(stats.pages().keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(stats.value(Counter::Pages), 3);
    }
}
