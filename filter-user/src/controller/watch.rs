//! Noticing that the policy was written: also when an editor replaces the file, when
//! a list file changes, and when a file is added to `policy.d`.
//!
//! Directories are watched, not files: a replaced file is a new inode, and a watch on the old one
//! would hear nothing more.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use inotify::{Inotify, WatchMask, Watches};
use tokio::sync::mpsc;

/// What a directory's watch reports.
const MASK: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE);

/// Watches the files of a policy.
pub(super) struct Watcher {
    watches: Watches,
    directories: BTreeSet<PathBuf>,
    names: Arc<Mutex<Names>>,
    changes: mpsc::Receiver<()>,
}

/// Which names in the watched directories matter.
#[derive(Default)]
struct Names {
    files: BTreeSet<OsString>,
}

impl Watcher {
    /// Begins with nothing watched.
    ///
    /// # Errors
    ///
    /// inotify is not available.
    pub(super) fn new() -> std::io::Result<Self> {
        let mut inotify = Inotify::init()?;
        let watches = inotify.watches();
        let names = Arc::new(Mutex::new(Names::default()));
        // One pending change is as good as many.
        let (sender, changes) = mpsc::channel(1);
        let seen = Arc::clone(&names);
        thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
                    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let relevant = events.into_iter().any(|event| match event.name {
                        Some(name) => seen.files.contains(name) || is_policy_part(Path::new(name)),
                        None => true,
                    });
                    drop(seen);
                    if relevant
                        && matches!(
                            sender.try_send(()),
                            Err(mpsc::error::TrySendError::Closed(()))
                        )
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            watches,
            directories: BTreeSet::new(),
            names,
            changes,
        })
    }

    /// Watches these files and directories too. What cannot be watched is reported, and SIGHUP remains.
    pub(super) fn follow(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            let directory = match path.is_dir() {
                true => path.clone(),
                false => match path.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
                    Some(parent) => parent.to_owned(),
                    None => continue,
                },
            };
            if let Some(name) = path.file_name() {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.files.insert(name.to_owned());
            }
            if self.directories.contains(&directory) || !directory.is_dir() {
                continue;
            }
            match self.watches.add(&directory, MASK) {
                Ok(_) => {
                    self.directories.insert(directory);
                }
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "changes are not noticed; use SIGHUP");
                }
            }
        }
    }

    /// Resolves after a change.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The thread ended: nothing will change any more, SIGHUP remains.
            std::future::pending::<()>().await;
        }
    }

    /// Forgets changes noticed so far.
    pub(super) fn drain(&mut self) {
        while self.changes.try_recv().is_ok() {}
    }
}

/// Whether a name may be a file of `policy.d`, or that directory.
fn is_policy_part(name: &Path) -> bool {
    name == "policy.d"
        || name
            .extension()
            .is_some_and(|extension| extension == "toml")
}
