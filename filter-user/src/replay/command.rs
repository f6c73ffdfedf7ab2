//! The command line of `edgefilter replay`.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use filter_common::abi::feature;
use nix::time::{ClockId, clock_gettime};

use super::{
    RunError, Runner,
    capture::{Capture, CaptureError},
    kernel::KernelRunner,
    report,
    session::{Findings, Session},
};
use crate::{
    compile::{CompileError, Compiled, HostFacts, Role, compile},
    datapath::DatapathError,
    host::HostRunner,
    policy::{
        ConfigError, PolicyError, load_host_config, load_policy,
        model::{HostConfig, InspectPorts, Policy},
    },
};

/// Say what a policy would have done to the traffic in a capture: every frame through the real
/// program, in a private instance; no interface is touched.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Policy to try; without one, here or in the configuration, names are listed and everything passes
    ///
    /// A rule's `from` and `until` are compared with the present moment, not with the capture's.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Host configuration: the inspected ports and what is protected
    ///
    /// Interfaces and served addresses in it do not count here: every destination is taken for an
    /// address whose connections are inspected.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Look for TLS, HTTP and QUIC on these ports instead of the configured ones
    #[arg(long, value_enum, value_name = "PORTS")]
    pub ports: Option<PortChoice>,

    /// Whether packets with wrong checksums are taken for damaged
    ///
    /// Captures made on the sending machine are full of checksums that its network card was to fill in.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Checksums::Ignore)]
    pub checksums: Checksums,

    /// Print one JSON object per flow and a last one with the summary, instead of a table
    #[arg(long)]
    pub json: bool,

    /// Run the host build of the program instead of the one in the kernel
    ///
    /// Needs no privileges. Both builds share their logic; the kernel's is the one that enforces.
    #[arg(long)]
    pub host: bool,

    /// Capture to read: pcap or pcapng, also compressed with gzip
    #[arg(value_name = "CAPTURE")]
    pub capture: PathBuf,
}

/// Ports to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PortChoice {
    /// Every port; the first bytes decide
    Any,
}

/// What is done about checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Checksums {
    /// Packets with wrong checksums are counted and pass, as on an interface
    Verify,
    /// Checksums are not looked at
    Ignore,
}

/// Exit code for a capture that cannot be read, or not to its end.
const EXIT_CAPTURE: u8 = 2;

/// Why a replay ended without an answer. What is wrong with a capture is not among it: that is
/// reported beside the answer as far as there is one.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The host configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy exceeds a limit of the data path.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The program cannot be loaded.
    #[error("{0}; `--host` runs the host build, which needs neither privileges nor kernel")]
    Load(#[from] DatapathError),
    /// A frame could not be judged.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The answer could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

impl ReplayError {
    /// Exit code of a command that ends with this error, as in `edgefilter --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Policy(_) | Self::Config(_) | Self::Compile(_) => 3,
            Self::Load(error) => error.exit_code(),
            Self::Run(_) | Self::Output(_) => 1,
        }
    }
}

/// Runs `edgefilter replay`: standard output gets the report, standard error what is wrong with
/// the capture. No interface and no pinned map is touched.
///
/// The exit code is 0, or 2 for a capture that cannot be read (or not to its end).
///
/// # Errors
///
/// [`ReplayError`], with its exit code.
pub fn main(args: &ReplayArgs) -> Result<ExitCode, ReplayError> {
    let now_tai_ns = nanoseconds(ClockId::CLOCK_TAI);
    let compiled = prepare(args, now_tai_ns)?;
    if args.host {
        let mut runner = HostRunner::new(compiled.clone(), now_tai_ns);
        return execute(args, &compiled, &mut runner);
    }
    let mut runner = KernelRunner::load(&compiled)?;
    execute(args, &compiled, &mut runner)
}

/// The generation that the capture is replayed through.
fn prepare(args: &ReplayArgs, now_tai_ns: u64) -> Result<Compiled, ReplayError> {
    let mut host = match &args.config {
        Some(path) => load_host_config(path)?,
        None => HostConfig::default(),
    };
    match args.ports {
        Some(PortChoice::Any) => {
            host.tls = InspectPorts::Any;
            host.http = InspectPorts::Any;
            host.quic = InspectPorts::Any;
            host.proxy_protocol = InspectPorts::Any;
        }
        None => {}
    }
    let policy = match args.policy.as_ref().or(host.policy.as_ref()) {
        Some(path) => load_policy(path)?,
        None => Policy::default(),
    };
    // The capture is not of this host: its addresses and lifelines protect nothing here.
    let facts = HostFacts {
        tai_offset_s: tai_offset_s(now_tai_ns),
        ..HostFacts::default()
    };
    let role = Role::Replay {
        checksums: args.checksums == Checksums::Verify,
    };
    let mut compiled = compile(&policy, &host, &facts, role, None)?;
    // There is no interface to send to: the verdict is what counts.
    compiled.config.features &= !feature::REDIRECT;
    compiled.redirect_interfaces.clear();
    compiled.next_hops.clear();
    compiled.local_proxies = None;
    Ok(compiled)
}

/// CLOCK_TAI ahead of UTC in whole seconds, as the kernel has it now.
fn tai_offset_s(now_tai_ns: u64) -> i64 {
    const SECOND: u64 = 1_000_000_000;
    let ahead = now_tai_ns.saturating_sub(nanoseconds(ClockId::CLOCK_REALTIME));
    // The clocks are read one after the other.
    (ahead.saturating_add(SECOND / 2) / SECOND) as i64
}

/// A clock's reading; 0 if the kernel has no such clock.
fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        std::time::Duration::from(time)
            .as_nanos()
            .try_into()
            .unwrap_or(u64::MAX)
    })
}

/// How reading a capture ended.
enum End {
    Complete,
    /// What was read is reported, and this said beside it.
    CutShort(CaptureError),
    /// As before, and it is an error.
    Broken(CaptureError),
}

/// Replays the capture through `runner` and prints what was found.
///
/// # Errors
///
/// A failing runner, and a standard output that cannot be written (other than a closed pipe).
fn execute(
    args: &ReplayArgs,
    compiled: &Compiled,
    runner: &mut dyn Runner,
) -> Result<ExitCode, ReplayError> {
    let mut capture = match Capture::open(&args.capture) {
        Ok(capture) => capture,
        Err(error) => {
            complain("error", &args.capture, &error);
            return Ok(ExitCode::from(EXIT_CAPTURE));
        }
    };
    let (findings, end) = read(&mut capture, runner, args.checksums == Checksums::Verify)?;
    if findings.summary.frames > 0 || !matches!(end, End::Broken(_)) {
        match print(args.json, &findings, compiled) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(ReplayError::Output(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(match end {
        End::Complete => ExitCode::SUCCESS,
        End::CutShort(error) => {
            complain("warning", &args.capture, &error);
            ExitCode::SUCCESS
        }
        End::Broken(error) => {
            complain("error", &args.capture, &error);
            ExitCode::from(EXIT_CAPTURE)
        }
    })
}

/// Every frame of a capture through `runner`.
fn read(
    capture: &mut Capture,
    runner: &mut dyn Runner,
    checksums: bool,
) -> Result<(Findings, End), RunError> {
    let mut session = Session::new(runner, checksums);
    let end = loop {
        match capture.next_frame() {
            Ok(Some(frame)) => session.frame(frame)?,
            Ok(None) => break End::Complete,
            Err(error @ CaptureError::CutShort { .. }) => break End::CutShort(error),
            Err(error) => break End::Broken(error),
        }
    };
    Ok((session.finish(), end))
}

fn print(json: bool, findings: &Findings, compiled: &Compiled) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    if json {
        report::json_lines(&mut out, findings, &compiled.meta)?;
    } else {
        report::table(&mut out, findings, &compiled.meta)?;
    }
    out.flush()
}

/// On standard error, so that standard output stays machine-readable. An error that names its
/// file already is not prefixed with it.
fn complain(severity: &str, capture: &Path, error: &CaptureError) {
    match error {
        CaptureError::Open { .. } => eprintln!("{severity}: {error}"),
        _ => eprintln!("{severity}: {}: {error}", capture.display()),
    }
}
