//! `cargo xtask setup`: everything that building, testing and showing need.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    packages::{self, FUZZ_PROGRAMS, PROGRAMS, TEST_PROGRAMS},
    shell,
    toolchain::{self, Toolchain},
};

/// Where the kernel's BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// Installs what is missing and says what was chosen.
pub(crate) fn run() -> Result<()> {
    let toolchain = ensure_toolchain()?;
    println!("BPF compiler  {}", toolchain.rustc.display());
    println!("BPF linker    {}", toolchain.linker.display());
    ensure_programs()?;
    packages::ensure_programs(&TEST_PROGRAMS)?;
    packages::ensure_programs(&FUZZ_PROGRAMS)?;
    for program in PROGRAMS.iter().chain(&TEST_PROGRAMS).chain(&FUZZ_PROGRAMS) {
        if let Some(path) = shell::which(program.name) {
            println!("{:<13} {}", program.name, path.display());
        }
    }
    println!(
        "{:<13} {}",
        "bpffs",
        if is_mounted()? {
            BPFFS
        } else {
            "not mounted: not root"
        }
    );
    Ok(())
}

/// The toolchain, installed if there is none.
pub(crate) fn ensure_toolchain() -> Result<Toolchain> {
    if let Some(found) = toolchain::find(&mut |line| println!("setup: {line}"))? {
        return Ok(found);
    }
    toolchain::install()?;
    toolchain::require().context("the toolchain that setup installed does not work")
}

/// The programs of tests and demo, and a mounted bpffs.
pub(crate) fn ensure_programs() -> Result<()> {
    packages::ensure_programs(&PROGRAMS)?;
    if shell::is_root() && !is_mounted()? {
        shell::run(shell::command("mount").args(["-t", "bpf", "bpf", BPFFS]))
            .with_context(|| format!("cannot mount the BPF file system at {BPFFS}"))?;
    }
    Ok(())
}

fn is_mounted() -> Result<bool> {
    let mounts = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(mounts).context("cannot read /proc/self/mounts")?;
    Ok(text.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    }))
}
