//! The page's process: `edgefilter sink`, started by the controller in the sink's namespace.
//!
//! It is handed sockets that listen, gives up every privilege, and serves. It goes on when the controller
//! ends, as the filter does, and ends when its interface is gone.

use std::{
    fs::File,
    io::{self, Write as _},
    net::TcpListener,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    time::Duration,
};

use filter_page::{Config, Limits, Listeners, Server};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    error::{SinkError, file, step},
    place::FAR_NAME,
    spec::{Files, Shape, Spec},
};
use crate::datapath::netdev;

/// How often the process looks whether its interface is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often rules and certificates are looked at for changes.
const RELOAD_EVERY: Duration = Duration::from_millis(500);

/// Descriptors beside those of visitors' connections: listeners, files that are being read, the runtime's.
const OTHER_DESCRIPTORS: u64 = 1_024;

/// Threads of the runtime at most: the rest of the machine has other work.
const THREADS_MAX: usize = 4;

/// Capabilities that a kernel may have, now and later.
const CAPABILITIES: std::ops::Range<libc::c_ulong> = 0..64;

/// Serves until SIGTERM, or until the interface is gone.
///
/// # Errors
///
/// It cannot begin to.
pub fn serve(spec: &Path) -> Result<(), SinkError> {
    let text = std::fs::read(spec).map_err(file("read", spec))?;
    let Spec {
        shape,
        directory,
        visitors,
        stats,
        ready,
    } = serde_json::from_slice(&text).map_err(|error| file("read", spec)(error.into()))?;
    let listeners = Listeners {
        visitors: visitors
            .into_iter()
            .map(|fd| TcpListener::from(inherited(fd)))
            .collect(),
        stats: Some(UnixListener::from(inherited(stats))),
    };
    let ready = File::from(inherited(ready));
    let server = Server::new(config(&shape, &Files::at(directory)), listeners)
        .map_err(|error| step("set up the page")(io::Error::other(error)))?;
    drop_privileges(&shape).map_err(step("give up privileges"))?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS_MAX))
        .enable_all()
        .build()
        .map_err(step("start"))?;
    runtime
        .block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            say_ready(ready)?;
            let ended = async {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("the block page is no longer served"),
                    () = interface_gone() => tracing::info!("the block page's interface is gone"),
                }
            };
            server.run(ended).await.map_err(io::Error::other)
        })
        .map_err(step("serve the page"))
}

fn config(shape: &Shape, files: &Files) -> Config {
    let timeout = Duration::from_secs(shape.timeout_s);
    Config {
        theme: shape.theme.clone(),
        reload_every: RELOAD_EVERY,
        limits: Limits {
            connections: shape.connections as usize,
            connections_per_client: shape.connections_per_client as usize,
            handshake: timeout,
            request_head: timeout,
            write: timeout,
            lifetime: Duration::from_secs(shape.lifetime_s),
            ..Limits::default()
        },
        ..Config::new(files.certificates(), files.decisions())
    }
}

/// A descriptor that the controller left open for this process.
fn inherited(fd: i32) -> OwnedFd {
    // SAFETY: the numbers are in a file that only the controller writes, for descriptors that it opened
    // and left open over exec; nothing else in this process has them.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whoever started this reads one byte.
fn say_ready(mut ready: File) -> io::Result<()> {
    match ready.write_all(b".") {
        // Nobody waits any more, which is no reason not to serve.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn interface_gone() {
    while netdev::index(FAR_NAME).is_ok() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Another user, no capabilities and no way to new ones, few descriptors, no core dumps.
fn drop_privileges(shape: &Shape) -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = most.min(u64::from(shape.connections) + OTHER_DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    for capability in CAPABILITIES {
        // Those that this kernel does not know cannot be given either.
        let _ = prctl(libc::PR_CAPBSET_DROP, capability);
    }
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )?;
    let (user, group) = (Uid::from_raw(shape.user), Gid::from_raw(shape.group));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    // Capabilities go with the user.
    setresuid(user, user, user)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    // The keys are in memory: no debugger of the same user reads them.
    prctl(libc::PR_SET_DUMPABLE, 0)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: plain system call, no pointers.
    match unsafe { libc::prctl(option, argument, none, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
