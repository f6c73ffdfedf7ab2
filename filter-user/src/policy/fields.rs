//! TOML tables taken apart key by key, so that one run finds every mistake and not only the first.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{
    diagnostics::{Finding, Findings, quoted},
    source::{BOM, Located, SourceId, Span},
};

/// Least similarity (Jaro-Winkler) of a word to be suggested in place of an unknown one.
const SUGGESTION_SIMILARITY_MIN: f64 = 0.8;

/// Longest word for which another is suggested; comparing costs the product of the lengths.
const SUGGESTION_BYTES_MAX: usize = 64;

/// Bytes of a value of the wrong type that a message repeats.
const FOUND_BYTES_MAX: usize = 120;

/// The keys of one table that were not taken yet.
pub(super) struct Fields<'i> {
    source: SourceId,
    /// The table itself; for the whole document its first character.
    pub(super) span: Span,
    table: DeTable<'i>,
    asked: Vec<&'static str>,
}

impl<'i> Fields<'i> {
    /// Parses a document. Syntax errors are noted, and then there are no fields.
    pub(super) fn parse(text: &'i str, source: SourceId, findings: &mut Findings) -> Option<Self> {
        let mark = if text.starts_with(BOM) {
            BOM.len_utf8()
        } else {
            0
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = source.span(error.span().unwrap_or(mark..mark));
            findings.error_with(|| {
                let finding = Finding::at(span, error.message().replace('\n', "; "));
                finding.help("this is not valid TOML, see https://toml.io")
            });
        }
        errors.is_empty().then(|| Self {
            source,
            span: source.span(mark..mark),
            table: table.into_inner(),
            asked: Vec::new(),
        })
    }

    /// The fields of a value, if it is a table; another type is noted.
    pub(super) fn of(
        value: Spanned<DeValue<'i>>,
        source: SourceId,
        findings: &mut Findings,
    ) -> Option<Self> {
        let span = source.span(value.span());
        match value.into_inner() {
            DeValue::Table(table) => Some(Self {
                source,
                span,
                table,
                asked: Vec::new(),
            }),
            other => {
                let message = format!("expected a table, found {}", article(other.type_str()));
                findings.error(
                    Finding::at(span, message).help("write keys and values: `{ key = \"value\" }`"),
                );
                None
            }
        }
    }

    /// The value of `key`, if it is there and of the right type; a wrong type is noted.
    pub(super) fn take<T: Deserialize<'i>>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        let span = self.source.span(value.span());
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Located { value, span }),
            Err(error) => {
                let span = error.span().map_or(span, |range| self.source.span(range));
                findings.error(wrong_type(key, &error, span));
                None
            }
        }
    }

    /// The elements of the array `key`; an error in one does not hide the others.
    pub(super) fn take_list<T: Deserialize<'i>>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> Option<Vec<Located<T>>> {
        let items = self.take_array(key, findings)?;
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            let span = self.source.span(item.span());
            match T::deserialize(ValueDeserializer::from(item)) {
                Ok(value) => list.push(Located { value, span }),
                Err(error) => findings.error_with(|| wrong_type(key, &error, span)),
            }
        }
        Some(list)
    }

    /// The elements of the array `key`, whatever they are; another type is noted.
    pub(super) fn take_array(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> Option<Vec<Spanned<DeValue<'i>>>> {
        let value = self.value(key)?;
        let span = self.source.span(value.span());
        match value.into_inner() {
            DeValue::Array(array) => Some(array.into_iter().collect()),
            other => {
                let found = article(other.type_str());
                let finding = Finding::at(span, format!("`{key}`: expected a list, found {found}"));
                findings.error(match other {
                    DeValue::Table(_) => finding.help(format!("write `[[{key}]]`")),
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_) => finding.help("put it in square brackets"),
                });
                None
            }
        }
    }

    /// The value of `key`, whatever it is.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.remove(key)
    }

    /// The table `key`, if it is there; another type is noted.
    pub(super) fn take_table(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> Option<Self> {
        Self::of(self.value(key)?, self.source, findings)
    }

    /// The tables under whatever keys there are; another type is noted.
    pub(super) fn into_tables(self, findings: &mut Findings) -> Vec<(Located<String>, Self)> {
        let source = self.source;
        let tables = self.table.into_iter().filter_map(|(key, value)| {
            let name = Located {
                span: source.span(key.span()),
                value: key.into_inner().into_owned(),
            };
            Some((name, Self::of(value, source, findings)?))
        });
        tables.collect()
    }

    /// Whether `key` was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` is, if it was written.
    pub(super) fn span_of(&self, key: &str) -> Option<Span> {
        let value = self.table.get(key)?;
        Some(self.source.span(value.span()))
    }

    /// Whether a list was written for `key`.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.table
            .get(key)
            .is_some_and(|value| value.get_ref().is_array())
    }

    /// Whether nothing was written at all.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self, findings: &mut Findings) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            findings.error_with(|| {
                let span = self.source.span(key.span());
                let finding = Finding::at(span, format!("unknown key {}", quoted(name)));
                finding.help(match similar(name, &self.asked) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known keys are {}", self.asked.join(", ")),
                })
            });
        }
    }
}

/// A value of another type than the one that is understood.
fn wrong_type(key: &str, error: &toml::de::Error, span: Span) -> Finding {
    let message = error.message();
    let help = if message.ends_with("expected a TOML datetime") {
        "write it without quotes, with an offset: `2026-09-03T22:00:00Z`"
    } else if message.ends_with("expected a string") || message.ends_with("path string") {
        "put it in quotes"
    } else if message.ends_with("expected a boolean") {
        "write `true` or `false`"
    } else {
        "docs/POLICY.md has the type of every key"
    };
    // A wrong value is repeated in the message, however long it is.
    let (found, expected) = match message.rfind(", expected") {
        Some(at) if at > FOUND_BYTES_MAX => {
            let (found, expected) = message.split_at(at);
            let cut = found.floor_char_boundary(FOUND_BYTES_MAX);
            (format!("{}…", &found[..cut]), expected)
        }
        Some(_) | None => (message.to_owned(), ""),
    };
    Finding::at(span, format!("`{key}`: {found}{expected}")).help(help)
}

/// The candidate that `word` is most likely meant to be.
pub(super) fn similar(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    if word.len() > SUGGESTION_BYTES_MAX {
        return None;
    }
    candidates
        .iter()
        .map(|&candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SUGGESTION_SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        Some(_) | None => format!("a {kind}"),
    }
}

/// A number or a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Integer(i64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => f.write_str(&quoted(text)),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.into()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// One scalar or a list of them.
#[derive(Clone, Debug)]
pub(super) enum Scalars {
    One(Scalar),
    Many(Vec<Spanned<Scalar>>),
}

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Scalars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a string or a list of them")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalars, E> {
                Ok(Scalars::One(Scalar::Integer(value)))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalars, E> {
                Ok(Scalars::One(Scalar::Text(value.into())))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Scalars, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(Scalars::Many(many))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Located<Scalars> {
    /// Every scalar with its place.
    pub(super) fn flatten(self) -> Vec<Located<Scalar>> {
        let whole = self.span;
        match self.value {
            Scalars::One(value) => vec![Located { value, span: whole }],
            Scalars::Many(items) => items
                .into_iter()
                .map(|item| Located {
                    span: whole.source.span(item.span()),
                    value: item.into_inner(),
                })
                .collect(),
        }
    }
}
