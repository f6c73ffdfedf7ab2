//! Another generation under a running program: nothing is loaded, no link is touched.
//!
//! The program takes the rules that the number in `LIVE` says, and user space writes the others. What is
//! added to the tables before leads to rules that nothing matches. So one store of that number puts a
//! generation in place, on all interfaces, and a process that dies before it has changed nothing.

use std::{path::Path, sync::atomic::Ordering, thread, time::Duration};

use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use filter_common::abi::{Line, Rule, Table, rule_index};

use super::{
    DatapathError, Generation, Lock, Probe, Root, check,
    counters::zero_counters,
    install::PROGRAM,
    mapped::Writable,
    object::{LIVE, RULES},
    pod::rule_words,
    stored::{self, Stored},
    sys,
};
use crate::compile::{Change, Stage};

/// How long is waited where the kernel cannot tell when packets under way are done. They take
/// microseconds, and are not interrupted.
const GRACE: Duration = Duration::from_millis(50);

impl Root {
    /// Puts a change in place under the program that runs now. `probes` must get their verdicts then.
    /// The number of the generation in place afterwards.
    ///
    /// # Errors
    ///
    /// What was enforced before still is.
    pub fn alter(
        &self,
        _lock: &Lock,
        standing: &Generation,
        change: &Change,
        probes: impl FnOnce(&Generation) -> Vec<Probe>,
    ) -> Result<u64, DatapathError> {
        let directory = standing.directory();
        let number = standing.meta.generation;
        let stored = Stored::read(directory)?;
        for (later, stage) in (number + 1..).zip(&change.stages) {
            let meta = crate::compile::Meta {
                generation: later,
                ..stage.meta.clone()
            };
            stored.with(meta).pin(directory)?;
        }
        let switched = self.switch(directory, number, change, probes);
        let kept = switched.as_ref().map_or(number, |number| *number);
        let retired = stored::retire_all_but(directory, kept);
        let number = switched?;
        retired?;
        Ok(number)
    }

    fn switch(
        &self,
        directory: &Path,
        number: u64,
        change: &Change,
        probes: impl FnOnce(&Generation) -> Vec<Probe>,
    ) -> Result<u64, DatapathError> {
        let rules = Writable::open::<Rule>(&directory.join(RULES))?;
        let live = Writable::open::<u64>(&directory.join(LIVE))?;
        let Some(live) = live.words().first() else {
            return Err(damaged(&directory.join(LIVE)));
        };
        for (slot, rule) in &change.taken {
            put_rule(&rules, *slot, number, rule);
        }
        add(directory, change)?;
        zero_counters(
            &mut self.rule_counters_map()?,
            change.taken.iter().map(|(slot, _)| *slot),
        )?;
        let mut probes = Some(probes);
        let mut number = number;
        for Stage {
            rules: of_stage, ..
        } in &change.stages
        {
            // Nobody reads the rules of the generation before this one any more, and nobody who saw the
            // tables without what was added sees the switch.
            wait_for_packets();
            for (slot, rule) in (0u16..).zip(of_stage) {
                put_rule(&rules, slot, number + 1, rule);
            }
            live.store(number + 1, Ordering::SeqCst);
            // After the first stage all that comes is there, and there is a way back.
            if let Some(probes) = probes.take()
                && let Err(error) = self.check_in_place(directory, probes)
            {
                live.store(number, Ordering::SeqCst);
                return Err(error);
            }
            number += 1;
        }
        Ok(number)
    }

    fn check_in_place(
        &self,
        directory: &Path,
        probes: impl FnOnce(&Generation) -> Vec<Probe>,
    ) -> Result<(), DatapathError> {
        let probes = probes(&self.generation()?);
        let mut program = Xdp::from_pin(directory.join(PROGRAM), XdpAttachType::Interface)
            .map_err(|source| DatapathError::Program {
                action: "open the program",
                source,
            })?;
        check::run(&mut program, &probes)
    }
}

/// Stores what is added to the tables.
fn add(directory: &Path, change: &Change) -> Result<(), DatapathError> {
    let mut open: [Option<Writable>; Table::ALL.len()] = Default::default();
    for store in &change.stores {
        let path = directory.join(store.table.name());
        let table = match &mut open[store.table as usize] {
            Some(table) => table,
            none => none.insert(Writable::open::<Line>(&path)?),
        };
        match table.element::<Line>(store.line as usize).get(store.word) {
            Some(word) => word.store(store.value, Ordering::Release),
            None => return Err(damaged(&path)),
        }
    }
    Ok(())
}

/// Writes the rule in `slot` of a generation that is not in place, or one that matches nothing before
/// and after.
fn put_rule(rules: &Writable, slot: u16, generation: u64, rule: &Rule) {
    let place = rules.element::<Rule>(rule_index(slot, generation) as usize);
    for (word, value) in place.iter().zip(rule_words(rule)) {
        word.store(value, Ordering::Release);
    }
}

/// Returns when every packet that is under way now is done.
pub(super) fn wait_for_packets() {
    // The kernel does this by waiting until every processor has left what cannot be interrupted, and
    // that is where packets are filtered.
    if !sys::membarrier() {
        thread::sleep(GRACE);
    }
}

fn damaged(path: &Path) -> DatapathError {
    DatapathError::Damaged {
        path: path.to_owned(),
        problem: "it is too short".to_owned(),
    }
}
