//! The embedded kernel program, and loading it with a generation's tables.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, Map, MapData, ProgramArray},
    programs::{ProgramError, Xdp},
};
use filter_common::{
    abi::{Rule, Table, feature},
    limits::{REDIRECT_TARGETS_MAX, RULES_MAX},
};
use sha2::{Digest as _, Sha256};

use super::{
    DatapathError,
    error::map_error,
    mapped::{self, Mapped},
    netdev,
    pod::Raw,
};
use crate::compile::{Compiled, Meta};

/// The object file of the kernel program.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EDGEFILTER_OBJECT"));

/// Name of the program in the object, and of the one that answers.
const PROGRAM: &str = "edgefilter";
const RESPOND: &str = "respond";

/// Maps that outlive a generation: pinned once, used by every program after.
pub(super) const SHARED: [&str; 4] = ["RULE_COUNTERS", "REASONS", "EVENTS", "EVENT_STATE"];

/// As [`SHARED`], and only where names are read: they are by far the largest maps.
pub(super) const STREAMS: [&str; 5] = ["FLOWS", "HELLOS", "LONG_HELLOS", "BLOCKED", DIRECTIONS];

/// Connections that pass through, by interface.
pub(super) const DIRECTIONS: &str = "DIRECTIONS";

/// As [`SHARED`], and only where frames are answered.
pub(super) const RESPONDING: [&str; 8] = [
    ANSWERS,
    TAKEN,
    TAKEN_PORTS,
    "TAKEN_HELLOS",
    "ORIGIN_CLIENTS",
    SINK,
    SINK_DEV,
    NEXT_HOPS,
];

/// Of [`RESPONDING`], those that user space reads or writes.
pub(super) const ANSWERS: &str = "ANSWERS";
pub(super) const TAKEN: &str = "TAKEN";
pub(super) const TAKEN_PORTS: &str = "TAKEN_PORTS";
pub(super) const SINK: &str = "SINK";
pub(super) const SINK_DEV: &str = "SINK_DEV";
pub(super) const NEXT_HOPS: &str = "NEXT_HOPS";

/// Connections that a process is to make sockets of: used by the programs at the block page only.
pub(super) const HANDOVERS: &str = "HANDOVERS";

/// The smallest ring buffer: a page.
pub(super) const RING_BYTES_MIN: u32 = 4_096;

/// Of [`RESPONDING`], those that are large.
const RESPONDING_LARGE: [&str; 3] = [TAKEN, "TAKEN_HELLOS", "ORIGIN_CLIENTS"];

/// Names of the maps of one generation beside its tables.
pub(super) const RULES: &str = "RULES";
pub(super) const LIVE: &str = "LIVE";
pub(super) const PORT_CLASS: &str = "PORT_CLASS";
pub(super) const REDIRECT: &str = "REDIRECT";
pub(super) const RESPONDER: &str = "RESPONDER";

/// Working areas of the program, one per processor.
pub(super) const WORK: &str = "WORK";

/// Names a file that receives the whole log of the verifier when it refuses the program.
const VERIFIER_LOG_ENV: &str = "EDGEFILTER_VERIFIER_LOG";
const VERIFIER_LINES_SHOWN: usize = 12;

/// Where a map of the program comes from, other than being made anew.
#[derive(Default)]
pub(super) struct Pins {
    /// Name of the map and path of the pin; made and pinned there if there is none yet.
    pub(super) by_name: Vec<(&'static str, PathBuf)>,
}

impl Pins {
    /// The shared maps in their directory, as far as this generation needs them.
    pub(super) fn shared(directory: &Path, compiled: &Compiled) -> Self {
        let streams: &[&str] = if reads_names(compiled) { &STREAMS } else { &[] };
        let responding: &[&str] = if responds(compiled) { &RESPONDING } else { &[] };
        Self {
            by_name: SHARED
                .iter()
                .chain(streams)
                .chain(responding)
                .map(|&name| (name, directory.join(name)))
                .collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.by_name.iter().any(|(pinned, _)| *pinned == name)
    }
}

/// Whether this generation follows streams, so that [`STREAMS`] must have their full size.
pub(super) fn reads_names(compiled: &Compiled) -> bool {
    compiled.config.features & (feature::NAMES | feature::READ_NAMES) != 0
}

/// Whether this generation answers frames, so that [`RESPONDING`] must have their full size.
pub(super) fn responds(compiled: &Compiled) -> bool {
    compiled.config.features & feature::RESPOND != 0
}

/// A program with its maps in the kernel and filled, not attached.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// Whether there is a program that answers.
    responds: bool,
    /// How long the kernel took to verify and translate the program.
    pub(super) load_time: Duration,
}

impl Loaded {
    /// Has the kernel verify and translate the program: nearly all the time of a change.
    pub(super) fn verify(&mut self) -> Result<(), DatapathError> {
        let begin = Instant::now();
        self.program()?.load().map_err(load_error)?;
        if self.responds {
            self.add_responder()?;
        }
        self.load_time = begin.elapsed();
        Ok(())
    }

    /// Loads the program that answers, and puts it where the other one finds it: there it stays as long as
    /// somebody holds the map, or its pin.
    fn add_responder(&mut self) -> Result<(), DatapathError> {
        let responder = program(&mut self.ebpf, RESPOND)?;
        responder.load().map_err(load_error)?;
        let fd = responder
            .fd()
            .and_then(|fd| Ok(fd.try_clone()?))
            .map_err(|source| DatapathError::Program {
                action: "find the program that answers",
                source,
            })?;
        let map_error = map_error(RESPONDER);
        let map = self
            .ebpf
            .map_mut(RESPONDER)
            .ok_or_else(|| missing(RESPONDER))?;
        let mut programs: ProgramArray<_> = map.try_into().map_err(map_error)?;
        programs.set(0, &fd, 0).map_err(map_error)
    }

    /// The program.
    pub(super) fn program(&mut self) -> Result<&mut Xdp, DatapathError> {
        program(&mut self.ebpf, PROGRAM)
    }

    /// A map of the program.
    pub(super) fn map(&self, name: &str) -> Result<&Map, DatapathError> {
        self.ebpf.map(name).ok_or_else(|| missing(name))
    }

    /// A map of the program, to keep.
    pub(super) fn take_map(&mut self, name: &str) -> Result<Map, DatapathError> {
        self.ebpf.take_map(name).ok_or_else(|| missing(name))
    }
}

/// SHA-256 of the embedded object, in hexadecimal: tells programs of different builds apart.
pub fn digest() -> String {
    hex(&Sha256::digest(OBJECT))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Makes the maps and fills them; the program is not verified yet. Tables named in `pins` are taken
/// from there as they are and not written.
pub(super) fn prepare(compiled: &Compiled, pins: &Pins) -> Result<Loaded, DatapathError> {
    check_fit(compiled)?;
    let config = Raw(compiled.config);
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", &config, true);
    for (table, lines) in Table::ALL.iter().zip(&compiled.tables) {
        loader.map_max_entries(table.name(), lines.len() as u32);
    }
    loader.map_max_entries(RULES, 2 * compiled.rules.len() as u32);
    loader.map_max_entries(WORK, processors()? as u32);
    if !reads_names(compiled) {
        // The program refers to them, and never gets there.
        for name in STREAMS {
            loader.map_max_entries(name, 1);
        }
    }
    loader.map_max_entries(HANDOVERS, RING_BYTES_MIN);
    if !responds(compiled) {
        for name in RESPONDING_LARGE {
            loader.map_max_entries(name, 1);
        }
    }
    for (name, path) in &pins.by_name {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| DatapathError::Object {
            source: Box::new(source),
        })?;

    for (table, lines) in Table::ALL.iter().zip(&compiled.tables) {
        if !pins.has(table.name()) {
            fill(&ebpf, table.name(), lines)?;
        }
    }
    let both: Vec<Rule> = compiled.rules.iter().flat_map(|rule| [*rule; 2]).collect();
    fill(&ebpf, RULES, &both)?;
    fill(&ebpf, LIVE, &[compiled.config.generation])?;
    if !pins.has(PORT_CLASS) {
        fill(&ebpf, PORT_CLASS, std::slice::from_ref(&*compiled.ports))?;
    }
    if !pins.has(REDIRECT) {
        set_redirects(
            &mut ebpf,
            &compiled.redirect_interfaces,
            &compiled.next_hop_devices,
        )?;
    }
    Ok(Loaded {
        ebpf,
        responds: responds(compiled),
        load_time: Duration::ZERO,
    })
}

/// How many processors the kernel may ever use: what its per-CPU maps are sized for.
pub(super) fn processors() -> Result<usize, DatapathError> {
    aya::util::nr_cpus().map_err(|(_, source)| DatapathError::Kernel {
        action: "count the processors".to_owned(),
        source,
    })
}

/// Whether the tables of a pinned map are exactly these lines.
pub(super) fn same_lines(path: &Path, lines: &[filter_common::abi::Line]) -> bool {
    Mapped::open::<filter_common::abi::Line>(path).is_ok_and(|pinned| pinned.equals(lines))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DatapathError> {
    ebpf.program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|source| DatapathError::Program {
            action: "find the program",
            source,
        })
}

pub(super) fn missing(name: &str) -> DatapathError {
    DatapathError::Unfit {
        problem: format!("the kernel program has no map {name}"),
    }
}

fn check_fit(compiled: &Compiled) -> Result<(), DatapathError> {
    let unfit = |problem| Err(DatapathError::Unfit { problem });
    if compiled.rules.is_empty() || compiled.rules.len() > RULES_MAX {
        return unfit(format!(
            "{} rule slots (1 to {RULES_MAX} are possible)",
            compiled.rules.len()
        ));
    }
    if compiled.redirect_interfaces.len() > REDIRECT_TARGETS_MAX {
        return unfit(format!(
            "rules redirect to {} interfaces, at most {REDIRECT_TARGETS_MAX} are possible",
            compiled.redirect_interfaces.len()
        ));
    }
    for (table, lines) in Table::ALL.iter().zip(&compiled.tables) {
        // The kernel's array takes a u32 of elements and an int of bytes per memory map.
        if lines.is_empty() || lines.len() > u32::MAX as usize / size_of_val(&lines[0]) {
            return unfit(format!("table {} has {} lines", table.name(), lines.len()));
        }
    }
    Ok(())
}

fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, DatapathError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(missing(name)),
    }
}

fn fill<T: mapped::Element>(ebpf: &Ebpf, name: &str, elements: &[T]) -> Result<(), DatapathError> {
    mapped::fill(array(ebpf, name)?.fd(), name, elements)
}

/// Key of the redirect map for the interface of a next hop: they count from the end.
pub(super) fn next_hop_key(number: u32) -> u32 {
    (REDIRECT_TARGETS_MAX as u32 - 1).saturating_sub(number)
}

fn set_redirects(
    ebpf: &mut Ebpf,
    interfaces: &[String],
    next_hops: &[(u32, u32)],
) -> Result<(), DatapathError> {
    let Some(map) = ebpf.map_mut(REDIRECT) else {
        return match interfaces {
            [] => Ok(()),
            _ => Err(missing(REDIRECT)),
        };
    };
    let map_error = map_error(REDIRECT);
    let mut devices: DevMap<_> = map.try_into().map_err(map_error)?;
    let mut set = |key, ifindex, what: &str| {
        devices
            .set(key, ifindex, None, 0)
            .map_err(|error| DatapathError::Kernel {
                action: format!("make {what} a redirect target"),
                source: std::io::Error::other(error),
            })
    };
    for (key, interface) in (0u32..).zip(interfaces) {
        set(key, netdev::index(interface)?, &format!("`{interface}`"))?;
    }
    for (number, ifindex) in next_hops {
        set(
            next_hop_key(*number),
            *ifindex,
            "the interface of a next hop",
        )?;
    }
    Ok(())
}

/// Targets of a pinned redirect map that lead nowhere.
pub(super) fn lost_redirects(path: &Path, meta: &Meta) -> Result<Vec<String>, DatapathError> {
    let map_error = map_error(REDIRECT);
    let interfaces = &meta.redirect_interfaces;
    if interfaces.is_empty() {
        return Ok(Vec::new());
    }
    let data = MapData::from_pin(path).map_err(map_error)?;
    let devices: DevMap<MapData> = Map::from_map_data(data)
        .and_then(TryInto::try_into)
        .map_err(map_error)?;
    let lost = (0u32..).zip(interfaces).filter(|(key, interface)| {
        let there = devices.get(*key, 0).ok().map(|device| device.if_index);
        there.is_none() || there != netdev::index(interface).ok()
    });
    Ok(lost.map(|(_, interface)| interface.clone()).collect())
}

pub(super) fn load_error(error: ProgramError) -> DatapathError {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return DatapathError::Program {
            action: "load the program",
            source: error,
        };
    };
    let log = verifier_log.to_string();
    if let Some(path) = std::env::var_os(VERIFIER_LOG_ENV)
        && let Err(error) = std::fs::write(&path, &log)
    {
        tracing::error!(path = %Path::new(&path).display(), %error, "cannot write the verifier's log");
    }
    let lines: Vec<&str> = log.lines().collect();
    let summary = lines[lines.len().saturating_sub(VERIFIER_LINES_SHOWN)..].join("\n");
    DatapathError::Verifier {
        summary,
        log,
        source: io_error,
    }
}
