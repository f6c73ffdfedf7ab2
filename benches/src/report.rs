//! The table for people and the JSON for machines.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    contender::{Contender, Facts},
    measure::Samples,
};

/// What every difference is taken from.
const BASE: &str = "empty";

/// Everything measured, and on what.
#[derive(Serialize)]
pub(crate) struct Report {
    kernel: String,
    cpu: String,
    version: &'static str,
    rows: Vec<Row>,
    costs: Vec<Cost>,
}

/// One contender on one case.
#[derive(Serialize)]
struct Row {
    case: &'static str,
    contender: &'static str,
    entries: usize,
    /// The median.
    ns: u64,
    /// Difference of the medians; negative if the machine was busy with something else.
    over_empty_ns: i64,
    samples: usize,
    min: u64,
    median: u64,
    max: u64,
}

/// What a contender costs beside time.
#[derive(Serialize)]
struct Cost {
    contender: &'static str,
    entries: usize,
    #[serde(flatten)]
    facts: Facts,
}

impl Report {
    pub(crate) fn new() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("cannot read the kernel's release")?;
        let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            rows: Vec::new(),
            costs: Vec::new(),
        })
    }

    pub(crate) fn add_facts(&mut self, entries: usize, contenders: &mut [&mut dyn Contender]) {
        for contender in contenders {
            let (name, facts) = (contender.name(), contender.facts());
            self.costs.push(Cost {
                contender: name,
                entries,
                facts,
            });
        }
    }

    pub(crate) fn add_samples(&mut self, entries: usize, all: &[Samples]) {
        for samples in all {
            let base = all
                .iter()
                .find(|base| base.case == samples.case && base.contender == BASE)
                .map_or(0, Samples::median_ns);
            self.rows.push(Row {
                case: samples.case.name(),
                contender: samples.contender,
                entries,
                ns: samples.median_ns(),
                over_empty_ns: samples.median_ns() as i64 - base as i64,
                samples: samples.count(),
                min: samples.min_ns(),
                median: samples.median_ns(),
                max: samples.max_ns(),
            });
        }
    }

    pub(crate) fn print(&self) {
        println!(
            "edgefilter {}, Linux {}, {}",
            self.version, self.kernel, self.cpu
        );
        println!("\nnanoseconds per packet, medians of interleaved test runs, one hot frame\n");
        println!(
            "{:24} {:12} {:>8} {:>6} {:>11} {:>6} {:>6}",
            "case", "contender", "entries", "ns", "over empty", "min", "max"
        );
        for row in &self.rows {
            println!(
                "{:24} {:12} {:>8} {:>6} {:>11} {:>6} {:>6}",
                row.case, row.contender, row.entries, row.ns, row.over_empty_ns, row.min, row.max
            );
        }
        println!(
            "\n{:12} {:>8} {:>22} {:>9} {:>12}",
            "contender", "entries", "verified instructions", "load, ms", "maps, KiB"
        );
        for cost in &self.costs {
            println!(
                "{:12} {:>8} {:>22} {:>9} {:>12}",
                cost.contender,
                cost.entries,
                shown(cost.facts.verified_instructions),
                shown(cost.facts.load_us.map(|us| us.div_ceil(1_000))),
                shown(cost.facts.map_bytes.map(|bytes| bytes.div_ceil(1_024)))
            );
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write the report as JSON")?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
