//! Host names: what a rule's `hosts` and `domains` may hold, in canonical form.

use std::{net::IpAddr, str::FromStr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use ipnet::IpNet;
use thiserror::Error;

use super::{
    limits::{HOST_NAME_BYTES_MAX, LABEL_BYTES_MAX, UNMAPPED_NAME_BYTES_MAX},
    model::HostName,
};

/// Why a text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing, or only a dot.
    #[error("a host name must not be empty")]
    Empty,
    /// A URL instead of a name.
    #[error("this is a URL, not a host name")]
    Url {
        /// The name in it, if there is one.
        host: Option<HostName>,
    },
    /// An address or a prefix instead of a name.
    #[error("this is an address, not a host name")]
    Address,
    /// A wildcard.
    #[error("stars are not understood in host names")]
    Star {
        /// The name behind the star, if it is one.
        domain: Option<HostName>,
    },
    /// White space inside.
    #[error("a host name must not contain white space")]
    Space,
    /// A path.
    #[error("a host name must not contain a slash")]
    Slash,
    /// A port.
    #[error("a host name must not contain a port")]
    Port,
    /// Written as `.example.org`.
    #[error("a host name must not begin with a dot")]
    LeadingDot,
    /// Two dots in a row.
    #[error("a host name must not have an empty label")]
    EmptyLabel,
    /// Over 63 bytes between two dots.
    #[error("a label of {bytes} bytes is longer than the {LABEL_BYTES_MAX} that DNS allows")]
    LabelTooLong {
        /// Its length in ASCII form.
        bytes: usize,
    },
    /// Over 253 bytes.
    #[error(
        "a host name of {bytes} bytes is longer than the {HOST_NAME_BYTES_MAX} that DNS allows"
    )]
    TooLong {
        /// Its length in ASCII form.
        bytes: usize,
    },
    /// A character that no host name has.
    #[error("a host name must not contain {0:?}")]
    Character(char),
    /// Refused by the IDNA mapping.
    #[error("this is not a valid internationalised name (UTS 46)")]
    Unmappable,
}

impl NameError {
    /// What to do instead.
    pub fn help(&self) -> String {
        match self {
            Self::Empty => "write a name such as `www.example.org`, or remove the entry".into(),
            Self::Url { host: Some(host) } => format!("give only the host: `{host}`"),
            Self::Url { host: None } => "give only the host".into(),
            Self::Address => "addresses and prefixes belong in `origins`".into(),
            Self::Star {
                domain: Some(domain),
            } => {
                format!("`domains = [\"{domain}\"]` covers {domain} and everything under it")
            }
            Self::Star { domain: None } => {
                "to block a name and everything under it, list it in `domains`".into()
            }
            Self::Space => "write one name per entry, without spaces".into(),
            Self::Slash => "give only the host; paths cannot be told apart in the kernel".into(),
            Self::Port => "give the name alone, and narrow the rule with `ports`".into(),
            Self::LeadingDot => {
                "remove the dot; `domains` covers a name and everything under it".into()
            }
            Self::EmptyLabel => "remove the superfluous dot".into(),
            Self::LabelTooLong { .. } | Self::TooLong { .. } => {
                "check for a missing dot or line break; such a name cannot exist".into()
            }
            Self::Character(_) => {
                "names consist of letters, digits, hyphens, underscores and dots".into()
            }
            Self::Unmappable => {
                "check the spelling; labels that begin with `xn--` must be valid Punycode".into()
            }
        }
    }
}

impl HostName {
    /// Parses a name as people write it: any case, Unicode or ASCII, with or without the trailing dot.
    ///
    /// # Errors
    ///
    /// Whatever cannot be the name that a client sends; see [`NameError`].
    pub fn parse(input: &str) -> Result<Self, NameError> {
        let name = input.strip_suffix('.').unwrap_or(input);
        if is_plain(name.as_bytes()) {
            let mut name: Box<str> = name.into();
            name.make_ascii_lowercase();
            return Ok(Self(name));
        }
        refuse_lookalikes(name)?;
        let mapped = Uts46::new()
            .to_ascii(
                input.as_bytes(),
                AsciiDenyList::EMPTY,
                Hyphens::Allow,
                DnsLength::Ignore,
            )
            .map_err(|_| NameError::Unmappable)?;
        let mapped = mapped.strip_suffix('.').unwrap_or(&mapped);
        check_ascii(mapped)?;
        Ok(Self(mapped.into()))
    }

    /// Whether the public suffix list has this very name: a registry's (`co.uk`) or a hosting
    /// company's (`github.io`) whole name space.
    pub fn is_public_suffix(&self) -> bool {
        psl::suffix(self.0.as_bytes())
            .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes().len() == self.0.len())
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(input: &str) -> Result<Self, NameError> {
        Self::parse(input)
    }
}

/// Whether an ASCII name is valid and canonical but for its case. Lists are nearly all of this kind,
/// so it is one pass without the IDNA tables.
fn is_plain(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > HOST_NAME_BYTES_MAX {
        return false;
    }
    let mut label_start = 0;
    let mut numeric = true;
    for (at, &byte) in name.iter().enumerate() {
        match byte {
            b'.' => {
                if !is_plain_label(&name[label_start..at]) {
                    return false;
                }
                label_start = at + 1;
                numeric = true;
            }
            b'0'..=b'9' => {}
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => numeric = false,
            _ => return false,
        }
    }
    !numeric && is_plain_label(&name[label_start..])
}

fn is_plain_label(label: &[u8]) -> bool {
    let is_punycode = label.len() >= 4 && label[..4].eq_ignore_ascii_case(b"xn--");
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && !is_punycode
}

/// What people write by mistake, each with a message of its own.
fn refuse_lookalikes(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > UNMAPPED_NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    if let Some((_, rest)) = name.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let host = HostName::parse(host).ok();
        return Err(NameError::Url { host });
    }
    let unbracketed = name.trim_start_matches('[').trim_end_matches(']');
    if unbracketed.parse::<IpAddr>().is_ok() || unbracketed.parse::<IpNet>().is_ok() {
        return Err(NameError::Address);
    }
    if name.contains('*') {
        let domain = name.rsplit('*').next().unwrap_or_default();
        let domain = HostName::parse(domain.trim_start_matches('.')).ok();
        return Err(NameError::Star { domain });
    }
    if name.contains(char::is_whitespace) {
        return Err(NameError::Space);
    }
    if name.contains('/') {
        return Err(NameError::Slash);
    }
    if name.contains(':') {
        return Err(NameError::Port);
    }
    if name.starts_with('.') {
        return Err(NameError::LeadingDot);
    }
    Ok(())
}

/// The rules of DNS, on a mapped name.
fn check_ascii(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let odd = |c: &char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.');
    if let Some(odd) = name.chars().find(odd) {
        return Err(NameError::Character(odd));
    }
    if name.len() > HOST_NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(NameError::LabelTooLong { bytes: label.len() });
        }
    }
    let last_label = name.rsplit('.').next().unwrap_or_default();
    if last_label.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::Address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(input: &str) -> String {
        HostName::parse(input).unwrap().to_string()
    }

    #[test]
    fn names_are_mapped_to_their_canonical_form() {
        for (input, canonical) in [
            ("example.org", "example.org"),
            ("EXAMPLE.Org.", "example.org"),
            ("localhost", "localhost"),
            ("_dmarc.example.org", "_dmarc.example.org"),
            ("-odd-.example.org", "-odd-.example.org"),
            ("1.2.example", "1.2.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("straße.example", "xn--strae-oqa.example"),
            ("ｅｘａｍｐｌｅ。ｏｒｇ。", "example.org"),
            ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ] {
            assert_eq!(parsed(input), canonical, "{input}");
        }
        assert_eq!(parsed(&"a".repeat(63)), "a".repeat(63));
        let longest = format!("{}{}", "a.".repeat(126), "a");
        assert_eq!(parsed(&longest).len(), 253);
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_its_reason() {
        let name = |name: &str| Some(HostName(name.into()));
        let star = |domain: &str| NameError::Star {
            domain: name(domain),
        };
        let url = |host: &str| NameError::Url { host: name(host) };
        for (input, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("https://forum.example/path", url("forum.example")),
            ("http://u:p@forum.example:80", url("forum.example")),
            ("192.0.2.1", NameError::Address),
            ("192.0.2.0/24", NameError::Address),
            ("[2001:db8::1]", NameError::Address),
            ("2001:db8::/32", NameError::Address),
            ("１９２.0.2.1", NameError::Address),
            ("999.1.1.1", NameError::Address),
            ("*.example.org", star("example.org")),
            ("*", NameError::Star { domain: None }),
            ("*\u{1b}", NameError::Star { domain: None }),
            ("https://\u{1b}", NameError::Url { host: None }),
            ("a b.example", NameError::Space),
            ("example.org/path", NameError::Slash),
            ("example.org:443", NameError::Port),
            (".example.org", NameError::LeadingDot),
            ("a..example", NameError::EmptyLabel),
            ("example..", NameError::EmptyLabel),
            ("ex!ample.org", NameError::Character('!')),
            ("a@example.org", NameError::Character('@')),
            ("xn--a.example", NameError::Unmappable),
            ("\u{ad}", NameError::Empty),
        ] {
            assert_eq!(HostName::parse(input), Err(error), "{input}");
        }
        let label = "a".repeat(64);
        assert_eq!(
            HostName::parse(&label),
            Err(NameError::LabelTooLong { bytes: 64 })
        );
        let long = format!("{}{}", "a.".repeat(127), "a");
        assert_eq!(
            HostName::parse(&long),
            Err(NameError::TooLong { bytes: 255 })
        );
    }

    #[test]
    fn public_suffixes_are_known_and_unknown_single_labels_are_not() {
        for (name, is_suffix) in [
            ("com", true),
            ("co.uk", true),
            ("github.io", true),
            ("рф", true),
            ("localhost", false),
            ("example.com", false),
            ("blocked.example", false),
        ] {
            let name = HostName::parse(name).unwrap();
            assert_eq!(name.is_public_suffix(), is_suffix, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_a_panic(input in "\\PC*") {
            if let Err(error) = HostName::parse(&input) {
                prop_assert!(!error.help().is_empty());
            }
        }

        #[test]
        fn canonical_names_parse_to_themselves(input in "[a-zA-Z0-9_äßж。.-]{1,40}") {
            if let Ok(name) = HostName::parse(&input) {
                prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(check_ascii(name.as_str()).is_ok());
            }
        }

        #[test]
        fn the_fast_path_agrees_with_idna(input in "[a-zA-Z0-9_.-]{1,80}") {
            if is_plain(input.as_bytes()) {
                let mapped = Uts46::new()
                    .to_ascii(input.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Verify)
                    .unwrap();
                prop_assert_eq!(parsed(&input), mapped.into_owned());
            }
        }
    }
}
