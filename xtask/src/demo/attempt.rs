//! One try of a real client from the visitor's namespace.

use std::{
    fmt,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::world::World;

/// How long a client waits for an answer before it counts as blocked.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// `curl`: operation timed out.
const CURL_TIMED_OUT: i32 = 28;

/// What `curl` writes behind the page: its status.
const STATUS: &str = "%{http_code}";
const STATUS_LEN: usize = 3;

/// A client, and how it names what it wants.
#[derive(Clone, Copy)]
pub(super) enum Client {
    /// `curl https://…`, the certificate verified.
    CurlTls,
    /// `curl http://…`.
    CurlPlain,
    /// `openssl s_client -servername …`, the certificate verified.
    OpensslTls,
}

/// Who asks whom for what.
pub(super) struct Attempt {
    pub client: Client,
    /// Hostname, or the address again where no name is sent.
    pub name: &'static str,
    /// Where the client connects to.
    pub address: &'static str,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The page of that very name, or a handshake with its certificate.
    Served,
    /// The block page, status 451.
    Page,
    /// Nothing within the client's patience.
    NoAnswer,
    /// Anything else, in the client's words.
    Other(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::Page => f.write_str("block page"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            name,
            address,
        } = self;
        match client {
            Client::CurlTls => write!(f, "curl https://{name}/")?,
            Client::CurlPlain => write!(f, "curl http://{}/", in_url(name))?,
            Client::OpensslTls => write!(f, "openssl s_client -servername {name}")?,
        }
        if name != address && address.contains(':') {
            f.write_str(" (IPv6)")?;
        }
        Ok(())
    }
}

impl Attempt {
    /// Makes the attempt with the usual patience.
    pub(super) fn make(&self, world: &World) -> Seen {
        self.make_within(world, PATIENCE)
    }

    /// Makes the attempt; whatever keeps the client from being run is something seen as well.
    pub(super) fn make_within(&self, world: &World, patience: Duration) -> Seen {
        let seen = match self.client {
            Client::CurlTls | Client::CurlPlain => self.curl(world, patience),
            Client::OpensslTls => self.openssl(world, patience),
        };
        seen.unwrap_or_else(|error| Seen::Other(format!("{error:#}")))
    }

    fn curl(&self, world: &World, patience: Duration) -> Result<Seen> {
        let (scheme, port) = match self.client {
            Client::CurlTls => ("https", 443),
            Client::CurlPlain | Client::OpensslTls => ("http", 80),
        };
        let mut command = world.visitor.command("curl");
        command
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time"])
            .arg(patience.as_secs_f64().to_string())
            .args(["--write-out", STATUS])
            .arg("--cacert")
            .arg(world.certificates());
        if self.name != self.address {
            let address = in_url(self.address);
            command
                .arg("--resolve")
                .arg(format!("{}:{port}:{address}", self.name));
        }
        command.arg(format!("{scheme}://{}/", in_url(self.name)));
        let output = command.output().context("cannot start curl")?;
        Ok(match output.status.code() {
            Some(0) => seen(&String::from_utf8_lossy(&output.stdout), self.name),
            Some(CURL_TIMED_OUT) => Seen::NoAnswer,
            _ => Seen::Other(first_line(&output.stderr)),
        })
    }

    fn openssl(&self, world: &World, patience: Duration) -> Result<Seen> {
        let mut command = world.visitor.command("openssl");
        command
            .args(["s_client", "-brief", "-verify_return_error", "-connect"])
            .arg(format!("{}:443", in_url(self.address)))
            .args([
                "-servername",
                self.name,
                "-verify_hostname",
                self.name,
                "-CAfile",
            ])
            .arg(world.certificates());
        let Some(output) = output_within(&mut command, patience)? else {
            return Ok(Seen::NoAnswer);
        };
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(
            if output.status.success() && said.contains("Verification: OK") {
                Seen::Served
            } else {
                Seen::Other(first_line(&output.stderr))
            },
        )
    }
}

/// What a page with its status behind it is.
fn seen(page: &str, name: &str) -> Seen {
    match page.split_at_checked(page.len().saturating_sub(STATUS_LEN)) {
        Some((page, "200")) if page == World::page(name) => Seen::Served,
        Some((page, "451")) if page.contains(name) => Seen::Page,
        Some((_, status)) => Seen::Other(format!("another page, status {status}")),
        None => Seen::Other("another page".to_owned()),
    }
}

/// An IPv6 address needs brackets, a name or an IPv4 address does not.
fn in_url(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .lines()
        .next()
        .unwrap_or("no message")
        .to_owned()
}

/// Runs to the end with empty input, or kills the program when the time is over (`None`).
fn output_within(command: &mut Command, time: Duration) -> Result<Option<Output>> {
    let deadline = Instant::now() + time;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start openssl")?;
    while child
        .try_wait()
        .context("cannot wait for openssl")?
        .is_none()
    {
        if Instant::now() > deadline {
            child.kill().context("cannot end openssl")?;
            child.wait().context("cannot wait for openssl")?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child
        .wait_with_output()
        .map(Some)
        .context("cannot read what openssl printed")
}
