//! The table for people and the JSON for machines.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    contender::{Contender, Facts},
    peers, plot,
    summary::{self, shown},
};

/// Files beside the report.
const SUMMARY: &str = "report.md";
const PICTURE: &str = "cost.svg";

/// What a row's figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds per packet.
    Ns,
    /// Microseconds.
    Us,
    /// Seconds.
    Seconds,
    /// 2^20 bytes.
    Megabytes,
    /// Bytes per entry.
    Bytes,
    /// Millions of packets per second.
    Mpps,
    /// 2^30 bytes per second.
    GibPerSecond,
    /// Connections per second.
    PerSecond,
}

impl Unit {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Us => "us",
            Self::Seconds => "seconds",
            Self::Megabytes => "megabytes",
            Self::Bytes => "bytes",
            Self::Mpps => "mpps",
            Self::GibPerSecond => "gib_per_s",
            Self::PerSecond => "per_second",
        }
    }

    /// Whether more of it is better, so that a budget is the least there may be.
    const fn more_is_better(self) -> bool {
        match self {
            Self::Ns | Self::Us | Self::Seconds | Self::Megabytes | Self::Bytes => false,
            Self::Mpps | Self::GibPerSecond | Self::PerSecond => true,
        }
    }

    /// Digits after the point that mean something.
    pub(crate) const fn precision(self) -> usize {
        match self {
            Self::PerSecond | Self::Us => 0,
            Self::Ns | Self::Megabytes | Self::Bytes => 1,
            Self::Seconds | Self::Mpps | Self::GibPerSecond => 3,
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
    /// Packages and versions of what is compared with.
    peers: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) costs: Vec<Cost>,
}

/// One contender on one case.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) entries: usize,
    /// The median, under the name of its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    megabytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mpps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gib_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
    /// Difference to the empty program behind the same mutator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_empty_ns: Option<f64>,
    /// Difference to the real server's median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_server_us: Option<f64>,
    samples: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    /// What 99 of 100 do not exceed, where there are so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    pub(crate) budget: Option<f64>,
    pub(crate) met: Option<bool>,
    #[serde(skip)]
    pub(crate) unit: Unit,
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
            us: of(Unit::Us),
            seconds: of(Unit::Seconds),
            megabytes: of(Unit::Megabytes),
            bytes: of(Unit::Bytes),
            mpps: of(Unit::Mpps),
            gib_per_s: of(Unit::GibPerSecond),
            per_second: of(Unit::PerSecond),
            over_empty_ns: None,
            over_server_us: None,
            samples: sorted.len(),
            min: at(0),
            median,
            max: at(sorted.len().saturating_sub(1)),
            p99: (sorted.len() > 100).then(|| at(sorted.len() * 99 / 100)),
            budget: None,
            met: None,
            unit,
        }
    }

    /// How much more it is than what it is compared with, if it is.
    pub(crate) fn over(&self) -> Option<f64> {
        self.over_empty_ns.or(self.over_server_us)
    }

    /// Notes whether `figure` is within a budget, if there is one.
    pub(crate) fn judge(&mut self, figure: f64, budget: Option<f64>) {
        self.budget = budget;
        self.met = budget.map(|budget| {
            if self.unit.more_is_better() {
                figure >= budget
            } else {
                figure <= budget
            }
        });
    }

    /// [`Row::judge`] of the median.
    pub(crate) fn within(mut self, budget: f64) -> Self {
        self.judge(self.median, Some(budget));
        self
    }
}

/// What a contender costs beside time.
#[derive(Serialize)]
pub(crate) struct Cost {
    pub(crate) contender: &'static str,
    pub(crate) entries: usize,
    #[serde(flatten)]
    pub(crate) facts: Facts,
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
            peers: peers::versions(),
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

    /// What was measured, and on what.
    pub(crate) fn headline(&self) -> String {
        let (version, kernel, cpu) = (self.version, &self.kernel, &self.cpu);
        let (peers, load) = (self.peers.join(", "), &self.load_average);
        format!("edgefilter {version}, Linux {kernel}, {cpu}, load {load}; beside {peers}")
    }

    pub(crate) fn print(&self) {
        println!("{}\n", self.headline());
        println!(
            "{:22} {:12} {:>8} {:>9} {:10} {:>8} {:>9} {:>9} {:>9} {:>7} met",
            "case", "contender", "entries", "median", "", "over", "min", "p99", "max", "budget"
        );
        for row in &self.rows {
            let precision = row.unit.precision();
            println!(
                "{:22} {:12} {:>8} {:>9.precision$} {:10} {:>8} {:>9.precision$} {:>9} {:>9.precision$} {:>7} {}",
                row.case,
                row.contender,
                row.entries,
                row.median,
                row.unit.name(),
                shown(row.over().map(|over| format!("{over:.1}"))),
                row.min,
                shown(row.p99.map(|p99| format!("{p99:.precision$}"))),
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

    /// Writes it as JSON to `path`, and for people beside it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write the report as JSON")?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(path, &(text + "\n"))?;
        let picture = plot::svg(&self.rows);
        if let Some(picture) = &picture {
            write(&folder.join(PICTURE), picture)?;
        }
        let summary = summary::markdown(self, picture.is_some().then_some(PICTURE));
        write(&folder.join(SUMMARY), &summary)?;
        println!("\nwritten to {} and, beside it, {SUMMARY}", path.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_of_speed_is_the_least_and_one_of_time_the_most() {
        let met = |unit, figure, budget| {
            Row::new("case", "contender", 1, unit, &[figure])
                .within(budget)
                .met
        };
        assert_eq!(met(Unit::Mpps, 2.6, 2.5), Some(true));
        assert_eq!(met(Unit::Mpps, 2.4, 2.5), Some(false));
        assert_eq!(met(Unit::Seconds, 1.4, 1.5), Some(true));
        assert_eq!(met(Unit::Ns, 21.0, 20.0), Some(false));
    }
}
