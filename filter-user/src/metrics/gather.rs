//! The numbers of one moment.

use std::path::Path;

use filter_common::reason::Reason;
use jiff::Timestamp;

use super::{Family, Metric, Sample, Value};
use crate::{
    cli::{PageStatus, Status},
    compile::{Meta, Term},
    controller::CommandError,
    datapath::{DatapathError, Root, SinkMethod},
    sink::spec::Files,
};

/// What there is to tell about a root whose status this is.
///
/// # Errors
///
/// The kernel's maps could not be read; that there are none is no error.
pub fn gather(root: &Root, status: &Status) -> Result<Vec<Family>, CommandError> {
    let meta = root.meta()?;
    let mut families = of_host(status);
    if let Some(meta) = &meta {
        families.extend(of_policy(meta, status));
        families.extend(of_rules(root, meta)?);
    }
    families.extend(of_interfaces(status));
    families.extend(of_packets(root, status)?);
    let certificates = Files::of(root.run_dir()).certificates();
    let page = status.page.iter();
    families.extend(page.flat_map(|page| of_page(page, &certificates)));
    families.retain(|family| !family.samples.is_empty());
    Ok(families)
}

/// A metric with counts.
pub(super) fn family(
    metric: Metric,
    samples: impl IntoIterator<Item = (Vec<String>, u64)>,
) -> Family {
    let numbered = |(labels, count)| (labels, Value::Whole(count));
    with_values(metric, samples.into_iter().map(numbered))
}

fn with_values(metric: Metric, samples: impl IntoIterator<Item = (Vec<String>, Value)>) -> Family {
    let samples = samples.into_iter();
    Family {
        name: metric.exposed(),
        kind: metric.kind(),
        label_names: metric.labels(),
        samples: samples
            .map(|(labels, value)| Sample { labels, value })
            .collect(),
        metric,
    }
}

/// A metric of one number.
fn one(metric: Metric, count: u64) -> Family {
    family(metric, [(Vec::new(), count)])
}

fn flag(metric: Metric, is_so: bool) -> Family {
    one(metric, is_so.into())
}

/// A moment, if there is one.
fn at(metric: Metric, moment: Option<Timestamp>) -> Family {
    let samples = moment.map(|moment| (Vec::new(), unix(moment)));
    with_values(metric, samples)
}

fn unix(moment: Timestamp) -> Value {
    Value::Seconds(moment.as_millisecond() as f64 / 1e3)
}

fn of_host(status: &Status) -> Vec<Family> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let build = vec![version, status.kernel.release.clone()];
    let age = status.applied_at.map(|at| {
        let age = Timestamp::now().as_millisecond() - at.as_millisecond();
        (Vec::new(), Value::Seconds(age.max(0) as f64 / 1e3))
    });
    let attached = status
        .interfaces
        .iter()
        .any(|link| is_attached(link.mode, link.defunct));
    let mut families = vec![
        family(Metric::Build, [(build, 1)]),
        flag(Metric::Enforcing, attached && status.generation.is_some()),
        flag(Metric::AsWanted, status.in_sync),
        one(Metric::Differences, status.differences.len() as u64),
        flag(Metric::ControllerRunning, status.controller.is_some()),
        flag(Metric::ApplyFailed, status.apply_failed),
        at(Metric::ApplyTime, status.applied_at),
        with_values(Metric::ApplyAge, age),
    ];
    if status.local_proxies.is_some() {
        families.push(flag(Metric::LocalAttached, status.local_attached));
    }
    families
}

fn of_policy(meta: &Meta, status: &Status) -> Vec<Family> {
    let now = Timestamp::now();
    let terms = [
        (Term::InForce, "in_force"),
        (Term::NotYet, "not_yet"),
        (Term::NoLonger, "no_longer"),
    ];
    let rules = terms.map(|(term, word)| {
        let there = meta.rules.iter().filter(|rule| rule.term(now) == term);
        (vec![word.to_owned()], there.count() as u64)
    });
    let live = || {
        meta.rules
            .iter()
            .filter(|rule| rule.term(now) != Term::NoLonger)
    };
    let mut families = vec![
        one(Metric::Generation, meta.generation),
        at(Metric::CompiledTime, Some(meta.compiled_at)),
        family(Metric::Rules, rules),
        at(Metric::NextEnd, live().filter_map(|rule| rule.until).min()),
        at(
            Metric::NextReview,
            live().filter_map(|rule| rule.review_by).min(),
        ),
        one(Metric::Warnings, status.warnings.len() as u64),
    ];
    if let Some(cost) = status.cost {
        let instructions = cost.verified_instructions;
        let load = Value::Seconds(cost.load_us as f64 / 1e6);
        families.extend([
            family(
                Metric::VerifiedInstructions,
                instructions.map(|count| (Vec::new(), count.into())),
            ),
            with_values(Metric::LoadTime, [(Vec::new(), load)]),
            one(Metric::MapBytes, cost.map_bytes),
        ]);
    }
    families
}

fn of_rules(root: &Root, meta: &Meta) -> Result<Vec<Family>, CommandError> {
    let counts = match root.rule_counters(meta.rules.iter().map(|rule| rule.slot)) {
        Ok(counts) => counts,
        Err(DatapathError::NothingEnforced) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let labelled = || {
        let labels = meta
            .rules
            .iter()
            .map(|rule| vec![rule.id.clone(), rule.action.clone()]);
        labels.zip(&counts)
    };
    Ok(vec![
        family(
            Metric::RulePackets,
            labelled().map(|(labels, count)| (labels, count.packets)),
        ),
        family(
            Metric::RuleBytes,
            labelled().map(|(labels, count)| (labels, count.bytes)),
        ),
    ])
}

fn of_interfaces(status: &Status) -> Vec<Family> {
    let attached = status.interfaces.iter().map(|link| {
        let mode = link.mode.map_or("none", |mode| mode.as_str());
        let labels = vec![link.interface.clone(), mode.to_owned()];
        (labels, is_attached(link.mode, link.defunct).into())
    });
    let weak = status
        .connections
        .iter()
        .map(|it| (vec![it.interface.clone()], it.weak.into()));
    let connections = status.connections.iter().flat_map(|it| {
        [("seen", it.answered), ("unseen", it.unanswered)]
            .map(|(word, count)| (vec![it.interface.clone(), word.to_owned()], count))
    });
    vec![
        family(Metric::Attached, attached),
        family(Metric::Weak, weak),
        family(Metric::Connections, connections),
    ]
}

fn is_attached(mode: Option<crate::datapath::Mode>, defunct: bool) -> bool {
    mode.is_some() && !defunct
}

fn of_packets(root: &Root, status: &Status) -> Result<Vec<Family>, CommandError> {
    let reasons = match root.reason_counters() {
        Ok(reasons) => reasons,
        Err(DatapathError::NothingEnforced) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let packets = Reason::ALL
        .iter()
        .map(|&reason| (vec![reason.as_str().to_owned()], reasons.of(reason)));
    let answers = root.answers()?.into_iter();
    let dropped = [
        ("rate_limit", status.events.suppressed),
        ("ring_buffer", status.events.lost),
    ];
    Ok(vec![
        family(Metric::Packets, packets),
        family(
            Metric::Answers,
            answers.map(|(answer, count)| (vec![answer.as_str().to_owned()], count)),
        ),
        family(
            Metric::EventsDropped,
            dropped.map(|(cause, count)| (vec![cause.to_owned()], count)),
        ),
    ])
}

/// The word that `status --json` has for it.
fn word_of(method: SinkMethod) -> Option<String> {
    let word = serde_json::to_value(method).ok()?;
    word.as_str().map(str::to_owned)
}

fn of_page(page: &PageStatus, certificates: &Path) -> Vec<Family> {
    let uncovered = || page.uncovered.iter();
    let mut families = vec![
        flag(Metric::PageUp, page.is_up),
        family(
            Metric::PageMethod,
            word_of(page.method).map(|word| (vec![word], 1)),
        ),
        family(
            Metric::Uncovered,
            uncovered().map(|it| (vec![it.rule.clone()], it.count as u64)),
        ),
        family(
            Metric::UncoveredName,
            uncovered().flat_map(|it| {
                let names = it.names.iter();
                names.map(|name| (vec![it.rule.clone(), name.clone()], 1))
            }),
        ),
    ];
    let Some(served) = &page.served else {
        return families;
    };
    let problems =
        served.certificate_problems.len() + usize::from(served.decisions_problem.is_some());
    let pages = served.pages.iter().flat_map(|(rule, languages)| {
        languages
            .iter()
            .map(move |(language, count)| (vec![rule.clone(), language.clone()], *count))
    });
    let ends = served.certificates.iter().map(|certificate| {
        let path = Path::new(&certificate.file);
        let file = path.strip_prefix(certificates).unwrap_or(path);
        let file = file.to_string_lossy().into_owned();
        let name = certificate.names.first().cloned().unwrap_or_default();
        (vec![file, name], unix(certificate.not_after))
    });
    families.extend([
        at(Metric::PageStart, Some(served.since)),
        one(Metric::PageOpen, served.open),
        family(
            Metric::PageEvents,
            served
                .counters
                .iter()
                .map(|(event, count)| (vec![event.clone()], *count)),
        ),
        family(Metric::PageServed, pages),
        one(Metric::PageProblems, problems as u64),
        with_values(Metric::CertificateEnd, ends),
    ]);
    families
}
