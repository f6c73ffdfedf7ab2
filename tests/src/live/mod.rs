//! Real clients, each asking a [`Witness`] for many names, every one on a connection of its own.

mod browser;
mod page;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    browser::Kind,
    client::{curl_with, s_client_within},
    conform::{ALLOWED, BLOCKED, each, report::target, scene::Scene},
    dialer::{Length, ask_tls, open, tls_config},
    net::Direct,
    process::Process,
    witness::{TLS_PORT, Witness},
};

/// How long a client goes on asking for a name that is allowed, and for one that is not.
const ALLOWED_MAX: Duration = Duration::from_secs(30);
const BLOCKED_MAX: Duration = Duration::from_secs(4);
/// What a program needs besides, a compiler or a browser's start among it.
const START_MAX: Duration = Duration::from_secs(60);

/// A real client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `curl`, a process for each name.
    Curl,
    /// `openssl s_client`, a process for each name.
    Openssl,
    /// Python's `ssl`.
    Python,
    /// Go's `net/http`.
    Go,
    /// Java's `SSLSocket`.
    Java,
    /// rustls in this process, with a post-quantum hello.
    Rustls,
    /// Headless Chromium, one process for all names.
    Chromium,
    /// Headless Firefox, one process for all names.
    Firefox,
}

/// A name, and how long it is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    limit: Duration,
}

impl Wanted {
    /// `<name>/<milliseconds>`, as the programs take it.
    fn argument(&self) -> String {
        format!("{}/{}", self.name, self.limit.as_millis())
    }
}

/// Asks for `count` blocked and as many allowed names on one address: all allowed ones must be
/// served, and of the blocked ones none, nor may the server have seen one.
///
/// # Panics
/// With every name of which this does not hold. Also if the client is not there.
pub fn compare(client: Client, scene: &Scene, count: usize) {
    let witness = Witness::start(scene.servers(), &[ALLOWED, BLOCKED]);
    let visit = Visit {
        scene,
        witness: &witness,
        dir: tempfile::tempdir().expect("a temporary directory"),
    };
    fs::write(visit.authority(), &witness.authority().pem).expect("a certificate file");

    let control = vec![Wanted {
        name: format!("control.{BLOCKED}"),
        limit: ALLOWED_MAX,
    }];
    let served = visit.served(client, &control);
    assert_eq!(served.len(), 1, "{client:?} is served without the filter");

    let _edge = scene.enforce("");
    let wanted: Vec<_> = (0..count)
        .flat_map(|number| {
            [
                (number, ALLOWED, ALLOWED_MAX),
                (number, BLOCKED, BLOCKED_MAX),
            ]
        })
        .map(|(number, domain, limit)| Wanted {
            name: format!("n{number}.{domain}"),
            limit,
        })
        .collect();
    let served = visit.served(client, &wanted);
    let seen = witness.names();
    let wrong: Vec<_> = wanted
        .iter()
        .map(|wanted| {
            let name = &wanted.name;
            (name, served.contains(name), seen.contains(name))
        })
        .filter(|(name, served, seen)| {
            let allowed = name.ends_with(ALLOWED);
            (*served, *seen) != (allowed, allowed)
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{client:?}: (name, served, seen) {wrong:?}"
    );
    println!("{client:?}: {count} of {count} allowed names served, {count} of {count} blocked");
}

/// What a client needs.
struct Visit<'a> {
    scene: &'a Scene,
    witness: &'a Witness,
    dir: TempDir,
}

impl Visit<'_> {
    /// Who signed the server's certificate, as a file.
    fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// The names for which the client got the server's page.
    fn served(&self, client: Client, wanted: &[Wanted]) -> Vec<String> {
        match client {
            Client::Curl => one_by_one(wanted, |wanted| self.curl(wanted)),
            Client::Openssl => one_by_one(wanted, |wanted| self.openssl(wanted)),
            Client::Rustls => one_by_one(wanted, |wanted| self.rustls(wanted)),
            Client::Python => self.program("python3", &[self.source("fetch.py", PYTHON)], wanted),
            Client::Java => self.program(
                "java",
                &[
                    "-XX:TieredStopAtLevel=1".into(),
                    "-XX:-UsePerfData".into(),
                    self.source("Fetch.java", JAVA),
                ],
                wanted,
            ),
            Client::Go => {
                let program = self.go();
                self.program(&program.to_string_lossy(), &[], wanted)
            }
            Client::Chromium => browser::served(self, Kind::Chromium, wanted),
            Client::Firefox => browser::served(self, Kind::Firefox, wanted),
        }
    }

    fn curl(&self, wanted: &Wanted) -> bool {
        let url = format!("https://{}/", wanted.name);
        let limit = wanted.limit.as_secs_f32().to_string();
        curl_with(
            self.scene.visitor(),
            &url,
            self.scene.v4(),
            &["--max-time", &limit],
        )
        .is_served(&wanted.name)
    }

    fn openssl(&self, wanted: &Wanted) -> bool {
        let (visitor, address) = (self.scene.visitor(), self.scene.v4());
        s_client_within(visitor, address, Some(&wanted.name), wanted.limit)
            .body
            .contains("BEGIN CERTIFICATE")
    }

    fn rustls(&self, wanted: &Wanted) -> bool {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let from = SocketAddr::new(address(Direct::VISITOR_V4), 0);
        let to = SocketAddr::new(address(self.scene.v4()), TLS_PORT);
        let config = tls_config(self.witness.authority(), Length::Long);
        let answer = self.scene.visitor().run(|| {
            let stream = open(from, to, wanted.limit)?;
            ask_tls(stream, &wanted.name, Arc::clone(&config))
        });
        answer.is_ok_and(|answer| answer.contains("served"))
    }

    /// Runs a program that prints the names that it got.
    fn program(&self, program: &str, before: &[PathBuf], wanted: &[Wanted]) -> Vec<String> {
        let mut command = self.scene.visitor().command(program);
        command
            .args(before)
            .arg(self.scene.v4())
            .arg(self.authority())
            .args(wanted.iter().map(Wanted::argument));
        let mut process = Process::spawn(program, command);
        let ended = process.wait(ALLOWED_MAX + START_MAX);
        assert!(
            ended.is_some_and(|status| status.success()),
            "{program}: {ended:?}: {}",
            process.stderr()
        );
        process.stdout().lines().map(str::to_owned).collect()
    }

    fn source(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Compiles the Go program; what Go compiles of its library is kept for the next time.
    fn go(&self) -> PathBuf {
        let (source, program) = (self.source("fetch.go", GO), self.dir.path().join("fetch"));
        let mut command = Command::new("go");
        command
            .args(["build", "-o"])
            .args([&program, &source])
            .env("GO111MODULE", "off")
            .env("GOPATH", self.dir.path())
            .env("GOTMPDIR", self.dir.path())
            .env("GOCACHE", target().join("go-cache"));
        run("go build", command);
        program
    }
}

const PYTHON: &str = include_str!("clients/fetch.py");
const JAVA: &str = include_str!("clients/Fetch.java");
const GO: &str = include_str!("clients/fetch.go");

/// The names for which `ask` holds, many asked at a time.
fn one_by_one(wanted: &[Wanted], ask: impl Fn(&Wanted) -> bool + Sync) -> Vec<String> {
    let served = each(wanted, ask);
    let both = wanted.iter().zip(served);
    both.filter(|(_, served)| *served)
        .map(|(wanted, _)| wanted.name.clone())
        .collect()
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails, with what it said.
fn run(what: &str, mut command: Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{what}: {e}: `cargo xtask setup` installs it"));
    assert!(
        output.status.success(),
        "{what}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
