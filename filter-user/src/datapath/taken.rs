//! Connections that are answered in the server's place, and what became of frames that were to be
//! answered.

use std::{sync::atomic::Ordering, time::Duration};

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use filter_common::{
    abi::{FlowKey, Taken},
    respond::counted::Answer,
};

use super::{
    DatapathError, Root,
    error::map_error,
    mapped::Writable,
    object::{ANSWERS, TAKEN, TAKEN_PORTS},
    pod::Raw,
    sink::LATE_RESETS_AT,
    sys,
};

/// For each 64 ports a word, twice: a port's bit in either has segments from it looked up.
type Ports = [u64; 2 * 1024];

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sweep {
    /// Connections that stay.
    pub kept: usize,
    /// Connections that were idle too long, and forgotten.
    pub removed: usize,
}

pub(super) type Connections = HashMap<MapData, Raw<FlowKey>, Raw<Taken>>;

impl Root {
    /// Forgets connections that were idle for longer than `idle_max`, and clears the ports' bits that none
    /// is left for. To be called every few seconds: a bit that is set makes segments slower, by a lookup.
    ///
    /// # Errors
    ///
    /// The maps could not be read, for instance since nothing is answered by the generation in place.
    pub fn sweep_taken(&self, idle_max: Duration) -> Result<Sweep, DatapathError> {
        let mut connections = self.taken_map()?;
        let ports = Writable::open::<Ports>(&self.shared_dir().join(TAKEN_PORTS))?;
        begin_ports(&ports);
        // A packet under way may have set its bits before, and store its entry later.
        if !sys::membarrier() {
            std::thread::sleep(GRACE);
        }
        let now = monotonic_s();
        let mut sweep = Sweep::default();
        let mut idle = Vec::new();
        for entry in connections.iter() {
            let (key, taken) = entry.map_err(map_error(TAKEN))?;
            let age = now.wrapping_sub(taken.0.used).cast_signed();
            if i64::from(age) > idle_max.as_secs().cast_signed() {
                idle.push(key);
            } else {
                sweep.kept += 1;
                note_port(&ports, key.0.src_port);
            }
        }
        for key in idle {
            // Evicted meanwhile.
            let _ = connections.remove(&key);
            sweep.removed += 1;
        }
        end_ports(&ports);
        Ok(sweep)
    }

    /// How many frames were answered in which way, by [`Answer`]; zeros if nothing ever was.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn answers(&self) -> Result<Vec<(Answer, u64)>, DatapathError> {
        let path = self.shared_dir().join(ANSWERS);
        if !path.exists() {
            return Ok(Answer::ALL.iter().map(|answer| (*answer, 0)).collect());
        }
        let data = MapData::from_pin(path).map_err(map_error(ANSWERS))?;
        let map: PerCpuArray<MapData, [u64; 32]> = Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error(ANSWERS))?;
        let by_cpu = map.get(&0, 0).map_err(map_error(ANSWERS))?;
        let late_resets = self.late_resets();
        let sum = |answer: Answer| match answer {
            Answer::LateReset => late_resets,
            _ => by_cpu.iter().map(|counts| counts[answer as usize]).sum(),
        };
        Ok(Answer::ALL
            .iter()
            .map(|answer| (*answer, sum(*answer)))
            .collect())
    }

    /// Counted by controllers, not by the kernel programs.
    fn late_resets(&self) -> u64 {
        let map = self.sink_map().ok();
        let count = map.as_ref().and_then(|map| map.words().get(LATE_RESETS_AT));
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn taken_map(&self) -> Result<Connections, DatapathError> {
        let data = MapData::from_pin(self.shared_dir().join(TAKEN)).map_err(map_error(TAKEN))?;
        Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error(TAKEN))
    }
}

/// As in a change of generations: packets take microseconds.
const GRACE: Duration = Duration::from_millis(50);

/// Clears all second bits, and leaves all that were set to the first ones. The kernel programs set both, so that
/// none of a connection is missing at any time, also one that begins now.
fn begin_ports(ports: &Writable) {
    for [first, second] in ports.words().as_chunks().0 {
        first.fetch_or(second.load(Ordering::SeqCst), Ordering::SeqCst);
        second.store(0, Ordering::SeqCst);
    }
}

/// Notes that there is a connection from this port.
fn note_port(ports: &Writable, port: u16) {
    if let Some([_, second]) = ports.words().as_chunks().0.get(usize::from(port / 64)) {
        second.fetch_or(1 << (port % 64), Ordering::SeqCst);
    }
}

/// Clears the first bits of which the second ones were not set since [`begin_ports`].
fn end_ports(ports: &Writable) {
    for [first, second] in ports.words().as_chunks().0 {
        first.fetch_and(second.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Seconds of CLOCK_MONOTONIC, as the kernel programs have them.
pub(super) fn monotonic_s() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u32)
}
