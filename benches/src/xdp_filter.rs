//! xdp-filter of the xdp-tools project, loaded by its own program on a veth in a namespace.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{maps::MapInfo, programs::Xdp};
use aya_obj::programs::XdpAttachType;
use filter_tests::net::Namespace;

use crate::{
    cases::Case,
    contender::{Contender, Facts, run_xdp},
};

/// Where xdp-filter pins its maps and programs, whatever the namespace.
const PINS: &str = "/sys/fs/bpf/xdp-filter";
const INTERFACE: &str = "bench0";

/// The loaded program; dropping it unloads it and removes the namespace.
pub(crate) struct XdpFilter {
    program: Xdp,
    _loaded: Loaded,
}

/// The interface with xdp-filter on it.
struct Loaded {
    namespace: Namespace,
}

impl XdpFilter {
    /// Blocks these addresses as sources, everything else passes.
    pub(crate) fn load(sources: &[Ipv4Addr]) -> Result<Self> {
        if Path::new(PINS).exists() {
            bail!(
                "{PINS} exists: xdp-filter is in use on this machine, and it pins all to one place"
            );
        }
        let namespace = Namespace::new("bench");
        namespace.veth(INTERFACE, &namespace, "bench1");
        let loaded = Loaded { namespace };
        loaded.call(&["load", "--mode", "native", INTERFACE])?;
        for source in sources {
            loaded.call(&["ip", "--mode", "src", &source.to_string()])?;
        }
        let program = Xdp::from_pin(pinned_program()?, XdpAttachType::Interface)
            .context("cannot open the program that xdp-filter has pinned")?;
        Ok(Self {
            program,
            _loaded: loaded,
        })
    }
}

impl Loaded {
    fn call(&self, arguments: &[&str]) -> Result<()> {
        let mut command: Command = self.namespace.command("xdp-filter");
        let output = command
            .args(arguments)
            .output()
            .context("cannot start xdp-filter")?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            bail!(
                "`xdp-filter {}` ended with {}: {said}",
                arguments.join(" "),
                output.status
            );
        }
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.call(&["unload", INTERFACE]) {
            eprintln!("warning: xdp-filter was not unloaded: {error:#}");
        }
    }
}

impl Contender for XdpFilter {
    fn name(&self) -> &'static str {
        "xdp-filter"
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        run_xdp(&self.program, frame, repeat)
    }

    fn expected(&self, case: Case) -> Option<u32> {
        Some(case.action_by_address())
    }

    fn facts(&mut self) -> Facts {
        let Ok(info) = self.program.info() else {
            return Facts::default();
        };
        let maps = info.map_ids().ok().flatten();
        Facts {
            verified_instructions: info.verified_instruction_count(),
            load_us: None,
            map_bytes: maps.map(|ids| ids.into_iter().filter_map(map_memory).sum()),
        }
    }
}

/// The only file below xdp-filter's folder of programs.
fn pinned_program() -> Result<PathBuf> {
    let mut path = Path::new(PINS).join("programs").join(INTERFACE);
    while path.is_dir() {
        let mut entries =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let entry = entries
            .next()
            .with_context(|| format!("{} is empty", path.display()))?;
        path = entry
            .with_context(|| format!("cannot read {}", path.display()))?
            .path();
    }
    Ok(path)
}

fn map_memory(id: u32) -> Option<u64> {
    let descriptor = MapInfo::from_id(id).ok()?.fd().ok()?;
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}
