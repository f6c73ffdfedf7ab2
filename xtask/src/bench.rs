//! `cargo xtask bench`: sets up, builds and runs the package `filter-bench`.

use anyhow::{Result, bail};

use crate::{
    bpf_build,
    packages::{self, Program},
    setup, shell,
};

/// What the other contender needs.
const PROGRAMS: [Program; 2] = [
    Program {
        name: "ip",
        package: "iproute2",
    },
    Program {
        name: "xdp-filter",
        package: "xdp-tools",
    },
];

/// Measures and writes `target/bench/report.json`.
pub(crate) fn run(quick: bool) -> Result<()> {
    if !shell::is_root() {
        bail!("not root: measuring loads programs into the kernel");
    }
    let toolchain = setup::ensure_toolchain()?;
    setup::ensure_programs()?;
    packages::ensure_programs(&PROGRAMS)?;
    let object = bpf_build::object(&toolchain)?;
    let mut cargo = shell::cargo();
    cargo
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "filter-bench",
            "--",
            "--object",
        ])
        .arg(object)
        .arg("--output")
        .arg(shell::root().join("target/bench/report.json"));
    if quick {
        cargo.arg("--quick");
    }
    shell::run(&mut cargo)
}
