//! Debian packages: installed only when missing, without starting any daemon.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{shell, vm::mirror::Mirror};

/// A program and the Debian package that has it.
pub(crate) struct Program {
    /// Name in `PATH`, or a path.
    pub name: &'static str,
    /// Package to install when it is not there.
    pub package: &'static str,
}

/// What tests and demo call.
pub(crate) const PROGRAMS: [Program; 5] = [
    Program {
        name: "ip",
        package: "iproute2",
    },
    Program {
        name: "curl",
        package: "curl",
    },
    Program {
        name: "openssl",
        package: "openssl",
    },
    Program {
        name: "nginx",
        package: "nginx-light",
    },
    Program {
        name: "python3",
        package: "python3",
    },
];

/// The browser that makes pictures.
pub(crate) const BROWSER: Program = Program {
    name: "chromium",
    package: "chromium",
};

/// What tests call besides: real clients.
pub(crate) const TEST_PROGRAMS: [Program; 6] = [
    Program {
        name: "java",
        package: "openjdk-17-jdk-headless",
    },
    Program {
        name: "go",
        package: "golang-go",
    },
    BROWSER,
    Program {
        name: "firefox-esr",
        package: "firefox-esr",
    },
    Program {
        name: "certutil",
        package: "libnss3-tools",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
    },
];

/// What fuzzing needs beside Rust: libFuzzer is C++.
pub(crate) const FUZZ_PROGRAMS: [Program; 1] = [Program {
    name: "c++",
    package: "g++",
}];

/// What running other kernels needs.
pub(crate) const VM_PROGRAMS: [Program; 4] = [
    Program {
        name: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Program {
        name: "busybox",
        package: "busybox-static",
    },
    Program {
        name: "ip",
        package: "iproute2",
    },
    Program {
        name: "objcopy",
        package: "binutils",
    },
];

/// Debian asks this script whether a freshly installed daemon may start.
const POLICY_SCRIPT: &str = "/usr/sbin/policy-rc.d";

/// Installs the packages of those programs that are not in `PATH`; says what it installs.
pub(crate) fn ensure_programs(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| shell::which(program.name).is_none())
        .map(|program| program.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Whether this is Debian itself: derivatives lack some of the packages.
pub(crate) fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian")
}

/// Installs packages by apt; never removes one that is installed.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if shell::which("apt-get").is_none() {
        bail!("this machine has no apt-get: install what Debian calls {list}, then try again");
    }
    if !shell::is_root() {
        bail!("not root: run `apt-get install {list}` as root, then try again");
    }
    println!("setup: installing {list}");
    let _no_daemons = NoDaemons::install()?;
    apt(&["update", "--quiet=2"])?;
    let install = [
        "install",
        "--quiet=2",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
    ];
    let Err(error) = apt(&[&install, packages].concat()) else {
        return Ok(());
    };
    // A package that comes from the release's backports keeps out what only fits its older version.
    let from_backports = || -> Result<()> {
        let suite = format!(
            "{}-backports",
            codename().context("a Debian without a codename")?
        );
        let release = suite.trim_end_matches("-backports");
        let mirror = Mirror::update(&[release, &suite])?;
        let options: Vec<&str> = mirror.options().iter().map(String::as_str).collect();
        apt(&[
            &options,
            &install[..],
            &["--target-release", &suite],
            packages,
        ]
        .concat())
    };
    from_backports().map_err(|of_backports| {
        error.context(format!(
            "cannot install {list}, nor from backports ({of_backports:#}); --no-remove keeps apt from replacing \
             other packages"
        ))
    })
}

/// Codename of this release.
fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = shell::command("apt-get");
    let output = shell::output(
        command
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "`{}` ended with {}:\n{}",
            shell::line(&command),
            output.status,
            String::from_utf8_lossy(&said).trim()
        );
    }
    Ok(())
}

/// While it lives, installed daemons do not start. Leaves an administrator's own script alone.
struct NoDaemons {
    created: Option<PathBuf>,
}

impl NoDaemons {
    fn install() -> Result<Self> {
        let script = Path::new(POLICY_SCRIPT);
        if script.exists() {
            return Ok(Self { created: None });
        }
        fs::write(script, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(script, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY_SCRIPT}"))?;
        Ok(Self {
            created: Some(script.to_owned()),
        })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let Some(script) = &self.created else { return };
        if let Err(error) = fs::remove_file(script) {
            eprintln!("warning: cannot remove {POLICY_SCRIPT}: {error}");
        }
    }
}
