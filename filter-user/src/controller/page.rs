//! The block page, as a controller looks after it: the process that serves it, the way there, and the
//! certificates.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::pulse::Pulse;
use crate::{
    compile::Meta,
    datapath::{Enforced, Lock, Root, SinkPlace},
    netlink::Netlink,
    policy::model::{BlockPage, HostConfig, Rule, Target},
    sink::{
        SinkError,
        files::{self, Copies},
        place::{self, Mtu},
        process::{self, Process},
        report::{self, Uncovered},
        spec::{self, Files, Shape},
    },
};

/// How long is waited before a process that ended is started again, at first; each time twice as long.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);

/// A process that served so long was none of the failures that count.
const SERVED_LONG: Duration = Duration::from_secs(60);

/// How long the process may leave a question unanswered before visitors are refused instead of sent to it.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// How long before it is ended, so that those who wait for its answers are reset, and started again.
const HUNG_MAX: Duration = Duration::from_secs(15);

/// Where no interface says otherwise.
const USUAL_MTU: u32 = 1_500;

/// What a controller does about the block page.
pub(super) struct Page {
    files: Files,
    process: Option<Process>,
    /// What is to run; `None` if no rule leads to the page.
    wanted: Option<Wanted>,
    /// Whether what an earlier controller may have left was removed, and nothing was made since.
    is_clean: bool,
    copies: Copies,
    started_at: Instant,
    failures: u32,
    retry_at: Instant,
    problem: Option<String>,
    /// What the process was asked last.
    pulse: Option<Pulse>,
    /// Says that a process ended.
    ended: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

struct Wanted {
    shape: Shape,
    certificates: Option<PathBuf>,
}

impl Page {
    pub(super) fn new(root: &Root) -> Self {
        Self {
            files: Files::of(root.run_dir()),
            process: None,
            wanted: None,
            is_clean: false,
            copies: Copies::default(),
            started_at: Instant::now(),
            failures: 0,
            retry_at: Instant::now(),
            problem: None,
            pulse: None,
            ended: mpsc::channel(1),
        }
    }

    /// Why the page is not served although it should be.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Resolves when the process has ended.
    pub(super) async fn ended(&mut self) {
        // There is always a sender.
        let _ = self.ended.1.recv().await;
    }

    /// Brings about what the policy in place needs.
    pub(super) fn follow(&mut self, root: &Root, host: &HostConfig, meta: &Meta) {
        if let Err(error) = self.try_follow(root, host, meta) {
            self.failed(root, &error);
        }
    }

    fn try_follow(&mut self, root: &Root, host: &HostConfig, meta: &Meta) -> Result<(), SinkError> {
        if !meta.has_page() {
            self.wanted = None;
            self.problem = None;
            self.process = None;
            if !self.is_clean {
                dismiss(root, &root.lock()?, &self.files)?;
                self.is_clean = true;
            }
            return Ok(());
        }
        self.is_clean = false;
        let shape = Shape::new(host, mtu(&root.enforced()?)?, root.page_maps()?)?;
        let is_other = self
            .wanted
            .as_ref()
            .is_none_or(|wanted| wanted.shape != shape);
        self.wanted = Some(Wanted {
            shape,
            certificates: host.block_page.certificates.clone(),
        });
        if is_other {
            self.failures = 0;
            self.retry_at = Instant::now();
        }
        self.look(root)
    }

    /// Once in a while: is it still served, are the certificates still those?
    pub(super) fn tick(&mut self, root: &Root) {
        if let Err(error) = self.look(root) {
            self.failed(root, &error);
        }
    }

    fn look(&mut self, root: &Root) -> Result<(), SinkError> {
        let Some(wanted) = &self.wanted else {
            return Ok(());
        };
        // Detached by somebody, who has ended the process as well.
        if root.enforced()?.is_empty() {
            self.wanted = None;
            self.process = None;
            self.problem = None;
            return Ok(());
        }
        if let Some(process) = &mut self.process
            && process.has_ended()
        {
            if self.started_at.elapsed() > SERVED_LONG {
                self.failures = 0;
            }
            self.process = None;
            return Err(SinkError::Ended);
        }
        files::prepare(&self.files, wanted.shape.group)?;
        let certificates = wanted.certificates.as_deref();
        if let Err(error) = self
            .copies
            .follow(certificates, &self.files, wanted.shape.group)
        {
            tracing::warn!(%error, "certificates are not followed");
        }
        let serves = self
            .process
            .as_ref()
            .is_some_and(|process| process.shape == wanted.shape);
        if serves {
            return self.open_if_it_answers(root);
        }
        if self.retry_at > Instant::now() {
            return Ok(());
        }
        let process = self.begin(root)?;
        tracing::info!(pid = process.pid, "the block page is served");
        root.set_local_page(process.local_port)?;
        root.set_sink(true)?;
        tell_end(process.handle(), self.ended.0.clone());
        self.started_at = Instant::now();
        self.process = Some(process);
        self.problem = None;
        self.pulse = None;
        Ok(())
    }

    /// Keeps the way to the process open as long as that does its work.
    fn open_if_it_answers(&mut self, root: &Root) -> Result<(), SinkError> {
        let files = &self.files;
        let pulse = self.pulse.get_or_insert_with(|| Pulse::ask(files));
        match pulse.silence() {
            Some(silence) if silence < SILENT_MAX => {
                pulse.insist(files);
                Ok(())
            }
            Some(silence) => {
                pulse.insist(files);
                if silence > HUNG_MAX
                    && let Some(process) = &self.process
                {
                    tracing::error!(
                        pid = process.pid,
                        "the block page's process answers nothing and is ended"
                    );
                    process.kill();
                }
                self.silent(root)
            }
            None => {
                *pulse = Pulse::ask(files);
                if self.problem.take().is_some() {
                    tracing::info!("the block page is served again");
                }
                // The kernel closes the way when it meets nobody who listens.
                match is_open(root) {
                    true => Ok(()),
                    false => Ok(root.set_sink(true)?),
                }
            }
        }
    }

    /// It is there and does nothing: to others it is as if it were not.
    fn silent(&mut self, root: &Root) -> Result<(), SinkError> {
        let why = not_served(&SinkError::Silent);
        if self.problem.as_ref() != Some(&why) {
            tracing::error!("{why}");
            self.problem = Some(why);
        }
        // Who is there already has the answer as soon as the process goes on.
        match is_open(root) {
            true => Ok(root.set_sink_busy()?),
            false => Ok(()),
        }
    }

    /// The process that there is, if it is as wanted, else a new one.
    fn begin(&self, root: &Root) -> Result<Process, SinkError> {
        // Without one wanted this is not called.
        let Some(Wanted { shape, .. }) = &self.wanted else {
            return Err(SinkError::Ended);
        };
        if self.process.is_none()
            && let Some(process) = Process::adopt(&self.files, shape)
        {
            return Ok(process);
        }
        close(root)?;
        let inode = root.netns_inode();
        process::stop(inode, &self.files)?;
        Process::start(inode, &self.files, shape.clone(), |place| {
            let lock = root.lock()?;
            let way = SinkPlace {
                edge_interface: &place::near_name(inode),
                namespace: place.namespace(),
                sink_interface: place::FAR_NAME,
            };
            Ok(root.attach_sink(&lock, way, shape.method)?)
        })
    }

    /// Meanwhile what leads to the page is refused.
    fn failed(&mut self, root: &Root, error: &SinkError) {
        let why = not_served(error);
        tracing::error!("{why}");
        self.problem = Some(why);
        self.pulse = None;
        if self.process.is_none()
            && let Err(error) = close(root)
        {
            tracing::error!(%error, "the way to the block page is not closed");
        }
        let wait = RESTART_AFTER
            .saturating_mul(1 << self.failures.min(16))
            .min(RESTART_AFTER_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Instant::now() + wait;
    }
}

fn not_served(error: &SinkError) -> String {
    format!("the block page is not served, visitors are refused: {error}")
}

/// Whether frames are sent to the page.
fn is_open(root: &Root) -> bool {
    root.sink_status().is_some_and(|way| way.up)
}

/// Has what leads to the page refused from now on.
fn close(root: &Root) -> Result<(), SinkError> {
    match root.sink_status() {
        Some(_) => Ok(root.set_sink(false)?),
        None => Ok(()),
    }
}

/// Ends the process, and removes all that was made for it.
pub(crate) fn dismiss(root: &Root, lock: &Lock, files: &Files) -> Result<(), SinkError> {
    root.detach_sink(lock)?;
    let was_there = process::stop(root.netns_inode(), files)?;
    if was_there {
        tracing::info!("the block page is no longer served");
    }
    process::remove_files(files)
}

/// What keeps visitors from seeing the page that these rules lead to.
pub(crate) fn warnings<'a>(
    host: &HostConfig,
    rules: impl Iterator<Item = &'a Rule> + Clone,
) -> Vec<String> {
    if !rules.clone().any(|rule| rule.target == Some(Target::Page)) {
        return Vec::new();
    }
    let uncovered = report::uncovered(rules, host.block_page.certificates.as_deref());
    let mut warnings: Vec<String> = uncovered.iter().map(Uncovered::warning).collect();
    let (ports, beyond) = spec::ports(host);
    if beyond != Some(0) {
        warnings.push(format!(
            "the block page is served on {} ports (`ports` under `[block_page]`), and names are looked for on more: \
             visitors on those see nothing",
            ports.len()
        ));
    }
    warnings.extend(wordless(&host.block_page));
    warnings
}

/// Languages that are offered and in which the page has no words.
fn wordless(page: &BlockPage) -> Vec<String> {
    let known = match filter_page::languages(page.theme.as_deref()) {
        Ok(known) => known,
        Err(error) => return vec![format!("the block page's theme cannot be used: {error}")],
    };
    let without = page
        .languages
        .iter()
        .filter(|language| !known.contains(*language));
    without
        .map(|language| {
            format!(
                "the block page has no words in \"{language}\" (`languages` under `[block_page]`), and is not shown in it, \
                 nor are texts of rules: there are words in {}; add `{language}.json` to a `theme`, or leave it out",
                known.join(", ")
            )
        })
        .collect()
}

/// Sizes for which the way to the page is made.
fn mtu(enforced: &[Enforced]) -> Result<Mtu, SinkError> {
    let links = Netlink::open()
        .and_then(|netlink| netlink.links())
        .map_err(|source| SinkError::Step {
            step: "list the interfaces".to_owned(),
            source,
        })?;
    let sizes = links
        .iter()
        .filter(|link| enforced.iter().any(|on| on.ifindex == link.index))
        .map(|link| link.mtu);
    Ok(Mtu {
        link: sizes.clone().max().unwrap_or(USUAL_MTU).max(USUAL_MTU),
        path: sizes.min().unwrap_or(USUAL_MTU),
    })
}

/// Has a thread wait for the end of a process.
fn tell_end(handle: std::io::Result<OwnedFd>, told: mpsc::Sender<()>) {
    let waiting = handle.and_then(|handle| {
        thread::Builder::new()
            .name("page-watch".to_owned())
            .spawn(move || {
                use std::os::fd::AsFd as _;
                let mut asked = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
                while poll(&mut asked, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
                // One that is still to be read is as good.
                let _ = told.try_send(());
            })
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "that the block page's process ended is noticed later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_without_words_are_named_with_those_that_there_are() {
        let page = |languages: &[&str], theme: Option<PathBuf>| BlockPage {
            languages: languages.iter().map(|it| (*it).to_owned()).collect(),
            theme,
            ..BlockPage::default()
        };
        assert_eq!(wordless(&page(&["de", "en"], None)), Vec::<String>::new());
        let [warning] = &wordless(&page(&["de", "fr"], None))[..] else {
            panic!("one language has none");
        };
        assert!(
            warning.contains("\"fr\"") && warning.contains("de, en"),
            "{warning}"
        );

        let theme = tempfile::tempdir().unwrap();
        let words = include_str!("../../../filter-page/src/page/de.json");
        std::fs::write(theme.path().join("fr.json"), words).unwrap();
        let themed = page(&["fr"], Some(theme.path().to_owned()));
        assert_eq!(wordless(&themed), Vec::<String>::new());

        std::fs::write(theme.path().join("fr.json"), "{").unwrap();
        let [warning] = &wordless(&themed)[..] else {
            panic!("the theme cannot be used");
        };
        assert!(warning.contains("fr.json"), "{warning}");
    }
}
