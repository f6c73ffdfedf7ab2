//! The table for people and the JSON for machines.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::contender::{Contender, Facts};

/// What a row's figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds per packet.
    Ns,
    /// Seconds.
    Seconds,
    /// 2^20 bytes.
    Megabytes,
    /// Bytes per entry.
    Bytes,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Seconds => "seconds",
            Self::Megabytes => "megabytes",
            Self::Bytes => "bytes",
        }
    }
}

/// Everything measured, and on what.
#[derive(Serialize)]
pub(crate) struct Report {
    kernel: String,
    cpu: String,
    version: &'static str,
    /// Load of the machine while it was measured: figures of a busy one are worth little.
    load_average: String,
    rows: Vec<Row>,
    costs: Vec<Cost>,
}

/// One contender on one case.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    contender: &'static str,
    entries: usize,
    /// The median, under the name of its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    megabytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<f64>,
    /// Difference to the empty program behind the same mutator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_empty_ns: Option<f64>,
    samples: usize,
    min: f64,
    pub(crate) median: f64,
    max: f64,
    budget: Option<f64>,
    met: Option<bool>,
    #[serde(skip)]
    unit: Unit,
}

impl Row {
    /// A row of these samples, of which there is at least one.
    pub(crate) fn new(
        case: &'static str,
        contender: &'static str,
        entries: usize,
        unit: Unit,
        samples: &[f64],
    ) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let median = at(sorted.len() / 2);
        let of = |which: Unit| (unit == which).then_some(median);
        Self {
            case,
            contender,
            entries,
            ns: of(Unit::Ns),
            seconds: of(Unit::Seconds),
            megabytes: of(Unit::Megabytes),
            bytes: of(Unit::Bytes),
            over_empty_ns: None,
            samples: sorted.len(),
            min: at(0),
            median,
            max: at(sorted.len().saturating_sub(1)),
            budget: None,
            met: None,
            unit,
        }
    }

    /// Notes whether `figure` is within a budget, if there is one.
    pub(crate) fn judge(&mut self, figure: f64, budget: Option<f64>) {
        self.budget = budget;
        self.met = budget.map(|budget| figure <= budget);
    }

    /// [`Row::judge`] of the median.
    pub(crate) fn within(mut self, budget: f64) -> Self {
        self.judge(self.median, Some(budget));
        self
    }
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
        let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let cpu = read("/proc/cpuinfo")?;
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model
                .map_or("unknown", |(_, model)| model.trim())
                .to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            load_average: read("/proc/loadavg")?.trim().to_owned(),
            rows: Vec::new(),
            costs: Vec::new(),
        })
    }

    pub(crate) fn add_costs(&mut self, contenders: &[Contender]) {
        self.costs.extend(contenders.iter().map(|contender| Cost {
            contender: contender.name,
            entries: contender.entries,
            facts: contender.facts,
        }));
    }

    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    /// Words for the rows that miss their budget.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| row.met == Some(false));
        missed
            .map(|row| format!("{} of {}", row.case, row.contender))
            .collect()
    }

    pub(crate) fn print(&self) {
        println!(
            "edgefilter {}, Linux {}, {}, load {}\n",
            self.version, self.kernel, self.cpu, self.load_average
        );
        println!(
            "{:22} {:12} {:>8} {:>9} {:9} {:>10} {:>9} {:>9} {:>7} met",
            "case", "contender", "entries", "median", "", "over empty", "min", "max", "budget"
        );
        for row in &self.rows {
            let precision = if row.unit == Unit::Seconds { 3 } else { 1 };
            println!(
                "{:22} {:12} {:>8} {:>9.precision$} {:9} {:>10} {:>9.precision$} {:>9.precision$} {:>7} {}",
                row.case,
                row.contender,
                row.entries,
                row.median,
                row.unit.name(),
                shown(row.over_empty_ns.map(|over| format!("{over:.1}"))),
                row.min,
                row.max,
                shown(row.budget),
                match row.met {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "",
                }
            );
        }
        println!(
            "\n{:12} {:>8} {:>22} {:>9} {:>12}",
            "contender", "entries", "verified instructions", "load ms", "map KiB"
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
