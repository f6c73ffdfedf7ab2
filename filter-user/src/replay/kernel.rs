//! The program in the kernel as a [`Runner`].

use super::{Ran, RunError, Runner};
use crate::{
    compile::Compiled,
    datapath::{DatapathError, Private},
};

/// Frames up to this length the kernel takes in a test run whatever its page and fragment sizes;
/// how much more depends on its configuration (some 72 KiB usually).
const FRAME_BYTES_SURE: usize = 65_536;

/// A private instance of the program: maps of its own, no interface.
pub struct KernelRunner {
    program: Private,
}

impl KernelRunner {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// What [`Private::load`] says: not permitted, refused by the verifier, does not fit.
    pub fn load(compiled: &Compiled) -> Result<Self, DatapathError> {
        Private::load(compiled).map(|program| Self { program })
    }
}

impl Runner for KernelRunner {
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError> {
        match self.program.run(frame) {
            Ok((action, outcome)) => Ok(Ran { action, outcome }),
            Err(_) if frame.len() > FRAME_BYTES_SURE => Err(RunError::TooLong { len: frame.len() }),
            Err(error) => Err(RunError::Failed(Box::new(error))),
        }
    }
}
