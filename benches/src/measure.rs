//! Interleaved samples.

use anyhow::{Context as _, Result, bail};

use crate::{cases::Case, contender::Contender};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples of each contender and case; odd, so that the median is one of them.
    rounds: usize,
    /// Runs per sample.
    repeat: u32,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        rounds: 11,
        repeat: 20_000,
    };
    pub(crate) const FULL: Self = Self {
        rounds: 31,
        repeat: 100_000,
    };
}

/// The samples of one contender on one case, in nanoseconds per packet.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) case: Case,
    pub(crate) contender: &'static str,
    /// Sorted, never empty.
    sorted_ns: Vec<u64>,
}

impl Samples {
    pub(crate) fn count(&self) -> usize {
        self.sorted_ns.len()
    }

    pub(crate) fn min_ns(&self) -> u64 {
        self.sorted_ns[0]
    }

    pub(crate) fn median_ns(&self) -> u64 {
        self.sorted_ns[self.sorted_ns.len() / 2]
    }

    pub(crate) fn max_ns(&self) -> u64 {
        self.sorted_ns[self.sorted_ns.len() - 1]
    }
}

/// Samples of every contender on every case. A contender that returns a wrong action is an
/// error: its time would mean nothing.
pub(crate) fn measure(
    cases: &[(Case, Vec<u8>)],
    contenders: &mut [&mut dyn Contender],
    effort: Effort,
) -> Result<Vec<Samples>> {
    let mut all: Vec<Samples> = Vec::new();
    for (case, _) in cases {
        for contender in contenders.iter() {
            let sorted_ns = Vec::with_capacity(effort.rounds);
            all.push(Samples {
                case: *case,
                contender: contender.name(),
                sorted_ns,
            });
        }
    }
    for _ in 0..effort.rounds {
        let mut slots = all.iter_mut();
        for (case, frame) in cases {
            for contender in contenders.iter_mut() {
                let ns = sample(&mut **contender, *case, frame, effort.repeat)?;
                slots
                    .next()
                    .context("fewer samples than contenders")?
                    .sorted_ns
                    .push(ns);
            }
        }
    }
    for samples in &mut all {
        samples.sorted_ns.sort_unstable();
    }
    Ok(all)
}

fn sample(contender: &mut dyn Contender, case: Case, frame: &[u8], repeat: u32) -> Result<u64> {
    let name = contender.name();
    let (action, duration) = contender
        .run(frame, repeat)
        .with_context(|| format!("{name} on {}", case.name()))?;
    if let Some(expected) = contender.expected(case)
        && action != expected
    {
        bail!(
            "{name} on {}: XDP action {action} instead of {expected}",
            case.name()
        );
    }
    u64::try_from(duration.as_nanos()).context("a run of centuries")
}
