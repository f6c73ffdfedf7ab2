//! Telling the page's process the rules, before the kernel sends it their visitors.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{CommandError, Wanted};
use crate::{
    compile::Meta,
    datapath::Root,
    sink::{
        files::{self, Listed},
        process, report,
        spec::{Files, Shape},
    },
};

/// How long the process may take to read the rules: two seconds for a million names.
const KNOWN_MAX: Duration = Duration::from_secs(5);

/// How long is waited until it is asked again, at first; each time twice as long.
const ASK_AGAIN: Duration = Duration::from_millis(5);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(200);

/// Rules that the page's process answers for beside those in force. Dropped without
/// [`Announced::come_into_force`], they are withdrawn.
#[must_use]
pub(super) struct Announced {
    /// `None` if no rule leads to the page, or they could not be written.
    files: Option<Files>,
    /// What is wrong with it, in words.
    problem: Option<String>,
}

impl Announced {
    /// Tells the rules that generation `generation` will have, and waits until the process knows them. What lists
    /// it needs is read.
    ///
    /// There is no error: a policy is put in force also if nobody shows a page for it.
    pub(super) fn new(root: &Root, wanted: &mut Wanted, meta: &Meta, generation: u64) -> Self {
        let announced = Self::write(root, wanted, meta, generation);
        let Some((files, mark)) = announced else {
            return Self {
                files: None,
                problem: None,
            };
        };
        match mark {
            Ok(mark) => Self {
                problem: wait_until_known(root, &files, mark),
                files: Some(files),
            },
            Err(error) => Self {
                files: None,
                problem: Some(unknown(&error.to_string())),
            },
        }
    }

    fn write(
        root: &Root,
        wanted: &mut Wanted,
        meta: &Meta,
        generation: u64,
    ) -> Option<(Files, Result<u64, CommandError>)> {
        let files = Files::of(root.run_dir());
        let written = meta
            .has_page()
            .then(|| write_coming(&files, wanted, meta, generation))?;
        Some((files, written))
    }

    /// The kernel has them: those before are forgotten. What was wrong, in words.
    pub(super) fn come_into_force(mut self) -> Option<String> {
        if let Some(files) = self.files.take()
            && let Err(error) = files::bring_into_force(&files)
        {
            self.problem = Some(unknown(&error.to_string()));
        }
        self.problem.take()
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(files) = self.files.take()
            && let Err(error) = files::withdraw_coming(&files)
        {
            tracing::warn!(%error, "the block page goes on knowing rules that are not in force");
        }
    }
}

/// Tells the process the rules that are in force already. What is wrong with that, in words.
pub(super) fn tell_again(root: &Root, wanted: &mut Wanted, meta: &Meta) -> Option<String> {
    let (files, written) = Announced::write(root, wanted, meta, meta.generation)?;
    let told = written.and_then(|_| Ok(files::bring_into_force(&files)?));
    told.err().map(|error| unknown(&error.to_string()))
}

fn unknown(why: &str) -> String {
    format!("the block page does not know the rules in place: {why}")
}

/// The mark of what was written.
fn write_coming(
    files: &Files,
    wanted: &mut Wanted,
    meta: &Meta,
    generation: u64,
) -> Result<u64, CommandError> {
    let host = wanted.host.clone();
    let group = Shape::group(&host)?;
    files::prepare(files, group)?;
    // Another one each time: what is announced may be withdrawn.
    let mark = Timestamp::now().as_microsecond().unsigned_abs();
    let outlined = wanted.outline.rules.iter().map(Listed::from);
    if !wanted.outline.rules.is_empty()
        && files::write_coming(files, group, meta, generation, mark, outlined, &host)?
    {
        return Ok(mark);
    }
    let policy = wanted.policy()?;
    let keys = meta.rules.iter().map(|rule| rule.lists.keys.as_str());
    let listed = policy.rules.iter().zip(keys).map(|(rule, keys)| Listed {
        rule,
        keys,
        is_read: true,
    });
    files::write_coming(files, group, meta, generation, mark, listed, &host)?;
    Ok(mark)
}

/// Returns when the process answers for what was announced, or nobody is sent to it.
fn wait_until_known(root: &Root, files: &Files, mark: u64) -> Option<String> {
    let is_reached = root.sink_status().is_some_and(|way| way.up);
    if !is_reached || !process::is_of_this_binary(files) {
        return None;
    }
    let begin = Instant::now();
    let mut pause = ASK_AGAIN;
    while begin.elapsed() < KNOWN_MAX {
        // Being asked, it looks at its files.
        let told = report::snapshot(files);
        if told.is_some_and(|told| told.coming == Some(mark)) {
            tracing::debug!(took = ?begin.elapsed(), "the block page knows the rules that come");
            return None;
        }
        thread::sleep(pause);
        pause = (2 * pause).min(ASK_AGAIN_MAX);
    }
    Some(format!(
        "the block page's process did not take the new rules within {} s: until it has, visitors of names that are \
         new get status 421",
        KNOWN_MAX.as_secs()
    ))
}
