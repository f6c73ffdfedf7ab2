//! Nanoseconds per packet of the filter, beside an empty XDP program and xdp-filter.
//!
//! Every contender gets the same frame by `BPF_PROG_TEST_RUN`, in turns, so that whatever else
//! the machine does hits all of them alike. The kernel reports whole nanoseconds per run, with
//! its own harness included: what counts is the difference to the empty program. One frame over
//! and over finds every cache warm; these are lower bounds.

mod cases;
mod contender;
mod measure;
mod report;
mod xdp_filter;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    cases::{Case, blocked_prefixes},
    contender::{Contender, Edgefilter, Empty},
    measure::{Effort, measure},
    report::Report,
    xdp_filter::XdpFilter,
};

/// How many prefixes are blocked. xdp-filter takes each by a command of its own, which bounds
/// what is sensible to ask of it.
const ENTRIES_QUICK: [usize; 1] = [1];
const ENTRIES: [usize; 3] = [1, 1_000, 100_000];
const ENTRIES_MAX_XDP_FILTER: usize = 1_000;

/// Measures nanoseconds per packet and writes a report.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter samples, small tables only
    #[arg(long)]
    quick: bool,
    /// Where the report goes, as JSON
    #[arg(long)]
    output: PathBuf,
    /// The object file of the kernel program, for its empty program
    #[arg(long)]
    object: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let effort = if arguments.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let all_entries: &[usize] = if arguments.quick {
        &ENTRIES_QUICK
    } else {
        &ENTRIES
    };

    let mut empty = Empty::load(&arguments.object)?;
    let mut report = Report::new()?;
    for &entries in all_entries {
        let prefixes = blocked_prefixes(entries);
        let mut edgefilter = Edgefilter::load(&prefixes)
            .with_context(|| format!("cannot load edgefilter with {entries} prefixes"))?;
        let mut xdp_filter = match entries {
            ..=ENTRIES_MAX_XDP_FILTER => Some(
                XdpFilter::load(&prefixes)
                    .with_context(|| format!("cannot load xdp-filter with {entries} prefixes"))?,
            ),
            _ => None,
        };
        let mut contenders: Vec<&mut dyn Contender> = vec![&mut empty, &mut edgefilter];
        contenders.extend(
            xdp_filter
                .as_mut()
                .map(|contender| contender as &mut dyn Contender),
        );
        report.add_facts(entries, &mut contenders);
        let cases = Case::ALL.map(|case| (case, case.frame()));
        report.add_samples(entries, &measure(&cases, &mut contenders, effort)?);
    }
    report.print();
    report.write(&arguments.output)
}
