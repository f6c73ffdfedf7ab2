//! A browser's files, and what is written there before it starts.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::net::report;

/// How long the processes of a browser may take to be gone.
const END_MAX: Duration = Duration::from_secs(10);

/// What keeps Firefox from asking for anything else, as far as that can be had.
const FIREFOX_PREFERENCES: &str = r#"
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.systemAddon.update.enabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.dns.upgrade_with_https_rr", false);
user_pref("network.http.http3.enable", false);
user_pref("network.trr.mode", 5);
user_pref("security.OCSP.enabled", 0);
user_pref("services.settings.server", "data:,");
user_pref("toolkit.telemetry.enabled", false);
user_pref("trailhead.firstrun.didSeeAboutWelcome", true);
"#;

/// A browser's files. They are removed when it has stopped writing.
#[derive(Debug)]
pub(crate) struct Profile(Option<TempDir>);

impl Profile {
    pub(crate) fn new() -> Self {
        Self(Some(tempfile::tempdir().expect("a temporary directory")))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("held until it is dropped").path()
    }

    /// Firefox's preferences: every name is at `address`, and these besides.
    pub(crate) fn prefer(&self, address: &str, more: &str) {
        let preferences = format!(
            "{FIREFOX_PREFERENCES}user_pref(\"network.dns.forceResolve\", \"{address}\");\n{more}"
        );
        fs::write(self.path().join("user.js"), preferences).expect("a file of preferences");
    }

    /// Makes Firefox trust an authority, a file in PEM.
    ///
    /// # Panics
    /// Without `certutil`.
    pub(crate) fn trust(&self, authority: &Path) {
        let database = format!("sql:{}", self.path().display());
        let certutil = |arguments: &[&str]| {
            let output = Command::new("certutil")
                .args(["-d", &database])
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap_or_else(|e| panic!("certutil: {e}: `cargo xtask setup` installs it"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "certutil: {}: {said}",
                output.status
            );
        };
        certutil(&["-N", "--empty-password"]);
        let authority = authority.to_str().expect("a temporary path in UTF-8");
        certutil(&["-A", "-n", "witness", "-t", "C,,", "-i", authority]);
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let Some(directory) = self.0.take() else {
            return;
        };
        let path = directory.keep();
        let deadline = Instant::now() + END_MAX;
        while !is_removed(&path) {
            if Instant::now() > deadline {
                report("browser", &[format!("{} is still in use", path.display())]);
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether a directory could be removed, which it cannot be while somebody writes into it.
fn is_removed(path: &Path) -> bool {
    match fs::remove_dir_all(path) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
