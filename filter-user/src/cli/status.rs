//! `status`.

use std::{path::PathBuf, thread, time::Duration};

use filter_common::reason::Reason;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    env::{Env, table},
    page::{self, PageStatus},
    policy::write_warnings,
};
use crate::{
    compile::{Meta, Term, config_digest},
    controller::{CommandError, RunState, WantedInterface},
    datapath::{self, Cost, DatapathError, Enforced, EventLosses, Kernel, Root},
    metrics,
    sink::report::Uncovered,
};

/// Reasons that say "a server could still make sense of this, we could not".
const UNPARSED: [Reason; 12] = [
    Reason::Truncated,
    Reason::VlanDepth,
    Reason::ExtensionDepth,
    Reason::FirstFragment,
    Reason::OtherProtocol,
    Reason::HelloIncomplete,
    Reason::HelloMalformed,
    Reason::HelloTooLong,
    Reason::ProxyMalformed,
    Reason::OddName,
    Reason::QuicUnread,
    Reason::Http2,
];

const SETTLE: Duration = Duration::from_millis(100);

/// What this version does not see, said in every status.
const LIMITS: [&str; 3] = [
    "names in QUIC are not read (counted as quic_unread)",
    "of an encrypted hello (ECH) only the outer name is seen",
    "a new hostname rule does not end connections that are open (apply --cut does)",
];

/// What `status` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Whether what is wanted is what is enforced, on every wanted interface.
    pub in_sync: bool,
    /// Why not.
    pub differences: Vec<String>,
    /// The interfaces.
    pub interfaces: Vec<Enforced>,
    /// Number of the generation in place.
    pub generation: Option<u64>,
    /// When it was compiled.
    pub compiled_at: Option<Timestamp>,
    /// The policy file it was made from.
    pub policy: Option<String>,
    /// Digest of that policy.
    pub policy_digest: Option<String>,
    /// Digest of the policy as wanted, if known.
    pub wanted_digest: Option<String>,
    /// Number of rules in place.
    pub rules: usize,
    /// Rules in place whose time has not come or is over.
    pub not_in_force: Vec<NotInForce>,
    /// Findings about the policy in place.
    pub warnings: Vec<String>,
    /// The running controller's process id.
    pub controller: Option<u32>,
    /// Why the policy as written is not enforced.
    pub last_error: Option<String>,
    /// When a policy was put or found in place without error last, as far as is known.
    pub applied_at: Option<Timestamp>,
    /// Whether the running controller could not apply the policy as it is written now.
    pub apply_failed: bool,
    /// Why metrics are not told as configured.
    pub metrics_problem: Option<String>,
    /// Events that were not emitted.
    pub events: EventLosses,
    /// Packets that could not be understood, by reason, those that occurred.
    pub unparsed: Vec<(&'static str, u64)>,
    /// What the program in place costs.
    pub cost: Option<Cost>,
    /// The running kernel, and what is done without what it lacks.
    pub kernel: Kernel,
    /// Connections that pass through, by interface.
    pub connections: Vec<Connections>,
    /// The block page, if a rule leads to it.
    pub page: Option<PageStatus>,
    /// Control group whose processes are kept from connecting to blocked origins.
    pub local_proxies: Option<PathBuf>,
    /// Whether connections of that group are decided about.
    pub local_attached: bool,
    /// Whether they are led to the block page where the rule leads there.
    pub local_page: bool,
    /// What this version does not see.
    pub limits: Vec<&'static str>,
}

/// Connections through one interface, counted at the client's first payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Where the client's payload came in.
    pub interface: String,
    /// Judged with the server's answers seen.
    pub answered: u64,
    /// Judged by what the client sent alone: the server's direction does not come by here.
    pub unanswered: u64,
    /// Whether there are such.
    pub weak: bool,
}

/// A rule that hits nothing at the moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotInForce {
    /// Id of the rule.
    pub rule: String,
    /// On which side of its time this moment lies.
    pub term: Term,
    /// Its `from`.
    pub from: Option<Timestamp>,
    /// Its `until`.
    pub until: Option<Timestamp>,
}

/// Prints the status; `true` if all is as wanted.
pub(super) fn status(env: &mut Env<'_>) -> Result<bool, CommandError> {
    let root = env.root()?;
    let status = settled(&root, None, || wanted(env, &root))?;
    let in_sync = status.in_sync;
    env.print(&status, write_status)?;
    Ok(in_sync)
}

/// Prints the metrics; `true` if all is as wanted.
pub(super) fn metrics(env: &mut Env<'_>) -> Result<bool, CommandError> {
    let root = env.root()?;
    let status = settled(&root, None, || wanted(env, &root))?;
    let families = metrics::gather(&root, &status)?;
    env.print(&families, |out, families| {
        out.write_all(metrics::openmetrics(families).as_bytes())
    })?;
    Ok(status.in_sync)
}

/// The status as the controller knows it that runs in this process.
///
/// `uncovered` are the page's names without a certificate, if they are known.
pub(crate) fn observed(
    root: &Root,
    uncovered: Option<Vec<Uncovered>>,
) -> Result<Status, CommandError> {
    let wanted = || wanted_by_controller(root).unwrap_or_default();
    settled(root, uncovered, wanted)
}

/// A change in progress shows as a difference for a moment.
fn settled(
    root: &Root,
    uncovered: Option<Vec<Uncovered>>,
    wanted: impl Fn() -> Wanted,
) -> Result<Status, CommandError> {
    let status = gather(root, uncovered.clone(), wanted())?;
    if status.in_sync {
        return Ok(status);
    }
    thread::sleep(SETTLE);
    gather(root, uncovered, wanted())
}

/// What is wanted, as far as this process can know it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    digest: Option<String>,
    config_digest: Option<String>,
    interfaces: Vec<WantedInterface>,
    error: Option<String>,
}

/// The running controller knows best; without one, the files are read.
fn wanted(env: &Env<'_>, root: &Root) -> Wanted {
    if let Some(wanted) = wanted_by_controller(root) {
        return wanted;
    }
    let host = match env.sources.host() {
        Ok(host) => host,
        Err(error) => {
            return Wanted {
                error: Some(error.to_string()),
                ..Wanted::default()
            };
        }
    };
    // Flags of an earlier command are not known, so that without a file nothing can be compared.
    let configured = env.sources.config_path().is_some() || !env.sources.serves.is_empty();
    let mut wanted = Wanted {
        config_digest: configured.then(|| config_digest(&host)),
        interfaces: host.interfaces.iter().map(Into::into).collect(),
        ..Wanted::default()
    };
    if host.policy.is_some() {
        let in_place = root.meta().ok().flatten();
        match env.sources.outline(in_place.as_ref()) {
            Ok(read) => wanted.digest = Some(read.outline.digest),
            Err(error) => wanted.error = Some(error.to_string()),
        }
    }
    wanted
}

/// What the running controller wants; `None` without one.
fn wanted_by_controller(root: &Root) -> Option<Wanted> {
    let state = RunState::read(root.run_dir())?;
    (root.controller_pid() == Some(state.pid)).then_some(Wanted {
        digest: state.policy_digest,
        config_digest: state.config_digest,
        interfaces: state.interfaces,
        error: state.last_error,
    })
}

fn gather(
    root: &Root,
    uncovered: Option<Vec<Uncovered>>,
    wanted: Wanted,
) -> Result<Status, CommandError> {
    let interfaces = root.enforced()?;
    let meta = root.meta()?;
    let lost = root.lost_redirects()?;
    let page = match meta.as_ref().is_some_and(Meta::has_page) {
        true => Some(PageStatus::gather(root, uncovered)?),
        false => None,
    };
    let mut differences = differences(&interfaces, meta.as_ref(), &wanted, &lost);
    // The controller's own words say more.
    if wanted.error.is_none() {
        differences.extend(page.as_ref().and_then(PageStatus::difference));
    }
    let local_proxies = meta.as_ref().and_then(|meta| meta.local_proxies.clone());
    let local_page = meta.as_ref().is_some_and(|meta| meta.local_page);
    let local_attached = match &local_proxies {
        Some(group) => root.local_hooked(group)?,
        None => false,
    };
    if let Some(group) = &local_proxies
        && !local_attached
    {
        differences.push(format!(
            "{}: this control group is gone, or was made anew; connections of local proxies go on",
            group.display()
        ));
    }
    let unparsed = match root.reason_counters() {
        Ok(counters) => UNPARSED
            .iter()
            .map(|&reason| (reason.as_str(), counters.of(reason)))
            .filter(|(_, packets)| *packets > 0)
            .collect(),
        Err(DatapathError::NothingEnforced) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let events = match root.event_losses() {
        Ok(losses) => losses,
        Err(DatapathError::NothingEnforced) => EventLosses::default(),
        Err(error) => return Err(error.into()),
    };
    let connections = connections(root, &interfaces)?;
    let state = RunState::read(root.run_dir());
    let controller = root.controller_pid();
    let running = state.as_ref().filter(|state| controller == Some(state.pid));
    let found_at = state.as_ref().and_then(|state| state.applied_at);
    Ok(Status {
        in_sync: differences.is_empty(),
        differences,
        generation: meta.as_ref().map(|meta| meta.generation),
        compiled_at: meta.as_ref().map(|meta| meta.compiled_at),
        policy: meta.as_ref().and_then(|meta| meta.policy_path.clone()),
        policy_digest: meta.as_ref().map(|meta| meta.policy_digest.clone()),
        wanted_digest: wanted.digest,
        rules: meta.as_ref().map_or(0, |meta| meta.rules.len()),
        not_in_force: meta.iter().flat_map(not_in_force).collect(),
        cost: meta.as_ref().and_then(|_| root.cost().ok()),
        applied_at: meta
            .as_ref()
            .and_then(|meta| found_at.max(Some(meta.compiled_at))),
        apply_failed: running.is_some_and(|state| state.apply_failed),
        metrics_problem: running.and_then(|state| state.metrics_problem.clone()),
        warnings: meta.map(|meta| meta.warnings).unwrap_or_default(),
        interfaces,
        controller,
        last_error: wanted.error,
        events,
        unparsed,
        kernel: datapath::kernel(),
        connections,
        page,
        local_proxies,
        local_attached,
        local_page,
        limits: LIMITS.to_vec(),
    })
}

/// Connections through the enforced interfaces.
pub(super) fn connections(
    root: &Root,
    interfaces: &[Enforced],
) -> Result<Vec<Connections>, CommandError> {
    let counted = root.directions()?;
    let named = counted.into_iter().filter_map(|(index, counts)| {
        let link = interfaces.iter().find(|link| link.ifindex == index)?;
        Some(Connections {
            interface: link.interface.clone(),
            answered: counts.answered,
            unanswered: counts.unanswered,
            weak: counts.unanswered > 0,
        })
    });
    Ok(named.collect())
}

/// Says which connections were judged without the server's answers.
pub(super) fn write_weak(
    out: &mut dyn std::io::Write,
    connections: &[Connections],
) -> std::io::Result<()> {
    for it in connections.iter().filter(|it| it.weak) {
        writeln!(
            out,
            "weak       {}: {} of {} connections were judged without the server's answers, which do \
             not come by an attached interface",
            it.interface,
            it.unanswered,
            it.answered + it.unanswered
        )?;
    }
    Ok(())
}

fn not_in_force(meta: &Meta) -> Vec<NotInForce> {
    let now = Timestamp::now();
    let rules = meta.rules.iter().map(|rule| NotInForce {
        rule: rule.id.clone(),
        term: rule.term(now),
        from: rule.from,
        until: rule.until,
    });
    rules.filter(|rule| rule.term != Term::InForce).collect()
}

/// Everything in which wanted and enforced differ, as sentences.
fn differences(
    enforced: &[Enforced],
    meta: Option<&Meta>,
    wanted: &Wanted,
    lost: &[String],
) -> Vec<String> {
    let mut differences = Vec::new();
    let error = wanted.error.as_ref().map(|error| {
        let first = error.lines().next().unwrap_or_default();
        format!("not enforced as wanted: {first}")
    });
    let Some(meta) = meta.filter(|_| !enforced.is_empty()) else {
        differences.push("nothing is enforced".to_owned());
        differences.extend(error);
        return differences;
    };
    for link in enforced {
        if link.defunct {
            differences.push(format!(
                "{}: its interface vanished, nothing is filtered there",
                link.interface
            ));
        } else if link.mode.is_none() {
            differences.push(format!("{}: the program is not attached", link.interface));
        } else if link.generation != Some(meta.generation) {
            differences.push(format!("{}: runs another generation", link.interface));
        }
    }
    for WantedInterface { name, mode } in &wanted.interfaces {
        let Some(link) = enforced.iter().find(|link| link.interface == *name) else {
            differences.push(format!("{name}: configured, but not enforced"));
            continue;
        };
        if let (Some(wanted), Some(obtained)) = (mode, link.mode)
            && *wanted != obtained
        {
            differences.push(format!(
                "{name}: runs in {obtained} mode, {wanted} is configured; `edgefilter detach --interface {name}` and \
                 `edgefilter apply` change it"
            ));
        }
    }
    if wanted
        .digest
        .as_ref()
        .is_some_and(|digest| *digest != meta.policy_digest)
    {
        differences.push("the policy as written is not the one in place".to_owned());
    }
    let config_differs = wanted
        .config_digest
        .as_ref()
        .is_some_and(|digest| *digest != meta.config_digest);
    if config_differs && !meta.config_digest.is_empty() {
        differences.push("the host configuration as written is not the one in place".to_owned());
    }
    for interface in lost {
        differences.push(format!(
            "{interface}: rules redirect to it, but it is gone; what they hit is dropped"
        ));
    }
    differences.extend(error);
    differences
}

fn write_status(out: &mut dyn std::io::Write, status: &Status) -> std::io::Result<()> {
    match (status.in_sync, status.generation) {
        (true, _) => writeln!(out, "enforcing as wanted")?,
        (false, Some(_)) => writeln!(out, "NOT AS WANTED")?,
        (false, None) => writeln!(out, "NOT ENFORCING")?,
    }
    for difference in &status.differences {
        writeln!(out, "  {difference}")?;
    }
    let optional = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
    if let Some(generation) = status.generation {
        writeln!(
            out,
            "generation {generation}, {} rules, compiled {}",
            status.rules,
            optional(status.compiled_at.map(|at| at.to_string()).as_ref())
        )?;
        writeln!(
            out,
            "policy     {} ({:.12})",
            optional(status.policy.as_ref()),
            optional(status.policy_digest.as_ref())
        )?;
    }
    match status.controller {
        Some(pid) => writeln!(out, "controller pid {pid}")?,
        None => writeln!(out, "controller not running (the filter does not need it)")?,
    }
    if let Some(error) = &status.last_error {
        writeln!(out, "last error {error}")?;
    }
    if let Some(problem) = &status.metrics_problem {
        writeln!(out, "metrics    {problem}")?;
    }
    if !status.interfaces.is_empty() {
        let mut rows = vec![
            ["INTERFACE", "MODE", "GENERATION", "SINCE", "NOTE"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(status.interfaces.iter().map(|link| {
            vec![
                link.interface.clone(),
                link.mode.map_or("-", |mode| mode.as_str()).to_owned(),
                link.generation
                    .map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
                optional(link.since.map(|since| since.to_string()).as_ref()),
                match (link.defunct, &link.fallback) {
                    (true, _) => "DEFUNCT".to_owned(),
                    (false, Some(reason)) => format!("native refused: {reason}"),
                    (false, None) => String::new(),
                },
            ]
        }));
        table(out, &rows)?;
    }
    if let Some(cost) = &status.cost {
        writeln!(
            out,
            "program    {} verified instructions, loaded in {} ms; maps {} KiB",
            cost.verified_instructions
                .map_or_else(|| "?".to_owned(), |count| count.to_string()),
            cost.load_us / 1000,
            cost.map_bytes / 1024
        )?;
    }
    if let Some(group) = &status.local_proxies {
        let group = group.display();
        writeln!(
            out,
            "local      connections of {group} to blocked origins {}",
            match status.local_page {
                true => "are led to the block page where the rule leads there, else fail",
                false => "fail",
            }
        )?;
    }
    for rule in &status.not_in_force {
        let (word, at) = match rule.term {
            Term::NotYet => ("not yet in force, from", rule.from),
            Term::NoLonger => ("no longer in force, until", rule.until),
            Term::InForce => continue,
        };
        writeln!(
            out,
            "rule       {}: {word} {}",
            rule.rule,
            optional(at.map(|at| at.to_string()).as_ref())
        )?;
    }
    writeln!(
        out,
        "events     {} suppressed by the rate limit, {} lost",
        status.events.suppressed, status.events.lost
    )?;
    for (reason, packets) in &status.unparsed {
        writeln!(out, "unparsed   {reason}: {packets} packets")?;
    }
    writeln!(out, "kernel     {}", status.kernel.release)?;
    for lacking in &status.kernel.lacks {
        writeln!(
            out,
            "lacks      {} (Linux {}): {}",
            lacking.feature, lacking.since, lacking.instead
        )?;
    }
    write_weak(out, &status.connections)?;
    if let Some(page) = &status.page {
        page::write(out, page)?;
    }
    for limit in &status.limits {
        writeln!(out, "limit      {limit}")?;
    }
    write_warnings(out, &status.warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Mode;

    fn link(interface: &str) -> Enforced {
        Enforced {
            interface: interface.to_owned(),
            ifindex: 2,
            mode: Some(Mode::Native),
            program_id: 1,
            generation: Some(3),
            since: None,
            fallback: None,
            defunct: false,
        }
    }

    fn interface(name: &str, mode: Option<Mode>) -> WantedInterface {
        WantedInterface {
            name: name.to_owned(),
            mode,
        }
    }

    fn meta() -> Meta {
        Meta {
            generation: 3,
            policy_digest: "aa".to_owned(),
            config_digest: "cc".to_owned(),
            ..Meta::default()
        }
    }

    #[test]
    fn nothing_differs_when_the_wanted_policy_runs_on_the_wanted_interfaces() {
        let wanted = Wanted {
            digest: Some("aa".into()),
            config_digest: Some("cc".into()),
            interfaces: vec![interface("eth0", Some(Mode::Native))],
            error: None,
        };
        assert_eq!(
            differences(&[link("eth0")], Some(&meta()), &wanted, &[]),
            [""; 0]
        );
    }

    #[test]
    fn every_way_to_differ_is_told() {
        let defunct = Enforced {
            defunct: true,
            ..link("eth1")
        };
        let unattached = Enforced {
            mode: None,
            ..link("eth2")
        };
        let other = Enforced {
            generation: None,
            ..link("eth3")
        };
        let wanted = Wanted {
            digest: Some("bb".into()),
            config_digest: Some("dd".into()),
            interfaces: vec![
                interface("eth4", None),
                interface("eth3", Some(Mode::Generic)),
            ],
            error: Some("bad\nsecond line".into()),
        };
        let told = differences(
            &[defunct, unattached, other],
            Some(&meta()),
            &wanted,
            &["eth5".to_owned()],
        );
        for (sentence, part) in told.iter().zip([
            "eth1: its interface vanished",
            "eth2: the program is not attached",
            "eth3: runs another generation",
            "eth4: configured",
            "eth3: runs in native mode, generic is configured",
            "the policy as written is not the one",
            "the host configuration as written is not the one",
            "eth5: rules redirect to it",
            "not enforced as wanted: bad",
        ]) {
            assert!(sentence.contains(part), "{sentence}");
        }
        assert_eq!(told.len(), 9);
    }

    #[test]
    fn nothing_enforced_is_a_difference() {
        assert_eq!(
            differences(&[], None, &Wanted::default(), &[]),
            ["nothing is enforced"]
        );
        assert_eq!(
            differences(&[], Some(&meta()), &Wanted::default(), &[]),
            ["nothing is enforced"]
        );
    }
}
