//! Odd ClientHellos: every line of `tlstruth.json`, as bytes.

mod bytes;
mod names;
mod rows;

pub use rows::tricks;

use super::{BLOCKED, cut::Cut};

/// What a client sends in order to reach a name, turn by turn.
pub type Turns = fn(&str) -> Vec<Vec<u8>>;

/// A hello in an odd form.
#[derive(Clone, Copy, Debug)]
pub struct Trick {
    /// Key in `tlstruth.json`, or the name of a row that goes beyond it.
    pub name: &'static str,
    /// What OpenSSL 3.0 makes of it: name and reply, see [`describe`].
    pub openssl: &'static str,
    /// What Java 17 makes of it.
    pub java: &'static str,
    /// The name that rustls 0.23 reads; its reply was not measured.
    pub rustls: &'static str,
    /// What the client sends in order to reach a name; each turn waits for the answer to the one
    /// before.
    pub turns: Turns,
    /// The only way of cutting it, if that is the trick.
    pub cut: Option<Cut>,
}

/// A row of one turn.
macro_rules! row {
    ($name:literal, $openssl:expr, $java:expr, $rustls:expr, |$host:ident| $hello:expr) => {
        Trick {
            name: $name,
            openssl: $openssl,
            java: $java,
            rustls: $rustls,
            turns: |$host| vec![$hello],
            cut: None,
        }
    };
}

use row;

/// The names that a server saw and its first reply: `SH` for a ServerHello, an alert by number, or
/// `none`. No name callback is `-`.
pub fn describe(names: &[String], answer: &[u8]) -> String {
    let names = if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    };
    let reply = match answer {
        [22, _, _, _, _, 2, ..] => "SH".to_owned(),
        [21, _, _, _, _, _, alert, ..] => format!("alert{alert}"),
        _ => "none".to_owned(),
    };
    format!("{names}/{reply}")
}

/// Whether what was said agrees with a truth: `*` is any, `…` any name.
pub fn agrees(said: &str, truth: &str) -> bool {
    let reply = |text: &str| text.rsplit('/').next().map(str::to_owned);
    match truth.split_once('/') {
        None => truth == "*",
        Some(("…", _)) => reply(said) == reply(truth),
        Some(_) => said == truth,
    }
}

/// Whether a server that saw these names acted on the blocked one, by the rules for names: lower
/// case, without port, trailing dots and blanks; longer ones and others are matched as they are.
pub fn is_blocked(names: &[String]) -> bool {
    names.iter().any(|name| {
        let name = name.trim().to_ascii_lowercase();
        let name = name.split(':').next().unwrap_or_default();
        let name = name.trim_end_matches('.');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let below = name.strip_suffix(BLOCKED);
        name.len() <= 255
            && name.bytes().all(plain)
            && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    })
}
