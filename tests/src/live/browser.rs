//! Headless browsers that ask for many names from one page.

use super::{ALLOWED_MAX, START_MAX, Visit, Wanted, page, page::Page};
use crate::{
    browser::{Kind, Profile, chromium_flags, contained},
    process::Process,
};

/// A running browser. Its processes end before their files are removed.
struct Running {
    process: Process,
    _profile: Profile,
}

/// The names for which the browser got the server's page.
pub(super) fn served(visit: &Visit<'_>, browser: Kind, wanted: &[Wanted]) -> Vec<String> {
    let page = Page::start(visit.scene.visitor(), wanted);
    let mut running = Running::start(visit, browser);
    let served = page.served(START_MAX + ALLOWED_MAX);
    served.unwrap_or_else(|| {
        let is_running = running.process.is_running();
        panic!("{browser:?} tells nothing; running: {is_running}")
    })
}

impl Running {
    fn start(visit: &Visit<'_>, browser: Kind) -> Self {
        let profile = Profile::new();
        let mut command = contained(visit.scene.visitor(), profile.path());
        let address = visit.scene.v4();
        match browser {
            Kind::Firefox => {
                profile.prefer(address, "");
                profile.trust(&visit.authority());
                command
                    .args(["firefox-esr", "--headless", "--no-remote", "--profile"])
                    .arg(profile.path());
            }
            Kind::Chromium => {
                command.arg("chromium");
                chromium_flags(&mut command, &profile);
                command
                    .arg("--disable-quic")
                    // Whom it trusts changes no hello.
                    .arg("--ignore-certificate-errors")
                    .arg(format!("--host-resolver-rules=MAP *.example {address}"));
            }
        }
        command.arg(page::URL);
        Self {
            process: Process::spawn(&format!("{browser:?}"), command),
            _profile: profile,
        }
    }
}
