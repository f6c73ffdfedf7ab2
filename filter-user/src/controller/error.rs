//! Errors of commands, with their exit codes.

use thiserror::Error;

use crate::{
    compile::CompileError,
    datapath::{DatapathError, InstallError},
    policy::{ConfigError, PolicyError},
    replay::ReplayError,
    sink::SinkError,
};

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The policy was refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The host configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy exceeds a limit of the data path.
    #[error("the policy cannot be compiled: {0}")]
    Compile(#[from] CompileError),
    /// The kernel side failed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The new generation could not be put in place.
    #[error("nothing was changed: {0}")]
    Install(#[from] InstallError),
    /// The capture could not be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The block page's process could not be told or ended.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The command line lacks something.
    #[error("{0}")]
    Usage(String),
    /// Somebody detached all that is configured.
    #[error(
        "detached by hand: {}; `edgefilter apply` or a restart of the controller attaches again",
        interfaces.join(", ")
    )]
    HeldBack {
        /// The interfaces.
        interfaces: Vec<String>,
    },
    /// The policy is in place, but connections could not be cut.
    #[error("the policy is in force, but no open connection was cut: {0}")]
    NotCut(Box<CommandError>),
    /// The output was closed or a file operation failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl CommandError {
    /// Exit code, as in `edgefilter --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Policy(_) | Self::Config(_) | Self::Compile(_) => 3,
            Self::Datapath(error) => error.exit_code(),
            Self::Install(error) => error.exit_code(),
            Self::Replay(error) => error.exit_code(),
            Self::Sink(error) => error.exit_code(),
            Self::Usage(_) => 2,
            Self::HeldBack { .. } => 8,
            Self::NotCut(_) => 9,
            Self::Io(_) => 1,
        }
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        // Keeps "the reader went away" recognisable.
        Self::Io(error.into())
    }
}
