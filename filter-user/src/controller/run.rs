//! `edgefilter run`.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Applied, Cause, CommandError, RunState, Sources, apply, events, facts, next_hop,
    notify::notify, page::Page, watch::Watcher,
};
use crate::{
    compile::{HostFacts, NextHop, config_digest},
    datapath::{ControllerLock, Root, follow_kernel_log, netdev},
    metrics::Endpoint,
    policy::model::HostConfig,
};

/// An editor writes a file in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often addresses, the clock's offset and the interfaces are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often connections are looked for that were answered in a server's place and are not used any more.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long such a connection is remembered that nobody uses: longer than the page lets a client be silent,
/// and than a client repeats what nobody answers.
const IDLE_MAX: Duration = Duration::from_secs(150);
/// How often an interface that refuses the program is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// What a controller needs from outside.
pub struct Surroundings<'a> {
    /// Where the wishes are written.
    pub sources: Sources,
    /// `SSH_CONNECTION`: its client is protected.
    pub ssh_connection: Option<String>,
    /// `NOTIFY_SOCKET` of the service manager.
    pub notify_socket: Option<OsString>,
    /// Receives the one line that says that enforcing has begun.
    pub ready: &'a mut dyn FnMut(&Applied),
}

/// Applies the policy and follows it until SIGTERM or SIGINT. Enforcing goes on afterwards.
///
/// # Errors
///
/// Enforcing could not begin. Later errors are logged, and what was enforced stays.
pub fn run(root: Root, surroundings: Surroundings<'_>) -> Result<(), CommandError> {
    let lock = root.controller_lock()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let result = runtime.block_on(follow(root, lock, surroundings));
    runtime.shutdown_background();
    result
}

async fn follow(
    root: Root,
    _lock: ControllerLock,
    surroundings: Surroundings<'_>,
) -> Result<(), CommandError> {
    let Surroundings {
        sources,
        ssh_connection,
        notify_socket,
        ready,
    } = surroundings;
    // Signals first: from here on a SIGTERM is a clean stop.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut controller = Controller {
        facts: facts::gather(ssh_connection.as_deref(), &sources.interfaces()),
        ssh_connection,
        sources,
        watcher: Watcher::new()?,
        desired: None,
        last_error: None,
        generation: root.meta().ok().flatten().map(|meta| meta.generation),
        problem: None,
        debugging: false,
        retry_at: Instant::now(),
        page: Page::new(&root),
        metrics: Endpoint::new(&root),
        metrics_problem: None,
        applied_at: None,
        answers: false,
        is_reset_reported: false,
        sweep_at: Instant::now(),
        next_hops: Vec::new(),
        unresolved: Vec::new(),
        root,
    };

    let listener = events::listen(&events::socket_path(&controller.root))?;
    // Whoever starts a controller wants all that is configured, also if the policy must be mended first.
    let changing = controller.root.lock()?;
    for interface in controller.root.held_back() {
        controller.root.release(&changing, &interface)?;
    }
    drop(changing);
    match controller.reload(Cause::Command) {
        Ok(applied) => ready(&applied),
        // What is in place goes on; the operator mends the file while it does.
        Err(error) if controller.generation.is_some() && error.exit_code() == 3 => {
            controller.keep_last_good(&error);
        }
        Err(error) => return Err(error),
    }
    let lines = events::publish(controller.root.clone())?;
    tokio::spawn(async move {
        if let Err(error) = events::serve(listener, lines).await {
            tracing::error!(%error, "events are no longer served");
        }
    });
    notify(notify_socket.as_deref(), "READY=1\nSTATUS=enforcing");

    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let cause = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => Some("SIGHUP"),
            () = controller.watcher.changed() => {
                sleep(DEBOUNCE).await;
                controller.watcher.drain();
                Some("the policy was written")
            }
            () = controller.page.ended() => {
                controller.look_after_page();
                None
            }
            _ = tick.tick() => {
                controller.look_after_page();
                controller.reset_servers();
                controller.sweep();
                controller.look_after_metrics();
                let before = controller.unresolved.clone();
                controller.refresh_next_hops();
                if controller.unresolved != before {
                    controller.write_state();
                }
                controller.drift()
            }
        };
        let Some(cause) = cause else { continue };
        tracing::info!(cause, "applying");
        match controller.reload(Cause::Following) {
            Ok(applied) if applied.unchanged => {
                tracing::info!(generation = applied.generation, "nothing changed")
            }
            Ok(applied) => tracing::info!(
                generation = applied.generation,
                rules = applied.rules,
                added = ?applied.added,
                removed = ?applied.removed,
                changed = ?applied.changed,
                in_place = applied.in_place,
                "enforcing"
            ),
            // Said already, and shown by `status`.
            Err(CommandError::HeldBack { interfaces }) => {
                tracing::warn!(?interfaces, "detached by hand: nothing is applied");
                controller.last_error = None;
                controller.report(problem(&[], &[], &interfaces));
            }
            Err(error) => controller.keep_last_good(&error),
        }
    }
    notify(notify_socket.as_deref(), "STOPPING=1");
    tracing::info!("stopping; the filter stays in place (`edgefilter detach` removes it)");
    Ok(())
}

struct Controller {
    root: Root,
    sources: Sources,
    ssh_connection: Option<String>,
    facts: HostFacts,
    watcher: Watcher,
    desired: Option<Followed>,
    generation: Option<u64>,
    last_error: Option<String>,
    /// In what the host, not the policy, keeps what is wanted from being enforced; reported once.
    problem: Option<String>,
    /// Whether the kernel program's debug messages are read.
    debugging: bool,
    /// The block page.
    page: Page,
    /// Where its numbers are told.
    metrics: Endpoint,
    /// Why they are not, as last written.
    metrics_problem: Option<String>,
    /// When the policy was put or found in place last.
    applied_at: Option<Timestamp>,
    /// Whether rules answer, so that connections that were answered are remembered.
    answers: bool,
    /// Whether it was said that servers cannot be told.
    is_reset_reported: bool,
    sweep_at: Instant,
    /// Next hops of the policy in place.
    next_hops: Vec<(u32, NextHop)>,
    /// Those of them that are not known.
    unresolved: Vec<String>,
    /// When an interface that could not be attached is tried again.
    retry_at: Instant,
}

/// What was wanted when it was last read.
struct Followed {
    host: HostConfig,
    policy_path: PathBuf,
    policy_digest: String,
}

impl Controller {
    /// Reads everything anew and puts it in place. Numbers are told as configured also if that fails.
    fn reload(&mut self, cause: Cause) -> Result<Applied, CommandError> {
        let applied = self.try_reload(cause);
        if let Ok(host) = self.sources.host() {
            self.metrics.follow(&host.metrics);
            self.look_after_metrics();
        }
        applied
    }

    fn try_reload(&mut self, cause: Cause) -> Result<Applied, CommandError> {
        self.watcher.follow(self.files());
        let in_place = self.root.meta().ok().flatten();
        let mut wanted = self
            .sources
            .outline(in_place.as_ref())
            .inspect_err(|error| {
                if let CommandError::Policy(refused) = error {
                    self.watcher.follow(refused.files.iter().cloned());
                }
            })?;
        self.watcher.follow(wanted.outline.files.iter().cloned());
        let desired = self.desired.insert(Followed {
            host: wanted.host.clone(),
            policy_path: wanted.policy_path.clone(),
            policy_digest: wanted.digest().to_owned(),
        });
        let applied = self
            .root
            .lock()
            .map_err(CommandError::from)
            .and_then(|lock| apply(&self.root, &lock, &mut wanted, &self.facts, cause))?;
        for warning in applied.warnings.iter().filter(|_| !applied.unchanged) {
            tracing::warn!("{warning}");
        }
        if desired.host.debug && !self.debugging {
            follow_kernel_log(self.root.clone())?;
            self.debugging = true;
        }
        self.generation = Some(applied.generation);
        self.last_error = None;
        self.problem = problem(&applied.missing_interfaces, &[], &applied.held_back);
        self.applied_at = Some(Timestamp::now());
        self.page.follow(&self.root, &desired.host, &applied.meta);
        self.answers = self.root.page_maps()? != 0;
        self.next_hops = applied.meta.next_hops_in_use();
        self.refresh_next_hops();
        self.write_state();
        Ok(applied)
    }

    /// Where are the next hops now?
    fn refresh_next_hops(&mut self) {
        match next_hop::refresh(&self.root, &self.next_hops) {
            Ok(unresolved) => self.unresolved = unresolved,
            Err(error) => tracing::error!(%error, "next hops are not followed"),
        }
    }

    /// Tells servers that connections are over whose clients were answered in their place.
    fn reset_servers(&mut self) {
        if !self.answers {
            return;
        }
        match self.root.reset_servers() {
            Ok(_) => self.is_reset_reported = false,
            Err(_) if self.is_reset_reported => {}
            Err(error) => {
                tracing::error!(%error, "servers of refused connections are not told");
                self.is_reset_reported = true;
            }
        }
    }

    /// Forgets connections that were answered in a server's place, once in a while.
    fn sweep(&mut self) {
        if self.sweep_at > Instant::now() {
            return;
        }
        self.sweep_at = Instant::now() + SWEEP_EVERY;
        if !self.answers {
            return;
        }
        if let Err(error) = self.root.sweep_taken(IDLE_MAX) {
            tracing::error!(%error, "connections that were answered are not forgotten");
        }
    }

    /// Is the block page still served, if it should be?
    fn look_after_page(&mut self) {
        let before = self.page.problem().map(str::to_owned);
        self.page.tick(&self.root);
        if self.page.problem() != before.as_deref() {
            self.write_state();
        }
    }

    /// Are the numbers told, if they should be?
    fn look_after_metrics(&mut self) {
        self.metrics.tick();
        let problem = self.metrics.problem();
        if problem != self.metrics_problem {
            self.metrics_problem = problem;
            self.write_state();
        }
    }

    fn keep_last_good(&mut self, error: &CommandError) {
        tracing::error!("the last good policy stays enforced; the new one is not: {error}");
        self.last_error = Some(error.to_string());
        self.write_state();
    }

    /// Files that are followed whatever they contain.
    fn files(&self) -> Vec<PathBuf> {
        let config = self.sources.config_path().map(PathBuf::from);
        let policy = self.sources.host().ok().and_then(|host| host.policy);
        config.into_iter().chain(policy).collect()
    }

    /// Why what is enforced may no longer be what is wanted, if so.
    fn drift(&mut self) -> Option<&'static str> {
        let facts = facts::gather(self.ssh_connection.as_deref(), &self.sources.interfaces());
        if facts.own_addresses != self.facts.own_addresses
            || facts.lifelines != self.facts.lifelines
        {
            self.facts = facts;
            return Some("addresses of this host, its gateways or resolvers changed");
        }
        if facts.tai_offset_s != self.facts.tai_offset_s {
            self.facts = facts;
            return Some("the kernel's TAI offset changed");
        }
        if facts != self.facts {
            self.facts = facts;
            return Some("TCP Fast Open was switched, or an interface changed its driver");
        }
        let desired = self.desired.as_ref()?;
        if let Some(group) = &desired.host.local_proxies
            && group.exists()
            && self.generation.is_some()
            && self.root.local_hooked(group).is_ok_and(|hooked| !hooked)
            && self.retry_at <= Instant::now()
        {
            self.retry_at = Instant::now() + RETRY_EVERY;
            return Some("the control group of the local proxies was made anew");
        }
        let enforced = match self.root.enforced() {
            Ok(enforced) => enforced,
            Err(error) => {
                self.report(Some(error.to_string()));
                return None;
            }
        };
        let wanting = desired.host.interfaces.iter().filter(|interface| {
            !enforced.iter().any(|link| {
                link.interface == interface.name && !link.defunct && link.mode.is_some()
            })
        });
        let detached = self.root.held_back();
        let (held_back, wanting): (Vec<String>, Vec<String>) = wanting
            .map(|interface| interface.name.clone())
            .partition(|name| detached.contains(name));
        let lost = match self.root.lost_redirects() {
            Ok(lost) => lost,
            Err(error) => {
                self.report(Some(error.to_string()));
                return None;
            }
        };
        let exists = |name: &String| netdev::index(name).is_ok();
        let returned = wanting.iter().any(exists) || lost.iter().any(exists);
        if returned && self.retry_at <= Instant::now() {
            self.retry_at = Instant::now() + RETRY_EVERY;
            return Some(
                "an interface is not enforced, or no longer the one that rules redirect to",
            );
        }
        if !returned {
            self.report(problem(&wanting, &lost, &held_back));
        }
        None
    }

    /// Says a lasting problem once, and shows it in `status` while it lasts.
    fn report(&mut self, problem: Option<String>) {
        if self.problem == problem {
            return;
        }
        match &problem {
            Some(problem) => tracing::error!("{problem}"),
            None => tracing::info!("enforced as wanted again"),
        }
        self.problem = problem;
        self.write_state();
    }

    fn write_state(&self) {
        let state = RunState {
            pid: std::process::id(),
            at: Timestamp::now(),
            policy_path: self
                .desired
                .as_ref()
                .map(|desired| desired.policy_path.display().to_string()),
            policy_digest: self
                .desired
                .as_ref()
                .map(|desired| desired.policy_digest.clone()),
            config_digest: self
                .desired
                .as_ref()
                .map(|desired| config_digest(&desired.host)),
            generation: self.generation,
            interfaces: self
                .desired
                .iter()
                .flat_map(|desired| &desired.host.interfaces)
                .map(Into::into)
                .collect(),
            last_error: self
                .last_error
                .clone()
                .or_else(|| self.problem.clone())
                .or_else(|| self.page.problem().map(str::to_owned))
                .or_else(|| unresolved(&self.unresolved)),
            apply_failed: self.last_error.is_some(),
            applied_at: self.applied_at,
            metrics_problem: self.metrics_problem.clone(),
        };
        if let Err(error) = state.write(self.root.run_dir()) {
            tracing::error!(%error, "the state for `edgefilter status` is not written");
        }
    }
}

/// Next hops that are not known, in words; `None` if there are none.
fn unresolved(next_hops: &[String]) -> Option<String> {
    (!next_hops.is_empty()).then(|| {
        format!(
            "next hops do not answer, and what rules send there is dropped: {}",
            next_hops.join(", ")
        )
    })
}

/// What keeps configured interfaces from being enforced, in words; `None` if nothing does.
fn problem(missing: &[String], lost: &[String], held_back: &[String]) -> Option<String> {
    let said: Vec<String> = [
        ("no such interface: ", missing, ""),
        (
            "rules redirect to interfaces that are gone, and drop instead: ",
            lost,
            "",
        ),
        (
            "detached by hand: ",
            held_back,
            " (`edgefilter apply` or a restart of the controller attaches again)",
        ),
    ]
    .iter()
    .filter(|(_, interfaces, _)| !interfaces.is_empty())
    .map(|(what, interfaces, more)| format!("{what}{}{more}", interfaces.join(", ")))
    .collect();
    (!said.is_empty()).then(|| said.join("; "))
}
