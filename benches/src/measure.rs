//! Interleaved samples.

use anyhow::{Context as _, Result, bail};

use crate::{
    cases::{Case, From, XDP_DROP, XDP_PASS},
    contender::{Contender, Kind, Knows, nanoseconds},
    harness::{Harness, all_processors},
    report::{Row, Unit},
    sources::{Family, Prefixes, Random, Source, among, single},
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples of each contender and case; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    /// Runs per sample.
    pub(crate) repeat: u32,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        rounds: 5,
        repeat: 1 << 15,
    };
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        repeat: 1 << 16,
    };
}

/// Runs before each that counts.
const WARM_UPS: usize = 1;

/// The blocked prefixes.
pub(crate) struct World {
    pub(crate) v4: Prefixes,
    pub(crate) v6: Prefixes,
}

impl World {
    fn of(&self, family: Family) -> &Prefixes {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The sources of a case for most contenders.
    fn sources(&self, from: From, random: &mut Random) -> Vec<Source> {
        match from {
            From::Outside(family) => self.of(family).outside(random),
            From::Inside(family) => self.of(family).inside(random),
            From::OneInside(family) => {
                let mut sources = self.of(family).inside(random);
                sources.truncate(1);
                sources
            }
            From::Only(address) => vec![single(address)],
        }
    }
}

/// Those of a contender that blocks only some hosts.
fn own_sources(from: From, contender: &Contender, random: &mut Random) -> Option<Vec<Source>> {
    let hosts = contender.blocks.as_deref()?;
    match from {
        From::Outside(_) => None,
        From::Inside(_) => Some(among(hosts, random)),
        From::OneInside(_) => Some(among(&hosts[..1], random).into_iter().take(1).collect()),
        From::Only(_) => None,
    }
}

/// Whether a contender is worth measuring on a case, and the XDP action that it must return.
fn expected(contender: &Contender, case: &Case) -> Option<u32> {
    let v4 = !matches!(
        case.from,
        From::Outside(Family::V6) | From::Inside(Family::V6) | From::OneInside(Family::V6)
    );
    match contender.knows {
        Knows::Nothing => Some(XDP_PASS),
        Knows::FewRules => (case.budget_small_ns.is_some()).then_some(XDP_PASS),
        // Its list of IPv6 addresses is empty.
        Knows::Addresses if contender.blocks.is_some() && !v4 => None,
        Knows::Addresses if !case.by_address => None,
        Knows::All if contender.place != case.place => None,
        Knows::Addresses | Knows::All => Some(case.action),
    }
}

/// The samples of every contender on one case, as rows.
pub(crate) fn measure(
    harness: &mut Harness,
    world: &World,
    case: &Case,
    contenders: &[Contender],
    effort: Effort,
    random: &mut Random,
) -> Result<Vec<Row>> {
    let repeat = effort.repeat.min(case.repeat_max.unwrap_or(u32::MAX));
    let sources = world.sources(case.from, random);
    let mut field = Vec::new();
    for contender in contenders {
        if let Some(action) = expected(contender, case) {
            let own = own_sources(case.from, contender, random);
            field.push((contender, action, own, Vec::new()));
        }
    }
    for _ in 0..effort.rounds {
        for (contender, action, own, samples) in &mut field {
            let what = || format!("{} on {}", contender.name, case.name);
            harness.set_sources(own.as_ref().unwrap_or(&sources))?;
            harness
                .set_target(contender.kind, &contender.program)
                .with_context(what)?;
            // A table that was pushed out of the caches meanwhile comes back first.
            for _ in 0..WARM_UPS {
                harness
                    .run(contender.kind, &case.frames, repeat)
                    .with_context(what)?;
            }
            let ran = harness
                .run(contender.kind, &case.frames, repeat)
                .with_context(what)?;
            if ran.action != *action {
                // A wrong verdict's time means nothing.
                bail!("{}: XDP action {}, not {action}", what(), ran.action);
            }
            samples.push(nanoseconds(ran.mean));
        }
    }
    let base = |kind: Kind| {
        let mut empties = field
            .iter()
            .filter(|(contender, ..)| contender.knows == Knows::Nothing && contender.kind == kind);
        empties.next().map_or(0.0, |(.., samples)| median(samples))
    };
    let (frags, linear) = (base(Kind::Frags), base(Kind::Linear));
    Ok(field
        .iter()
        .map(|(contender, action, _, samples)| {
            debug_assert!(*action == XDP_PASS || *action == XDP_DROP);
            let base = match contender.kind {
                Kind::Frags => frags,
                Kind::Linear => linear,
            };
            let budget = match contender.knows {
                Knows::All => case.budget_ns,
                Knows::FewRules => case.budget_small_ns,
                Knows::Nothing | Knows::Addresses => None,
            };
            let mut row = Row::new(
                case.name,
                contender.name,
                contender.entries,
                Unit::Ns,
                samples,
            );
            let over = row.median - base;
            row.over_empty_ns = Some(over);
            row.judge(over, budget.map(|budget| budget as f64));
            row
        })
        .collect())
}

/// Samples of one contender with a frame of the case on one processor, and on all at once: without a
/// cache line that all write, the second takes no longer than the first.
pub(crate) fn measure_scaling(
    harness: &mut Harness,
    world: &World,
    case: &Case,
    contender: &Contender,
    effort: Effort,
    random: &mut Random,
) -> Result<Vec<Row>> {
    let cpus = all_processors()?;
    let frame = case.frames.first().context("a case without frames")?;
    harness.set_sources(&world.sources(case.from, random))?;
    harness.set_target(contender.kind, &contender.program)?;
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        let cpu = cpus[round % cpus.len()];
        for duration in harness.run_at_once(&[cpu], frame, effort.repeat)? {
            one.push(nanoseconds(duration));
        }
        for duration in harness.run_at_once(&cpus, frame, effort.repeat)? {
            all.push(nanoseconds(duration));
        }
    }
    let row = |name, samples: &[f64]| {
        Row::new(name, contender.name, contender.entries, Unit::Ns, samples)
    };
    Ok(vec![
        row("one_processor", &one),
        row("all_processors", &all),
    ])
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
