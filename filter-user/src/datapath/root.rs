//! Where a network namespace's pins and run state live, and the locks on them.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use filter_common::abi::ABI_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{DatapathError, mapped::Mapped, stored};

const BPFFS: &str = "/sys/fs/bpf";
const RUN: &str = "/run/edgefilter";
/// Changes take well under a second; a process that holds the lock longer is stuck.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);
const CONTROLLER_LOCK: &str = "controller.lock";
/// Who asks whether a controller is running holds its lock for some microseconds; a controller keeps it.
const GLANCE_MAX: Duration = Duration::from_millis(500);

/// Name of the shared map that holds the ABI version and the namespace's cookie.
const IDENTITY: &str = "ABI";

/// Bits of `CapEff` in `/proc/…/status`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The pins and the run state of one network namespace.
///
/// Pins: `/sys/fs/bpf/edgefilter/netns-<inode>/{shared,gen-<N>,links}`. Run state:
/// `/run/edgefilter/netns-<inode>/`.
#[derive(Clone, Debug)]
pub struct Root {
    inode: u64,
    /// Unlike the inode never used twice; 0 if the kernel does not tell.
    cookie: u64,
    pins: PathBuf,
    run: PathBuf,
}

/// The right to change pins and links; released on drop.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The right to be the one controller of a network namespace; released on drop.
#[derive(Debug)]
pub struct ControllerLock {
    _file: File,
}

impl Root {
    /// The root of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NotPermitted`] without the capabilities, [`DatapathError::NoBpffs`] if the BPF
    /// file system is not mounted.
    pub fn open() -> Result<Self, DatapathError> {
        check_capabilities()?;
        let mounted = statfs(BPFFS).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
        if !mounted {
            return Err(DatapathError::NoBpffs { path: BPFFS });
        }
        let namespace = Path::new("/proc/thread-self/ns/net");
        let inode = fs::metadata(namespace)
            .map_err(|source| DatapathError::Io {
                action: "look at",
                path: namespace.to_owned(),
                source,
            })?
            .ino();
        let name = format!("netns-{inode}");
        let root = Self {
            inode,
            cookie: namespace_cookie(),
            pins: Path::new(BPFFS).join("edgefilter").join(&name),
            run: Path::new(RUN).join(&name),
        };
        root.remove_of_dead_namespace()?;
        Ok(root)
    }

    /// Inode of the network namespace.
    pub fn netns_inode(&self) -> u64 {
        self.inode
    }

    /// Directory of the run state; exists once a lock was taken.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Waits for the right to change pins and links.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Locked`] when another process keeps it for ten seconds.
    pub fn lock(&self) -> Result<Lock, DatapathError> {
        let file = self.acquire("lock", LOCK_WAIT_MAX, |pid| DatapathError::Locked {
            pid,
            waited_s: LOCK_WAIT_MAX.as_secs(),
        })?;
        Ok(Lock { _file: file })
    }

    /// Becomes the one controller of this network namespace.
    ///
    /// # Errors
    ///
    /// [`DatapathError::ControllerRunning`] if there is one already.
    pub fn controller_lock(&self) -> Result<ControllerLock, DatapathError> {
        self.become_controller(GLANCE_MAX)
    }

    /// Process id of the running controller, if there is one.
    pub fn controller_pid(&self) -> Option<u32> {
        let mut file = File::open(self.run.join(CONTROLLER_LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => holder(&mut file).parse().ok(),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// Removes the run state, unless something is enforced or a controller is running.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn remove_run_state(&self, _lock: Lock) -> Result<(), DatapathError> {
        if self.pins.exists() {
            return Ok(());
        }
        match self.become_controller(Duration::ZERO) {
            Ok(_nobody_begins_meanwhile) => remove(&self.run),
            Err(DatapathError::ControllerRunning { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn become_controller(&self, wait_max: Duration) -> Result<ControllerLock, DatapathError> {
        let running = |pid| DatapathError::ControllerRunning { pid };
        let file = self.acquire(CONTROLLER_LOCK, wait_max, running)?;
        Ok(ControllerLock { _file: file })
    }

    /// The lock of this name, signed with this process's id; `taken` is told who keeps it for longer than
    /// `wait_max`.
    fn acquire(
        &self,
        name: &str,
        wait_max: Duration,
        taken: impl FnOnce(String) -> DatapathError,
    ) -> Result<File, DatapathError> {
        let path = self.run.join(name);
        let failed = |action| {
            let path = path.clone();
            move |source| DatapathError::Io {
                action,
                path,
                source,
            }
        };
        let begin = Instant::now();
        let mut file = self.open_lock(&path)?;
        loop {
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => break,
                // `detach` removed it meanwhile.
                Ok(()) => file = self.open_lock(&path)?,
                Err(TryLockError::WouldBlock) if begin.elapsed() < wait_max => {
                    thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => return Err(taken(holder(&mut file))),
                Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
            }
        }
        sign(&mut file).map_err(failed("write"))?;
        Ok(file)
    }

    pub(super) fn pins(&self) -> &Path {
        &self.pins
    }

    pub(super) fn shared_dir(&self) -> PathBuf {
        self.pins.join("shared")
    }

    pub(super) fn links_dir(&self) -> PathBuf {
        self.pins.join("links")
    }

    pub(super) fn generation_dir(&self, number: u64) -> PathBuf {
        self.pins.join(format!("gen-{number}"))
    }

    /// bpffs refuses names with a dot, so the directory under construction has a prefix instead.
    pub(super) fn new_generation_dir(&self, number: u64) -> PathBuf {
        self.pins.join(format!("new-{number}"))
    }

    /// Numbers of the generations in place, ascending.
    pub(super) fn generations(&self) -> Result<Vec<u64>, DatapathError> {
        let mut numbers: Vec<u64> = entries(&self.pins)?
            .iter()
            .filter_map(|name| name.strip_prefix("gen-")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Refuses pinned maps of another layout; nothing pinned is fine.
    pub(super) fn check_abi(&self) -> Result<(), DatapathError> {
        let path = self.shared_dir().join("ABI");
        if !path.exists() {
            return Ok(());
        }
        let pinned = Mapped::open::<u64>(&path)?
            .as_slice::<u64>()
            .first()
            .copied()
            .unwrap_or(0);
        if pinned == u64::from(ABI_VERSION) {
            return Ok(());
        }
        Err(DatapathError::Abi {
            path: self.pins.clone(),
            pinned: u32::try_from(pinned).unwrap_or(u32::MAX),
            ours: ABI_VERSION,
        })
    }

    /// Notes the ABI version and the namespace that the pins belong to.
    pub(super) fn pin_identity(&self) -> Result<(), DatapathError> {
        let path = self.shared_dir().join(IDENTITY);
        if path.exists() {
            return Ok(());
        }
        stored::pin_array(&path, &[u64::from(ABI_VERSION), self.cookie])
    }

    /// ABI version and namespace cookie of what is pinned.
    fn identity(&self) -> Result<Option<[u64; 2]>, DatapathError> {
        let path = self.shared_dir().join(IDENTITY);
        if !path.exists() {
            return Ok(None);
        }
        let mapped = Mapped::open::<u64>(&path)?;
        Ok(mapped.as_slice().first_chunk().copied())
    }

    /// Inode numbers are used again: pins of a namespace that is gone filter nothing, and must not be
    /// taken for this one's.
    fn remove_of_dead_namespace(&self) -> Result<(), DatapathError> {
        let stale = match self.identity() {
            Ok(Some([_, cookie])) => cookie != 0 && self.cookie != 0 && cookie != self.cookie,
            Ok(None) | Err(_) => false,
        };
        if !stale {
            return Ok(());
        }
        tracing::warn!(pins = %self.pins.display(), "removing the pins of a network namespace that is gone");
        remove(&self.pins)?;
        remove(&self.run.join("links"))
    }

    fn open_lock(&self, path: &Path) -> Result<File, DatapathError> {
        create_dirs(&self.run)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| DatapathError::Io {
                action: "open",
                path: path.to_owned(),
                source,
            })
    }
}

/// Names in a directory; none if it does not exist.
pub(super) fn entries(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let list = match fs::read_dir(directory) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(DatapathError::Io {
                action: "list",
                path: directory.to_owned(),
                source,
            });
        }
    };
    Ok(list
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

pub(super) fn create_dirs(directory: &Path) -> Result<(), DatapathError> {
    fs::create_dir_all(directory).map_err(|source| DatapathError::Io {
        action: "create",
        path: directory.to_owned(),
        source,
    })
}

/// Removes a pin or a directory of pins; what is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), DatapathError> {
    let removed = match path.is_dir() {
        // bpffs has no nested directories here and `remove_dir_all` unlinks each pin.
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DatapathError::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(found)) => open.ino() == found.ino(),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut pid)) {
        Ok(_) if !pid.trim().is_empty() => pid.trim().to_owned(),
        _ => "?".to_owned(),
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

fn check_capabilities() -> Result<(), DatapathError> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        return Err(DatapathError::NotPermitted { missing: "CAP_BPF" });
    }
    if !has(CAP_NET_ADMIN) {
        return Err(DatapathError::NotPermitted {
            missing: "CAP_NET_ADMIN",
        });
    }
    Ok(())
}

/// Number of the calling thread's network namespace, unique until the next boot; 0 before Linux 5.14.
fn namespace_cookie() -> u64 {
    /// `SO_NETNS_COOKIE` of asm-generic/socket.h.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let Ok(socket) =
        std::net::UdpSocket::bind("[::]:0").or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
    else {
        return 0;
    };
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the value and its length are valid for the call.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { cookie } else { 0 }
}
