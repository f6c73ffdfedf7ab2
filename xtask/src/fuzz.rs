//! `cargo xtask fuzz`: builds the targets with libFuzzer and runs them.
//!
//! The workspace's own crates are built with counters of coverage, by `fuzz/covered-rustc`; all others are
//! those that tests are built with.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_build, interrupt, packages, setup, shell};

/// A target, as the program that writes the seeds tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    /// Longest input, in bytes.
    bytes_max: u32,
    /// Runs of the short, repeatable kind: some seconds.
    short_runs: u32,
}

/// The compiler of the crates under test.
const COMPILER: &str = "fuzz/covered-rustc";

/// Crates under test, or on the way to one: built to run fast.
const FAST: [&str; 4] = [
    "filter-common",
    "filter-user",
    "filter-tests",
    "filter-fuzz",
];

/// How long a finding is made smaller, in seconds.
const MINIMISE_SECONDS: u32 = 30;

/// A run slower than this is a finding, in seconds.
const SLOW_SECONDS: u32 = 20;

/// Memory of a run, in MiB.
const MEMORY_MIB: u32 = 4_096;

/// How often a running fuzzer is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long to run.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// A fixed number of runs from a fixed seed: the same every time.
    Short,
    /// That many seconds, from wherever earlier runs had got.
    Seconds(u32),
}

/// What became of one target.
struct Ran {
    name: String,
    executions: String,
    coverage: String,
    features: String,
    finding: Option<PathBuf>,
    /// What libFuzzer said last, if something is wrong.
    said: String,
}

/// Runs these targets, or all; findings are an error.
pub(crate) fn run(names: &[String], length: Length) -> Result<()> {
    let findings = run_counted(names, length)?.1;
    if findings > 0 {
        bail!("{findings} targets have findings (above)");
    }
    Ok(())
}

/// Runs these targets, or all; how many passed and failed.
pub(crate) fn run_counted(names: &[String], length: Length) -> Result<(u64, u64)> {
    interrupt::install()?;
    packages::ensure_programs(&packages::FUZZ_PROGRAMS)?;
    bpf_build::object(&setup::ensure_toolchain()?)?;
    let corpora = shell::target_dir().join("fuzz");
    let chosen = choose(write_seeds(&corpora.join("seeds"))?, names)?;
    let fuzzer = build()?;
    let ran = run_all(&fuzzer, &corpora, &chosen, length);
    let mut failed = 0;
    println!(
        "{:<14}{:>12}{:>10}{:>10}  findings",
        "target", "executions", "coverage", "features"
    );
    for ran in ran {
        let ran = ran?;
        println!(
            "{:<14}{:>12}{:>10}{:>10}  {}",
            ran.name,
            ran.executions,
            ran.coverage,
            ran.features,
            ran.finding
                .as_ref()
                .map_or("none".into(), |path| path.display().to_string())
        );
        if ran.finding.is_some() {
            failed += 1;
            eprintln!("{}", ran.said);
        }
    }
    Ok((chosen.len() as u64 - failed, failed))
}

/// Of all targets those named, or all.
fn choose(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let target = all.iter().find(|target| target.name == *name);
        target.cloned().with_context(|| {
            let known: Vec<_> = all.iter().map(|target| target.name.as_str()).collect();
            format!("no fuzz target `{name}`: there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Writes the seeds anew; the targets.
fn write_seeds(directory: &Path) -> Result<Vec<Target>> {
    if directory.exists() {
        fs::remove_dir_all(directory).context("cannot remove old seeds")?;
    }
    let mut cargo = shell::cargo();
    cargo
        .args(["run", "--quiet", "--package", "filter-fuzz"])
        .args(["--bin", "fuzz-seeds", "--"])
        .arg(directory);
    let list = shell::read(&mut cargo)?;
    list.lines()
        .map(|line| target(line).with_context(|| format!("not a fuzz target: `{line}`")))
        .collect()
}

/// A target from a line with its name, its longest input and its number of short runs.
fn target(line: &str) -> Option<Target> {
    let mut words = line.split(' ');
    Some(Target {
        name: words.next()?.to_owned(),
        bytes_max: words.next()?.parse().ok()?,
        short_runs: words.next()?.parse().ok()?,
    })
}

/// Builds the fuzzer.
fn build() -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--quiet", "--package", "filter-fuzz"])
        .args(["--bin", "fuzz", "--features", "libfuzzer"])
        .env("RUSTC_WORKSPACE_WRAPPER", shell::root().join(COMPILER))
        .env("CARGO_INCREMENTAL", "0");
    for package in FAST {
        cargo.arg("--config");
        cargo.arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    shell::run(&mut cargo)?;
    Ok(shell::target_dir().join("debug/fuzz"))
}

/// Runs the targets, as many at a time as there are processors; in their order.
fn run_all(fuzzer: &Path, corpora: &Path, targets: &[Target], length: Length) -> Vec<Result<Ran>> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, Result<Ran>)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(target) = targets.get(index) else {
                    return done;
                };
                done.push((index, run_one(fuzzer, corpora, target, length)));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_default())
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, ran)| ran).collect()
}

fn run_one(fuzzer: &Path, corpora: &Path, target: &Target, length: Length) -> Result<Ran> {
    let folder = |kind: &str| -> Result<PathBuf> {
        let path = corpora.join(kind).join(&target.name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    };
    let findings = folder("findings")?;
    let mut command = fuzzer_command(fuzzer, target);
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.arg(format!("-timeout={SLOW_SECONDS}"));
    command.args([
        "-print_final_stats=1",
        &format!("-max_len={}", target.bytes_max),
    ]);
    match length {
        Length::Short => {
            command.args(["-seed=1", &format!("-runs={}", target.short_runs)]);
        }
        Length::Seconds(seconds) => {
            command.arg(format!("-max_total_time={seconds}"));
            command.arg(folder("corpus")?);
        }
    }
    command.arg(folder("seeds")?);
    let log_path = corpora.join(format!("{}.log", target.name));
    let ended_well = logged(&mut command, &log_path)?;
    let log = fs::read(&log_path).with_context(|| format!("cannot read {}", log_path.display()))?;
    let log = String::from_utf8_lossy(&log);
    let mut ran = Ran {
        name: target.name.clone(),
        executions: value_behind(&log, "stat::number_of_executed_units:"),
        coverage: value_behind(&log, " cov: "),
        features: value_behind(&log, " ft: "),
        finding: None,
        said: String::new(),
    };
    if !ended_well {
        ran.finding = Some(match artifact(&log) {
            Some(found) => minimise(fuzzer, target, &found)?,
            None => log_path,
        });
        ran.said = log
            .lines()
            .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR"))
            .take(12)
            .collect::<Vec<_>>()
            .join("\n");
    }
    Ok(ran)
}

/// Runs to the end, with what it says in a file that can be watched; whether it ended well.
fn logged(command: &mut Command, log: &Path) -> Result<bool> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start `{}`", shell::line(command)))?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the fuzzer")? {
            return Ok(status.success());
        }
        if interrupt::requested() {
            child.kill().context("cannot stop the fuzzer")?;
            child.wait().context("cannot wait for the fuzzer")?;
            bail!("interrupted");
        }
        thread::sleep(POLL);
    }
}

fn fuzzer_command(fuzzer: &Path, target: &Target) -> Command {
    let mut command = shell::command(fuzzer);
    command
        .env("EDGEFILTER_FUZZ_TARGET", &target.name)
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command
}

/// The word behind the last `label`.
fn value_behind(log: &str, label: &str) -> String {
    let found = log.rfind(label).map(|at| &log[at + label.len()..]);
    let word = found.and_then(|rest| rest.split_whitespace().next());
    word.unwrap_or("?").to_owned()
}

/// The file that libFuzzer says it wrote the offending input to.
fn artifact(log: &str) -> Option<PathBuf> {
    let at = log.find("Test unit written to ")?;
    let path = log[at..].lines().next()?.rsplit(' ').next()?;
    Some(PathBuf::from(path))
}

/// A smaller input with the same effect, beside the one that was found; that one if there is none.
fn minimise(fuzzer: &Path, target: &Target, found: &Path) -> Result<PathBuf> {
    let smaller = found.with_extension("min");
    let mut command = fuzzer_command(fuzzer, target);
    command
        .args([
            "-minimize_crash=1",
            &format!("-max_total_time={MINIMISE_SECONDS}"),
        ])
        .arg(format!("-exact_artifact_path={}", smaller.display()))
        .arg(found);
    shell::output(&mut command)?;
    Ok(if smaller.exists() {
        smaller
    } else {
        found.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_the_last_ones() {
        let log = "#1 INITED cov: 3 ft: 4 corp: 1/1b\n#9 DONE   cov: 12 ft: 34 corp: 5/6b\n\
                   stat::number_of_executed_units: 99\n";
        assert_eq!(value_behind(log, " cov: "), "12");
        assert_eq!(value_behind(log, " ft: "), "34");
        assert_eq!(value_behind(log, "stat::number_of_executed_units:"), "99");
        assert_eq!(value_behind("", " ft: "), "?");
    }

    #[test]
    fn the_file_of_a_finding_is_read_from_the_log() {
        let log = "==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='x/'; Test unit written to x/crash-1\nBase64: AA==\n";
        assert_eq!(artifact(log), Some(PathBuf::from("x/crash-1")));
        assert_eq!(artifact("all is well"), None);
    }

    #[test]
    fn unknown_targets_are_named_with_the_known_ones() {
        let all = || vec![target("frame 9 8").unwrap(), target("policy 7 6").unwrap()];
        assert_eq!(all()[0].bytes_max, 9);
        assert_eq!(all()[1].short_runs, 6);
        assert_eq!(target("frame"), None);
        let error = choose(all(), &["nothing".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("frame, policy"), "{error}");
        assert_eq!(choose(all(), &["policy".to_owned()]).unwrap(), all()[1..]);
        assert_eq!(choose(all(), &[]).unwrap(), all());
    }
}
