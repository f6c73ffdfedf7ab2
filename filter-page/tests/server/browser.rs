//! Headless Chromium: what people see. The pictures stay in `target/`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::kit::{BLOCKED, Served};

#[test]
fn chromium_shows_the_page_in_style_and_in_the_visitors_language() {
    let served = Served::start();
    let dom = chromium(&served, &["--dump-dom", "--accept-lang=de-DE,de"]);
    let html = String::from_utf8_lossy(&dom.stdout);
    for said in [
        "Diese Seite ist gesperrt",
        "Gesperrt zum Schutz von Leben",
        BLOCKED,
        "District Court",
    ] {
        assert!(
            html.contains(said),
            "{said} in {html}{}",
            String::from_utf8_lossy(&dom.stderr)
        );
    }

    for (file, arguments) in [
        ("block-page-light.png", &["--window-size=1000,900"][..]),
        (
            "block-page-phone-dark.png",
            &[
                "--window-size=500,900",
                "--blink-settings=preferredColorScheme=0",
                "--accept-lang=de-DE,de",
            ],
        ),
    ] {
        let picture = pictures().join(file);
        let screenshot = format!("--screenshot={}", picture.display());
        let output = chromium(&served, &[arguments, &[&screenshot]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            picture.metadata().is_ok_and(|file| file.len() > 5000),
            "a picture: {said}"
        );
        assert!(
            !said.contains("Content Security Policy"),
            "the style is let in: {said}"
        );
    }
}

/// Its processes end with it, in a namespace of their own.
fn chromium(served: &Served, arguments: &[&str]) -> Output {
    let profile = tempfile::tempdir().expect("a directory");
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args([
            "timeout",
            "60",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        .args([
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-breakpad",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--hide-scrollbars",
        ])
        .arg("--ignore-certificate-errors")
        .arg(format!(
            "--host-resolver-rules=MAP *.example {}",
            served.address()
        ))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("https://{BLOCKED}/"))
        .env("HOME", profile.path())
        .env("TMPDIR", profile.path())
        .output();
    output.expect("unshare")
}

fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target/");
    target.to_owned()
}
