//! What must hold for any bytes, as functions from bytes to nothing that panic if it does not:
//! targets for a fuzzer, and ordinary code for whoever runs an input again.
//!
//! `cargo xtask fuzz` runs them with libFuzzer. What it found once lies in `regressions/` and is run
//! by `cargo test`.

mod client_hello;
mod frame;
mod http_head;
mod input;
mod policy;
mod replay;
mod seeds;
mod tcp_flow;

pub use seeds::seeds;

/// Something that must hold for any bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics if it does not hold for these bytes.
    pub check: fn(&[u8]),
    /// Longest input worth trying, in bytes.
    pub bytes_max: u32,
    /// Runs of a short campaign: some seconds.
    pub short_runs: u32,
}

/// Every target.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "client_hello",
        check: client_hello::check,
        bytes_max: 33_000,
        short_runs: 10_000,
    },
    Target {
        name: "http_head",
        check: http_head::check,
        bytes_max: 33_000,
        short_runs: 10_000,
    },
    Target {
        name: "frame",
        check: frame::check,
        bytes_max: 4_096,
        short_runs: 20_000,
    },
    Target {
        name: "tcp_flow",
        check: tcp_flow::check,
        bytes_max: 1_024,
        short_runs: 20_000,
    },
    Target {
        name: "replay",
        check: replay::check,
        bytes_max: 16_384,
        short_runs: 5_000,
    },
    Target {
        name: "policy",
        check: policy::check,
        bytes_max: 4_096,
        short_runs: 3_000,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
