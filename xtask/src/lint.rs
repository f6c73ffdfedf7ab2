//! `cargo xtask lint`.

use anyhow::{Context as _, Result, bail};

use crate::{bpf_build, packages, rules, setup, shell, toolchain::Toolchain};

/// Debian's clippy for its rustc-web.
const DEBIAN_CLIPPY: &str = "rust-web-clippy";

/// Formatting, clippy for host and BPF, and the repository's own rules.
pub(crate) fn run() -> Result<()> {
    println!("lint: formatting");
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
        .context("not formatted: run `cargo fmt --all`")?;
    println!("lint: rules of this repository");
    rules::check()?;
    let toolchain = setup::ensure_toolchain()?;
    ensure_clippy(&toolchain)?;
    println!("lint: clippy of the kernel program");
    bpf_build::clippy(&toolchain)?;
    println!("lint: clippy of everything else");
    bpf_build::object(&toolchain)?;
    shell::run(shell::cargo().args([
        "clippy",
        "--quiet",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    println!("lint: clean");
    Ok(())
}

fn ensure_clippy(toolchain: &Toolchain) -> Result<()> {
    if toolchain.has_clippy() {
        return Ok(());
    }
    if !toolchain.is_debian() {
        bail!(
            "{} has no clippy beside it: `rustup component add clippy` for that toolchain",
            toolchain.rustc.display()
        );
    }
    packages::install(&[DEBIAN_CLIPPY])
}
