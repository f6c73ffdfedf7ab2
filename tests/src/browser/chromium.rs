//! Chromium, led by the DevTools protocol over a pair of pipes: JSON, a zero byte behind each
//! message.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Command},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{DESCRIBE, Profile, START_MAX, Settings, VISIT_MAX, awaited, contained, described};
use crate::{net::Namespace, process::Process};

/// How often it is looked whether a page is there.
const POLL: Duration = Duration::from_millis(20);

/// What keeps it from asking for anything else, and from needing a desktop or a user.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--hide-scrollbars",
];

/// It reads from its third descriptor and writes to its fourth; standard output is for its chatter.
const OVER_PIPES: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2";

/// Its processes end before its files are removed.
pub(super) struct Chromium {
    orders: ChildStdin,
    messages: Receiver<Value>,
    /// Number of the last order.
    last: u64,
    session: String,
    _process: Process,
    _profile: Profile,
}

/// The command line without a page; where names are is left to the caller.
pub(crate) fn flags(command: &mut Command, profile: &Profile) {
    command
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.path().display()));
}

impl Chromium {
    pub(super) fn start(namespace: &Namespace, settings: Settings<'_>) -> Self {
        let profile = Profile::new();
        let mut command = contained(namespace, profile.path());
        command.args(["sh", "-c", OVER_PIPES, "chromium"]);
        flags(&mut command, &profile);
        let address = match settings.address {
            std::net::IpAddr::V4(v4) => v4.to_string(),
            std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        };
        command
            .args(["--remote-debugging-pipe", "--window-size=1000,900"])
            .arg(format!("--host-resolver-rules=MAP *.example {address}"))
            .arg(format!("--accept-lang={}", settings.languages))
            // Unlike with certificate errors that are ignored, connections are shared between
            // the names of a certificate as they are on the Internet.
            .arg(format!(
                "--ignore-certificate-errors-spki-list={}",
                settings.trusted.key_hash()
            ));
        if !settings.quic {
            command.arg("--disable-quic");
        }
        let (process, orders, output) = Process::spawn_talking("chromium", command);
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let sent = serde_json::from_slice(&message).map(|it| sender.send(it));
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        let mut chromium = Self {
            orders,
            messages,
            last: 0,
            session: String::new(),
            _process: process,
            _profile: profile,
        };
        let tab = chromium.ask(
            "Target.createTarget",
            json!({ "url": "about:blank" }),
            START_MAX,
        );
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let attached = chromium.ask("Target.attachToTarget", attach, START_MAX);
        let session = attached["sessionId"].as_str().expect("a session");
        chromium.session = session.to_owned();
        chromium
    }

    pub(super) fn visit(&mut self, url: &str) -> Result<Value, String> {
        let gone = self.ask("Page.navigate", json!({ "url": url }), VISIT_MAX);
        if let Some(error) = gone["errorText"].as_str() {
            return Err(error.to_owned());
        }
        let deadline = Instant::now() + VISIT_MAX;
        loop {
            let evaluate = json!({ "expression": DESCRIBE });
            let told = self.ask("Runtime.evaluate", evaluate, VISIT_MAX);
            // A document that has just begun has nothing to tell.
            if let Some(page) = described(&told["result"]["value"])
                && page["ready"] == "complete"
                && page["url"] == url
            {
                return Ok(page);
            }
            assert!(Instant::now() < deadline, "{url} is not complete: {told}");
            thread::sleep(POLL);
        }
    }

    pub(super) fn screenshot(&mut self) -> String {
        let taken = self.ask(
            "Page.captureScreenshot",
            json!({ "format": "png" }),
            VISIT_MAX,
        );
        taken["data"].as_str().expect("a picture").to_owned()
    }

    fn ask(&mut self, method: &str, parameters: Value, limit: Duration) -> Value {
        self.last += 1;
        let id = self.last;
        let mut order = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        let written = write!(self.orders, "{order}\0").and_then(|()| self.orders.flush());
        written.unwrap_or_else(|e| panic!("{method}: {e}"));
        awaited(&self.messages, method, limit, |mut message| {
            if message["id"] != id {
                return None;
            }
            let error = &message["error"];
            assert!(error.is_null(), "{method}: {error}");
            Some(message["result"].take())
        })
    }
}
