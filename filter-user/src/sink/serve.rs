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
use tokio::signal::unix::{SignalKind, signal};

use super::{
    error::{SinkError, file, step},
    handover,
    place::FAR_NAME,
    privileges,
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
        handovers,
    } = serde_json::from_slice(&text).map_err(|error| file("read", spec)(error.into()))?;
    // All of them before another process is started, which is to have none of these.
    let visitors = visitors.into_iter().map(inherited).map(TcpListener::from);
    let visitors = visitors.collect();
    let stats = UnixListener::from(inherited(stats));
    let ready = File::from(inherited(ready));
    let (handed, maker) = match handovers {
        Some(ring) => {
            let (handed, maker) = handover::start(spec, inherited(ring))?;
            (Some(handed), Some(maker))
        }
        None => (None, None),
    };
    let listeners = Listeners {
        visitors,
        stats: Some(stats),
        handed,
    };
    let server = Server::new(config(&shape, &Files::at(directory)), listeners)
        .map_err(|error| step("set up the page")(io::Error::other(error)))?;
    let descriptors = u64::from(shape.connections) + OTHER_DESCRIPTORS;
    privileges::drop(&shape, descriptors, &[]).map_err(step("give up privileges"))?;

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
                    () = handover::gone(maker) => tracing::error!("the process that makes its sockets has ended"),
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

/// A descriptor that was left open for this process, and is not for those that it starts.
pub(super) fn inherited(fd: i32) -> OwnedFd {
    // SAFETY: plain system call; that it may fail is noticed when the descriptor is used.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
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
