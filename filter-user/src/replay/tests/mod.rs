//! Flows, held-back frames, what is unsupported, and the report.

mod corpora;
mod dialogues;
mod flows;
mod held;
mod report;

use filter_common::{
    abi::{NO_SLOT, Protocol, Verdict},
    reason::Reason,
};

use super::{Ran, testing::outcome};

/// Passes, nothing found.
fn pass() -> Ran {
    outcome(Verdict::Pass, Reason::NoMatch, NO_SLOT, Protocol::None, b"")
}
