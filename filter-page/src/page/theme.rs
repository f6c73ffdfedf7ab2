//! What a page looks like: built in, or from a directory with any of `page.html`, `style.css` and
//! `<language>.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;

use super::{
    template::Template,
    texts::{self, Languages, SHIPPED, Texts},
};
use crate::Error;

/// Size of a file beyond which it is not read: the page is sent with every answer.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Language of last resort.
const FALLBACK: &str = "en";

/// Template, style and words.
#[derive(Debug)]
pub(crate) struct Theme {
    template: Template,
    style: String,
    policy: HeaderValue,
    languages: Languages,
}

impl Theme {
    /// The built-in one, with what is in the directory in its place.
    ///
    /// # Errors
    /// If the directory or one of the files cannot be read or used.
    pub(crate) fn load(directory: Option<&Path>) -> Result<Self, Error> {
        let files = directory.map_or(Ok(Vec::new()), read)?;
        let mut template = None;
        let mut style = include_str!("style.css").to_owned();
        let mut languages = Languages::new();
        for (language, json) in SHIPPED {
            let texts = Texts::parse(language, json).map_err(bad(Path::new(language)))?;
            languages.insert(language.to_owned(), texts);
        }
        for (path, text) in files {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("page.html") => template = Some(Template::parse(&text).map_err(bad(&path))?),
                Some("style.css") => style = checked_style(text).map_err(bad(&path))?,
                Some(name) if name.ends_with(".json") && texts::is_tag(stem) => {
                    let texts = Texts::parse(stem, &text).map_err(bad(&path))?;
                    languages.insert(stem.to_owned(), texts);
                }
                _ => {
                    let cause =
                        "unknown; a theme has page.html, style.css and <language>.json".to_owned();
                    return Err(bad(&path)(cause));
                }
            }
        }
        let built_in = || Template::parse(include_str!("page.html"));
        let template = match template {
            Some(template) => template,
            None => built_in().map_err(bad(Path::new("page.html")))?,
        };
        let policy = content_security_policy(&style);
        Ok(Self {
            template,
            style,
            policy: HeaderValue::try_from(policy)
                .map_err(|cause| bad(Path::new("style.css"))(cause.to_string()))?,
            languages,
        })
    }

    /// The words in the language that `choose` picks of those there are. `configured` says which are
    /// offered and in which order; those that nobody has words for are left out.
    pub(crate) fn texts<'a>(
        &'a self,
        configured: &'a [String],
        choose: impl FnOnce(&[&'a str]) -> Option<&'a str>,
    ) -> &'a Texts {
        let offered = configured.iter().map(String::as_str);
        let mut offered: Vec<_> = offered
            .filter(|of| self.languages.contains_key(*of))
            .collect();
        if offered.is_empty() {
            offered.push(FALLBACK);
            offered.extend(
                self.languages
                    .keys()
                    .map(String::as_str)
                    .filter(|of| *of != FALLBACK),
            );
        }
        let chosen = choose(&offered).unwrap_or(FALLBACK);
        &self.languages[chosen]
    }

    /// Languages that there are words for.
    pub(crate) fn languages(&self) -> Vec<String> {
        self.languages.keys().cloned().collect()
    }

    pub(crate) fn content_security_policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    pub(super) fn template(&self) -> &Template {
        &self.template
    }

    /// Nothing may stand between the tags but what was hashed.
    pub(super) fn style_element(&self) -> String {
        format!("<style>{}</style>", self.style)
    }
}

/// The files, none of them hidden, by name.
fn read(directory: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |cause| Error::ReadTheme { path, cause }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let size = fs::metadata(&path).map_err(unreadable(&path))?.len();
        if size > FILE_BYTES_MAX {
            let cause = format!("{size} bytes, at most {FILE_BYTES_MAX} are read: make it smaller");
            return Err(bad(&path)(cause));
        }
        let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
        files.push((path, text));
    }
    files.sort();
    Ok(files)
}

fn bad(path: &Path) -> impl FnOnce(String) -> Error {
    let path = path.to_owned();
    move |cause| Error::BadTheme { path, cause }
}

/// It stands in an element that its own end tag would end, and browsers hash it with line feeds.
fn checked_style(text: String) -> Result<String, String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if text.to_ascii_lowercase().contains("</style") || text.contains('\0') {
        return Err("a style cannot contain `</style` or NUL: remove it".to_owned());
    }
    Ok(text)
}

/// Nothing may be loaded, run, sent or framed; the one style is known by its hash.
fn content_security_policy(style: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, style.as_bytes());
    let hash = base64(hash.as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let octet = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = octet(0) << 16 | octet(1) << 8 | octet(2);
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit > chunk.len() {
                '='
            } else {
                DIGITS[index].into()
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_theme_replaces_what_it_has_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let write =
            |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
        write("style.css", "p { color: red }\r\n");
        write(
            "fr.json",
            &include_str!("en.json").replace("This site is blocked", "Ce site est bloqué"),
        );
        let theme = Theme::load(Some(directory.path())).expect("a good theme");
        assert_eq!(theme.style_element(), "<style>p { color: red }\n</style>");
        assert_eq!(theme.languages(), ["de", "en", "fr"]);
        assert_eq!(theme.languages["fr"].heading, "Ce site est bloqué");
    }

    #[test]
    fn a_bad_theme_is_refused_with_file_and_cause() {
        let error = |name: &str, text: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join(name), text).expect("a file");
            let error = Theme::load(Some(directory.path())).expect_err("bad");
            error.to_string()
        };
        let unknown = error("page.html", "<p>\n{{nmae}}");
        assert!(
            unknown.contains("page.html: line 2: unknown place \"nmae\""),
            "{unknown}"
        );
        assert!(error("style.css", "p{}</STYLE><script>").contains("</style"));
        assert!(error("fr.json", "{}").contains("missing field"));
        assert!(error("logo.png", "x").contains("a theme has page.html"));
        let large = " ".repeat(FILE_BYTES_MAX as usize + 1);
        assert!(error("style.css", &large).contains("at most"));
    }
}
