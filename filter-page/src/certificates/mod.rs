//! Certificates from a directory, and which names they cover.
//!
//! Two layouts are understood, also mixed: `NAME.pem` or `NAME.crt` (the chain, its own certificate
//! first) with `NAME.key` beside it, and subdirectories with `fullchain.pem` and `privkey.pem`, as
//! ACME clients make them. Symbolic links are followed. What a certificate is for is read from its
//! subject alternative names, whatever the files are called.
//!
//! The controller asks the same code that serves: what [`Certificates::coverage`] calls covered, the
//! server has a certificate for.

mod coverage;
mod load;
mod parse;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use coverage::{Coverage, Covered, Wanted};
use jiff::Timestamp;
use rustls::{ServerConfig, SignatureScheme, sign::CertifiedKey};

use crate::stats::CertificateInfo;
pub(crate) use load::FileStamp;
use load::Stamp;

/// Pairs in the directory beyond which the others are left out.
pub const PAIRS_MAX: usize = 4096;
/// Size of a file beyond which it is not read.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The certificates of a directory that can be used.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// By file of the chain.
    pairs: BTreeMap<PathBuf, Pair>,
    /// Pairs by name; those that are valid longest first.
    by_name: HashMap<String, Vec<Arc<Certificate>>>,
    problems: Vec<String>,
}

/// A pair of files as last seen.
#[derive(Clone, Debug)]
struct Pair {
    stamp: Stamp,
    /// The last version that was good.
    certificate: Option<Arc<Certificate>>,
    problem: Option<String>,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    file: PathBuf,
    /// Lower case; `*.` for wildcards; addresses as text.
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the directory. What cannot be used is in [`Certificates::problems`].
    pub fn load(directory: &Path) -> Self {
        Self::default().reload(directory)
    }

    /// Reads the directory again, and in it only what changed. Of a pair that is no longer good the
    /// last good version stays; a pair that is gone is gone.
    #[must_use]
    pub fn reload(&self, directory: &Path) -> Self {
        load::reload(self, directory)
    }

    /// [`Certificates::reload`], if anything changed.
    pub(crate) fn changed(&self, directory: &Path) -> Option<Self> {
        let after = self.reload(directory);
        let stamps = |of: &Self| -> Vec<_> {
            let pairs = of.pairs.iter();
            pairs
                .map(|(file, pair)| (file.clone(), pair.stamp.clone()))
                .collect()
        };
        let is_same = self.problems == after.problems && stamps(self) == stamps(&after);
        (!is_same).then_some(after)
    }

    /// What is in the directory and cannot be used, with the cause; one line each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The certificates, by file.
    pub fn entries(&self) -> impl Iterator<Item = CertificateInfo> {
        let certificates = self
            .pairs
            .values()
            .filter_map(|pair| pair.certificate.as_ref());
        certificates.map(|certificate| CertificateInfo {
            file: certificate.file.display().to_string(),
            names: certificate.names.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        })
    }

    /// Which of the names can be served at a time.
    pub fn coverage<'a>(
        &self,
        wanted: impl IntoIterator<Item = Wanted<'a>>,
        now: Timestamp,
    ) -> Coverage {
        coverage::coverage(self, wanted, now)
    }

    /// Who serves a name, lower case; exactly this name before a wildcard, which stands for one label.
    pub(crate) fn server_for_name(
        &self,
        name: &str,
        schemes: &[SignatureScheme],
        now: Timestamp,
    ) -> Option<Arc<ServerConfig>> {
        let exact = self.valid(name, now);
        let wildcard = wildcard_over(name);
        let candidates = exact.chain(self.valid(&wildcard, now));
        Self::signing(candidates, schemes)
    }

    /// Who serves an address, for clients that send no name.
    pub(crate) fn server_for_address(
        &self,
        address: IpAddr,
        schemes: &[SignatureScheme],
        now: Timestamp,
    ) -> Option<Arc<ServerConfig>> {
        Self::signing(self.valid(&address.to_string(), now), schemes)
    }

    /// The first that can sign in a way the client knows; if there is none, the first, so that the
    /// handshake fails for that reason.
    fn signing<'a>(
        mut candidates: impl Iterator<Item = &'a Certificate> + Clone,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<ServerConfig>> {
        let can_sign = |of: &&Certificate| of.key.key.choose_scheme(schemes).is_some();
        let fitting = candidates.clone().find(can_sign);
        let chosen = fitting.or_else(|| candidates.next())?;
        Some(chosen.server.clone())
    }

    fn for_name(&self, name: &str, now: Timestamp) -> Option<&Certificate> {
        let exact = self.valid(name, now).next();
        exact.or_else(|| self.valid(&wildcard_over(name), now).next())
    }

    /// Those for a key that are valid now, the longest valid first.
    fn valid(&self, key: &str, now: Timestamp) -> impl Iterator<Item = &Certificate> + Clone {
        let certificates = self.by_name.get(key).into_iter().flatten();
        let certificates = certificates.map(Arc::as_ref);
        certificates.filter(move |of| of.not_before <= now && now <= of.not_after)
    }

    fn index(&mut self) {
        self.by_name.clear();
        for certificate in self
            .pairs
            .values()
            .filter_map(|pair| pair.certificate.as_ref())
        {
            for name in &certificate.names {
                let same = self.by_name.entry(name.clone()).or_default();
                same.push(certificate.clone());
            }
        }
        for same in self.by_name.values_mut() {
            same.sort_by_key(|certificate| std::cmp::Reverse(certificate.not_after));
        }
    }
}

/// The wildcard that stands for a name; one that nothing has for a name of one label.
fn wildcard_over(name: &str) -> String {
    let parent = name.split_once('.').map_or("", |(_, parent)| parent);
    format!("*.{parent}")
}

#[cfg(test)]
mod tests;
