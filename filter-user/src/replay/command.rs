//! The command line of `edgefilter replay`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{
    RunError, Runner,
    capture::{Capture, CaptureError},
    report,
    session::{Findings, Session},
};
use crate::compile::Compiled;

/// Arguments of `edgefilter replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Policy to try; without one, names are listed and everything passes
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

/// Exit code for a capture that cannot be read.
const EXIT_CAPTURE: u8 = 2;

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
) -> anyhow::Result<ExitCode> {
    let mut capture = match Capture::open(&args.capture) {
        Ok(capture) => capture,
        Err(error) => {
            complain("error", &args.capture, &error);
            return Ok(ExitCode::from(EXIT_CAPTURE));
        }
    };
    let (findings, end) = read(&mut capture, runner, args.checksums == Checksums::Verify)?;
    if findings.summary.frames > 0 || matches!(end, End::Complete) {
        match print(args.json, &findings, compiled) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
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
fn complain(severity: &str, capture: &std::path::Path, error: &CaptureError) {
    match error {
        CaptureError::Open { .. } => eprintln!("{severity}: {error}"),
        _ => eprintln!("{severity}: {}: {error}", capture.display()),
    }
}
