//! How long the shipped binary takes from a policy's text to its enforcement.

use std::{
    fs,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use filter_tests::net::Namespace;

use crate::report::{Row, Unit};

/// What the issue allows for a million prefixes and a million names.
const APPLY_S_MAX: f64 = 1.5;
const CHECK_S_MAX: f64 = 1.0;
const ONE_MORE_S_MAX: f64 = 0.2;
const PEAK_MB_MAX: f64 = 300.0;

/// A controller that takes longer does not follow at all.
const FOLLOWED_MAX: Duration = Duration::from_secs(60);

const INTERFACE: &str = "bench0";

const ONE_MORE: &str = "version = 1\n[[rule]]\nid = \"one-more\"\norigins = [\"203.0.113.99\"]\naction = \"drop\"\nreason = \"a bench\"\n";

/// One run of a program to its end.
pub(crate) struct Ran {
    pub(crate) wall: Duration,
    /// The most memory that it had at once.
    pub(crate) peak_bytes: u64,
}

impl Ran {
    pub(crate) fn peak_megabytes(&self) -> f64 {
        self.peak_bytes as f64 / f64::from(1 << 20)
    }
}

/// The rows of `check` and `apply` of a large policy and a small one. `folder` holds the large
/// policy as `policy.toml`, and nothing else that the binary reads.
pub(crate) fn measure(
    binary: &Path,
    folder: &Path,
    small: &Path,
    entries: usize,
    rounds: usize,
) -> Result<Vec<Row>> {
    let large = folder.join("policy.toml");
    let more = folder.join("policy.d");
    fs::create_dir_all(&more)?;
    let more = more.join("one-more.toml");
    let mut samples: [Vec<f64>; 6] = Default::default();
    let [check, apply, peak, one_more, followed, small_apply] = &mut samples;
    for _ in 0..rounds {
        let namespace = Namespace::new("load");
        namespace.veth(INTERFACE, &namespace, "bench1");
        let run = |command: &str, policy: &Path| run(&namespace, binary, command, policy);
        check.push(run("check", &large)?.wall.as_secs_f64());
        let first = run("apply", &large)?;
        apply.push(first.wall.as_secs_f64());
        peak.push(first.peak_megabytes());
        fs::write(&more, ONE_MORE)?;
        one_more.push(run("apply", &large)?.wall.as_secs_f64());
        fs::remove_file(&more)?;
        followed.push(follow(&namespace, binary, &large, &more)?.as_secs_f64());
        fs::remove_file(&more)?;
        small_apply.push(run("apply", small)?.wall.as_secs_f64());
        detach(&namespace, binary)?;
    }
    let row = |case, unit, samples: &[f64]| Row::new(case, "edgefilter", entries, unit, samples);
    Ok(vec![
        row("check", Unit::Seconds, check).within(CHECK_S_MAX),
        row("policy_to_enforced", Unit::Seconds, apply).within(APPLY_S_MAX),
        row("controller_peak", Unit::Megabytes, peak).within(PEAK_MB_MAX),
        row("one_more_rule", Unit::Seconds, one_more).within(ONE_MORE_S_MAX),
        row("one_more_followed", Unit::Seconds, followed).within(ONE_MORE_S_MAX),
        Row::new(
            "three_rules_enforced",
            "edgefilter",
            4,
            Unit::Seconds,
            small_apply,
        ),
    ])
}

fn run(namespace: &Namespace, binary: &Path, command: &str, policy: &Path) -> Result<Ran> {
    match command {
        "apply" => apply(namespace, binary, &[INTERFACE], policy),
        _ => timed(namespace.command(binary).arg(command).arg(policy)),
    }
}

/// Enforces a policy on these interfaces.
pub(crate) fn apply(
    namespace: &Namespace,
    binary: &Path,
    interfaces: &[&str],
    policy: &Path,
) -> Result<Ran> {
    let mut command = namespace.command(binary);
    command.arg("apply");
    for interface in interfaces {
        command.args(["--interface", interface]);
    }
    timed(command.arg(policy))
}

/// Runs a program to its successful end.
pub(crate) fn timed(process: &mut Command) -> Result<Ran> {
    let program = process.get_program().to_string_lossy().into_owned();
    process.stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = process
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let pid = libc::pid_t::try_from(child.id()).context("a process id")?;
    let mut status = 0;
    // SAFETY: every field is an integer, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child, not waited for before; both places are valid for writing.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall = begin.elapsed();
    if waited != pid || !ExitStatus::from_raw(status).success() {
        bail!("{process:?} failed: {}", said.trim());
    }
    Ok(Ran {
        wall,
        peak_bytes: usage.ru_maxrss.unsigned_abs() * 1_024,
    })
}

/// How long a running controller takes from a file that appears in `policy.d/` to its rule being in the
/// kernel, where the program takes it from one packet to the next.
fn follow(namespace: &Namespace, binary: &Path, policy: &Path, more: &Path) -> Result<Duration> {
    let mut command = namespace.command(binary);
    command
        .args(["run", "--interface", INTERFACE, "--policy"])
        .arg(policy)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut controller = command.spawn().context("cannot start edgefilter")?;
    let measured = followed(namespace, binary, &mut controller, more);
    controller.kill()?;
    controller.wait()?;
    measured
}

fn followed(
    namespace: &Namespace,
    binary: &Path,
    controller: &mut Child,
    more: &Path,
) -> Result<Duration> {
    let out = controller.stdout.as_mut().context("its output")?;
    out.read_exact(&mut [0])
        .context("the controller did not begin")?;
    let aside = more.with_extension("aside");
    fs::write(&aside, ONE_MORE)?;
    let begin = Instant::now();
    fs::rename(&aside, more)?;
    while begin.elapsed() < FOLLOWED_MAX {
        let rules = namespace.command(binary).arg("rules").output()?;
        if String::from_utf8_lossy(&rules.stdout).contains("one-more") {
            return Ok(begin.elapsed());
        }
    }
    bail!("the controller did not follow within {FOLLOWED_MAX:?}")
}

fn detach(namespace: &Namespace, binary: &Path) -> Result<()> {
    let status = namespace
        .command(binary)
        .arg("detach")
        .stdout(Stdio::null())
        .status()
        .context("cannot start edgefilter")?;
    if !status.success() {
        bail!("`edgefilter detach` ended with {status}");
    }
    Ok(())
}
