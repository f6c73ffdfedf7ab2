//! Files that are replaced while the server runs.

use std::{
    io, mem,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    certificates::{Certificates, FileStamp},
    decisions::{self, Asked, Decisions, Index, Rule},
    server::Shared,
    stats::Counter,
};

/// How long rules answer that are not in force any more: visitors who were handed over before that have yet to
/// send their request, behind a handshake of two round trips.
const PAST_MAX: Duration = Duration::from_secs(3);

/// Something of which there is always a current version.
#[derive(Debug)]
pub(crate) struct Current<T>(RwLock<Arc<T>>);

impl<T> Current<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    pub(crate) fn current(&self) -> Arc<T> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

/// The rules in use, and why the newest ones are not.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    in_force: Loaded,
    /// Those that come next, until their file takes the other's place.
    coming: Option<Loaded>,
    /// Those that were in force before, and since when they are not.
    past: Option<(Loaded, Instant)>,
    /// Why a file is not in use: that of the rules in force, and of those that come.
    problems: [Option<String>; 2],
    stamps: Stamps,
}

/// Contents of one file.
#[derive(Clone, Debug)]
struct Loaded {
    index: Arc<Index>,
    /// As it was before it was read: a file replaced meanwhile is read again.
    stamp: Option<FileStamp>,
}

/// Both files as they were when they were last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps {
    in_force: Option<FileStamp>,
    coming: Option<FileStamp>,
}

impl Stamps {
    fn of(decisions: &Path) -> Self {
        // In this order: a file that is renamed in between is seen twice, and not missed.
        let coming = FileStamp::of(&decisions::coming(decisions));
        Self {
            in_force: FileStamp::of(decisions),
            coming,
        }
    }
}

impl Loaded {
    fn read(path: &Path, stamp: &Option<FileStamp>) -> Result<Self, crate::Error> {
        Ok(Self {
            index: Arc::new(decisions::load(path)?),
            stamp: stamp.clone(),
        })
    }

    fn is_of(&self, stamp: &Option<FileStamp>) -> bool {
        let both = self.stamp.as_ref().zip(stamp.as_ref());
        both.is_some_and(|(own, other)| own.is_same_contents(other))
    }
}

impl Rules {
    /// # Errors
    /// If the file is not usable.
    pub(crate) fn load(path: &Path) -> Result<Self, crate::Error> {
        let stamps = Stamps::of(path);
        Ok(Self {
            in_force: Loaded::read(path, &stamps.in_force)?,
            coming: None,
            past: None,
            problems: [None, None],
            // What comes is read at the first look.
            stamps: Stamps {
                coming: None,
                ..stamps
            },
        })
    }

    /// The rule whose page answers, and the document that it is in.
    pub(crate) fn page_rule(&self, asked: Asked<'_>) -> Option<(&Rule, &Decisions)> {
        self.answering().find_map(|Loaded { index, .. }| {
            let rule = index.page_rule(asked)?;
            Some((rule, index.decisions()))
        })
    }

    /// All that answer, first those that count most.
    fn answering(&self) -> impl Iterator<Item = &Loaded> {
        let past = self.past.as_ref().map(|(loaded, _)| loaded);
        self.coming.iter().chain([&self.in_force]).chain(past)
    }

    fn without_past(&self) -> Self {
        Self {
            past: None,
            ..self.clone()
        }
    }

    fn has_outlived(&self) -> bool {
        let past = self.past.as_ref();
        past.is_some_and(|(_, ended)| ended.elapsed() > PAST_MAX)
    }

    pub(crate) fn in_force(&self) -> &Decisions {
        self.in_force.index.decisions()
    }

    /// [`Decisions::mark`] of the rules that come next.
    pub(crate) fn coming_mark(&self) -> Option<u64> {
        let coming = self.coming.as_ref()?;
        Some(coming.index.decisions().mark)
    }

    /// Why the newest rules are not in use.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problems.iter().flatten().next().map(String::as_str)
    }

    fn has_rule(&self, id: &str) -> bool {
        self.answering().any(|loaded| loaded.index.has_rule(id))
    }

    /// These rules and what the files have now; each one that cannot be used leaves what was there before.
    fn next(&self, path: &Path, stamps: Stamps) -> Self {
        let mut next = self.clone();
        next.problems[1] = None;
        next.past = next.past.filter(|(_, ended)| ended.elapsed() <= PAST_MAX);
        // First what comes: if it is renamed meanwhile it is found at the other's place.
        let coming = match (&self.coming, &stamps.coming) {
            (_, None) => None,
            (Some(known), stamp) if known.is_of(stamp) => Some(known.clone()),
            (_, stamp) => match Loaded::read(&decisions::coming(path), stamp) {
                Ok(loaded) => Some(loaded),
                Err(crate::Error::ReadDecisions { cause, .. })
                    if cause.kind() == io::ErrorKind::NotFound =>
                {
                    None
                }
                Err(error) => {
                    next.problems[1] = Some(error.to_string());
                    None
                }
            },
        };
        if stamps.in_force != self.stamps.in_force {
            let known = self.coming.iter().chain(&coming);
            let known = known.into_iter().find(|it| it.is_of(&stamps.in_force));
            let loaded = match known {
                Some(known) => Ok(known.clone()),
                None => Loaded::read(path, &stamps.in_force),
            };
            next.problems[0] = loaded.as_ref().err().map(ToString::to_string);
            if let Ok(loaded) = loaded {
                next.past = Some((mem::replace(&mut next.in_force, loaded), Instant::now()));
            }
        }
        next.coming = coming;
        next.stamps = stamps;
        next
    }
}

/// Looks at the files now and then, and when somebody asks for the statistics, for as long as the server runs. Looking and reading happen on a thread of
/// their own, since a large file must not hold up visitors.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut ticks = interval(shared.reload_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.look.notified() => {}
        }
        let shared = shared.clone();
        if let Err(error) = spawn_blocking(move || look(&shared)).await {
            tracing::error!("looking for changed files failed: {error}");
        }
    }
}

fn look(shared: &Shared) {
    look_at_rules(shared);
    look_at_certificates(shared);
}

fn look_at_rules(shared: &Shared) {
    let known = shared.rules.current();
    let stamps = Stamps::of(&shared.decisions);
    if stamps == known.stamps {
        if known.has_outlived() {
            put_in_use(shared, known.without_past());
        }
        return;
    }
    let next = known.next(&shared.decisions, stamps);
    match next.problem() {
        None => shared.stats.count(Counter::Reloads),
        Some(problem) => {
            shared.stats.count(Counter::ReloadsFailed);
            tracing::error!("{problem}; the last good rules stay");
        }
    }
    put_in_use(shared, next);
}

fn put_in_use(shared: &Shared, rules: Rules) {
    shared.stats.retain_rules(|id| rules.has_rule(id));
    shared.rules.replace(rules);
}

fn look_at_certificates(shared: &Shared) {
    let known = shared.certificates.current();
    let Some(after) = known.changed(&shared.certificates_in) else {
        return;
    };
    let new_problems = after
        .problems()
        .iter()
        .filter(|problem| !known.problems().contains(problem));
    let mut counter = Counter::Reloads;
    for problem in new_problems {
        counter = Counter::ReloadsFailed;
        tracing::error!("certificates: {problem}");
    }
    shared.stats.count(counter);
    shared.certificates.replace(after);
}

/// Reads for the first time.
pub(crate) fn certificates(directory: &Path) -> Certificates {
    let certificates = Certificates::load(directory);
    for problem in certificates.problems() {
        tracing::error!("certificates: {problem}");
    }
    certificates
}
