//! Telling a client that it is refused.

use filter_common::respond::counted::Answer;

use crate::respond::{Answerable, dropped};

/// Answers the frame; the XDP action.
#[inline(always)]
pub(crate) fn answer(_frame: &Answerable<'_>) -> u32 {
    dropped(Answer::Unanswerable)
}
