//! Whether bytes sent again are those that were seen before.

use crate::{
    limits::STREAM_BYTES_MAX,
    tls::Step,
    work::{HANDSHAKE_AT, Memory, Variable as _, Work},
};

/// Bytes that one step of a comparison looks at.
pub const COMPARE_BYTES: u32 = 64;

/// Steps that a comparison takes at most.
pub const COMPARE_STEPS_MAX: u32 = STREAM_BYTES_MAX as u32 / COMPARE_BYTES + 1;

/// State of a comparison of fetched bytes with kept ones.
#[derive(Default)]
#[repr(C)]
pub struct Comparison<M: Memory> {
    kept: M::Var,
    fetched: M::Var,
    left: M::Var,
}

/// Prepares the comparison of `len` bytes fetched aside with those kept from `at` on.
#[inline(always)]
pub fn begin_comparison<M: Memory>(work: &Work<M>, at: u32, len: u32) {
    work.comparison.kept.set(at);
    work.comparison.fetched.set(HANDSHAKE_AT);
    work.comparison.left.set(len);
}

/// Compares some bytes. At most [`COMPARE_STEPS_MAX`] steps.
#[inline(always)]
pub fn compare_step<M: Memory>(work: &mut Work<M>) -> Step {
    for _ in 0..COMPARE_BYTES {
        let left = work.comparison.left.get();
        if left == 0 {
            return Step::Done;
        }
        let (kept, fetched) = (work.comparison.kept.get(), work.comparison.fetched.get());
        if work.byte(kept) != work.byte(fetched) {
            return Step::Done;
        }
        work.comparison.kept.set(kept + 1);
        work.comparison.fetched.set(fetched + 1);
        work.comparison.left.set(left - 1);
    }
    Step::Again
}

/// Whether all bytes were equal.
#[inline(always)]
pub fn finish_comparison<M: Memory>(work: &Work<M>) -> bool {
    work.comparison.left.get() == 0
}
