use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn theme() -> Theme {
    Theme::load(None).expect("the built-in one")
}

fn texts<'a>(theme: &'a Theme, language: &'a str) -> &'a Texts {
    theme.texts(&[], |_| Some(language))
}

/// Text with what is special anywhere in it.
fn nasty() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "<script>",
        "</style>",
        "\"",
        "'",
        "&",
        "{{name}}",
        "\r\n",
        "\0",
        "\u{202e}",
        "javascript:",
        "ä",
        "]]>",
        "-->",
        "\\",
        "`",
        "https://x/\" onload=\"",
        "\u{1b}[31m",
    ]);
    let piece = prop_oneof![special.prop_map(str::to_owned), any::<String>()];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Tags of the page in order, attributes left out.
fn tags(html: &str) -> Vec<&str> {
    let starts = html.match_indices('<').map(|(start, _)| &html[start + 1..]);
    let name = |tag| <str>::split(tag, [' ', '>']).next().unwrap_or_default();
    starts.map(name).collect()
}

proptest! {
    #[test]
    fn no_text_becomes_markup_a_header_or_a_control_character(
        name in nasty(), title in nasty(), reason in nasty(), authority in nasty(), reference in nasty(),
        statement in nasty(), contact in nasty(), german in nasty(),
    ) {
        let theme = theme();
        let fill = |[name, title, reason, authority, reference, contact, german]: [&str; 7]| {
            let text = Text { title: Some(german.to_owned()), reason: None };
            let rule = Rule {
                title: Some(title.to_owned()),
                reason: Some(reason.to_owned()),
                authority: Some(authority.to_owned()),
                reference: Some(reference.to_owned()),
                text: BTreeMap::from([("de".to_owned(), text)]),
                statement: Some(format!("https://x.example/{statement}")),
                ..Rule::default()
            };
            let facts = Facts { name: name.to_owned(), rule: &rule, contact: Some(contact), texts: texts(&theme, "de") };
            [Format::Html, Format::Json, Format::Plain].map(|format| theme.page(&facts, format))
        };
        // A contact that is a link is another page; it is tried below.
        let contact = format!("words {contact}");
        let [html, json, plain] = fill([&name, &title, &reason, &authority, &reference, &contact, &german]);
        let [harmless, _, _] = fill(["n", "t", "r", "a", "f", "words", "g"]);
        prop_assert_eq!(tags(&html), tags(&harmless));
        let quotes = |html: &str| html.matches('"').count();
        prop_assert_eq!(quotes(&html), quotes(&harmless));
        let has_control = |text: &str| text.contains(['\0', '\r', '\u{202e}', '\u{1b}']);
        prop_assert!(!has_control(&html));
        prop_assert!(!has_control(&plain));
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        prop_assert_eq!(value["title"].as_str(), Some(german.as_str()));
        prop_assert_eq!(value["reason"].as_str(), Some(reason.as_str()));
    }

    #[test]
    fn a_web_address_is_of_the_web_and_fit_for_a_header(text in nasty()) {
        for text in [text.clone(), format!("https://{text}"), format!("HTTP://x/{text}")] {
            let Some(address) = web_address(&text) else { continue };
            prop_assert!(address.starts_with("https://") || address.starts_with("http://"));
            let is_harmless = |byte: u8| byte.is_ascii_graphic() && !b"<>\"".contains(&byte);
            prop_assert!(address.bytes().all(is_harmless), "{}", address);
        }
    }

    #[test]
    fn a_contact_is_a_link_of_the_web_or_of_mail_or_none(contact in nasty(), user in "[a-z.+]{1,8}") {
        for contact in [contact.clone(), format!("https://{contact}"), format!("{user}@x.example")] {
            let html = contact_html(&contact);
            let is_link = html.starts_with("<a href=\"https://")
                || html.starts_with("<a href=\"http://")
                || html.starts_with("<a href=\"mailto:");
            prop_assert_eq!(html.matches('<').count(), if is_link { 2 } else { 0 });
            prop_assert_eq!(html.contains('"'), is_link);
        }
    }
}

#[test]
fn other_schemes_than_those_of_the_web_are_no_links() {
    for text in [
        "javascript:alert(1)",
        "javascript://x/%0aalert(1)",
        "data:text/html,x",
        "//x.example",
        "/x",
        "https:",
        "https://",
        "https:///x",
        " https://x.example",
        "",
    ] {
        assert_eq!(web_address(text), None, "{text}");
    }
    assert_eq!(
        web_address("HTTPS://x.example/ä b\"\r\nX: y").as_deref(),
        Some("https://x.example/%C3%A4%20b%22%0D%0AX:%20y")
    );
}

#[test]
fn names_are_shown_as_people_write_them_and_as_clients_send_them() {
    let theme = theme();
    let shown = |name: &str| {
        let rule = Rule::default();
        let facts = Facts {
            name: name.to_owned(),
            rule: &rule,
            contact: None,
            texts: texts(&theme, "en"),
        };
        facts.name_as_written()
    };
    assert_eq!(
        shown("xn--mnchen-3ya.example"),
        "münchen.example (xn--mnchen-3ya.example)"
    );
    for name in [
        "x.example",
        "192.0.2.1",
        "2001:db8::1",
        "xn--a.example",
        "_x.example",
    ] {
        assert_eq!(shown(name), name);
    }
}

#[test]
fn a_rules_words_are_those_of_the_language_or_of_its_mother() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("de-CH.json"), include_str!("de.json")).expect("a file");
    let theme = Theme::load(Some(directory.path())).expect("a good theme");
    let german = Text {
        title: Some("Titel".to_owned()),
        reason: None,
    };
    let rule = Rule {
        title: Some("title".to_owned()),
        reason: Some("reason".to_owned()),
        text: BTreeMap::from([("de".to_owned(), german)]),
        ..Rule::default()
    };
    let words = |language| {
        let facts = Facts {
            name: String::new(),
            rule: &rule,
            contact: None,
            texts: texts(&theme, language),
        };
        let of =
            |words: Option<Words<'_>>| words.map(|words| [words.text, words.language].join("/"));
        (of(facts.title()), of(facts.reason()))
    };
    let reason = Some("reason/".to_owned());
    assert_eq!(
        words("de-CH"),
        (Some("Titel/de".to_owned()), reason.clone())
    );
    assert_eq!(words("de"), (Some("Titel/de".to_owned()), reason.clone()));
    assert_eq!(words("en"), (Some("title/".to_owned()), reason));
}

#[test]
fn times_are_written_as_the_language_does() {
    let theme = theme();
    let time = "2026-03-09T05:07:59Z".parse().expect("a time");
    assert_eq!(texts(&theme, "en").date(time), "9 March 2026, 05:07 UTC");
    assert_eq!(
        texts(&theme, "de").date(time),
        "9. März 2026, 05:07 Uhr UTC"
    );
}

#[test]
fn languages_are_offered_as_configured() {
    let theme = theme();
    let offered = |configured: &[&str]| {
        let configured: Vec<_> = configured.iter().map(|of| (*of).to_owned()).collect();
        let mut offered = Vec::new();
        let texts = theme.texts(&configured, |available| {
            offered = available.iter().map(|of| (*of).to_owned()).collect();
            None
        });
        assert_eq!(texts.language, "en");
        offered
    };
    assert_eq!(offered(&[]), ["en", "de"]);
    assert_eq!(offered(&["de", "en"]), ["de", "en"]);
    assert_eq!(offered(&["xx", "de"]), ["de"]);
    assert_eq!(offered(&["xx"]), ["en", "de"]);
}

#[test]
fn colours_have_the_contrast_that_can_be_read() {
    // WCAG 2.2, 1.4.3: 4.5 to 1.
    let style = include_str!("style.css");
    let schemes: Vec<_> = style
        .lines()
        .filter(|line| line.contains("--ground:"))
        .collect();
    assert_eq!(schemes.len(), 2, "light and dark");
    for scheme in schemes {
        let color = |name: &str| {
            let value = scheme
                .split(&format!("--{name}: #"))
                .nth(1)
                .expect("a colour");
            let digits: String = value.chars().take_while(char::is_ascii_hexdigit).collect();
            let digit = |at: usize| {
                let at = if digits.len() == 3 { at / 2 } else { at };
                let digit = digits[at..=at]
                    .chars()
                    .next()
                    .and_then(|digit| digit.to_digit(16));
                f64::from(digit.expect("a digit"))
            };
            let linear = |at: usize| {
                let share = (digit(at) * 16.0 + digit(at + 1)) / 255.0;
                if share <= 0.04045 {
                    share / 12.92
                } else {
                    ((share + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * linear(0) + 0.7152 * linear(2) + 0.0722 * linear(4)
        };
        for text in ["text", "faint", "link"] {
            let (one, other) = (color(text), color("card"));
            let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(contrast >= 4.5, "{text} in {scheme}: {contrast}");
        }
    }
}
