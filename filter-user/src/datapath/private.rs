//! A private instance of the kernel program: no pins, no interface. For replay,
//! tests and benchmarks.

use std::time::Duration;

use aya::{
    TestRun as _,
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{TestRunOptions, TestRunResult, Xdp},
};
use filter_common::{
    abi::{NO_SLOT, Outcome, RuleCounters, Verdict},
    limits::{ANSWER_GROWTH_BYTES_MAX, NAME_BYTES_MAX},
    reason::Reason,
};

use super::{
    DatapathError,
    counters::{ReasonCounters, sum_reasons, sum_rule},
    error::map_error,
    full::FullTables,
    object::{self, Loaded, Pins},
    pod::Raw,
};
use crate::{compile::Compiled, host::StreamTable, replay::Ran};

/// `XDP_PASS` of linux/bpf.h.
const XDP_PASS: u32 = 2;
/// The kernel's test run takes no frame shorter than an Ethernet header.
pub const FRAME_BYTES_MIN: usize = 14;

/// The program in the kernel with maps of its own.
pub struct Private {
    loaded: Loaded,
    outcome: Option<Array<MapData, Raw<Outcome>>>,
    reasons: PerCpuArray<MapData, [u64; 64]>,
    rules: PerCpuArray<MapData, Raw<RuleCounters>>,
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Private")
            .field("load_time", &self.loaded.load_time)
            .finish_non_exhaustive()
    }
}

impl Private {
    /// Loads the program with these tables. Outcomes are there only if the compiled configuration has
    /// [`filter_common::abi::feature::TRACE`].
    ///
    /// # Errors
    ///
    /// As of loading: not permitted, refused by the verifier, does not fit.
    pub fn load(compiled: &Compiled) -> Result<Self, DatapathError> {
        Self::load_with(compiled, &Pins::default())
    }

    /// As [`Private::load`]; these tables take no connection, as the kernel's may for a moment.
    ///
    /// # Errors
    ///
    /// As of [`Private::load`]; also if there is no BPF file system.
    pub fn load_full(compiled: &Compiled, full: &[StreamTable]) -> Result<Self, DatapathError> {
        Self::load_with(compiled, &FullTables::make(full)?.pins)
    }

    fn load_with(compiled: &Compiled, pins: &Pins) -> Result<Self, DatapathError> {
        let mut loaded = object::prepare(compiled, pins)?;
        loaded.verify()?;
        let outcome = match loaded.take_map("OUTCOME") {
            Ok(map) => Some(map.try_into().map_err(map_error("OUTCOME"))?),
            Err(_) => None,
        };
        let reasons = loaded
            .take_map("REASONS")?
            .try_into()
            .map_err(map_error("REASONS"))?;
        let rules = loaded
            .take_map("RULE_COUNTERS")?
            .try_into()
            .map_err(map_error("RULE_COUNTERS"))?;
        Ok(Self {
            loaded,
            outcome,
            reasons,
            rules,
        })
    }

    /// Sends one frame through the program: the XDP action and what the program noted about it.
    ///
    /// A frame shorter than [`FRAME_BYTES_MIN`] passes as [`Reason::Truncated`] without the kernel.
    ///
    /// # Errors
    ///
    /// The test run failed (a frame beyond the kernel's limit of some 68 KiB, for instance).
    pub fn run(&mut self, frame: &[u8]) -> Result<(u32, Outcome), DatapathError> {
        if frame.len() < FRAME_BYTES_MIN {
            return Ok((XDP_PASS, truncated(frame.len())));
        }
        let ran = self.test_run(frame, 1, None)?;
        Ok((ran.return_value, self.outcome()?))
    }

    /// As [`Private::run`], with the frame as the program left it.
    ///
    /// # Errors
    ///
    /// As [`Private::run`].
    pub fn run_frame(&mut self, frame: &[u8]) -> Result<(Ran, Vec<u8>), DatapathError> {
        if frame.len() < FRAME_BYTES_MIN {
            let (action, outcome) = (XDP_PASS, truncated(frame.len()));
            return Ok((Ran { action, outcome }, frame.to_vec()));
        }
        let mut left = vec![0; frame.len() + ANSWER_GROWTH_BYTES_MAX];
        let ran = self.test_run(frame, 1, Some(&mut left))?;
        left.truncate(ran.data_size_out as usize);
        let (action, outcome) = (ran.return_value, self.outcome()?);
        Ok((Ran { action, outcome }, left))
    }

    fn outcome(&self) -> Result<Outcome, DatapathError> {
        match &self.outcome {
            Some(map) => Ok(map.get(&0, 0).map_err(map_error("OUTCOME"))?.0),
            None => Err(DatapathError::Unfit {
                problem: "the kernel program has no map OUTCOME".to_owned(),
            }),
        }
    }

    /// Mean duration of the program on `frame` over `repeat` runs, in whole nanoseconds, the kernel's
    /// harness included.
    ///
    /// # Errors
    ///
    /// As [`Private::run`]; also for a frame shorter than [`FRAME_BYTES_MIN`].
    pub fn run_repeat(&mut self, frame: &[u8], repeat: u32) -> Result<Duration, DatapathError> {
        self.test_run(frame, repeat, None).map(|ran| ran.duration)
    }

    /// The reason counters, summed over all processors.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn counters(&self) -> Result<ReasonCounters, DatapathError> {
        sum_reasons(&self.reasons)
    }

    /// The counters of the rule in `slot`, summed over all processors.
    ///
    /// # Errors
    ///
    /// The map could not be read, or has no such slot.
    pub fn rule_counters(&self, slot: u16) -> Result<RuleCounters, DatapathError> {
        sum_rule(&self.rules, slot)
    }

    /// The program, for a map of programs.
    ///
    /// # Errors
    ///
    /// There is none, which does not happen.
    pub fn program(&mut self) -> Result<&mut Xdp, DatapathError> {
        self.loaded.program()
    }

    /// How long the kernel took to verify and translate the program.
    pub fn load_time(&self) -> Duration {
        self.loaded.load_time
    }

    /// Instructions that the verifier went through for the program, or for the one that answers if those
    /// are more; if the kernel tells.
    pub fn verified_instructions(&self) -> Option<u32> {
        let programs = self.loaded.ebpf.programs();
        let counts = programs.filter_map(|(_, it)| it.info().ok()?.verified_instruction_count());
        counts.max()
    }

    /// Bytes of memory of all the program's maps.
    pub fn map_bytes(&self) -> u64 {
        let maps = self.loaded.ebpf.maps().filter_map(|(_, map)| match map {
            Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::LruHashMap(data)
            | Map::HashMap(data)
            | Map::PerCpuHashMap(data)
            | Map::PerCpuLruHashMap(data)
            | Map::DevMap(data)
            | Map::RingBuf(data) => Some(data.fd()),
            _ => None,
        });
        maps.filter_map(super::counters::memory_locked).sum()
    }

    /// Runs the program, which leaves the frame in `left`.
    fn test_run(
        &mut self,
        frame: &[u8],
        repeat: u32,
        left: Option<&mut [u8]>,
    ) -> Result<TestRunResult, DatapathError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: left,
            repeat,
            ..TestRunOptions::default()
        };
        self.loaded
            .program()?
            .test_run(options)
            .map_err(|source| DatapathError::Program {
                action: "run the program on a frame",
                source,
            })
    }
}

fn truncated(length: usize) -> Outcome {
    Outcome {
        verdict: Verdict::Pass as u8,
        reason: Reason::Truncated as u8,
        protocol: 0,
        reserved: 0,
        slot: NO_SLOT,
        name_len: 0,
        slot_version: 0,
        frame_len: length as u32,
        name: [0; NAME_BYTES_MAX],
    }
}
