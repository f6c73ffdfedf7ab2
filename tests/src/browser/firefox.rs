//! Firefox, led by Marionette: JSON over TCP, its length in decimal and a colon before each
//! message (Firefox source docs, testing/marionette/Protocol).

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{DESCRIBE, Profile, START_MAX, Settings, VISIT_MAX, awaited, contained, described};
use crate::{net::Namespace, process::Process};

/// Where Marionette listens, in the browser's own network namespace.
const PORT: u16 = 2_828;
const POLL: Duration = Duration::from_millis(100);
/// Digits of the length of a message.
const DIGITS_MAX: usize = 10;

/// Its processes end before its files are removed.
pub(super) struct Firefox {
    orders: TcpStream,
    messages: Receiver<Value>,
    /// Number of the last order.
    last: u64,
    _process: Process,
    _profile: Profile,
}

impl Firefox {
    pub(super) fn start(namespace: &Namespace, settings: Settings<'_>) -> Self {
        let profile = Profile::new();
        let languages = settings.languages;
        profile.prefer(
            &settings.address.to_string(),
            &format!(
                "user_pref(\"intl.accept_languages\", \"{languages}\");\n\
                 user_pref(\"marionette.port\", {PORT});\n"
            ),
        );
        profile.trust(&settings.trusted.authority());
        let mut command = contained(namespace, profile.path());
        command
            .args(["firefox-esr", "--headless", "--no-remote", "--marionette"])
            .args(["--width", "1000", "--height", "900", "--profile"])
            .arg(profile.path());
        let mut process = Process::spawn("firefox", command);
        let orders = connected(namespace, &mut process);
        let mut reader = orders.try_clone().expect("a second descriptor");
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(message) = read_message(&mut reader) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        awaited(&messages, "Marionette's greeting", START_MAX, |greeting| {
            (greeting["marionetteProtocol"] == 3).then_some(())
        });
        let mut firefox = Self {
            orders,
            messages,
            last: 0,
            _process: process,
            _profile: profile,
        };
        let session = firefox.ask("WebDriver:NewSession", json!({}), START_MAX);
        session.unwrap_or_else(|e| panic!("a session: {e}"));
        firefox
    }

    pub(super) fn visit(&mut self, url: &str) -> Result<Value, String> {
        self.ask("WebDriver:Navigate", json!({ "url": url }), VISIT_MAX)?;
        let script = json!({ "script": format!("return {DESCRIBE}"), "args": [] });
        let told = self.ask("WebDriver:ExecuteScript", script, VISIT_MAX)?;
        Ok(described(&told["value"]).unwrap_or_else(|| panic!("a description: {told}")))
    }

    pub(super) fn screenshot(&mut self) -> String {
        let taken = self.ask(
            "WebDriver:TakeScreenshot",
            json!({ "full": false }),
            VISIT_MAX,
        );
        let taken = taken.unwrap_or_else(|e| panic!("a picture: {e}"));
        taken["value"].as_str().expect("a picture").to_owned()
    }

    /// An order is `[0, number, name, parameters]`, an answer `[1, number, error, result]`.
    fn ask(&mut self, name: &str, parameters: Value, limit: Duration) -> Result<Value, String> {
        self.last += 1;
        let id = self.last;
        let order = json!([0, id, name, parameters]).to_string();
        let written = write!(self.orders, "{}:{order}", order.len());
        written.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (error, result) = awaited(&self.messages, name, limit, |mut message| {
            (message[1] == id).then(|| (message[2].take(), message[3].take()))
        });
        if error.is_null() {
            return Ok(result);
        }
        Err(error["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        // Fails if the browser has gone already, and ends the reading thread otherwise.
        drop(self.orders.shutdown(Shutdown::Both));
    }
}

fn connected(namespace: &Namespace, process: &mut Process) -> TcpStream {
    let deadline = Instant::now() + START_MAX;
    loop {
        let stream = namespace.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)));
        match stream {
            Ok(stream) => return stream,
            Err(error) => assert!(
                process.is_running() && Instant::now() < deadline,
                "Marionette: {error}"
            ),
        }
        thread::sleep(POLL);
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Value> {
    let mut length = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if byte[0] == b':' || length.len() > DIGITS_MAX {
            break;
        }
        length.push(char::from(byte[0]));
    }
    let length: usize = length.parse().map_err(io::Error::other)?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    serde_json::from_slice(&message).map_err(io::Error::other)
}
