//! Types shared with the kernel, in the wrapper that lets aya copy them.

use aya::Pod;
use filter_common::abi::{
    Config, Directions, FlowKey, NextHop, Outcome, Rule, RuleCounters, Taken,
};

/// A value that the kernel may read or write byte by byte.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: `repr(C)`, fixed-width integers only, no padding, valid for every bit pattern: the ABI's
// own promise, which its size assertions keep.
unsafe impl Pod for Raw<Config> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Outcome> {}
// SAFETY: as above.
unsafe impl Pod for Raw<RuleCounters> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Directions> {}

// SAFETY: as above.
unsafe impl Pod for Raw<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Taken> {}
// SAFETY: as above.
unsafe impl Pod for Raw<NextHop> {}

/// The bytes of a configuration, to be stored with its generation.
pub(super) fn config_bytes(config: &Config) -> &[u8] {
    // SAFETY: `Config` has no padding (see above), so all its bytes are initialised.
    unsafe { std::slice::from_raw_parts((&raw const *config).cast(), size_of::<Config>()) }
}

/// A configuration from its stored bytes; `None` if there are not exactly as many as it has.
pub(super) fn config_from_bytes(bytes: &[u8]) -> Option<Config> {
    if bytes.len() != size_of::<Config>() {
        return None;
    }
    // SAFETY: the length was checked, and every bit pattern is a valid `Config`.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A rule as the words that the kernel program reads.
pub(super) fn rule_words(rule: &Rule) -> [u64; size_of::<Rule>() / size_of::<u64>()] {
    // SAFETY: `Rule` is exactly that long and has no padding, so all its bytes are initialised.
    unsafe { std::ptr::read((&raw const *rule).cast()) }
}
