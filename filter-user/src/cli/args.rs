//! The command line. Help, like everything else about a flag, is written beside it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::{
    policy::{
        model::{AttachMode, InterfaceConfig},
        parse_prefix,
    },
    replay::ReplayArgs,
};

/// Where the host configuration is, unless a flag says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/edgefilter/edgefilter.toml";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  unexpected error
  2  wrong usage
  3  policy or configuration refused
  4  not permitted (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)
  5  the kernel or environment lacks something (bpffs, interface, kernel version)
  6  an interface has a foreign XDP program
  7  another controller or change is running
  8  status, metrics: wanted and enforced differ, or nothing is enforced
  9  apply --cut: applied, but not all connections could be ended";

/// Blocks origins and hostnames in the kernel, before the network stack.
#[derive(Debug, Parser)]
#[command(name = "edgefilter", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Host configuration [default: /etc/edgefilter/edgefilter.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Policy file, instead of the one that the configuration names
    #[arg(long, global = true, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Interface to attach to, instead of the configuration's; repeatable. MODE: auto, native, generic
    #[arg(long, global = true, value_name = "NAME[:MODE]", value_parser = parse_interface)]
    pub interface: Vec<InterfaceConfig>,
    /// Prefix on whose addresses names are read, instead of the configuration's; repeatable
    #[arg(long, global = true, value_name = "PREFIX", value_parser = parse_served)]
    pub serve: Vec<IpNet>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error, such as why a change took longer than a moment
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands: nouns read, verbs change what happens to traffic.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enforce the policy and follow its files; traffic goes on being filtered after it ends
    ///
    /// Attaches to the interfaces, applies the policy, and applies it again whenever its files change or
    /// on SIGHUP. A bad policy is refused and the last good one stays. SIGTERM ends the controller, not
    /// the filter: `detach` does that.
    Run,
    /// Say whether a policy is good; touches neither the kernel nor traffic
    Check {
        /// Policy file [default: the configuration's]
        file: Option<PathBuf>,
    },
    /// Put the policy in place now; traffic is filtered by the new one from one packet to the next
    ///
    /// A rule on names acts on connections made from now on; names of open ones are not kept. `--cut` also
    /// ends the open ones that may have a name of a rule that is new with this change: all to served
    /// addresses and inspected ports that it covers, after printing how many. They come back and are judged.
    Apply {
        /// Policy file [default: the configuration's]
        file: Option<PathBuf>,
        /// End open connections that new rules on names may be about, or this rule, new or not
        #[arg(long, value_name = "RULE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        cut: Option<String>,
    },
    /// Show what is enforced where, since when, and whether that is what is wanted
    Status,
    /// List the rules in place
    Rules,
    /// Show which rules list a name or an address, and which of them decides
    ///
    /// Asks the tables in the kernel; with `--policy FILE` that file instead, without touching the kernel.
    Explain {
        /// Hostname, or IPv4 or IPv6 address
        what: String,
    },
    /// Show packets per rule and per reason
    Counters,
    /// Print the numbers of `status` and `counters` for monitoring, in the text format of OpenMetrics
    ///
    /// The exit code is that of `status`. A running controller serves them as well: see `[metrics]` in the
    /// configuration.
    Metrics,
    /// Print packets that rules hit, as they come (a sample under load)
    Events {
        /// End after this many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End after this many seconds
        #[arg(long, value_name = "S")]
        timeout: Option<u64>,
    },
    /// Stop enforcing: remove the program from the interfaces; all traffic passes
    ///
    /// Means all interfaces, or those named by `--interface NAME`.
    Detach,
    /// Run a capture through the program; no interface is touched
    Replay(ReplayArgs),
    /// Serve the block page: started by `run`, in a network namespace of its own
    #[command(hide = true, name = crate::sink::COMMAND)]
    Sink {
        /// What the controller wrote for it
        spec: PathBuf,
    },
    /// Make sockets for the block page: started by `sink`, where the kernel makes none
    #[command(hide = true, name = crate::sink::HANDOVER_COMMAND)]
    SinkHandover {
        /// What the controller wrote for the page
        spec: PathBuf,
        /// Descriptor of the socket that the page's process has the other end of
        to_page: i32,
    },
}

fn parse_interface(text: &str) -> Result<InterfaceConfig, String> {
    // Interface names may hold colons (aliases); a mode is recognised by its word.
    let (name, mode) = match text.rsplit_once(':') {
        Some((name, "auto")) => (name, AttachMode::Auto),
        Some((name, "native")) => (name, AttachMode::Native),
        Some((name, "generic")) => (name, AttachMode::Generic),
        Some((_, mode)) => {
            return Err(format!("`{mode}` is no mode: auto, native and generic are"));
        }
        None => (text, AttachMode::Auto),
    };
    let valid = !name.is_empty()
        && name.len() < libc::IF_NAMESIZE
        && !name.contains(|c: char| c == '/' || c.is_whitespace());
    match valid {
        true => Ok(InterfaceConfig {
            name: name.to_owned(),
            mode,
        }),
        false => Err(format!(
            "`{name}` is no interface name (1 to 15 characters, no blanks or slashes)"
        )),
    }
}

fn parse_served(text: &str) -> Result<IpNet, String> {
    parse_prefix(text).map_err(|error| format!("{error}: {}", error.help()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn interfaces_carry_their_mode() {
        let parse = |text| parse_interface(text).map(|i| (i.name, i.mode));
        assert_eq!(parse("eth0"), Ok(("eth0".into(), AttachMode::Auto)));
        assert_eq!(
            parse("eth0.7:generic"),
            Ok(("eth0.7".into(), AttachMode::Generic))
        );
        assert_eq!(
            parse("eth0:native"),
            Ok(("eth0".into(), AttachMode::Native))
        );
        for bad in ["", "eth0:fast", "a/b", "sixteen-letters1", ":native"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        let cli = Cli::try_parse_from([
            "edgefilter",
            "--json",
            "explain",
            "a.example",
            "--policy",
            "p",
        ])
        .unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.policy, Some("p".into()));
    }
}
