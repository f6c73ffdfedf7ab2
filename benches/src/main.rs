//! What the filter costs: nanoseconds per packet beside an empty XDP program, xdp-filter and the
//! kernel's own trie, and the time from a policy's text to its enforcement.
//!
//! A mutator stands before every contender and gives each packet another source address: one frame
//! over and over would find every cache warm. The contenders run in turns by `BPF_PROG_TEST_RUN`,
//! so that whatever else the machine does hits all of them alike; what counts is the difference to
//! the empty program behind the same mutator.

mod bulk;
mod cases;
mod connections;
mod contender;
mod deny_lists;
mod floods;
mod harness;
mod lists;
mod loads;
mod measure;
mod page;
mod peers;
mod plot;
mod report;
mod sources;
mod summary;
mod xdp_filter;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use filter_tests::net::Namespace;

use crate::{
    cases::{BLOCKED_NAME, Place},
    connections::Connections,
    contender::{Contender, Facts, Kind, Knows, descriptor, edgefilter, three_rules},
    harness::Harness,
    lists::Lists,
    measure::{Effort, World, measure, measure_scaling},
    report::{Report, Row, Unit},
    sources::{Family, Prefixes, Random, names},
    xdp_filter::XdpFilter,
};

/// Prefixes of each family, and names.
const ENTRIES: usize = 1_000_000;
const ENTRIES_QUICK: usize = 100_000;

/// Rounds of loading.
const LOADS: usize = 3;
const LOADS_QUICK: usize = 1;

/// The case that is also measured on all processors at once.
const SCALING_CASE: &str = "unrelated_tcp";

/// Kernel memory that an entry may take.
const BYTES_PER_ENTRY_MAX: f64 = 48.0;

/// Measures and writes a report.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter samples, a tenth of the entries
    #[arg(long)]
    quick: bool,
    /// Exit with an error if a figure misses its budget
    #[arg(long)]
    check: bool,
    /// Only cases whose names contain this, without the peers and without loading
    #[arg(long)]
    case: Option<String>,
    /// Where the report goes, as JSON; a readable one and a plot go beside it
    #[arg(long)]
    output: PathBuf,
    /// The object file of the benchmark's programs
    #[arg(long)]
    object: PathBuf,
    /// The binary whose load times are taken
    #[arg(long)]
    edgefilter: PathBuf,
}

impl Arguments {
    fn measures(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|part| case.contains(part))
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (effort, entries, loads) = if arguments.quick {
        (Effort::QUICK, ENTRIES_QUICK, LOADS_QUICK)
    } else {
        (Effort::FULL, ENTRIES, LOADS)
    };
    let mut random = Random(1);
    let world = World {
        v4: Prefixes::new(Family::V4, entries, &mut random),
        v6: Prefixes::new(Family::V6, entries, &mut random),
    };
    let folder = tempfile::tempdir().context("cannot create a folder")?;
    let policies = Policies::write(folder.path(), &world, entries, &mut random)?;
    let mut report = Report::new()?;

    if arguments.case.is_none() {
        // Loading first: the machine is still empty.
        report.add(loads::measure(
            &arguments.edgefilter,
            &policies.v4_and_names,
            &policies.small,
            2 * entries,
            loads,
        )?);
    }

    let by_live_traffic = live(&arguments, folder.path(), entries, &mut random, &mut report)?;
    if arguments.case.is_none() || !by_live_traffic {
        by_test_run(
            &arguments,
            &world,
            &policies,
            effort,
            &mut random,
            &mut report,
        )?;
    }
    report.print();
    report.write(&arguments.output)?;
    let missed = report.missed();
    if arguments.check && !missed.is_empty() {
        bail!("over budget: {}", missed.join(", "));
    }
    Ok(())
}

/// What is measured by `BPF_PROG_TEST_RUN`.
fn by_test_run(
    arguments: &Arguments,
    world: &World,
    policies: &Policies,
    effort: Effort,
    random: &mut Random,
    report: &mut Report,
) -> Result<()> {
    let entries = world.v4.all.len();
    let mut harness = Harness::load(&arguments.object)?;
    let hosts: Vec<_> = world.v4.hosts().take(xdp_filter::ENTRIES_MAX).collect();
    let xdp_filter =
        match arguments.case {
            None => Some(XdpFilter::load(&hosts).with_context(|| {
                format!("cannot load xdp-filter with {} addresses", hosts.len())
            })?),
            Some(_) => None,
        };
    let (_small, few) = edgefilter(
        "edgefilter-3",
        3,
        Knows::FewRules,
        Place::Server,
        &policies.small,
    )?;
    let large = |name, place| edgefilter(name, entries, Knows::All, place, &policies.large);
    let (_server, all) = large("edgefilter", Place::Server)?;
    let (_router, before) = large("edgefilter-router", Place::Router)?;
    report.add([memory_per_entry(&few, &all, 3 * entries)]);
    let mut contenders = own(&mut harness)?;
    contenders.extend([few, all, before]);
    if let Some(xdp_filter) = &xdp_filter {
        harness.fill_tries(&world.v4, &world.v6)?;
        contenders.push(trie(&mut harness, entries)?);
        contenders.push(linear_or_not(&mut harness, xdp_filter.contender(hosts)?));
    }
    report.add_costs(&contenders);
    // The sockets that a test run finds are those of the namespace that it is started in.
    let namespace = Namespace::new("bench-server");
    let connections = Connections::open(&namespace)?;
    let rows = namespace.run(|| {
        let cases = cases::all(&connections);
        let cases = cases.iter().filter(|case| arguments.measures(case.name));
        let mut rows = Vec::new();
        for case in cases {
            rows.extend(measure(
                &mut harness,
                world,
                case,
                &contenders,
                effort,
                random,
            )?);
            let server = contenders.iter().find(|contender| {
                contender.knows == Knows::All && contender.place == Place::Server
            });
            if let (SCALING_CASE, Some(server)) = (case.name, server) {
                rows.extend(measure_scaling(
                    &mut harness,
                    world,
                    case,
                    server,
                    effort,
                    random,
                )?);
            }
        }
        anyhow::Ok(rows)
    })?;
    report.add(rows);
    Ok(())
}

/// What is measured by live traffic; whether any of it was asked for.
fn live(
    arguments: &Arguments,
    folder: &Path,
    entries: usize,
    random: &mut Random,
    report: &mut Report,
) -> Result<bool> {
    let (floods, bulk, deny_lists, pages) = if arguments.quick {
        (
            floods::Effort::QUICK,
            bulk::Effort::QUICK,
            deny_lists::Effort::QUICK,
            page::Effort::QUICK,
        )
    } else {
        (
            floods::Effort::FULL,
            bulk::Effort::FULL,
            deny_lists::Effort::FULL,
            page::Effort::FULL,
        )
    };
    let (binary, object) = (&arguments.edgefilter, &arguments.object);
    let any_page = page::cases().any(|case| arguments.measures(case));
    if any_page {
        let rows = page::measure(binary, object, pages);
        report.add(rows.context("cannot measure the block page")?);
    }
    let any_flood = floods::cases().any(|case| arguments.measures(case));
    if any_flood {
        report.add(floods::measure(binary, object, folder, floods, random)?);
    }
    let any_list = arguments.measures(deny_lists::CASE);
    if any_list {
        let of_names = deny_lists::measure(binary, folder, deny_lists, random);
        report.add(of_names.context("cannot measure deny lists of names")?);
    }
    let any_bulk = arguments.measures(bulk::CASE);
    if any_bulk {
        let folder = folder.join("bulk");
        fs::create_dir(&folder)?;
        let lists = Lists::new(entries, &folder, random)?;
        report.add(bulk::measure(binary, object, &lists.policy, entries, bulk)?);
    }
    Ok(any_page || any_flood || any_list || any_bulk)
}

/// What the others are compared with.
fn own(harness: &mut Harness) -> Result<Vec<Contender>> {
    [
        ("empty", "empty", Kind::Frags),
        ("empty_linear", "empty-linear", Kind::Linear),
    ]
    .into_iter()
    .map(|(program, name, kind)| brought(harness, program, name, 0, kind, Knows::Nothing))
    .collect()
}

/// The kernel's own trie, filled.
fn trie(harness: &mut Harness, entries: usize) -> Result<Contender> {
    let knows = Knows::Addresses;
    brought(harness, "lpm", "lpm-trie", entries, Kind::Frags, knows)
}

/// A contender that the harness brings.
fn brought(
    harness: &mut Harness,
    program: &str,
    name: &'static str,
    entries: usize,
    kind: Kind,
    knows: Knows,
) -> Result<Contender> {
    let program = harness.program(program)?;
    Ok(Contender {
        name,
        entries,
        kind,
        knows,
        place: Place::Server,
        program: descriptor(program)?,
        facts: Facts::of(program),
        blocks: None,
    })
}

/// The contender with the kind that the kernel takes it for.
fn linear_or_not(harness: &mut Harness, mut contender: Contender) -> Contender {
    if harness
        .set_target(contender.kind, &contender.program)
        .is_err()
    {
        contender.kind = Kind::Frags;
    }
    contender
}

fn memory_per_entry(few: &Contender, all: &Contender, entries: usize) -> Row {
    let bytes = |contender: &Contender| contender.facts.map_bytes.unwrap_or_default() as f64;
    let per_entry = (bytes(all) - bytes(few)) / entries as f64;
    Row::new(
        "memory_per_entry",
        all.name,
        entries,
        Unit::Bytes,
        &[per_entry],
    )
    .within(BYTES_PER_ENTRY_MAX)
}

/// The policies that are measured.
struct Policies {
    /// All prefixes and names.
    large: PathBuf,
    /// Folder of a policy with the IPv4 prefixes and the names.
    v4_and_names: PathBuf,
    /// Three rules.
    small: PathBuf,
}

impl Policies {
    fn write(folder: &Path, world: &World, entries: usize, random: &mut Random) -> Result<Self> {
        let small = folder.join("small");
        let large = folder.join("large");
        let v4_and_names = folder.join("v4-and-names");
        for folder in [&small, &large, &v4_and_names] {
            fs::create_dir(folder)?;
        }
        let (v4, names) = (world.v4.text(), names(entries, random));
        fs::write(large.join("origins.txt"), v4.clone() + &world.v6.text())?;
        fs::write(v4_and_names.join("origins.txt"), v4)?;
        let policy = format!(
            "version = 1\n\
             [[rule]]\nid = \"origins\"\norigins_file = \"origins.txt\"\naction = \"drop\"\n\
             [[rule]]\nid = \"names\"\ndomains_file = \"names.txt\"\naction = \"drop\"\n\
             [[rule]]\nid = \"name\"\nhosts = [\"{BLOCKED_NAME}\"]\naction = \"drop\"\n"
        );
        for folder in [&large, &v4_and_names] {
            fs::write(folder.join("names.txt"), &names)?;
            fs::write(folder.join("policy.toml"), &policy)?;
        }
        fs::write(small.join("policy.toml"), three_rules())?;
        Ok(Self {
            large: large.join("policy.toml"),
            v4_and_names,
            small: small.join("policy.toml"),
        })
    }
}
