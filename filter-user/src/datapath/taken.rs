//! Connections that are answered in the server's place, and what became of frames that were to be
//! answered.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

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

/// A bit for each port.
type Ports = [u64; 1024];

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
        let now = monotonic_s();
        let mut sweep = Sweep::default();
        let mut used = HashSet::new();
        let mut idle = Vec::new();
        for entry in connections.iter() {
            let (key, taken) = entry.map_err(map_error(TAKEN))?;
            let age = now.wrapping_sub(taken.0.used).cast_signed();
            if i64::from(age) > idle_max.as_secs().cast_signed() {
                idle.push(key);
            } else {
                sweep.kept += 1;
                used.insert(key.0.src_port);
            }
        }
        for key in idle {
            // Evicted meanwhile.
            let _ = connections.remove(&key);
            sweep.removed += 1;
        }
        clear_ports(&ports, &used);
        // A packet under way may have set its bit before, and store its entry after the look above.
        if !sys::membarrier() {
            std::thread::sleep(GRACE);
        }
        for entry in connections.keys() {
            set_port(&ports, entry.map_err(map_error(TAKEN))?.0.src_port);
        }
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

fn clear_ports(ports: &Writable, used: &HashSet<u16>) {
    for (index, word) in (0u16..).zip(ports.words().iter().take(1024)) {
        let keep = (0..64u16)
            .filter(|bit| used.contains(&(index * 64 + bit)))
            .fold(0u64, |keep, bit| keep | 1 << bit);
        word.fetch_and(keep, Ordering::SeqCst);
    }
}

fn set_port(ports: &Writable, port: u16) {
    if let Some(word) = ports.words().get(usize::from(port / 64)) {
        word.fetch_or(1 << (port % 64), Ordering::SeqCst);
    }
}

/// Seconds of CLOCK_MONOTONIC, as the kernel programs have them.
pub(super) fn monotonic_s() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u32)
}
