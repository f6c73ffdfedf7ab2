//! Child processes that never outlive their test.

use std::{
    fs::{self, File},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::net::report;

/// A running child. Its output goes to files; they are printed if the test fails. Dropping it
/// kills and reaps it.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    logs: TempDir,
}

impl Process {
    /// Starts `command`; `what` names it in messages.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(what: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::started(what, command, |log| log.into())
    }

    /// As [`Process::spawn`]; its standard input and output are the caller's.
    ///
    /// # Panics
    /// As there.
    pub fn spawn_talking(what: &str, mut command: Command) -> (Self, ChildStdin, ChildStdout) {
        command.stdin(Stdio::piped());
        let mut process = Self::started(what, command, |_| Stdio::piped());
        let (input, output) = (process.child.stdin.take(), process.child.stdout.take());
        (process, input.expect("a pipe"), output.expect("a pipe"))
    }

    fn started(what: &str, mut command: Command, output: impl FnOnce(File) -> Stdio) -> Self {
        let logs = tempfile::tempdir().expect("a temporary directory");
        let log = |name| File::create(logs.path().join(name)).expect("a log file");
        let child = command
            .stdout(output(log("stdout")))
            .stderr(log("stderr"))
            .spawn()
            .unwrap_or_else(|e| panic!("start {what}: {e}"));
        Self {
            what: what.to_owned(),
            child,
            logs,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.log("stdout")
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.log("stderr")
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.logs.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it has not exited yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal)
            .unwrap_or_else(|e| panic!("{signal} to {}: {e}", self.what));
    }

    /// Waits for it to exit; `None` if it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self
                .child
                .try_wait()
                .unwrap_or_else(|e| panic!("wait {}: {e}", self.what));
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it at once and reaps it.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGKILL);
        }
        let gone = self.wait(Duration::from_secs(5));
        assert!(gone.is_some(), "{} survives SIGKILL", self.what);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut errors = Vec::new();
        if self.is_running()
            && let Err(e) = self.child.kill()
        {
            errors.push(format!("kill {}: {e}", self.what));
        }
        if let Err(e) = self.child.wait() {
            errors.push(format!("reap {}: {e}", self.what));
        }
        if thread::panicking() {
            let (out, err) = (self.stdout(), self.stderr());
            eprintln!(
                "--- {} stdout\n{out}--- {} stderr\n{err}---",
                self.what, self.what
            );
        }
        report("process", &errors);
    }
}

/// Polls until `ready` holds.
///
/// # Panics
/// If it does not within `limit`, naming what was waited for.
pub fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_captured_and_a_dropped_child_is_gone() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; sleep 60"]);
        let process = Process::spawn("sleeper", command);
        wait_for("output", Duration::from_secs(5), || {
            process.stdout() == "out\n" && process.stderr() == "err\n"
        });
        let pid = process.pid();
        drop(process);
        assert!(signal::kill(pid, None).is_err(), "the child is reaped");
    }
}
