//! Headless browsers that a test leads from page to page in one session: Chromium by its
//! DevTools protocol, Firefox by Marionette. Each runs in a process namespace of its own: its many
//! processes end together.

mod chromium;
mod firefox;
mod profile;

use std::{
    net::IpAddr,
    path::Path,
    process::Command,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

pub(crate) use chromium::flags as chromium_flags;
pub(crate) use profile::Profile;

use crate::{certificate::Wildcard, net::Namespace};
use chromium::Chromium;
use firefox::Firefox;

/// How long a browser may take to start, and to show a page.
const START_MAX: Duration = Duration::from_secs(60);
const VISIT_MAX: Duration = Duration::from_secs(30);

/// What a page says of itself, as a JSON text. Both browsers have the standards behind it:
/// Navigation Timing, and Resource Timing for `nextHopProtocol` and `responseStatus`.
const DESCRIBE: &str = "(() => { \
    const [visit] = performance.getEntriesByType('navigation'); \
    return JSON.stringify({ \
        url: location.href, \
        ready: document.readyState, \
        text: document.body ? document.body.innerText : '', \
        language: document.documentElement.lang, \
        status: visit ? visit.responseStatus : 0, \
        protocol: visit ? visit.nextHopProtocol : '' }); })()";

/// Which browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's `chromium`.
    Chromium,
    /// Debian's `firefox-esr`.
    Firefox,
}

/// How a browser is set.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Where every name under `.example` is.
    pub address: IpAddr,
    /// Whose certificates are trusted.
    pub trusted: &'a Wildcard,
    /// Languages that it asks for, the best first, without spaces.
    pub languages: &'a str,
    /// Whether QUIC is tried where a server offered it.
    pub quic: bool,
}

/// What a browser shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Status of the answer, 0 if there was none.
    pub status: u64,
    /// ALPN name of the protocol that it came by.
    pub protocol: String,
    /// Language of the document, empty if it says none.
    pub language: String,
    /// Its text, as one reads it.
    pub text: String,
}

/// A running browser with one tab.
pub struct Browser(Driven);

enum Driven {
    Chromium(Chromium),
    Firefox(Firefox),
}

impl Browser {
    /// Starts it inside the namespace.
    ///
    /// # Panics
    /// If it is not there or does not start.
    pub fn start(kind: Kind, namespace: &Namespace, settings: Settings<'_>) -> Self {
        Self(match kind {
            Kind::Chromium => Driven::Chromium(Chromium::start(namespace, settings)),
            Kind::Firefox => Driven::Firefox(Firefox::start(namespace, settings)),
        })
    }

    /// Goes to a page; what it shows, or how it says that it cannot.
    ///
    /// # Errors
    /// The browser's own name for what keeps it from showing the page.
    ///
    /// # Panics
    /// If it does not come to an end, or crashes.
    pub fn visit(&mut self, url: &str) -> Result<Shown, String> {
        let described = match &mut self.0 {
            Driven::Chromium(chromium) => chromium.visit(url)?,
            Driven::Firefox(firefox) => firefox.visit(url)?,
        };
        let text = |key: &str| described[key].as_str().unwrap_or_default().to_owned();
        Ok(Shown {
            status: described["status"].as_u64().unwrap_or(0),
            protocol: text("protocol"),
            language: text("language"),
            text: text("text"),
        })
    }

    /// A picture of what it shows, as PNG.
    ///
    /// # Panics
    /// If it makes none.
    pub fn screenshot(&mut self) -> Vec<u8> {
        let encoded = match &mut self.0 {
            Driven::Chromium(chromium) => chromium.screenshot(),
            Driven::Firefox(firefox) => firefox.screenshot(),
        };
        STANDARD.decode(encoded).expect("a picture in base64")
    }
}

/// The beginning of a command that runs a browser, with nothing of the user's own.
pub(crate) fn contained(namespace: &Namespace, profile: &Path) -> Command {
    let mut command = namespace.command("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .env("HOME", profile)
        .env("TMPDIR", profile);
    command
}

/// What [`DESCRIBE`] told, if it could.
fn described(told: &Value) -> Option<Value> {
    serde_json::from_str(told.as_str()?).ok()
}

/// The next message for which `pick` finds something.
///
/// # Panics
/// If the browser falls silent or ends.
fn awaited<T>(
    messages: &Receiver<Value>,
    what: &str,
    limit: Duration,
    mut pick: impl FnMut(Value) -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        match messages.recv_timeout(wait) {
            Ok(message) => {
                if let Some(picked) = pick(message) {
                    return picked;
                }
            }
            Err(RecvTimeoutError::Timeout) => panic!("{what}: no answer within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{what}: the browser has ended"),
        }
    }
}
