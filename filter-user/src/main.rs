//! The binary `edgefilter`.

use std::{ffi::c_long, process::ExitCode};

use libmimalloc_sys::{mi_option_set, mi_option_t};
use mimalloc::MiMalloc;

/// A million names are a million small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, version 3, in milliseconds.
const PURGE_DELAY: mi_option_t = 15;

/// What is freed goes back to the kernel at once: a policy is read, compiled and gone, and the next large
/// step finds fresh pages as quickly.
const AT_ONCE: c_long = 0;

fn main() -> ExitCode {
    // SAFETY: sets a number, before any other thread runs.
    unsafe { mi_option_set(PURGE_DELAY, AT_ONCE) };
    filter_user::cli::main()
}
