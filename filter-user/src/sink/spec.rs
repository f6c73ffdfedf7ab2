//! What the page's process is told, and where its files are.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    error::{SinkError, file},
    place::Mtu,
};
use crate::{
    datapath::SinkMethod,
    policy::{
        limits::PAGE_PORTS_MAX,
        model::{BlockPage, HostConfig, InspectPorts},
    },
};

/// User that the page's process runs as unless configured, if there is one of this name.
const USER: &str = "edgefilter";

/// User and group otherwise: those that own nothing.
const NOBODY: u32 = 65_534;

/// Where the files of the page are, below the run state of a network namespace.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Those below a directory of run state.
    pub fn of(run_dir: &Path) -> Self {
        Self {
            directory: run_dir.join("page"),
        }
    }

    /// Those in a directory.
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory of all of them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the process serves: the rules with a page.
    pub fn decisions(&self) -> PathBuf {
        self.directory.join("decisions.json")
    }

    /// The rules that it will serve: written before the filter sends their visitors there.
    pub fn coming(&self) -> PathBuf {
        filter_page::decisions::coming(&self.decisions())
    }

    /// Copies of certificates and keys that the process may read.
    pub fn certificates(&self) -> PathBuf {
        self.directory.join("certificates")
    }

    /// What the process is told at its start.
    pub(super) fn spec(&self) -> PathBuf {
        self.directory.join("spec.json")
    }

    /// What is remembered of the process.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("process.json")
    }

    /// Held by the process as long as it lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Where the process tells its counts.
    pub fn stats(&self) -> PathBuf {
        self.directory.join("stats.sock")
    }
}

/// What the process is made of: another one is started when any of it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Device and inode of the binary.
    pub(super) binary: [u64; 2],
    /// Identity of the kernel's maps that connect it with the filter.
    pub(super) maps: u32,
    /// The interfaces' sizes.
    pub(super) mtu: Mtu,
    /// Ports that it listens on.
    pub ports: Vec<u16>,
    pub(super) user: u32,
    pub(crate) group: u32,
    pub(super) theme: Option<PathBuf>,
    pub(super) connections: u32,
    pub(super) connections_per_client: u32,
    pub(super) timeout_s: u64,
    pub(super) lifetime_s: u64,
    /// How it gets connections to blocked names.
    pub method: SinkMethod,
    /// Whether it listens for this host's own proxies as well.
    pub(super) local: bool,
}

impl Shape {
    /// Group that the process will be of.
    ///
    /// # Errors
    ///
    /// The configured user does not exist.
    pub fn group(host: &HostConfig) -> Result<u32, SinkError> {
        account(host.block_page.user.as_deref()).map(|(_, group)| group)
    }

    /// Whether it is this program that serves.
    pub(super) fn is_of_this_binary(&self) -> bool {
        this_binary().is_ok_and(|binary| binary == self.binary)
    }

    /// What a configuration asks for.
    ///
    /// # Errors
    ///
    /// The configured user does not exist.
    pub fn new(host: &HostConfig, mtu: Mtu, maps: u32) -> Result<Self, SinkError> {
        let BlockPage {
            theme,
            user,
            connections,
            connections_per_client,
            timeout,
            lifetime,
            takeover,
            ports: _,
            certificates: _,
            languages: _,
            contact: _,
        } = &host.block_page;
        let (user, group) = account(user.as_deref())?;
        Ok(Self {
            binary: this_binary().map_err(file("look at", SELF))?,
            maps,
            mtu,
            ports: ports(host).0,
            user,
            group,
            theme: theme.clone(),
            connections: *connections,
            connections_per_client: *connections_per_client,
            timeout_s: timeout.as_secs(),
            lifetime_s: lifetime.as_secs(),
            method: SinkMethod::wanted(*takeover),
            local: host.local_page && host.local_proxies.is_some(),
        })
    }
}

/// This program's own file.
const SELF: &str = "/proc/self/exe";

fn this_binary() -> std::io::Result<[u64; 2]> {
    let binary = fs::metadata(SELF)?;
    Ok([binary.dev(), binary.ino()])
}

/// Ports that the page is served on, and how many are inspected for names and not among them; `None` if
/// all are inspected.
pub fn ports(host: &HostConfig) -> (Vec<u16>, Option<usize>) {
    let mut ports = host.block_page.ports.clone();
    let mut beyond = Some(0);
    for inspected in [&host.tls, &host.http] {
        match inspected {
            InspectPorts::Any => beyond = None,
            InspectPorts::List(list) => {
                for port in list.iter().filter(|port| **port != 0) {
                    match ports.contains(port) {
                        true => {}
                        false if ports.len() < PAGE_PORTS_MAX => ports.push(*port),
                        false => beyond = beyond.map(|count| count + 1),
                    }
                }
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    (ports, beyond)
}

/// What is written for the process: its shape, and descriptors that it inherits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) shape: Shape,
    pub(super) directory: PathBuf,
    /// Listening sockets.
    pub(super) visitors: Vec<i32>,
    /// Socket for whoever asks for counts.
    pub(super) stats: i32,
    /// Where it says that it serves.
    pub(super) ready: i32,
    /// Ring buffer of connections to make sockets of, if the kernel makes none.
    pub(super) handovers: Option<i32>,
}

/// User and group that the process runs as.
fn account(configured: Option<&str>) -> Result<(u32, u32), SinkError> {
    let name = configured.unwrap_or(USER);
    let found = nix::unistd::User::from_name(name).ok().flatten();
    match (found, configured) {
        (Some(user), _) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        (None, None) => Ok((NOBODY, NOBODY)),
        (None, Some(name)) => Err(SinkError::NoUser {
            name: name.to_owned(),
        }),
    }
}
