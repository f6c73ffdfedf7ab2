//! The page: what is said, in which words, as HTML, JSON and plain text.

mod escape;
mod template;
mod texts;
mod theme;

use jiff::Timestamp;
use serde_json::json;

use crate::{
    decisions::{Rule, Text},
    request::Format,
};
use escape::{html, plain, web_address};
use template::Place;
pub(crate) use texts::Texts;
pub(crate) use theme::Theme;

/// What a page tells.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Asked for.
    pub(crate) name: String,
    pub(crate) rule: &'a Rule,
    pub(crate) contact: Option<&'a str>,
    /// The page's own words.
    pub(crate) texts: &'a Texts,
}

/// The address of the rule's statement, fit for a header field; none if there is none or it is not
/// of the web.
pub(crate) fn statement(rule: &Rule) -> Option<String> {
    rule.statement.as_deref().and_then(web_address)
}

impl Theme {
    /// The page in a format.
    pub(crate) fn page(&self, facts: &Facts<'_>, format: Format) -> String {
        match format {
            Format::Html => self.template().fill(|place| facts.html(place, self)),
            Format::Json => facts.json(),
            Format::Plain => facts.plain(),
        }
    }
}

impl Facts<'_> {
    fn title(&self) -> Option<Words<'_>> {
        self.words(|text| text.title.as_deref(), self.rule.title.as_deref())
    }

    fn reason(&self) -> Option<Words<'_>> {
        self.words(|text| text.reason.as_deref(), self.rule.reason.as_deref())
    }

    /// The policy's words in the page's language (`de-CH`, then `de`), else those in no known one.
    fn words<'a>(
        &'a self,
        of: impl Fn(&'a Text) -> Option<&'a str>,
        common: Option<&'a str>,
    ) -> Option<Words<'a>> {
        let language = self.texts.language.as_str();
        let primary = language.split('-').next().unwrap_or(language);
        let own = [language, primary].into_iter().find_map(|language| {
            let text = of(self.rule.text.get(language)?)?;
            Some(Words { text, language })
        });
        let unknown = |text| Words { text, language: "" };
        own.or(common.map(unknown))
    }

    /// The name as people write it, with the form that clients send: letters of other scripts can look
    /// like those of another name.
    fn name_as_written(&self) -> String {
        let name = &self.name;
        match idna::domain_to_unicode(name) {
            (written, Ok(())) if written != *name => format!("{written} ({name})"),
            _ => name.clone(),
        }
    }

    /// What was decided by whom and for how long, each with its label and, for times, its time.
    fn details(&self) -> impl Iterator<Item = (&str, String, Option<Timestamp>)> {
        let (rule, texts) = (self.rule, self.texts);
        let words = [
            (&texts.authority, &rule.authority),
            (&texts.reference, &rule.reference),
        ];
        let times = [
            (&texts.since, rule.from),
            (&texts.until, rule.until),
            (&texts.review_by, rule.review_by),
        ];
        let words = words
            .into_iter()
            .filter_map(|(label, words)| Some((label.as_str(), words.clone()?, None)));
        let times = times
            .into_iter()
            .filter_map(|(label, time)| Some((label.as_str(), texts.date(time?), time)));
        words.chain(times)
    }

    fn html(&self, place: Place, theme: &Theme) -> String {
        match place {
            Place::Language => html(&self.texts.language),
            Place::Direction => self.texts.direction.name().to_owned(),
            Place::Style => theme.style_element(),
            Place::Heading => html(&self.texts.heading),
            Place::Name => html(&self.name_as_written()),
            Place::Rule => self.rule_html(),
            Place::Statement => statement(self.rule).map_or_else(String::new, |url| {
                let (url, text) = (html(&url), html(&self.texts.statement));
                format!(
                    "<p class=\"statement\"><a href=\"{url}\" rel=\"noreferrer\">{text}</a></p>"
                )
            }),
            Place::Details => self.details_html(),
            Place::Contact => self.contact.map_or_else(String::new, |contact| {
                let label = html(&self.texts.contact);
                format!("<p class=\"contact\">{label} {}</p>", contact_html(contact))
            }),
        }
    }

    fn rule_html(&self) -> String {
        let element = |tag: &str, words: Option<Words<'_>>| {
            words.map_or_else(String::new, |Words { text, language }| {
                let (text, language) = (html(text), html(language));
                format!("<{tag} lang=\"{language}\" dir=\"auto\">{text}</{tag}>")
            })
        };
        let title = element("h2", self.title());
        let reason = element("p", self.reason());
        format!("<div class=\"rule\">{title}{reason}</div>")
    }

    fn details_html(&self) -> String {
        let row = |(label, text, time): (&str, String, Option<Timestamp>)| {
            let (label, text) = (html(label), html(&text));
            match time {
                None => format!("<dt>{label}</dt><dd dir=\"auto\">{text}</dd>"),
                Some(time) => {
                    format!("<dt>{label}</dt><dd><time datetime=\"{time}\">{text}</time></dd>")
                }
            }
        };
        let rows: String = self.details().map(row).collect();
        if rows.is_empty() {
            return rows;
        }
        format!("<dl>{rows}</dl>")
    }

    fn json(&self) -> String {
        let rule = self.rule;
        let mut json = json!({
            "status": 451,
            "name": self.name,
            "language": self.texts.language,
            "message": self.texts.heading,
            "title": self.title().map(|words| words.text),
            "reason": self.reason().map(|words| words.text),
            "statement": statement(rule),
            "authority": rule.authority,
            "reference": rule.reference,
            "since": rule.from,
            "until": rule.until,
            "review_by": rule.review_by,
            "contact": self.contact,
        })
        .to_string();
        json.push('\n');
        json
    }

    fn plain(&self) -> String {
        let mut lines = vec![
            format!("451 {}", self.texts.heading),
            format!("{}: {}", self.texts.name, self.name_as_written()),
        ];
        let words = [self.title(), self.reason()].into_iter().flatten();
        lines.extend(words.map(|words| format!("\n{}", words.text)));
        lines.extend(statement(self.rule).map(|url| format!("\n{}:\n{url}", self.texts.statement)));
        let details = self
            .details()
            .map(|(label, text, _)| format!("{label}: {text}"));
        let details: Vec<_> = details.collect();
        if !details.is_empty() {
            lines.push(format!("\n{}", details.join("\n")));
        }
        lines.extend(
            self.contact
                .map(|contact| format!("\n{}\n{contact}", self.texts.contact)),
        );
        let mut text = plain(&lines.join("\n"));
        text.push('\n');
        text
    }
}

/// Words of the policy, and their language, empty if nobody said.
#[derive(Clone, Copy, Debug)]
struct Words<'a> {
    text: &'a str,
    language: &'a str,
}

/// A link if it is an address of the web or of mail, else the words.
fn contact_html(contact: &str) -> String {
    let text = html(contact);
    if escape::is_mail_address(contact) {
        return format!("<a href=\"mailto:{text}\">{text}</a>");
    }
    match web_address(contact) {
        Some(url) => format!("<a href=\"{}\" rel=\"noreferrer\">{text}</a>", html(&url)),
        None => text,
    }
}

#[cfg(test)]
mod tests;
