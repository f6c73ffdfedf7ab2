//! The fuzzer: libFuzzer's options, and the target named by `EDGEFILTER_FUZZ_TARGET`.

#![no_main]

use std::sync::OnceLock;

use filter_fuzz::Target;
use libfuzzer_sys::fuzz_target;

/// Names the target.
const TARGET: &str = "EDGEFILTER_FUZZ_TARGET";

static CHOSEN: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var(TARGET).unwrap_or_default();
        let target = filter_fuzz::target(&name)
            .unwrap_or_else(|| panic!("{TARGET} names no target: {name:?}"));
        let _ = CHOSEN.set(target);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.check)(data);
        }
    }
);
