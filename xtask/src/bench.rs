//! `cargo xtask bench`: sets up, builds and runs the package `filter-bench`.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    bpf_build,
    packages::{self, Program},
    setup, shell,
};

/// What the other contenders need.
const PROGRAMS: [Program; 7] = [
    Program {
        name: "ip",
        package: "iproute2",
    },
    Program {
        name: "xdp-filter",
        package: "xdp-tools",
    },
    Program {
        name: "nft",
        package: "nftables",
    },
    Program {
        name: "ipset",
        package: "ipset",
    },
    Program {
        name: "iptables-legacy",
        package: "iptables",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
    },
    Program {
        name: "/usr/lib/nginx/modules/ngx_stream_module.so",
        package: "libnginx-mod-stream",
    },
];

/// Measures and writes `target/bench/report.json`, of all packets or of those whose name contains `case`;
/// `check` fails if a budget is missed.
pub(crate) fn run(quick: bool, check: bool, case: Option<&str>) -> Result<()> {
    if !shell::is_root() {
        bail!("not root: measuring loads programs into the kernel");
    }
    let toolchain = setup::ensure_toolchain()?;
    setup::ensure_programs()?;
    packages::ensure_programs(&PROGRAMS)?;
    bpf_build::object(&toolchain)?;
    let object = bpf_build::bench_object(&toolchain)?;
    // The load times are those of the binary as it is shipped.
    let packages = ["--package", "filter-user", "--package", "filter-bench"];
    shell::run(shell::cargo().args(["build", "--release"]).args(packages))?;
    let release = shell::root().join("target/release");
    let mut bench = Command::new(release.join("filter-bench"));
    bench
        .arg("--object")
        .arg(object)
        .arg("--edgefilter")
        .arg(release.join("edgefilter"))
        .arg("--output")
        .arg(shell::root().join("target/bench/report.json"));
    if quick {
        bench.arg("--quick");
    }
    if check {
        bench.arg("--check");
    }
    if let Some(case) = case {
        bench.args(["--case", case]);
    }
    shell::run(&mut bench)
}
