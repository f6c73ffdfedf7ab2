//! HTML with named places: `{{name}}`.

/// What can stand in a place. Each is a complete piece of HTML, escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The page's language tag.
    Language,
    /// `ltr` or `rtl`.
    Direction,
    /// The `style` element, whose contents the browser is told to trust.
    Style,
    /// "This site is blocked".
    Heading,
    /// The name asked for.
    Name,
    /// The rule's title and reason.
    Rule,
    /// The link to the statement.
    Statement,
    /// Authority, reference and dates.
    Details,
    /// Whom to write to.
    Contact,
}

impl Place {
    const ALL: [Self; 9] = [
        Self::Language,
        Self::Direction,
        Self::Style,
        Self::Heading,
        Self::Name,
        Self::Rule,
        Self::Statement,
        Self::Details,
        Self::Contact,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Direction => "direction",
            Self::Style => "style",
            Self::Heading => "heading",
            Self::Name => "name",
            Self::Rule => "rule",
            Self::Statement => "statement",
            Self::Details => "details",
            Self::Contact => "contact",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.name() == name)
    }
}

/// Places without which the page does not say what it must.
const NEEDED: [Place; 4] = [Place::Style, Place::Name, Place::Rule, Place::Statement];

#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

impl Template {
    /// # Errors
    /// Which place, in which line, is unknown or does not end, or which one is missing.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let line = text[..text.len() - rest.len() + start]
                .matches('\n')
                .count()
                + 1;
            let (before, from) = (&rest[..start], &rest[start + 2..]);
            let end = from
                .find("}}")
                .ok_or_else(|| format!("line {line}: `{{{{` without `}}}}`"))?;
            let name = from[..end].trim();
            let place = Place::parse(name).ok_or_else(|| {
                format!("line {line}: unknown place {name:?}; there are {}", known())
            })?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Place(place));
            rest = &from[end + 2..];
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let is_missing = |place: &Place| !pieces.contains(&Piece::Place(*place));
        if let Some(missing) = NEEDED.into_iter().find(is_missing) {
            return Err(format!("`{{{{{}}}}}` is missing: add it", missing.name()));
        }
        Ok(Self(pieces))
    }

    pub(super) fn fill(&self, html: impl Fn(Place) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Place(place) => html(*place),
        };
        self.0.iter().map(piece).collect()
    }
}

fn known() -> String {
    Place::ALL
        .map(|place| format!("`{}`", place.name()))
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_NEEDED: &str = "{{style}}{{name}}{{ rule }}{{statement}}";

    #[test]
    fn places_are_filled_and_the_rest_stays() {
        let template = Template::parse(&format!("<a>{ALL_NEEDED}}}}} {{ {{ x }}")).expect("good");
        let filled = template.fill(|place| format!("[{}]", place.name()));
        assert_eq!(filled, "<a>[style][name][rule][statement]}} { { x }");
    }

    #[test]
    fn what_was_filled_in_is_not_looked_at_again() {
        let template = Template::parse(ALL_NEEDED).expect("good");
        let filled = template.fill(|_| "{{contact}}".to_owned());
        assert_eq!(filled, "{{contact}}".repeat(4));
    }

    #[test]
    fn unknown_open_and_missing_places_are_named() {
        let error = |text: &str| Template::parse(text).expect_err("bad");
        assert!(
            error("\n{{nmae}}").starts_with("line 2: unknown place \"nmae\"; there are `language`")
        );
        assert_eq!(error("a {{style"), "line 1: `{{` without `}}`");
        assert_eq!(
            error("{{style}}{{name}}{{rule}}"),
            "`{{statement}}` is missing: add it"
        );
    }
}
