//! How often answers may go out that nobody has to prove anything for.

use crate::limits::{UNPROVEN_ANSWERS_BURST, UNPROVEN_ANSWERS_PER_SECOND};

/// What one answer costs of a second.
const INTERVAL_NS: u64 = 1_000_000_000 / UNPROVEN_ANSWERS_PER_SECOND;
/// How far ahead of the clock may be spent.
const AHEAD_MAX_NS: u64 = (UNPROVEN_ANSWERS_BURST - 1) * INTERVAL_NS;

/// A bucket of tokens as one number: the moment up to which its share is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budget {
    /// Nanoseconds of the same clock as [`Budget::take`]'s.
    pub spent_until_ns: u64,
}

impl Budget {
    /// Whether another answer may go out now; it is taken off the budget.
    #[inline(always)]
    pub const fn take(&mut self, now_ns: u64) -> bool {
        let from = if self.spent_until_ns > now_ns {
            self.spent_until_ns
        } else {
            now_ns
        };
        if from - now_ns > AHEAD_MAX_NS {
            return false;
        }
        self.spent_until_ns = from + INTERVAL_NS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut budget = Budget::default();
        let start = 5_000_000_000;
        let at_once = (0..1_000).filter(|_| budget.take(start)).count() as u64;
        assert_eq!(at_once, UNPROVEN_ANSWERS_BURST);
        let second = |budget: &mut Budget, from: u64| {
            let steps = 0..100_000;
            let moments = steps.map(|step| from + step * 10_000);
            moments.filter(|&now| budget.take(now)).count() as u64
        };
        let sustained = second(&mut budget, start);
        assert!(
            sustained.abs_diff(UNPROVEN_ANSWERS_PER_SECOND) <= 1,
            "{sustained}"
        );
    }

    #[test]
    fn what_was_not_spent_is_not_saved_up() {
        let mut budget = Budget::default();
        assert!(budget.take(1));
        let later = 3_600 * 1_000_000_000;
        let at_once = (0..1_000).filter(|_| budget.take(later)).count() as u64;
        assert_eq!(at_once, UNPROVEN_ANSWERS_BURST);
    }
}
