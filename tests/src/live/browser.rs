//! Headless browsers, in a process namespace of their own: their many processes end together.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{ALLOWED_MAX, START_MAX, Visit, Wanted, is_removed, page, page::Page, run};
use crate::{net::report, process::Process};

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

/// Which browser.
#[derive(Clone, Copy, Debug)]
pub(super) enum Browser {
    Chromium,
    Firefox,
}

/// A running browser. Its processes end before their files are removed.
struct Running {
    process: Process,
    _profile: Profile,
}

/// The names for which the browser got the server's page.
pub(super) fn served(visit: &Visit<'_>, browser: Browser, wanted: &[Wanted]) -> Vec<String> {
    let page = Page::start(visit.scene.visitor(), wanted);
    let mut running = Running::start(visit, browser);
    let served = page.served(START_MAX + ALLOWED_MAX);
    served.unwrap_or_else(|| {
        let is_running = running.process.is_running();
        panic!("{browser:?} tells nothing; running: {is_running}")
    })
}

impl Running {
    fn start(visit: &Visit<'_>, browser: Browser) -> Self {
        let profile = Profile::new();
        let directory = profile.path();
        let mut command = visit.scene.visitor().command("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .env("HOME", directory)
            .env("TMPDIR", directory);
        let address = visit.scene.v4();
        match browser {
            Browser::Firefox => {
                let preferences = format!(
                    "{FIREFOX_PREFERENCES}user_pref(\"network.dns.forceResolve\", \"{address}\");\n"
                );
                fs::write(directory.join("user.js"), preferences).expect("a file of preferences");
                trust(directory, &visit.authority());
                command
                    .args(["firefox-esr", "--headless", "--no-remote", "--profile"])
                    .arg(directory);
            }
            Browser::Chromium => {
                command
                    .args(["chromium", "--headless", "--no-sandbox", "--disable-gpu"])
                    .args(["--disable-quic", "--no-first-run", "--disable-sync"])
                    .args([
                        "--disable-background-networking",
                        "--disable-component-update",
                    ])
                    .args(["--disable-dev-shm-usage", "--disable-breakpad"])
                    // Its store of authorities wants a hand; whom it trusts changes no hello.
                    .arg("--ignore-certificate-errors")
                    .arg(format!("--host-resolver-rules=MAP *.example {address}"))
                    .arg(format!("--user-data-dir={}", directory.display()));
            }
        }
        command.arg(page::URL);
        Self {
            process: Process::spawn(&format!("{browser:?}"), command),
            _profile: profile,
        }
    }
}

/// Makes Firefox trust an authority.
fn trust(profile: &Path, authority: &Path) {
    let database = format!("sql:{}", profile.display());
    let certutil = |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        command.args(["-d", &database]).args(arguments);
        run("certutil", command);
    };
    certutil(&["-N", "--empty-password"]);
    let authority = authority.to_str().expect("a temporary path in UTF-8");
    certutil(&["-A", "-n", "witness", "-t", "C,,", "-i", authority]);
}

/// A browser's files. They are removed when it has stopped writing.
struct Profile(Option<TempDir>);

impl Profile {
    fn new() -> Self {
        Self(Some(tempfile::tempdir().expect("a temporary directory")))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().expect("held until it is dropped").path()
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
