//! Files that are replaced while the server runs.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    certificates::{Certificates, FileStamp},
    decisions::{self, Index},
    server::Shared,
    stats::Counter,
};

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
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) index: Arc<Index>,
    pub(crate) problem: Option<String>,
    stamp: Option<FileStamp>,
}

impl Rules {
    /// # Errors
    /// If the file is not usable.
    pub(crate) fn load(path: &Path) -> Result<Self, crate::Error> {
        // Before the contents: a file replaced in between is read again.
        let stamp = FileStamp::of(path);
        Ok(Self {
            index: Arc::new(decisions::load(path)?),
            problem: None,
            stamp,
        })
    }
}

/// Looks at the files for as long as the server runs. Looking and reading happen on a thread of
/// their own, since a large file must not hold up visitors.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut ticks = interval(shared.reload_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
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
    let stamp = FileStamp::of(&shared.decisions);
    if stamp == known.stamp {
        return;
    }
    match Rules::load(&shared.decisions) {
        Ok(rules) => {
            shared.stats.count(Counter::Reloads);
            let index = rules.index.clone();
            shared.rules.replace(rules);
            shared.stats.retain_rules(|id| index.has_rule(id));
        }
        Err(error) => {
            shared.stats.count(Counter::ReloadsFailed);
            tracing::error!("{error}; the last good rules stay");
            shared.rules.replace(Rules {
                index: known.index.clone(),
                problem: Some(error.to_string()),
                stamp,
            });
        }
    }
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
