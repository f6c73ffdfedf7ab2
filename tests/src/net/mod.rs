//! Network namespaces, one set per test, and what connects them.
//!
//! A namespace is named `eft-<pid>-<serial>-<role>`, so that two test processes never meet and
//! what a killed run left behind can be told by its dead process id: the next run removes it.
//! Nothing here uses `ip netns exec`, which would remount `/sys` and hide the BPF file system.

mod cgroup;
mod device;
mod topology;

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::sched::{CloneFlags, setns};

pub use cgroup::ControlGroup;
pub use device::{Offload, mac_of, set_offload};
pub use topology::{Direct, Routed};

const PREFIX: &str = "eft";
const NETNS_DIR: &str = "/run/netns";
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A fresh named network namespace with `lo` up. Dropping it removes it, with everything that
/// edgefilter pinned for it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    inode: u64,
}

impl Namespace {
    /// Makes one. `role` is for people who look at `ip netns`.
    ///
    /// # Panics
    /// If the machine refuses.
    pub fn new(role: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| drop(sweep_stale()));
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{serial}-{role}", std::process::id());
        ip(&["netns", "add", &name]);
        let path = Path::new(NETNS_DIR).join(&name);
        let file = File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        let inode = file.metadata().expect("stat of an open namespace").ino();
        let namespace = Self { name, file, inode };
        namespace.ip(&["link", "set", "lo", "up"]);
        // Unsolicited multicast would move counters that a test asserts to stand still.
        for key in ["conf/all", "conf/default"] {
            namespace.sysctl(&format!("net/ipv6/{key}/accept_dad"), "0");
            namespace.sysctl(&format!("net/ipv6/{key}/router_solicitations"), "0");
        }
        namespace
    }

    /// Its name in `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its inode number, which names edgefilter's pins.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Directory of edgefilter's pins for this namespace.
    pub fn pin_dir(&self) -> PathBuf {
        pin_dir(self.inode)
    }

    /// Directory of edgefilter's lock and run state for this namespace.
    pub fn run_dir(&self) -> PathBuf {
        run_dir(self.inode)
    }

    /// Runs `f` on a thread of its own inside the namespace and hands back its result; a panic
    /// goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                f()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a detached thread inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = self.file.try_clone().expect("duplicate of a descriptor");
        let name = self.name.clone();
        thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|e| panic!("enter namespace {name}: {e}"));
            f()
        })
    }

    fn enter(&self) {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|e| panic!("enter namespace {}: {e}", self.name));
    }

    /// A command that will run inside the namespace, and die with the thread that spawns it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let descriptor = self.file.as_raw_fd();
        // SAFETY: between fork and exec only two system calls are made, both
        // async-signal-safe; the descriptor is inherited by the fork and `self`
        // outlives the spawn or the call fails with EBADF.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(descriptor, libc::CLONE_NEWNET) != 0
                    || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// `ip -n NAMESPACE …`.
    ///
    /// # Panics
    /// If `ip` fails, with what it said.
    pub fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name], args].concat());
    }

    /// Writes a value below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        self.run(|| fs::write(&path, value).unwrap_or_else(|e| panic!("write {path}: {e}")));
    }

    /// What the namespace's TCP has counted under this name (`TcpExt` of `/proc/net/netstat`).
    ///
    /// # Panics
    /// If there is no such counter.
    pub fn tcp_counter(&self, name: &str) -> u64 {
        let text = self.run(|| {
            fs::read_to_string("/proc/thread-self/net/netstat").expect("the namespace's counters")
        });
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            panic!("no TCP counters: {text}");
        };
        let mut pairs = names.split(' ').zip(values.split(' '));
        let found = pairs.find(|(found, _)| *found == name);
        let value = found.and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no counter {name}: {text}"))
    }

    /// Lets the namespace forward packets of both families.
    pub fn forward(&self) {
        self.sysctl("net/ipv4/ip_forward", "1");
        self.sysctl("net/ipv6/conf/all/forwarding", "1");
    }

    /// Joins this namespace to another one by a veth pair, both ends up.
    pub fn veth(&self, interface: &str, peer: &Self, peer_interface: &str) {
        ip(&[
            "link",
            "add",
            interface,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            peer_interface,
            "netns",
            &peer.name,
        ]);
        self.ip(&["link", "set", interface, "up"]);
        peer.ip(&["link", "set", peer_interface, "up"]);
    }

    /// Gives an interface an address with prefix length, usable at once.
    pub fn address(&self, interface: &str, address: &str) {
        let nodad: &[&str] = if address.contains(':') {
            &["nodad"]
        } else {
            &[]
        };
        self.ip(&[&["addr", "add", address, "dev", interface], nodad].concat());
    }

    /// Routes everything else through this gateway.
    pub fn default_route(&self, gateway: &str) {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", "default", "via", gateway]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        report("namespace", &remove(&self.name, self.inode));
    }
}

fn pin_dir(inode: u64) -> PathBuf {
    format!("/sys/fs/bpf/edgefilter/netns-{inode}").into()
}

fn run_dir(inode: u64) -> PathBuf {
    format!("/run/edgefilter/netns-{inode}").into()
}

/// Removes a namespace and what edgefilter keeps for it; every error, ready to print.
fn remove(name: &str, inode: u64) -> Vec<String> {
    let mut errors = Vec::new();
    let mut note = |what: &dyn Display, result: io::Result<()>| match result {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => errors.push(format!("{what}: {e}")),
    };
    for dir in [pin_dir(inode), run_dir(inode)] {
        note(&dir.display(), fs::remove_dir_all(&dir));
    }
    note(&name, try_ip(&["netns", "del", name]));
    errors
}

/// Removes the namespaces (with their pins) of test processes that no longer exist; their names.
/// Errors are only printed: another test process may be sweeping as well.
fn sweep_stale() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Vec::new();
    };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let owner = (parts.next() == Some(PREFIX))
            .then(|| parts.next())
            .flatten();
        let Some(pid) = owner.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let Ok(metadata) = entry.path().metadata() else {
            continue;
        };
        for error in remove(&name, metadata.ino()) {
            eprintln!("sweeping {name}: {error}");
        }
        swept.push(name);
    }
    swept
}

/// Runs `ip`.
///
/// # Panics
/// If it fails, with its arguments and what it said.
pub fn ip(args: &[&str]) {
    try_ip(args).unwrap_or_else(|e| panic!("ip {}: {e}", args.join(" ")));
}

fn try_ip(args: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Fails the test for errors met while cleaning up, or prints them if it has failed already.
pub(crate) fn report(what: &str, errors: &[String]) {
    if errors.is_empty() {
        return;
    }
    let message = format!("cleaning up {what}: {}", errors.join("; "));
    if thread::panicking() {
        eprintln!("{message}");
    } else {
        panic!("{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_removed_when_its_test_panics() {
        let name = std::panic::catch_unwind(|| {
            let namespace = Namespace::new("panics");
            let name = namespace.name().to_owned();
            std::panic::resume_unwind(Box::new(name));
        })
        .expect_err("the closure panics");
        let name = name.downcast::<String>().expect("the name");
        assert!(!Path::new(NETNS_DIR).join(*name).exists());
    }

    #[test]
    fn namespaces_of_dead_processes_are_swept_and_living_ones_kept() {
        let living = Namespace::new("living");
        // Beyond the largest process id that Linux gives out.
        let dead = format!("{PREFIX}-4194305-0-dead");
        ip(&["netns", "add", &dead]);
        assert!(sweep_stale().contains(&dead));
        assert!(Path::new(NETNS_DIR).join(living.name()).exists());
        assert!(!Path::new(NETNS_DIR).join(dead).exists());
    }

    #[test]
    fn code_and_commands_run_inside() {
        let namespace = Namespace::new("inside");
        let inode = || {
            fs::metadata("/proc/thread-self/ns/net")
                .expect("own namespace")
                .ino()
        };
        assert_eq!(namespace.run(inode), namespace.inode());
        assert_ne!(inode(), namespace.inode());
        let output = namespace
            .command("stat")
            .args(["-Lc", "%i", "/proc/self/ns/net"])
            .output();
        let seen = String::from_utf8(output.expect("stat runs").stdout).expect("digits");
        assert_eq!(seen.trim(), namespace.inode().to_string());
    }
}
