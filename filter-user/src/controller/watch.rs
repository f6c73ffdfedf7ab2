//! Noticing that the policy was written: also when an editor replaces the file, when
//! a list file changes, and when a file is added to `policy.d`.
//!
//! Directories are watched, not files: a replaced file is a new inode, and a watch on the old one
//! would hear nothing more. Symbolic links on the way are watched as well: Kubernetes changes a
//! mounted file by pointing a link to another directory.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::mpsc;

/// What a directory's watch reports.
const MASK: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE);

/// As many symbolic links as the kernel follows in one path.
const LINKS_MAX: usize = 40;

/// Watches the files of a policy.
pub(super) struct Watcher {
    watches: Watches,
    interests: Arc<Mutex<Interests>>,
    changes: mpsc::Receiver<()>,
}

/// What matters in each watched directory.
type Interests = HashMap<WatchDescriptor, Interest>;

/// What matters in one directory.
#[derive(Default)]
struct Interest {
    /// These names.
    names: BTreeSet<OsString>,
    /// Every TOML file: the directory is a `policy.d`.
    toml: bool,
}

impl Interest {
    fn matches(&self, name: &OsStr) -> bool {
        let toml = Path::new(name).extension() == Some(OsStr::new("toml"));
        self.names.contains(name) || self.toml && toml
    }
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
        let interests = Arc::new(Mutex::new(Interests::new()));
        // One pending change is as good as many.
        let (sender, changes) = mpsc::channel(1);
        let shared = Arc::clone(&interests);
        thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
                    let mut interests = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut relevant = false;
                    for event in events {
                        relevant |= match event.name {
                            Some(name) => {
                                let interest = interests.get(&event.wd);
                                interest.is_some_and(|interest| interest.matches(name))
                            }
                            // The directory itself, or too many events to be told apart.
                            None => true,
                        };
                        if event.mask.contains(EventMask::IGNORED) {
                            interests.remove(&event.wd);
                        }
                    }
                    drop(interests);
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
            interests,
            changes,
        })
    }

    /// Watches these files and directories too. What cannot be watched is reported, and SIGHUP remains.
    pub(super) fn follow(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            if path.is_dir() {
                self.watch(&path, |interest| interest.toml = true);
            }
            for (directory, name) in entries_on_the_way(&path) {
                self.watch(&directory, |interest| {
                    interest.names.insert(name);
                });
            }
        }
    }

    /// Adding a directory again is no change, unless it is a new one of the same name.
    fn watch(&mut self, directory: &Path, add: impl FnOnce(&mut Interest)) {
        // Held while the watch is added, so that its first event finds the interest.
        let mut interests = self
            .interests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.watches.add(directory, MASK) {
            Ok(watch) => add(interests.entry(watch).or_default()),
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "changes are not noticed; use SIGHUP");
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

/// Directory and name of every entry whose replacement makes `path` lead to something else: the
/// symbolic links on the way, and what they end in.
fn entries_on_the_way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut found = Vec::new();
    let mut links_left = LINKS_MAX;
    let mut at = PathBuf::new();
    let mut rest = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    loop {
        let mut components = rest.components();
        let Some(component) = components.next() else {
            return found;
        };
        let after = components.as_path().to_owned();
        let Component::Normal(name) = component else {
            match component {
                Component::ParentDir => _ = at.pop(),
                Component::RootDir => at = PathBuf::from("/"),
                Component::Normal(_) | Component::Prefix(_) | Component::CurDir => {}
            }
            rest = after;
            continue;
        };
        let entry = at.join(name);
        let link = fs::read_link(&entry).ok().filter(|_| links_left > 0);
        if link.is_some() || after.as_os_str().is_empty() {
            found.push((at.clone(), name.to_owned()));
        }
        rest = match link {
            Some(target) => {
                links_left -= 1;
                // Joining an empty path would add a slash.
                match after.as_os_str().is_empty() {
                    true => target,
                    false => target.join(after),
                }
            }
            None => {
                at = entry;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    async fn changed(watcher: &mut Watcher) -> bool {
        let noticed = tokio::time::timeout(Duration::from_millis(500), watcher.changed()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        watcher.drain();
        noticed.is_ok()
    }

    #[tokio::test]
    async fn a_link_that_points_elsewhere_is_a_change_as_in_a_kubernetes_mount() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for round in ["..1", "..2", "..3"] {
            fs::create_dir(at(round)).unwrap();
            fs::write(at(round).join("policy.toml"), round).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/policy.toml", at("policy.toml")).unwrap();
        let mut watcher = Watcher::new().unwrap();
        for round in ["..2", "..3"] {
            watcher.follow([at("policy.toml")]);
            assert!(!changed(&mut watcher).await);
            symlink(round, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            assert!(changed(&mut watcher).await, "{round}");
        }
        watcher.follow([at("policy.toml")]);
        fs::write(at("..3/policy.toml"), "written behind the links").unwrap();
        assert!(changed(&mut watcher).await);
    }

    #[test]
    fn links_that_run_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        let circle = directory.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert_eq!(entries_on_the_way(&circle).len(), LINKS_MAX + 1);
    }

    #[tokio::test]
    async fn writes_replacements_and_new_files_of_the_policy_are_noticed_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("policy.toml"), "").unwrap();
        let mut watcher = Watcher::new().unwrap();
        let paths = || [at("policy.toml"), at("list.txt"), at("policy.d")];
        watcher.follow(paths());
        assert!(!changed(&mut watcher).await);

        fs::write(at("policy.toml"), "a").unwrap();
        assert!(changed(&mut watcher).await, "written");
        fs::write(at("policy.toml.new"), "b").unwrap();
        fs::write(at("other.toml"), "b").unwrap();
        assert!(!changed(&mut watcher).await, "another file");
        fs::rename(at("policy.toml.new"), at("policy.toml")).unwrap();
        assert!(changed(&mut watcher).await, "replaced");
        fs::write(at("list.txt"), "").unwrap();
        assert!(changed(&mut watcher).await, "a list that did not exist");

        for round in ["first", "again"] {
            fs::create_dir(at("policy.d")).unwrap();
            assert!(changed(&mut watcher).await, "policy.d made, {round}");
            watcher.follow(paths());
            fs::write(at("policy.d/x.toml"), "").unwrap();
            assert!(changed(&mut watcher).await, "a file in policy.d, {round}");
            fs::write(at("policy.d/x.txt"), "").unwrap();
            assert!(!changed(&mut watcher).await, "not a policy, {round}");
            fs::remove_dir_all(at("policy.d")).unwrap();
            assert!(changed(&mut watcher).await, "policy.d removed, {round}");
        }
    }
}
