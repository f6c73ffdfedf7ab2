//! Reading counters: per processor in the kernel, summed here.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
};

use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues},
    programs::ProgramInfo,
};
use filter_common::{
    abi::{Directions, RuleCounters},
    reason::Reason,
};

use super::{
    DatapathError, Root, error::map_error, install::PROGRAM, object::DIRECTIONS, pod::Raw,
    root::entries, stored::Stored, sys,
};

/// Name of the shared map.
pub(super) const RULE_COUNTERS: &str = "RULE_COUNTERS";

/// Packets by reason, indexed by [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonCounters(pub [u64; 64]);

impl ReasonCounters {
    /// Packets with this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }
}

/// What became of sampled events since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct EventLosses {
    /// Not emitted because of the rate limit.
    pub suppressed: u64,
    /// Not emitted because the ring was full.
    pub lost: u64,
}

/// What the program in place costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// Bytes of memory of the generation's maps and the shared ones.
    pub map_bytes: u64,
    /// Instructions that the verifier went through.
    pub verified_instructions: Option<u32>,
    /// Microseconds that verification and translation took.
    pub load_us: u64,
}

impl Root {
    /// Packets by reason since the maps were made.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there are no maps.
    pub fn reason_counters(&self) -> Result<ReasonCounters, DatapathError> {
        sum_reasons(&self.shared_array("REASONS")?)
    }

    /// Counters of these rule slots, in their order.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there are no maps.
    pub fn rule_counters(
        &self,
        slots: impl IntoIterator<Item = u16>,
    ) -> Result<Vec<RuleCounters>, DatapathError> {
        let map = self.rule_counters_map()?;
        slots.into_iter().map(|slot| sum_rule(&map, slot)).collect()
    }

    pub(super) fn rule_counters_map(
        &self,
    ) -> Result<PerCpuArray<MapData, Raw<RuleCounters>>, DatapathError> {
        self.shared_array(RULE_COUNTERS)
    }

    /// Connections that pass through, by the index of the interface that the client's payload came in
    /// on; none before names are read.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn directions(&self) -> Result<Vec<(u32, Directions)>, DatapathError> {
        let path = self.shared_dir().join(DIRECTIONS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        self.check_abi()?;
        let error = map_error(DIRECTIONS);
        let data = MapData::from_pin(path).map_err(&error)?;
        let map: PerCpuHashMap<_, u32, Raw<Directions>> = Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(&error)?;
        let mut interfaces = map
            .iter()
            .map(|entry| {
                let (interface, values) = entry.map_err(&error)?;
                let sum = values
                    .iter()
                    .fold(Directions::default(), |sum, Raw(one)| Directions {
                        answered: sum.answered + one.answered,
                        unanswered: sum.unanswered + one.unanswered,
                    });
                Ok((interface, sum))
            })
            .collect::<Result<Vec<_>, DatapathError>>()?;
        interfaces.sort_unstable_by_key(|(interface, _)| *interface);
        Ok(interfaces)
    }

    /// Events that were not emitted.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there are no maps.
    pub fn event_losses(&self) -> Result<EventLosses, DatapathError> {
        const NAME: &str = "EVENT_STATE";
        let map = self.shared_array::<[u64; 4]>(NAME)?;
        let values = map.get(&0, 0).map_err(map_error(NAME))?;
        Ok(values
            .iter()
            .fold(EventLosses::default(), |sum, state| EventLosses {
                suppressed: sum.suppressed + state[2],
                lost: sum.lost + state[3],
            }))
    }

    /// What the generation in place costs.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there is none.
    pub fn cost(&self) -> Result<Cost, DatapathError> {
        let memory = |directory: &Path| -> Result<u64, DatapathError> {
            let names = entries(directory)?;
            let maps = names.iter().filter(|name| *name != PROGRAM);
            let fds = maps.filter_map(|name| sys::object_get(&directory.join(name)).ok());
            Ok(fds.filter_map(memory_locked).sum())
        };
        let shared = memory(&self.shared_dir())?;
        let cost = self.read_current(|directory| {
            let info = ProgramInfo::from_pin(directory.join(PROGRAM)).map_err(|source| {
                DatapathError::Program {
                    action: "ask the kernel about the program",
                    source,
                }
            })?;
            Ok(Cost {
                map_bytes: memory(directory)? + shared,
                verified_instructions: info.verified_instruction_count(),
                load_us: Stored::read(directory)?.load_us,
            })
        })?;
        cost.ok_or(DatapathError::NothingEnforced)
    }

    pub(super) fn shared_array<V: aya::Pod>(
        &self,
        name: &'static str,
    ) -> Result<PerCpuArray<MapData, V>, DatapathError> {
        let path = self.shared_dir().join(name);
        if !path.exists() {
            return Err(DatapathError::NothingEnforced);
        }
        self.check_abi()?;
        let data = MapData::from_pin(path).map_err(map_error(name))?;
        Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error(name))
    }
}

/// Bytes of a map or program as the kernel accounts them.
pub(super) fn memory_locked(fd: impl AsFd) -> Option<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

/// Sets the counters of slots to zero that no running program counts in.
pub(super) fn zero_counters(
    map: &mut PerCpuArray<MapData, Raw<RuleCounters>>,
    slots: impl IntoIterator<Item = u16>,
) -> Result<(), DatapathError> {
    let cpus = super::object::processors()?;
    for slot in slots {
        let zeros =
            PerCpuValues::try_from(vec![Raw(RuleCounters::default()); cpus]).map_err(|source| {
                DatapathError::Kernel {
                    action: "zero counters".to_owned(),
                    source,
                }
            })?;
        map.set(u32::from(slot), zeros, 0)
            .map_err(map_error(RULE_COUNTERS))?;
    }
    Ok(())
}

pub(super) fn sum_reasons(
    map: &PerCpuArray<MapData, [u64; 64]>,
) -> Result<ReasonCounters, DatapathError> {
    let mut sums = [0; 64];
    for values in map.get(&0, 0).map_err(map_error("REASONS"))?.iter() {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    Ok(ReasonCounters(sums))
}

pub(super) fn sum_rule(
    map: &PerCpuArray<MapData, Raw<RuleCounters>>,
    slot: u16,
) -> Result<RuleCounters, DatapathError> {
    let values = map
        .get(&u32::from(slot), 0)
        .map_err(map_error(RULE_COUNTERS))?;
    Ok(values
        .iter()
        .fold(RuleCounters::default(), |sum, Raw(one)| RuleCounters {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        }))
}
