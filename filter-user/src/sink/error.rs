//! Why the block page's sink could not be made or removed.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the block page's sink could not be made, started or removed. Rules that lead to the page refuse
/// meanwhile.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A step failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else has an interface of the name.
    #[error(
        "an interface named `{name}` exists that edgefilter did not make (its alias is not `{alias}`); rename it"
    )]
    Foreign {
        /// The name.
        name: String,
        /// What is written beside ours.
        alias: String,
    },
    /// The configured user does not exist.
    #[error("there is no user `{name}` (`user` under `[block_page]`): make it, or name another")]
    NoUser {
        /// Its name.
        name: String,
    },
    /// The process ended before it served.
    #[error("the block page's process ended before it served: {how}; its messages are above")]
    EndedAtOnce {
        /// How it ended.
        how: String,
    },
    /// The process that served is gone.
    #[error("its process has ended")]
    Ended,
    /// The process is there and answers nothing.
    #[error("its process does not answer: it is stopped, or has more to do than it can")]
    Silent,
    /// The kernel side failed.
    #[error(transparent)]
    Datapath(#[from] crate::datapath::DatapathError),
}

impl SinkError {
    /// Exit code, as in `edgefilter --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Step { source, .. } | Self::File { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                4
            }
            Self::Step { .. } | Self::Foreign { .. } => 5,
            Self::NoUser { .. } => 3,
            Self::File { .. } | Self::EndedAtOnce { .. } | Self::Ended | Self::Silent => 1,
            Self::Datapath(error) => error.exit_code(),
        }
    }
}

/// Says what was being done when a step fails.
pub(super) fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> SinkError {
    let step = step.into();
    move |source| SinkError::Step { step, source }
}

/// The same of a file.
pub(super) fn file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> SinkError {
    let path = path.into();
    move |source| SinkError::File {
        action,
        path,
        source,
    }
}
