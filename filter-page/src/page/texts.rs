//! The page's own words, by language.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;

/// The words of one language: a file `<language>.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Texts {
    /// Its tag, from the file's name.
    #[serde(skip)]
    pub(crate) language: String,
    /// `ltr` or `rtl`.
    pub(super) direction: Direction,
    /// What the page is about.
    pub(super) heading: String,
    /// Before the name asked for, for those who hear or read text only.
    pub(super) name: String,
    /// Text of the link.
    pub(super) statement: String,
    pub(super) authority: String,
    pub(super) reference: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) review_by: String,
    /// What one may do about it.
    pub(super) contact: String,
    /// With `{day}`, `{month}`, `{year}` and `{time}`, the last in UTC.
    pub(super) date: String,
    pub(super) months: [String; 12],
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Ltr,
    Rtl,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ltr => "ltr",
            Self::Rtl => "rtl",
        }
    }
}

/// Languages that are there without a theme.
pub(super) const SHIPPED: [(&str, &str); 2] = [
    ("en", include_str!("en.json")),
    ("de", include_str!("de.json")),
];

/// By language.
pub(super) type Languages = BTreeMap<String, Texts>;

impl Texts {
    /// # Errors
    /// What is missing or too much, and where.
    pub(super) fn parse(language: &str, json: &str) -> Result<Self, String> {
        let mut texts: Self = serde_json::from_str(json).map_err(|cause| cause.to_string())?;
        language.clone_into(&mut texts.language);
        Ok(texts)
    }

    /// A time as people read it.
    pub(super) fn date(&self, time: Timestamp) -> String {
        let time = time.to_zoned(TimeZone::UTC);
        let month = usize::try_from(time.month() - 1).unwrap_or_default();
        self.date
            .replace("{day}", &time.day().to_string())
            .replace("{month}", self.months.get(month).map_or("", String::as_str))
            .replace("{year}", &time.year().to_string())
            .replace(
                "{time}",
                &format!("{:02}:{:02}", time.hour(), time.minute()),
            )
    }
}

/// Whether this can be a language tag, and a header field with it.
pub(super) fn is_tag(text: &str) -> bool {
    let is_subtag = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    text.len() <= 35 && text.split('-').all(is_subtag)
}
