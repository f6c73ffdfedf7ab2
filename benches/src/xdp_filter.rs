//! xdp-filter of the xdp-tools project, loaded by its own program on a veth in a namespace.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Map, MapData, MapInfo, PerCpuHashMap},
    programs::Xdp,
};
use aya_obj::programs::XdpAttachType;
use filter_tests::net::Namespace;

use crate::{
    cases::Place,
    contender::{Contender, Facts, Kind, Knows, descriptor},
};

/// Where xdp-filter pins its maps and programs, whatever the namespace.
const PINS: &str = "/sys/fs/bpf/xdp-filter";

/// The interface that it stands on, and the other end of the pair, in the same namespace.
pub(crate) const INTERFACE: &str = "bench0";
pub(crate) const PEER: &str = "bench1";

/// Addresses that it holds.
pub(crate) const ENTRIES_MAX: usize = 10_000;

/// The loaded program; dropping it unloads it and removes the namespace.
pub(crate) struct XdpFilter {
    program: Xdp,
    loaded: Loaded,
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
        namespace.veth(INTERFACE, &namespace, PEER);
        let loaded = Loaded { namespace };
        loaded.call(&["load", "--mode", "native", INTERFACE])?;
        if let Some((first, others)) = sources.split_first() {
            loaded.call(&["ip", "--mode", "src", &first.to_string()])?;
            block_like(*first, others).context("cannot fill xdp-filter's map")?;
        }
        let program = Xdp::from_pin(pinned_program()?, XdpAttachType::Interface)
            .context("cannot open the program that xdp-filter has pinned")?;
        Ok(Self { program, loaded })
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

impl XdpFilter {
    /// Where it filters.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.loaded.namespace
    }

    /// It, to be put behind the mutator.
    pub(crate) fn contender(&self, blocks: Vec<Ipv4Addr>) -> Result<Contender> {
        let info = self.program.info()?;
        let maps = info.map_ids().ok().flatten();
        Ok(Contender {
            name: "xdp-filter",
            entries: blocks.len(),
            kind: Kind::Linear,
            knows: Knows::Addresses,
            place: Place::Server,
            program: descriptor(&self.program)?,
            facts: Facts {
                map_bytes: maps.map(|ids| ids.into_iter().filter_map(map_memory).sum()),
                ..Facts::of(&self.program)
            },
            blocks: Some(blocks),
        })
    }
}

/// Gives further addresses the value that xdp-filter's own command has given the first: a command
/// for each would take minutes.
fn block_like(first: Ipv4Addr, others: &[Ipv4Addr]) -> Result<()> {
    let map = MapData::from_pin(Path::new(PINS).join("filter_ipv4"))?;
    let mut map: PerCpuHashMap<_, [u8; 4], u64> = Map::PerCpuHashMap(map).try_into()?;
    for other in others {
        let value = map.get(&first.octets(), 0)?;
        map.insert(other.octets(), value, 0)?;
    }
    Ok(())
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
