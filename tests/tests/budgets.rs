//! Budgets that do not depend on the machine's speed: verified instructions and map memory.

use filter_tests::{
    kernel,
    variants::{self, Variant},
};
use filter_user::datapath::{Private, kernel_fields};

/// The kernel's limit is 1,000,000; the room is for kernels whose verifier walks more.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 500_000;

/// On kernels before [`FRUGAL`], whose verifier joins fewer paths: there it is 6.1 that counts.
const VERIFIED_INSTRUCTIONS_MAX_BEFORE: u32 = 800_000;
const FRUGAL: (u32, u32) = (6, 12);

/// For three rules with origins: counters and the event ring, which all generations share, and the
/// working areas, 64 KiB and a little for each possible CPU.
const SMALL_POLICY_BYTES_MAX: u64 = 4 * 1024 * 1024;

fn load(variant: &Variant) -> Private {
    Private::load(&variant.compiled())
        .unwrap_or_else(|e| panic!("{}: the kernel refuses it: {e}", variant.name))
}

/// Each line that begins with `variant` is read by `cargo xtask vm`.
#[test]
fn every_variant_of_the_program_loads_and_stays_far_below_the_verifiers_limit() {
    assert!(
        kernel_fields::socket_offsets().is_some(),
        "the kernel has type information"
    );
    let most = if kernel::running() < FRUGAL {
        VERIFIED_INSTRUCTIONS_MAX_BEFORE
    } else {
        VERIFIED_INSTRUCTIONS_MAX
    };
    for variant in variants::all() {
        let program = load(&variant);
        let verified = program
            .verified_instructions()
            .expect("a kernel that counts");
        let load_ms = program.load_time().as_millis();
        println!("\nvariant {verified} {load_ms} {}", variant.name);
        assert!(
            verified <= most,
            "{}: {verified} verified instructions",
            variant.name
        );
    }
}

#[test]
fn three_rules_without_names_cost_little_memory() {
    let bytes = load(&variants::three_rules()).map_bytes();
    assert!(bytes <= SMALL_POLICY_BYTES_MAX, "{bytes} bytes of maps");
}
