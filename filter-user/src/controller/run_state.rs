//! What a running controller tells `edgefilter status`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    datapath::Mode,
    policy::model::{AttachMode, InterfaceConfig},
};

const FILE: &str = "controller.json";

/// The document, rewritten after every attempt to apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Process id of the controller.
    pub pid: u32,
    /// When it was written.
    pub at: Timestamp,
    /// The policy file it follows.
    pub policy_path: Option<String>,
    /// Digest of the policy as last read without error.
    pub policy_digest: Option<String>,
    /// Digest of the host configuration, likewise.
    #[serde(default)]
    pub config_digest: Option<String>,
    /// The generation it put in place or took over last.
    pub generation: Option<u64>,
    /// Interfaces that are to be enforced.
    pub interfaces: Vec<WantedInterface>,
    /// Why the policy as written is not enforced; `None` when it is.
    pub last_error: Option<String>,
    /// Whether that is since the policy could not be applied.
    #[serde(default)]
    pub apply_failed: bool,
    /// When it was put or found in place last.
    #[serde(default)]
    pub applied_at: Option<Timestamp>,
    /// Why metrics are not told as configured.
    #[serde(default)]
    pub metrics_problem: Option<String>,
}

/// An interface that is to be enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedInterface {
    /// Its name.
    pub name: String,
    /// The mode that the configuration insists on, if it does.
    pub mode: Option<Mode>,
}

impl From<&InterfaceConfig> for WantedInterface {
    fn from(config: &InterfaceConfig) -> Self {
        Self {
            name: config.name.clone(),
            mode: match config.mode {
                AttachMode::Auto => None,
                AttachMode::Native => Some(Mode::Native),
                AttachMode::Generic => Some(Mode::Generic),
            },
        }
    }
}

impl RunState {
    /// Writes it whole or not at all.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("controller.json.new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        fs::rename(temporary, path(directory))
    }

    /// Reads what the last controller wrote; `None` if there was none.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(directory)).ok()?).ok()
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_survives_the_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(RunState::read(directory.path()), None);
        let state = RunState {
            pid: 7,
            at: Timestamp::UNIX_EPOCH,
            policy_path: Some("/etc/edgefilter/policy.toml".into()),
            policy_digest: None,
            config_digest: Some("aa-11".into()),
            generation: Some(3),
            interfaces: vec![WantedInterface {
                name: "eth0".into(),
                mode: Some(Mode::Native),
            }],
            last_error: Some("bad".into()),
            apply_failed: true,
            applied_at: Some(Timestamp::UNIX_EPOCH),
            metrics_problem: Some("in use".into()),
        };
        state.write(directory.path()).unwrap();
        assert_eq!(RunState::read(directory.path()), Some(state));
    }
}
