//! The real `edgefilter` in the edge's namespace.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{interrupt, shell};

use super::world::{EDGE_INTERFACE, World};

/// How long the controller may take to load and attach.
const START_MAX: Duration = Duration::from_secs(10);

/// A running `edgefilter run` and the policy file that it follows.
pub(super) struct Controller<'a> {
    world: &'a World,
    child: Child,
    policy: PathBuf,
}

/// How a command of `edgefilter` ended.
pub(super) struct Ended(Output);

impl Ended {
    /// The exit code, with what the command complained about if it is not 0.
    pub(super) fn code(&self) -> String {
        match self.0.status.code() {
            Some(0) => "exit code 0".to_owned(),
            Some(code) => format!("exit code {code}: {}", self.complaint()),
            None => self.0.status.to_string(),
        }
    }

    fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).trim().to_owned()
    }
}

impl<'a> Controller<'a> {
    /// Starts it with a file that holds `policy` and waits until it enforces.
    pub(super) fn start(world: &'a World, policy: &str) -> Result<Self> {
        let path = world.folder().join("policy.toml");
        fs::write(&path, policy).with_context(|| format!("cannot write {}", path.display()))?;
        let config = world.folder().join("edgefilter.toml");
        // The servers' certificates are there.
        let folder = world.folder();
        fs::write(
            &config,
            format!("[block_page]\ncertificates = {folder:?}\n"),
        )
        .with_context(|| format!("cannot write {}", config.display()))?;
        let log_path = world.folder().join("edgefilter.log");
        let log = File::create(&log_path)
            .with_context(|| format!("cannot create {}", log_path.display()))?;
        let child = world
            .edge
            .command(program())
            .args(["run", "--interface", EDGE_INTERFACE, "--policy"])
            .arg(&path)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log)
            .spawn()
            .context("cannot start edgefilter")?;
        let mut controller = Self {
            world,
            child,
            policy: path,
        };
        if let Err(error) = controller.wait_until_enforcing() {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            return Err(error.context(format!("edgefilter said:\n{log}")));
        }
        Ok(controller)
    }

    /// Replaces the policy file as an editor does: a new file, renamed.
    pub(super) fn write_policy(&self, policy: &str) -> Result<()> {
        let new = self.policy.with_extension("new");
        fs::write(&new, policy)
            .and_then(|()| fs::rename(&new, &self.policy))
            .with_context(|| format!("cannot replace {}", self.policy.display()))
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill edgefilter")?;
        self.child
            .wait()
            .map(drop)
            .context("cannot wait for edgefilter")
    }

    /// Another command of `edgefilter` in the same namespace.
    pub(super) fn run_command(&self, arguments: &[&str]) -> Result<Ended> {
        shell::output(self.world.edge.command(program()).args(arguments)).map(Ended)
    }

    /// Id, packets and bytes of each rule.
    pub(super) fn counters(&self) -> Result<Vec<(String, u64, u64)>> {
        let ended = self.run_command(&["counters", "--json"])?;
        if !ended.0.status.success() {
            bail!("`edgefilter counters --json` ended with {}", ended.code());
        }
        let counters: Value = serde_json::from_slice(&ended.0.stdout)
            .context("`edgefilter counters --json` did not print JSON")?;
        let rules = counters["rules"]
            .as_array()
            .context("the counters have no `rules`")?;
        rules.iter().map(rule_counters).collect()
    }

    fn wait_until_enforcing(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let ended = self.run_command(&["status"])?;
            if ended.0.status.success() {
                return Ok(());
            }
            if let Some(status) = self
                .child
                .try_wait()
                .context("cannot wait for edgefilter")?
            {
                bail!("edgefilter ended with {status}");
            }
            if Instant::now() > deadline {
                bail!(
                    "edgefilter does not enforce: `status` ended with {}",
                    ended.code()
                );
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    shell::target_dir().join("debug/edgefilter")
}

fn rule_counters(rule: &Value) -> Result<(String, u64, u64)> {
    let number = |key| {
        rule[key]
            .as_u64()
            .with_context(|| format!("no `{key}` in {rule}"))
    };
    let id = rule["rule"]
        .as_str()
        .with_context(|| format!("no `rule` in {rule}"))?;
    Ok((id.to_owned(), number("packets")?, number("bytes")?))
}
