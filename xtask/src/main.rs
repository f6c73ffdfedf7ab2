//! The one tool of this repository: `cargo xtask COMMAND`.

mod bench;
mod bpf_build;
mod demo;
mod fuzz;
mod interrupt;
mod leaks;
mod lint;
mod packages;
mod rules;
mod setup;
mod shell;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, checks, tests and shows edgefilter.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds or installs the BPF toolchain and the programs that tests and demo use
    ///
    /// Prefers a rustup toolchain with rust-src and a bpf-linker that fits it; else
    /// Debian's rustc-web and a bpf-linker built into .toolchain/. Does nothing when
    /// all is there. Needs root only for what has to be installed.
    Setup,
    /// Builds the kernel program into target/bpf/, then the workspace
    Build {
        /// Optimise the user-space binaries as well
        #[arg(long)]
        release: bool,
    },
    /// Shows the filter at work between real clients and servers, in namespaces of its own
    ///
    /// Needs root. Prints what was tried, expected and seen, fails if a line differs, and
    /// removes everything it made.
    Demo {
        /// Leaves a picture of the block page, as Chromium shows it, in the current directory
        ///
        /// Installs Debian's chromium if it is missing.
        #[arg(long)]
        browser: bool,
    },
    /// Formatting, clippy with warnings as errors, and this repository's own rules
    Lint,
    /// Every test that decides whether the product works, with a count at the end
    ///
    /// Needs root: most tests load the program into the kernel.
    Test {
        /// Also the long tests
        #[arg(long)]
        all: bool,
        /// Only tests whose path contains this text
        filter: Option<String>,
    },
    /// Looks for bytes for which what must hold does not, with libFuzzer
    ///
    /// Starts from the fixtures and from what earlier runs reached (target/fuzz/). Prints
    /// executions, edges and features covered, and findings; a finding's input is made
    /// smaller and kept, and the exit code is not zero.
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// The short runs of `test` instead: from a fixed seed, the same every time
        #[arg(long, conflicts_with = "seconds")]
        short: bool,
        /// Only these targets
        targets: Vec<String>,
    },
    /// Nanoseconds per packet beside an empty program and xdp-filter, into target/bench/
    ///
    /// Needs root. Also floods it beside nftables and ipset, which it installs with xdp-tools if they
    /// are missing.
    Bench {
        /// Fewer and shorter samples, small tables only
        #[arg(long)]
        quick: bool,
        /// Exit with an error if a figure misses its budget
        #[arg(long)]
        check: bool,
        /// Only kinds of packets whose names contain this, without other filters and without loading
        #[arg(long)]
        case: Option<String>,
    },
    /// The program, the fixtures and the commands on other kernels, into target/vm/report.json
    ///
    /// Boots Debian's kernels under qemu with software emulation: 6.1 (the oldest supported), 6.12,
    /// 6.18, pinned by content, and `newest`, whose failures are told but do not count. All of them
    /// unless some are named. Needs root to install qemu.
    Vm {
        /// Kernels to boot
        kernels: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Build { release } => bpf_build::run(release),
        Command::Demo { browser } => demo::run(browser),
        Command::Lint => lint::run(),
        Command::Fuzz {
            seconds,
            short,
            targets,
        } => {
            let length = if short {
                fuzz::Length::Short
            } else {
                fuzz::Length::Seconds(seconds)
            };
            fuzz::run(&targets, length)
        }
        Command::Bench { quick, check, case } => bench::run(quick, check, case.as_deref()),
        Command::Vm { kernels } => vm::run(&kernels),
        Command::Test { all, filter } => test::run(all, filter.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
