//! Two builds of the data path, one answer: the same frame through two runners.

use std::fmt;

use filter_common::{
    abi::{Outcome, Protocol, Verdict},
    reason::Reason,
};

use crate::replay::{Ran, RunError, Runner, escape_name};

/// Frames longer than this are shown by their first bytes only.
const SHOWN_BYTES_MAX: usize = 256;

/// Why two runners are not on a par.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// One of them failed.
    #[error("the {side} runner failed: {source}")]
    Run {
        /// Which.
        side: &'static str,
        /// How.
        source: RunError,
    },
    /// They disagree.
    #[error("{0}")]
    Differs(Box<Difference>),
}

/// What two runners made of one frame.
#[derive(Debug)]
pub struct Difference {
    left: Ran,
    right: Ran,
    frame: Vec<u8>,
}

/// Runs a frame through both and compares action, verdict, reason, slot, protocol and name.
///
/// # Errors
///
/// [`ParityError::Differs`] shows both outcomes field by field and the frame's bytes.
pub fn check(
    left: &mut dyn Runner,
    right: &mut dyn Runner,
    frame: &[u8],
) -> Result<Ran, ParityError> {
    let run = |runner: &mut dyn Runner, side| {
        runner
            .run(frame)
            .map_err(|source| ParityError::Run { side, source })
    };
    let left = run(left, "left")?;
    let right = run(right, "right")?;
    if fields(&left) == fields(&right) {
        return Ok(left);
    }
    let frame = frame.to_vec();
    Err(ParityError::Differs(Box::new(Difference {
        left,
        right,
        frame,
    })))
}

/// What is compared, by name, as words where there are words.
fn fields(ran: &Ran) -> [(&'static str, String); 6] {
    let Outcome {
        verdict,
        reason,
        protocol,
        slot,
        ..
    } = ran.outcome;
    let word = |word: Option<&str>, raw: u8| word.map_or(format!("unknown {raw}"), str::to_owned);
    [
        ("action", ran.action.to_string()),
        (
            "verdict",
            word(Verdict::from_u8(verdict).map(Verdict::as_str), verdict),
        ),
        (
            "reason",
            word(Reason::from_u8(reason).map(Reason::as_str), reason),
        ),
        (
            "protocol",
            word(
                Protocol::from_u8(protocol).map(|known| known.as_str().unwrap_or("none")),
                protocol,
            ),
        ),
        ("slot", slot.to_string()),
        ("name", escape_name(name(&ran.outcome))),
    ]
}

fn name(outcome: &Outcome) -> &[u8] {
    outcome
        .name
        .get(..usize::from(outcome.name_len))
        .unwrap_or(&outcome.name)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the two runners disagree on a frame of {} bytes:",
            self.frame.len()
        )?;
        for ((field, left), (_, right)) in fields(&self.left).iter().zip(fields(&self.right)) {
            let mark = if *left == right { ' ' } else { '!' };
            writeln!(f, "{mark} {field:<8} left {left:<24} right {right}")?;
        }
        for (row, bytes) in self.frame.chunks(16).take(SHOWN_BYTES_MAX / 16).enumerate() {
            write!(f, "  {:04x} ", row * 16)?;
            for byte in bytes {
                write!(f, " {byte:02x}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
