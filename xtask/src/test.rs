//! `cargo xtask test`.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{bpf_build, fuzz, interrupt, leaks::Before, packages, setup, shell};

/// Longest time that the tests may take, building aside.
const TIME_MAX: Duration = Duration::from_secs(15 * 60);
const TIME_MAX_ALL: Duration = Duration::from_secs(120 * 60);

/// How long each fuzz target runs with the long tests.
const FUZZ_SECONDS_ALL: u32 = 120;

/// How long tests get to remove what they made after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Output that a process left behind may still hold open after the last test has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// Long tests run if this is 1.
const ALL_VARIABLE: &str = "EDGEFILTER_TEST_ALL";

/// Runs every test, or those whose path contains `filter`.
pub(crate) fn run(all: bool, filter: Option<&str>) -> Result<()> {
    if !shell::is_root() {
        bail!(
            "not root: the tests load the program into the kernel; run `cargo xtask test` as root"
        );
    }
    interrupt::install()?;
    setup::ensure_programs()?;
    packages::ensure_programs(&packages::TEST_PROGRAMS)?;
    bpf_build::object(&setup::ensure_toolchain()?)?;
    shell::run(shell::cargo().args(["build", "--quiet"]))?;
    shell::run(shell::cargo().args(["test", "--quiet", "--no-run"]))?;

    let before = Before::now();
    let (mark, value) = before.mark();
    let mut cargo = shell::cargo();
    cargo
        .args(["test", "--quiet", "--no-fail-fast"])
        .env(mark, value);
    if all {
        cargo.env(ALL_VARIABLE, "1");
    } else {
        cargo.env_remove(ALL_VARIABLE);
    }
    if let Some(filter) = filter {
        cargo.args(["--", filter]);
    }
    let time_max = if all { TIME_MAX_ALL } else { TIME_MAX };
    let (mut tally, end) = supervise(&mut cargo, time_max)?;
    if filter.is_none() && matches!(end, End::Exited(_)) {
        let length = if all {
            fuzz::Length::Seconds(FUZZ_SECONDS_ALL)
        } else {
            fuzz::Length::Short
        };
        let (passed, failed) = fuzz::run_counted(&[], length)?;
        tally.passed += passed;
        tally.reported_failed += failed;
    }

    let leaks = before.leaks();
    for leak in &leaks {
        eprintln!("left behind: {leak}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed,
        tally.failed(),
        tally.skipped
    );
    match end {
        End::Interrupted => bail!("interrupted"),
        End::TimedOut => bail!("stopped after {} minutes", time_max.as_secs() / 60),
        End::Exited(status) if !status.success() => {
            bail!("`{}` ended with {status}", shell::line(&cargo))
        }
        End::Exited(_) if tally.failed() > 0 => bail!("{} tests failed", tally.failed()),
        End::Exited(_) if tally.passed == 0 => bail!("no test ran"),
        End::Exited(_) if !leaks.is_empty() => {
            bail!("the tests left {} things behind (above)", leaks.len())
        }
        End::Exited(_) => Ok(()),
    }
}

/// How the run ended.
enum End {
    Exited(ExitStatus),
    TimedOut,
    Interrupted,
}

/// Results of all test programs together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    reported_failed: u64,
    skipped: u64,
    /// Tests that were announced by a test program which has not reported its result.
    unreported: u64,
}

impl Tally {
    /// A test program that died counts each of its tests as failed: which of them passed is not
    /// known.
    fn failed(&self) -> u64 {
        self.reported_failed + self.unreported
    }

    /// Takes in one line of libtest's output. Lines that only look like its own and are printed
    /// by a test cannot appear: output of tests is captured, and shown indented by nothing only
    /// for failed ones, which fail the run anyway.
    fn take(&mut self, line: &str) {
        if let Some(count) = announced(line) {
            self.unreported += count;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count = |word| count_before(result, word);
            let (passed, failed, skipped) = (count("passed"), count("failed"), count("ignored"));
            self.passed += passed;
            self.reported_failed += failed;
            self.skipped += skipped;
            self.unreported = self.unreported.saturating_sub(passed + failed + skipped);
        }
    }
}

/// The number in `running 12 tests`.
fn announced(line: &str) -> Option<u64> {
    let count = line.strip_prefix("running ")?;
    let count = count
        .strip_suffix(" tests")
        .or_else(|| count.strip_suffix(" test"))?;
    count.parse().ok()
}

/// The number in `ok. 12 passed; 0 failed; …` before `word`.
fn count_before(result: &str, word: &str) -> u64 {
    let words: Vec<_> = result.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[1].trim_end_matches(';') == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

/// Runs in a process group of its own, shows the output as it comes and adds up the results.
fn supervise(command: &mut Command, time_max: Duration) -> Result<(Tally, End)> {
    let deadline = Instant::now() + time_max;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shell::line(command)))?;
    let lines = lines_of(&mut child)?;
    let mut tally = Tally::default();
    let end = loop {
        show(&lines, Duration::from_millis(100), &mut tally);
        if let Some(status) = child.try_wait().context("cannot wait for the tests")? {
            break End::Exited(status);
        }
        if interrupt::requested() {
            stop(&mut child)?;
            break End::Interrupted;
        }
        if Instant::now() > deadline {
            stop(&mut child)?;
            break End::TimedOut;
        }
    };
    show(&lines, DRAIN, &mut tally);
    Ok((tally, end))
}

fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let output = child.stdout.take().context("the tests have no output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Prints what comes within `time`, or until the output ends.
fn show(lines: &Receiver<String>, time: Duration, tally: &mut Tally) {
    let deadline = Instant::now() + time;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                tally.take(&line);
                println!("{line}");
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// SIGTERM to the whole group, then SIGKILL.
fn stop(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond i32")?);
    // The group may be gone already, which is what is wanted.
    let _ = killpg(group, Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && killpg(group, None).is_ok() {
        child.try_wait().context("cannot wait for the tests")?;
        thread::sleep(Duration::from_millis(50));
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().context("cannot wait for the tests")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.take(line));
        tally
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let sum = tally(
            "running 3 tests\n...\ntest result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s\n\
             running 1 test\n.\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            sum,
            Tally {
                passed: 2,
                reported_failed: 1,
                skipped: 1,
                unreported: 0
            }
        );
    }

    #[test]
    fn tests_of_a_program_that_died_count_as_failed() {
        assert_eq!(tally("running 5 tests\n..").failed(), 5);
    }

    #[test]
    fn a_run_beyond_its_time_is_stopped_with_all_its_processes() {
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let (_, end) = supervise(&mut command, Duration::from_millis(200)).unwrap();
        assert!(matches!(end, End::TimedOut));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
