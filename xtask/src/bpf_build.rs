//! `cargo xtask build`: the kernel program, then the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    setup, shell,
    toolchain::{TARGET, Toolchain},
};

/// The package of the kernel programs.
const PACKAGE: &str = "filter-ebpf";

/// Its binaries, and the object files that they become in `target/bpf/`.
const FILTER: (&str, &str) = ("edgefilter-bpf", "edgefilter.o");
const BENCH: (&str, &str) = ("edgefilter-bench-bpf", "bench.o");

/// The profile in the workspace's manifest.
const PROFILE: &str = "bpf";

/// Builds everything; cargo decides what is out of date.
pub(crate) fn run(release: bool) -> Result<()> {
    let object = object(&setup::ensure_toolchain()?)?;
    println!(
        "build: {}",
        object
            .strip_prefix(shell::root())
            .unwrap_or(&object)
            .display()
    );
    let mut cargo = shell::cargo();
    cargo.arg("build");
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)
}

/// Builds the kernel program and returns `target/bpf/edgefilter.o`, whose time of modification
/// changes only with its content.
pub(crate) fn object(toolchain: &Toolchain) -> Result<PathBuf> {
    build_one(toolchain, FILTER)
}

/// Builds the programs of the benchmark and returns `target/bpf/bench.o`.
pub(crate) fn bench_object(toolchain: &Toolchain) -> Result<PathBuf> {
    build_one(toolchain, BENCH)
}

fn build_one(toolchain: &Toolchain, (binary, object): (&str, &str)) -> Result<PathBuf> {
    shell::run(for_kernel(toolchain, toolchain.cargo(), "build").args([
        "--profile",
        PROFILE,
        "--bin",
        binary,
    ]))
    .with_context(|| format!("cannot build the kernel program {binary}"))?;
    let built = build_dir().join(TARGET).join(PROFILE).join(binary);
    let object = shell::root().join("target/bpf").join(object);
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Clippy of the kernel program, warnings as errors. Not of `filter-common`, which the host's
/// clippy checks: this one is of another release, with other opinions.
pub(crate) fn clippy(toolchain: &Toolchain) -> Result<()> {
    shell::run(for_kernel(toolchain, toolchain.clippy(), "clippy").args([
        "--quiet",
        "--no-deps",
        "--profile",
        PROFILE,
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Gives the kernel program a target folder of its own, so that it does not wait for the lock of
/// the host's build.
fn for_kernel(toolchain: &Toolchain, mut cargo: Command, subcommand: &str) -> Command {
    let linker = format!("linker={}", toolchain.linker.display());
    let flags = [
        "-C",
        "debuginfo=2",
        "-C",
        "link-arg=--btf",
        "-C",
        "target-cpu=v3",
        "-C",
        &linker,
    ];
    cargo
        .args([
            subcommand,
            "--package",
            PACKAGE,
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(build_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo
}

fn build_dir() -> PathBuf {
    shell::root().join("target/bpf-build")
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}
