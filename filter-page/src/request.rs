//! What a request says: for which name, and in which language and format the answer is wanted.

use std::net::{IpAddr, Ipv6Addr};

use hyper::{
    HeaderMap, Request, Version,
    header::{ACCEPT, ACCEPT_LANGUAGE, HOST, HeaderName},
    http::uri::Authority as UriAuthority,
};

/// Entries of a list of preferences that are looked at; the others are as if absent.
const PREFERENCES_MAX: usize = 64;

/// Longest name there is (RFC 1035, 2.3.4), with room for dots at its end.
const NAME_BYTES_MAX: usize = 256;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// A name, lower case, without port and trailing dots.
    Name(String),
    /// An address in place of a name.
    Address(IpAddr),
    /// Nobody in particular, as old clients may.
    Absent,
}

/// Not a request that HTTP allows: no host, several, or none that could be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad;

/// A format of the page. The first is for those who want all of them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Html,
    Json,
    Plain,
}

impl Format {
    const ALL: [Self; 3] = [Self::Html, Self::Json, Self::Plain];

    /// Of the header field.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Plain => "text/plain; charset=utf-8",
        }
    }

    /// As clients name it, in lists of what they take.
    fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html",
            Self::Json => "application/json",
            Self::Plain => "text/plain",
        }
    }
}

/// Whom the request is for: the target's authority if it has one, else the `Host` (RFC 9112, 3.2).
pub(crate) fn authority<B>(request: &Request<B>) -> Result<Authority, Bad> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && request.version() > Version::HTTP_10) {
        return Err(Bad);
    }
    if let Some(target) = request.uri().authority() {
        return parse_authority(target);
    }
    match host.map(|host| host.as_bytes()) {
        None | Some(b"") => Ok(Authority::Absent),
        Some(host) => parse_authority(&UriAuthority::try_from(host).map_err(|_| Bad)?),
    }
}

fn parse_authority(authority: &UriAuthority) -> Result<Authority, Bad> {
    if authority.as_str().contains('@') {
        return Err(Bad);
    }
    let host = authority.host();
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').ok_or(Bad)?;
        let address = address.parse::<Ipv6Addr>().map_err(|_| Bad)?;
        return Ok(Authority::Address(IpAddr::V6(address).to_canonical()));
    }
    let name = normal_name(host).ok_or(Bad)?;
    Ok(name
        .parse()
        .map_or(Authority::Name(name), Authority::Address))
}

/// As the rules have it: lower case, without trailing dots; none if it cannot be a name.
pub(crate) fn normal_name(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-_.".contains(&byte);
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.bytes().any(is_odd);
    is_name.then_some(name)
}

/// The format for `Accept`. Never none: an answer in the wrong format says more than no answer.
pub(crate) fn format(headers: &HeaderMap) -> Format {
    let wanted = preferences(headers, ACCEPT);
    let mut best = (Format::Html, Rank::default());
    for format in Format::ALL {
        let rank = format_rank(&wanted, format.media_type());
        if rank > best.1 {
            best = (format, rank);
        }
    }
    best.0
}

/// How much something is wanted: weight, then how exactly it was named, then how early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: u16,
    exactness: u8,
    earliness: usize,
}

/// The most exact range counts (RFC 9110, 12.5.1).
fn format_rank(wanted: &[Preference], media_type: &str) -> Rank {
    let (family, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    let exactness = |range: &str| match range.split_once('/') {
        _ if range == media_type => 3,
        Some((of, "*")) if of == family => 2,
        Some(("*", "*")) => 1,
        _ => 0,
    };
    let ranks = wanted.iter().enumerate().map(|(place, preference)| Rank {
        weight: preference.weight,
        exactness: exactness(&preference.item),
        earliness: PREFERENCES_MAX - place,
    });
    let fitting = ranks.filter(|rank| rank.exactness > 0);
    let deciding = fitting.max_by_key(|rank| (rank.exactness, rank.earliness));
    // A weight of 0 is as if not wanted at all.
    deciding.filter(|rank| rank.weight > 0).unwrap_or_default()
}

/// The language for `Accept-Language` among those there are; the first of them if none is wanted.
/// `en-GB` asks for `en`, too, and `en` for `en-GB` (RFC 4647, 3.3 and 3.4).
pub(crate) fn language<'a>(headers: &HeaderMap, available: &[&'a str]) -> Option<&'a str> {
    let wanted = preferences(headers, ACCEPT_LANGUAGE);
    let mut best = (available.first().copied()?, Rank::default());
    for language in available {
        let rank = language_rank(&wanted, language);
        if rank > best.1 {
            best = (language, rank);
        }
    }
    Some(best.0)
}

fn language_rank(wanted: &[Preference], language: &str) -> Rank {
    let language = language.to_ascii_lowercase();
    let exactness = |range: &str| match range {
        _ if range == language => 3,
        _ if is_subtag(range, &language) || is_subtag(&language, range) => 2,
        "*" => 1,
        _ => 0,
    };
    let ranks = wanted.iter().enumerate().map(|(place, preference)| Rank {
        weight: preference.weight,
        exactness: exactness(&preference.item),
        earliness: PREFERENCES_MAX - place,
    });
    let fitting: Vec<_> = ranks.filter(|rank| rank.exactness > 0).collect();
    let is_unwanted = fitting
        .iter()
        .any(|rank| rank.exactness == 3 && rank.weight == 0);
    let named = fitting.iter().filter(|rank| rank.exactness > 1).max();
    let any = fitting.iter().find(|rank| rank.exactness == 1);
    named
        .or(any)
        .filter(|rank| !is_unwanted && rank.weight > 0)
        .copied()
        .unwrap_or_default()
}

/// Whether one is the other with more to it: `en-gb` and `en`.
fn is_subtag(longer: &str, shorter: &str) -> bool {
    longer
        .strip_prefix(shorter)
        .is_some_and(|rest| rest.starts_with('-'))
}

/// An entry of a list with weights, lower case.
#[derive(Debug)]
struct Preference {
    item: String,
    /// Thousandths.
    weight: u16,
}

fn preferences(headers: &HeaderMap, field: HeaderName) -> Vec<Preference> {
    let values = headers.get_all(field).iter();
    let lists = values.filter_map(|value| value.to_str().ok());
    let entries = lists.flat_map(|list| list.split(','));
    entries
        .take(PREFERENCES_MAX)
        .filter_map(preference)
        .collect()
}

/// None if the weight is not one.
fn preference(entry: &str) -> Option<Preference> {
    let mut parts = entry.split(';').map(str::trim);
    let item = parts.next()?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1000), thousandths)?;
    (!item.is_empty()).then_some(Preference { item, weight })
}

/// `0.85` as 850 (RFC 9110, 12.4.2).
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
