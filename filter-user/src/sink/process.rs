//! Starting, finding again and ending the page's process.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixListener,
            process::CommandExt as _,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::{
    error::{SinkError, file, step},
    place::{self, Place},
    spec::{Files, Shape, Spec},
};

/// How long the process may take until it serves: it reads rules and certificates.
const START_MAX: Duration = Duration::from_secs(10);

/// How long it may take to end by itself.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Variables of the environment that the process keeps: how much it says.
const KEPT_VARIABLES: [&str; 2] = ["EDGEFILTER_LOG", "RUST_BACKTRACE"];

/// Who asks whether the process is there holds its lock for some microseconds; the process keeps it.
const GLANCE_MAX: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(20);

const STOP_RETRY: Duration = Duration::from_millis(10);

/// The page's process.
#[derive(Debug)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// What it was made for.
    pub shape: Shape,
    /// Port on which it listens for this host's own proxies; 0 if it does not.
    pub local_port: u16,
    handle: OwnedFd,
    /// To be reaped, if this controller started it.
    child: Option<Child>,
}

/// What is remembered of the process, for the next controller.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    pid: u32,
    shape: Shape,
    local_port: u16,
}

impl Process {
    /// Makes the namespace, has `connect` attach what leads into it, and starts the process there. It is
    /// asked to serve what is in `files` already.
    ///
    /// `connect` is called in the host's namespace, and returns the ring buffer of connections to make sockets
    /// of, if the kernel makes none.
    ///
    /// # Errors
    ///
    /// Nothing is left.
    pub fn start(
        inode: u64,
        files: &Files,
        shape: Shape,
        connect: impl FnOnce(&Place) -> Result<Option<OwnedFd>, SinkError>,
    ) -> Result<Self, SinkError> {
        let place = Place::new(inode, shape.mtu)?;
        let started =
            connect(&place).and_then(|handovers| launch(files, &shape, &place, handovers));
        match started {
            Ok((child, handle, local_port)) => Ok(Self {
                pid: child.id(),
                shape,
                local_port,
                handle,
                child: Some(child),
            }),
            Err(error) => {
                // The error of the step says more than one of clearing up.
                let _ = place::remove(inode);
                Err(error)
            }
        }
    }

    /// The process that an earlier controller started, if it goes on with this shape.
    pub fn adopt(files: &Files, shape: &Shape) -> Option<Self> {
        let Remembered {
            pid,
            shape: found,
            local_port,
        } = remembered(files)?;
        if found != *shape || !is_alive(files) || !is_ours(pid, files) {
            return None;
        }
        Some(Self {
            pid,
            shape: found,
            local_port,
            handle: pidfd(pid).ok()?,
            child: None,
        })
    }

    /// Whether it has ended; it is reaped then.
    pub fn has_ended(&mut self) -> bool {
        let ended = is_readable(&self.handle, PollTimeout::ZERO);
        if let (true, Some(child)) = (ended, &mut self.child) {
            // It has ended, so this does not wait.
            let _ = child.wait();
        }
        ended
    }

    /// Ends it without asking.
    pub fn kill(&self) {
        end(&self.handle, libc::SIGKILL);
    }

    /// A descriptor that can be read when the process has ended.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.handle.try_clone()
    }
}

/// Ends the page's process, whoever started it, removes the interfaces, and waits until it is gone.
///
/// # Errors
///
/// Names what is left.
pub fn stop(inode: u64, files: &Files) -> Result<bool, SinkError> {
    let pid = remembered(files).map(|remembered| remembered.pid);
    let pid = pid.filter(|pid| is_alive(files) && is_ours(*pid, files));
    let handle = pid.and_then(|pid| pidfd(pid).ok());
    // Before the signal: without an interface it ends by itself, also if it is not known.
    let removed = place::remove(inode)?;
    let begin = Instant::now();
    if let Some(handle) = &handle {
        end(handle, libc::SIGTERM);
    }
    let mut killed = false;
    while is_alive(files) {
        if begin.elapsed() > STOP_MAX && !killed {
            if let Some(handle) = &handle {
                end(handle, libc::SIGKILL);
            }
            killed = true;
        }
        if begin.elapsed() > 2 * STOP_MAX {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(step("end the block page's process")(error));
        }
        thread::sleep(STOP_RETRY);
    }
    if let Some(pid) = pid {
        reap(pid);
    }
    Ok(removed || pid.is_some())
}

/// Removes the page's files.
///
/// # Errors
///
/// Of the file system.
pub fn remove_files(files: &Files) -> Result<(), SinkError> {
    match fs::remove_dir_all(files.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file("remove", files.directory())(error))
        }
        _ => Ok(()),
    }
}

/// Process id of the page's process, if it is there.
pub fn pid(files: &Files) -> Option<u32> {
    let remembered = remembered(files)?;
    (is_alive(files) && is_ours(remembered.pid, files)).then_some(remembered.pid)
}

/// Whether a process of this binary is there: another one may not understand what it is told.
pub fn is_of_this_binary(files: &Files) -> bool {
    let remembered = remembered(files);
    remembered.is_some_and(|Remembered { pid, shape, .. }| {
        shape.is_of_this_binary() && is_alive(files) && is_ours(pid, files)
    })
}

/// Starts the process inside, and waits until it serves.
fn launch(
    files: &Files,
    shape: &Shape,
    place: &Place,
    handovers: Option<OwnedFd>,
) -> Result<(Child, OwnedFd, u16), SinkError> {
    let lock = locked(files)?;
    let stats_path = files.stats();
    let _ = fs::remove_file(&stats_path);
    let stats = UnixListener::bind(&stats_path).map_err(file("listen on", &stats_path))?;
    fs::set_permissions(&stats_path, fs::Permissions::from_mode(0o600))
        .map_err(file("change", &stats_path))?;
    // In the host's namespace, where the proxies are.
    let local = match shape.local {
        true => Some(place::listen_locally()?),
        false => None,
    };
    let local_port = local.as_ref().map_or(0, |(_, port)| *port);
    let (ready_in, ready_out) = pipe().map_err(step("make a pipe"))?;
    let mut child = place.inside(|| {
        let mut visitors = Vec::new();
        for port in &shape.ports {
            visitors.extend(place::listen(*port)?);
        }
        visitors.extend(local.map(|(socket, _)| socket));
        let spec = Spec {
            shape: shape.clone(),
            directory: files.directory().to_owned(),
            visitors: visitors.iter().map(|socket| socket.as_raw_fd()).collect(),
            stats: stats.as_raw_fd(),
            ready: ready_out.as_raw_fd(),
            handovers: handovers.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut kept: Vec<RawFd> = spec.visitors.clone();
        kept.extend([spec.stats, spec.ready, lock.as_raw_fd()]);
        kept.extend(spec.handovers);
        write_whole(&files.spec(), 0o600, &spec)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("edgefilter")
            .args([super::COMMAND.as_ref(), files.spec().as_os_str()])
            .current_dir("/")
            .env_clear()
            .envs(
                KEPT_VARIABLES
                    .iter()
                    .filter_map(|name| Some((name, env::var_os(name)?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        inherit(&mut command, kept);
        // The thread is in the namespace, and so is what it starts.
        command.spawn().map_err(step("start the page's process"))
    })?;
    drop(ready_out);
    let handle = pidfd(child.id()).map_err(step("watch the page's process"));
    let remembered = Remembered {
        pid: child.id(),
        shape: shape.clone(),
        local_port,
    };
    let started = handle.and_then(|handle| {
        write_whole(&files.state(), 0o600, &remembered)?;
        wait_until_ready(ready_in)?;
        Ok(handle)
    });
    match started {
        Ok(handle) => Ok((child, handle, local_port)),
        Err(error) => {
            // Gone already, or not wanted.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn wait_until_ready(ready: OwnedFd) -> Result<(), SinkError> {
    let patience = PollTimeout::try_from(START_MAX).unwrap_or(PollTimeout::MAX);
    let ended = |how: &str| SinkError::EndedAtOnce {
        how: how.to_owned(),
    };
    if !is_readable(&ready, patience) {
        return Err(ended("it took too long"));
    }
    let mut byte = [0];
    match File::from(ready).read(&mut byte) {
        Ok(1) => Ok(()),
        Ok(_) => Err(ended("it gave up")),
        Err(error) => Err(ended(&error.to_string())),
    }
}

/// Leaves descriptors open over exec, and makes the process one of its own: no terminal's signal and no
/// end of the controller reaches it.
pub(super) fn inherit(command: &mut Command, kept: Vec<RawFd>) {
    // SAFETY: between fork and exec only system calls are made that are async-signal-safe; the
    // descriptors are open until the process is spawned.
    unsafe {
        command.pre_exec(move || {
            for fd in &kept {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The lock that the process will hold.
fn locked(files: &Files) -> Result<File, SinkError> {
    let path = files.lock();
    let lock = open_lock(&path).map_err(file("open", &path))?;
    let begin = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) if begin.elapsed() < GLANCE_MAX => {
                thread::sleep(LOCK_RETRY);
            }
            Err(error) => return Err(file("lock", &path)(error.into())),
        }
    }
}

/// Whether a process holds the lock.
fn is_alive(files: &Files) -> bool {
    let Ok(lock) = File::open(files.lock()) else {
        return false;
    };
    matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Whether a process is the one that serves these files: numbers of processes are used again.
fn is_ours(pid: u32, files: &Files) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let spec = files.spec();
    let spec = spec.as_os_str().as_encoded_bytes();
    line.split(|byte| *byte == 0).any(|word| word == spec)
}

fn remembered(files: &Files) -> Option<Remembered> {
    serde_json::from_slice(&fs::read(files.state()).ok()?).ok()
}

/// Writes a document whole or not at all.
pub(super) fn write_whole(
    path: &Path,
    mode: u32,
    document: &impl Serialize,
) -> Result<(), SinkError> {
    let bytes = serde_json::to_vec(document).map_err(|error| file("write", path)(error.into()))?;
    replace(path, mode, None, &bytes).map_err(file("write", path))
}

/// Replaces a file by a rename; nobody sees half of it, nor whom it is not for.
pub(super) fn replace(path: &Path, mode: u32, group: Option<u32>, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    if group.is_some() {
        std::os::unix::fs::fchown(&file, None, group)?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call, no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal to exactly this process; one that is gone needs none.
fn end(handle: &OwnedFd, signal: libc::c_int) {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain system call; the null pointer asks for the default information.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            handle.as_raw_fd(),
            signal,
            none,
            0,
        )
    };
}

fn is_readable(fd: &OwnedFd, patience: PollTimeout) -> bool {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, patience).is_ok_and(|ready| ready > 0)
}

/// Takes the end of a process that this one started; others are their parent's.
fn reap(pid: u32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    let _ = nix::sys::wait::waitpid(
        nix::unistd::Pid::from_raw(pid),
        Some(nix::sys::wait::WaitPidFlag::WNOHANG),
    );
}
