//! What keeps the server from starting.

use std::{io, path::PathBuf};

/// Why the server cannot start. Each names the object, the cause and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of rules cannot be read.
    #[error("cannot read the rules in {path}: {cause}; the controller writes this file on `apply`")]
    ReadDecisions {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file of rules is not what it should be.
    #[error(
        "the rules in {path} are not usable: {cause}; apply the policy again to have it written anew"
    )]
    BadDecisions {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
    /// A file of the theme cannot be read.
    #[error("cannot read {path} of the theme: {cause}; correct it or leave `theme` out")]
    ReadTheme {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file of the theme cannot be used.
    #[error("{path}: {cause}")]
    BadTheme {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to write instead.
        cause: String,
    },
    /// A listening socket cannot be used.
    #[error("cannot listen on the socket handed over as {socket}: {cause}")]
    Listener {
        /// Which.
        socket: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The TLS library refuses its configuration.
    #[error("cannot set up TLS: {0}; this is a mistake in the program")]
    Tls(#[from] rustls::Error),
}
