//! The real binary in a namespace: `edgefilter run` and the commands beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    net::{Namespace, report},
    process::{Process, wait_for},
};

/// Exit codes, as `edgefilter --help` has them.
pub mod exit {
    /// Done.
    pub const OK: i32 = 0;
    /// The command line makes no sense.
    pub const USAGE: i32 = 2;
    /// Policy or configuration refused.
    pub const REFUSED: i32 = 3;
    /// Not root.
    pub const NOT_PERMITTED: i32 = 4;
    /// The kernel or the environment lacks something.
    pub const UNSUPPORTED: i32 = 5;
    /// A foreign XDP program is on the interface.
    pub const BUSY: i32 = 6;
    /// Another controller is running.
    pub const LOCKED: i32 = 7;
    /// Desired and enforced differ.
    pub const DIFFERS: i32 = 8;
    /// Connections that were to be cut go on.
    pub const NOT_CUT: i32 = 9;
}

/// How long the controller has to load a program and attach it.
const START_MAX: Duration = Duration::from_secs(15);

/// The same in a machine under emulation, where the kernel takes long to verify the programs.
const EMULATED_START_MAX: Duration = Duration::from_secs(180);
/// How long it has to stop.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The binary beside the running test: `target/<profile>/edgefilter`.
///
/// # Panics
/// If it is not there.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test executable");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let binary = profile.join("edgefilter");
    assert!(
        binary.exists(),
        "{} is missing: `cargo xtask test` builds it, or `cargo xtask build`",
        binary.display()
    );
    binary
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The files and the controller of one edge host. Dropping it ends the controller and detaches.
#[derive(Debug)]
pub struct Edge<'n> {
    namespace: &'n Namespace,
    binary: PathBuf,
    dir: TempDir,
    controller: Option<Process>,
}

impl<'n> Edge<'n> {
    /// Writes a configuration for these interfaces, and a policy. Starts nothing.
    pub fn new(namespace: &'n Namespace, interfaces: &[&str], policy: &str) -> Self {
        Self::of(binary(), namespace, interfaces, policy)
    }

    /// As [`Edge::new`], of this binary.
    pub fn of(
        binary: PathBuf,
        namespace: &'n Namespace,
        interfaces: &[&str],
        policy: &str,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let edge = Self {
            namespace,
            binary,
            dir,
            controller: None,
        };
        edge.configure(interfaces, "");
        edge.write_policy(policy);
        edge
    }

    /// As [`Edge::new`], and starts the controller.
    pub fn enforcing(namespace: &'n Namespace, interfaces: &[&str], policy: &str) -> Self {
        let mut edge = Self::new(namespace, interfaces, policy);
        edge.start();
        edge
    }

    /// Writes the configuration again, with more tables behind it.
    pub fn configure(&self, interfaces: &[&str], more: &str) {
        let text = format!("interfaces = {interfaces:?}\npolicy = \"policy.toml\"\n{more}");
        fs::write(self.config_path(), text).expect("a configuration file");
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("edgefilter.toml")
    }

    /// The policy file.
    pub fn policy_path(&self) -> PathBuf {
        self.dir.path().join("policy.toml")
    }

    /// Writes the policy in place.
    pub fn write_policy(&self, text: &str) {
        fs::write(self.policy_path(), text).expect("a policy file");
    }

    /// Replaces the policy by a rename, as editors do.
    pub fn replace_policy(&self, text: &str) {
        let beside = self.dir.path().join("policy.toml.new");
        fs::write(&beside, text).expect("a policy file");
        fs::rename(&beside, self.policy_path()).expect("a renamed policy file");
    }

    /// Starts `edgefilter run` without waiting.
    pub fn spawn(&self) -> Process {
        let mut command = self.namespace.command(&self.binary);
        command.arg("run").arg("--config").arg(self.config_path());
        Process::spawn("edgefilter run", command)
    }

    /// Starts the controller and waits until it enforces.
    ///
    /// # Panics
    /// If it ends, or does not enforce in time; its output is printed.
    pub fn start(&mut self) {
        self.start_within(START_MAX);
    }

    /// As [`Edge::start`], also in a machine under emulation.
    ///
    /// # Panics
    /// As there.
    pub fn start_patiently(&mut self) {
        self.start_within(EMULATED_START_MAX);
    }

    fn start_within(&mut self, time_max: Duration) {
        assert!(self.controller.is_none(), "one controller at a time");
        let mut controller = self.spawn();
        let mut ended = None;
        wait_for("edgefilter run enforces", time_max, || {
            ended = controller.wait(Duration::ZERO);
            ended.is_some() || self.run(&["status"]).code == exit::OK
        });
        if let Some(status) = ended {
            panic!(
                "edgefilter run ended with {status}: {}",
                controller.stderr()
            );
        }
        self.controller = Some(controller);
    }

    /// The running controller.
    ///
    /// # Panics
    /// If it was not started.
    pub fn controller(&mut self) -> &mut Process {
        self.controller.as_mut().expect("a started controller")
    }

    /// Ends the controller with SIGKILL; the filter stays.
    pub fn kill_controller(&mut self) {
        self.controller.take().expect("a started controller").kill();
    }

    /// Ends the controller with SIGTERM and returns its exit code; the filter stays.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn stop_controller(&mut self) -> Option<i32> {
        let mut controller = self.controller.take().expect("a started controller");
        controller.signal(nix::sys::signal::Signal::SIGTERM);
        let status = controller
            .wait(STOP_MAX)
            .expect("edgefilter run ends on SIGTERM");
        status.code()
    }

    /// Runs another command of the binary in the namespace, with the same configuration.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, &[])
    }

    /// As [`Edge::run`], with more variables in the environment.
    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ended {
        let mut command = self.namespace.command(&self.binary);
        let output = command
            .envs(variables.iter().copied())
            .arg("--config")
            .arg(self.config_path())
            .args(args)
            .output();
        output
            .unwrap_or_else(|e| panic!("edgefilter {}: {e}", args.join(" ")))
            .into()
    }

    /// Runs a command with `--json` and parses what it printed.
    ///
    /// # Panics
    /// If it printed no JSON.
    pub fn json(&self, command: &str) -> Value {
        let ended = self.run(&[command, "--json"]);
        serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|e| panic!("edgefilter {command} --json: {e}: {ended:?}"))
    }

    /// Packets that this rule decided or observed.
    ///
    /// # Panics
    /// If `counters` does not know the rule.
    pub fn rule_packets(&self, id: &str) -> u64 {
        let counters = self.json("counters");
        packets_of(&counters, "rule", id).unwrap_or_else(|| panic!("no rule {id} in {counters}"))
    }

    /// Packets with this reason; `counters` leaves out those that never occurred.
    pub fn reason_packets(&self, reason: &str) -> u64 {
        packets_of(&self.json("counters"), "reason", reason).unwrap_or(0)
    }
}

impl Drop for Edge<'_> {
    fn drop(&mut self) {
        drop(self.controller.take());
        let mut errors = Vec::new();
        let pins: &Path = &self.namespace.pin_dir();
        if pins.exists() {
            let ended = self.run(&["detach"]);
            if ended.code != exit::OK {
                errors.push(format!("detach: {ended:?}"));
            }
        }
        report("edgefilter", &errors);
    }
}

/// `packets` of the first object, at any depth, whose `key` has this value.
fn packets_of(value: &Value, key: &str, wanted: &str) -> Option<u64> {
    match value {
        Value::Object(fields) => {
            let is_it = fields.get(key).and_then(Value::as_str) == Some(wanted);
            if is_it && let Some(packets) = fields.get("packets").and_then(Value::as_u64) {
                return Some(packets);
            }
            fields
                .values()
                .find_map(|field| packets_of(field, key, wanted))
        }
        Value::Array(items) => items.iter().find_map(|item| packets_of(item, key, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The first number, at any depth, under this key.
pub fn number_at(value: &Value, key: &str) -> Option<u64> {
    match value {
        Value::Object(fields) => fields
            .get(key)
            .and_then(Value::as_u64)
            .or_else(|| fields.values().find_map(|field| number_at(field, key))),
        Value::Array(items) => items.iter().find_map(|item| number_at(item, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_at_any_depth() {
        let value = serde_json::json!({
            "rules": [{ "rule": "a", "packets": 1 }, { "rule": "b", "packets": 2 }],
            "events": { "suppressed": 3 }
        });
        assert_eq!(packets_of(&value, "rule", "b"), Some(2));
        assert_eq!(packets_of(&value, "rule", "c"), None);
        assert_eq!(number_at(&value, "suppressed"), Some(3));
    }
}
