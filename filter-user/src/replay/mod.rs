//! `edgefilter replay`: a capture through the real program, one line per flow.
//!
//! [`capture`] reads frames, a [`Runner`] judges them (the program in the kernel by test
//! run, or its host build), [`Session`] files the outcomes by flow, `report` prints them.

pub mod capture;
mod command;
mod dialogue;
mod flows;
mod held;
mod kernel;
mod offload;
mod packet;
mod report;
mod session;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unsupported;

use filter_common::abi::Outcome;

pub use self::{
    command::{Checksums, PortChoice, ReplayArgs, ReplayError, main},
    flows::{FLOWS_MAX, Flow},
    kernel::KernelRunner,
    report::{escape_name, json_lines, table},
    session::{Findings, Session, Summary},
    tally::{Hit, Named, Tally},
    unsupported::Unsupported,
};

/// What a program made of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The program's return code, `enum xdp_action`.
    pub action: u32,
    /// What it wrote to the trace map.
    pub outcome: Outcome,
}

/// Judges frames in order, keeping what state the program keeps.
pub trait Runner {
    /// Runs the program on one Ethernet frame of at least
    /// [`capture::ETHERNET_HEADER`] bytes.
    ///
    /// # Errors
    ///
    /// [`RunError::TooLong`] ends nothing, any other error ends the replay.
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError>;
}

/// Why a frame could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel takes no frame of this length in a test run.
    #[error("a frame of {len} bytes is longer than the kernel takes in a test run")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The program reported something that this version does not know.
    #[error(
        "the program reports verdict {verdict}, reason {reason}, protocol {protocol}, which this version does not know: rebuild program and binary together"
    )]
    UnknownOutcome {
        /// Discriminant of the verdict.
        verdict: u8,
        /// Discriminant of the reason.
        reason: u8,
        /// Discriminant of the protocol.
        protocol: u8,
    },
    /// The test run failed.
    #[error("cannot run the program on a frame: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}
