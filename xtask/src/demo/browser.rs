//! The block page in a browser.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{packages, shell};

use super::{attempt::Seen, world::World};

/// Name of the picture.
const PICTURE: &str = "block-page.png";

/// How long the browser may take, in the words of `timeout`.
const TIME_MAX: &str = "60";

/// What keeps Chromium from needing a desktop or a user, and from asking for anything else.
const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1000,900",
    // The demo's certificates are signed by themselves.
    "--ignore-certificate-errors",
    "--dump-dom",
];

/// Installs the browser if it is missing; where its picture will be.
pub(super) fn picture() -> Result<PathBuf> {
    packages::ensure_programs(&[packages::BROWSER])?;
    let here = env::current_dir().context("the current directory cannot be read")?;
    Ok(here.join(PICTURE))
}

/// What the browser shows of a name at an address: the page if that says `said`. Writes the
/// picture.
pub(super) fn seen(
    world: &World,
    name: &str,
    address: &str,
    said: &str,
    picture: &Path,
) -> Result<Seen> {
    // One of an earlier demo would pass for this one's.
    if picture.exists() {
        fs::remove_file(picture)
            .with_context(|| format!("cannot replace {}", picture.display()))?;
    }
    let profile = world.folder().join("chromium");
    // Its many processes end with it, in a namespace of their own.
    let mut command = world.visitor.command("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["timeout", TIME_MAX, "chromium"])
        .args(FLAGS)
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("--host-resolver-rules=MAP {name} {address}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("https://{name}/"))
        .env("HOME", &profile)
        .env("TMPDIR", world.folder());
    let output = shell::output(&mut command)?;
    let shown = String::from_utf8_lossy(&output.stdout);
    Ok(match (shown.contains(said), picture.exists()) {
        (true, true) => Seen::Page,
        (true, false) => Seen::Other("no picture".to_owned()),
        (false, _) => Seen::Other(format!("another page; chromium: {}", output.status)),
    })
}
