//! The commands of the binary: nouns read, verbs change what happens to traffic.

mod args;
mod detach;
mod env;
mod events;
mod nouns;
mod page;
mod policy;
mod status;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Parser as _;
use serde::Serialize;

pub(crate) use self::status::observed;
pub use self::{
    args::{Cli, Command, DEFAULT_CONFIG, Global},
    detach::Detached,
    env::Env,
    nouns::{CountersReport, Explained, ReasonCount, RuleCount},
    page::PageStatus,
    policy::Checked,
    status::Status,
};
use crate::{
    controller::{CommandError, Sources},
    datapath::Root,
    policy::diagnostics::Report,
    replay, sink,
};

/// The binary: reads the command line, runs the command, reports errors on standard error.
pub fn main() -> ExitCode {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log_to_stderr(global.verbose);
    let mut out = io::stdout();
    let mut env = Env {
        out: &mut out,
        json: global.json,
        sources: Sources {
            config: global.config,
            default_config: DEFAULT_CONFIG.into(),
            policy: global.policy,
            interfaces: global.interface,
            serves: global.serve,
        },
        ssh_connection: std::env::var("SSH_CONNECTION").ok(),
        notify_socket: std::env::var_os("NOTIFY_SOCKET"),
        open_root: Root::open,
    };
    match run(&mut env, command) {
        Ok(code) => code,
        // Whoever read us has enough, as in `edgefilter rules | head`.
        Err(CommandError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("edgefilter: {error}");
            if env.json {
                // Standard error has said it; a closed output changes nothing.
                let _ = env.print(&Failure::of(&error), |_, _| Ok(()));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says what is wrong with a command line, in JSON as well if it asks for that; or the help asked for.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed output changes nothing.
    let _ = error.print();
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let failure = Failure {
            error: error.to_string(),
            exit_code: code,
            report: None,
        };
        let _ = serde_json::to_writer_pretty(io::stdout(), &failure);
        println!();
    }
    code.into()
}

/// Runs one command; the exit code of a command that did its work.
///
/// # Errors
///
/// With [`CommandError::exit_code`].
pub fn run(env: &mut Env<'_>, command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Run => policy::run(env)?,
        Command::Check { file } => policy::check(env, file)?,
        Command::Apply { file, cut } => return policy::apply_once(env, file, cut),
        Command::Status => {
            let in_sync = status::status(env)?;
            return Ok(if in_sync {
                ExitCode::SUCCESS
            } else {
                EXIT_DIFFERENT.into()
            });
        }
        Command::Metrics => {
            let in_sync = status::metrics(env)?;
            return Ok(if in_sync {
                ExitCode::SUCCESS
            } else {
                EXIT_DIFFERENT.into()
            });
        }
        Command::Rules => nouns::rules(env)?,
        Command::Explain { what } => nouns::explain(env, &what)?,
        Command::Counters => nouns::counters(env)?,
        Command::Events { count, timeout } => events::events(env, count, timeout)?,
        Command::Detach => detach::detach(env)?,
        Command::Sink { spec } => sink::serve(&spec)?,
        Command::SinkHandover { spec, to_page } => sink::make_sockets(&spec, to_page)?,
        Command::Replay(args) => return Ok(replay::main(&args)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--json` prints of a command that failed.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    error: String,
    exit_code: u8,
    /// Where the policy or configuration is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Report>,
}

impl<'a> Failure<'a> {
    fn of(error: &'a CommandError) -> Self {
        let report = match error {
            CommandError::Policy(refused) => Some(&refused.report),
            CommandError::Config(refused) => Some(&refused.report),
            _ => None,
        };
        Self {
            error: error.to_string(),
            exit_code: error.exit_code(),
            report,
        }
    }
}

/// Exit code of `apply --cut` when connections that were to be cut go on.
const EXIT_NOT_CUT: u8 = 9;

/// Exit code of `status` when wanted and enforced differ.
const EXIT_DIFFERENT: u8 = 8;

fn log_to_stderr(verbose: bool) {
    let usual = if verbose {
        "info,filter_user=debug"
    } else {
        "info"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("EDGEFILTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
