//! What can go wrong between user space and the kernel.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};
use thiserror::Error;

/// An error of the data path: the object, the cause and what to do next.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// The process lacks a privilege.
    #[error(
        "not permitted: {missing} is missing; run as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"
    )]
    NotPermitted {
        /// What is missing.
        missing: &'static str,
    },
    /// No BPF file system.
    #[error(
        "no BPF file system at {path}: mount it with `mount -t bpf bpf {path}` (inside `ip netns exec` it is hidden: \
         enter the namespace with `nsenter --net=/run/netns/NAME` instead)"
    )]
    NoBpffs {
        /// Where it is expected.
        path: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot …".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A BPF or network system call failed.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried, as in "cannot …".
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: String,
        /// Why it failed.
        source: MapError,
    },
    /// The object file could not be loaded as far as its maps.
    #[error("the kernel program's object file was not accepted: {source}")]
    Object {
        /// Why it failed.
        source: Box<EbpfError>,
    },
    /// The kernel's verifier refused the program.
    #[error(
        "the kernel refused the program ({source}); end of the verifier's log:\n{summary}\n(the whole log: \
         EDGEFILTER_VERIFIER_LOG=FILE)"
    )]
    Verifier {
        /// The last lines of the verifier's log.
        summary: String,
        /// The whole log.
        log: String,
        /// What the system call returned.
        source: io::Error,
    },
    /// A program operation failed.
    #[error("cannot {action}: {source}")]
    Program {
        /// What was tried, as in "cannot …".
        action: &'static str,
        /// Why it failed.
        source: ProgramError,
    },
    /// What was being read was replaced meanwhile, again and again.
    #[error("the generation in place changed while it was read; try again")]
    Overtaken,
    /// A link operation failed.
    #[error("link of {interface}: {source}")]
    Link {
        /// The interface it belongs to.
        interface: String,
        /// Why it failed.
        source: LinkError,
    },
    /// A named interface does not exist in this network namespace.
    #[error(
        "no interface `{name}` in this network namespace; `ip -br link` lists those that exist"
    )]
    NoInterface {
        /// The name looked for.
        name: String,
    },
    /// Another program is attached.
    #[error(
        "interface `{interface}` already has an XDP program that is not ours (id {program_id}, name `{program_name}`); \
         remove it first, for instance with `ip link set dev {interface} xdp off`"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// Id of the program there, 0 if it could not be found.
        program_id: u32,
        /// Name of the program there, `?` if it could not be found.
        program_name: String,
    },
    /// The driver refused the program.
    #[error(
        "interface `{interface}` does not take the program in {mode} mode: {source}; `auto` falls back to generic"
    )]
    Mode {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// What the system call returned.
        source: io::Error,
    },
    /// Another controller is running.
    #[error("another controller is running (pid {pid}); stop it first, or use its policy file")]
    ControllerRunning {
        /// Process id it wrote into the lock file, `?` if unreadable.
        pid: String,
    },
    /// Another process holds the lock for changes.
    #[error(
        "another edgefilter process (pid {pid}) has been changing the filter for {waited_s} s; try again when it is done"
    )]
    Locked {
        /// Process id it wrote into the lock file, `?` if unreadable.
        pid: String,
        /// How long was waited.
        waited_s: u64,
    },
    /// The pinned maps have another layout.
    #[error(
        "the pinned maps in {} have ABI version {pinned}, this edgefilter has {ours}; run `edgefilter detach` (which stops \
         enforcing) and start again, or use the version that made them",
        path.display()
    )]
    Abi {
        /// Directory of the pins.
        path: PathBuf,
        /// Version of the pinned maps.
        pinned: u32,
        /// Version of this program.
        ours: u32,
    },
    /// No generation is in place.
    #[error(
        "nothing is enforced in this network namespace; `edgefilter run` or `edgefilter apply` begins"
    )]
    NothingEnforced,
    /// What is pinned is not what this program writes.
    #[error("{} is damaged: {problem}; `edgefilter apply` writes a new generation", path.display())]
    Damaged {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The compiled policy does not fit the kernel's tables.
    #[error("the compiled policy does not fit: {problem}")]
    Unfit {
        /// What is too large or missing.
        problem: String,
    },
    /// The control group of local proxies is none.
    #[error(
        "`local_proxies`: {} is not a control group of version 2 ({problem}); `mount -t cgroup2` shows where those are",
        group.display()
    )]
    NoControlGroup {
        /// The directory.
        group: PathBuf,
        /// Why it is none.
        problem: String,
    },
    /// The kernel's list of connections could not be read, or one of them not be ended.
    #[error("cannot list or end this host's TCP connections (sock_diag): {source}")]
    Connections {
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel was built without the means to end connections.
    #[error(
        "this kernel cannot end connections: it was built without CONFIG_INET_DIAG_DESTROY; restart the server instead, \
         which ends its connections"
    )]
    CannotEndConnections,
    /// The program gave a wrong verdict before it was attached.
    #[error("self-check failed: {probe} should {expected}, but the program returned {returned}")]
    SelfCheck {
        /// The synthetic packet.
        probe: String,
        /// What it should have done.
        expected: &'static str,
        /// The XDP action that came back.
        returned: u32,
    },
}

impl DatapathError {
    /// Exit code of a command that ends with this error, as in `edgefilter --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotPermitted { .. } => 4,
            Self::CannotEndConnections | Self::NoControlGroup { .. } => 5,
            Self::NoBpffs { .. } | Self::NoInterface { .. } | Self::Mode { .. } => 5,
            Self::Verifier { .. } | Self::Object { .. } | Self::Abi { .. } => 5,
            Self::Busy { .. } => 6,
            Self::ControllerRunning { .. } | Self::Locked { .. } => 7,
            Self::NothingEnforced => 8,
            Self::Unfit { .. } => 3,
            Self::Io { source, .. }
            | Self::Kernel { source, .. }
            | Self::Connections { source } => {
                match source.kind() == io::ErrorKind::PermissionDenied {
                    true => 4,
                    false => 1,
                }
            }
            Self::Map { .. }
            | Self::Program { .. }
            | Self::Link { .. }
            | Self::Overtaken
            | Self::Damaged { .. }
            | Self::SelfCheck { .. } => 1,
        }
    }
}

/// How a program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network core, after the skb was made: slower.
    Generic,
    /// In the network card.
    Offloaded,
}

impl Mode {
    /// The stable word used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A generation could not be installed. What was enforced before still is, unless
/// `undo_problems` says otherwise.
#[derive(Debug, Error)]
#[error("while trying to {step}: {source}{}", undo_text(undo_problems))]
pub struct InstallError {
    /// The step that failed, as in "while trying to …".
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: Box<DatapathError>,
    /// What could not be put back; empty nearly always.
    pub undo_problems: Vec<String>,
}

impl InstallError {
    /// See [`DatapathError::exit_code`].
    pub fn exit_code(&self) -> u8 {
        self.source.exit_code()
    }
}

fn undo_text(problems: &[String]) -> String {
    match problems {
        [] => String::new(),
        problems => format!(
            " (and not everything could be put back: {})",
            problems.join("; ")
        ),
    }
}

/// Says which map it was that a call about one failed on.
pub(super) fn map_error(map: &'static str) -> impl Fn(MapError) -> DatapathError + Copy {
    move |source| DatapathError::Map {
        map: map.to_owned(),
        source,
    }
}
