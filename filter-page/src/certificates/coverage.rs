//! Which names can be served over TLS.

use jiff::Timestamp;

use super::{Certificate, Certificates};

/// A name that a rule lists, as clients send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Exactly this name.
    Host(&'a str),
    /// This name and everything under it.
    Domain(&'a str),
}

impl<'a> Wanted<'a> {
    /// The name as listed.
    pub fn name(self) -> &'a str {
        match self {
            Self::Host(name) | Self::Domain(name) => name,
        }
    }
}

/// The answer to [`Certificates::coverage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Names with a usable certificate.
    pub covered: Vec<Covered>,
    /// Names without one: visitors of these are refused.
    pub missing: Vec<String>,
}

/// A name with a usable certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// As listed.
    pub name: String,
    /// File of the certificate, of the one that expires first if two are needed.
    pub file: String,
    /// When that is valid no longer.
    pub expires: Timestamp,
    /// Of a domain: whether names under it are covered, by a wildcard, to a depth of one label;
    /// deeper ones are covered by certificates of their own or refused. True for hosts.
    pub has_children: bool,
    /// Whether the name itself is covered. A domain may have a wildcard only.
    pub has_itself: bool,
}

pub(super) fn coverage<'a>(
    certificates: &Certificates,
    wanted: impl IntoIterator<Item = Wanted<'a>>,
    now: Timestamp,
) -> Coverage {
    let mut coverage = Coverage::default();
    for name in wanted {
        match covered(certificates, name, now) {
            Some(covered) => coverage.covered.push(covered),
            None => coverage.missing.push(name.name().to_owned()),
        }
    }
    coverage
}

fn covered(certificates: &Certificates, wanted: Wanted<'_>, now: Timestamp) -> Option<Covered> {
    let name = wanted.name().to_ascii_lowercase();
    let itself = certificates.for_name(&name, now);
    let children = match wanted {
        Wanted::Host(_) => None,
        Wanted::Domain(_) => certificates.valid(&format!("*.{name}"), now).next(),
    };
    let first_to_expire = [itself, children]
        .into_iter()
        .flatten()
        .min_by_key(|certificate: &&Certificate| certificate.not_after)?;
    Some(Covered {
        name: wanted.name().to_owned(),
        file: first_to_expire.file.display().to_string(),
        expires: first_to_expire.not_after,
        has_children: children.is_some() || matches!(wanted, Wanted::Host(_)),
        has_itself: itself.is_some(),
    })
}
