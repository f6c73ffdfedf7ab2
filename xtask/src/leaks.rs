//! What tests may leave behind on the machine: looked at before and after.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Folders whose entries must be the same after a run: named network namespaces, interfaces of
/// this namespace, pins, locks and run state.
const WATCHED: [(&str, &str); 4] = [
    ("network namespace", "/run/netns"),
    ("interface", "/sys/class/net"),
    ("pins", "/sys/fs/bpf/edgefilter"),
    ("run state", "/run/edgefilter"),
];

/// Processes of a run are known by this variable in their environment, which they inherit.
const MARK: &str = "EDGEFILTER_TEST_RUN";

/// The kernel finishes removing namespaces and their interfaces a little after the last user left.
const SETTLE: Duration = Duration::from_secs(3);

/// The machine before a run.
pub(crate) struct Before {
    entries: BTreeSet<(&'static str, PathBuf)>,
    mark: String,
}

impl Before {
    /// Takes stock.
    pub(crate) fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mark = format!("{}-{}", process::id(), since_epoch.as_nanos());
        Self {
            entries: entries(),
            mark,
        }
    }

    /// The variable that marks the processes of this run.
    pub(crate) fn mark(&self) -> (&'static str, &str) {
        (MARK, &self.mark)
    }

    /// Everything that is new, one line each; empty if the run left nothing.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let leaks = self.leaks_now();
            if leaks.is_empty() || Instant::now() > deadline {
                return leaks;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn leaks_now(&self) -> Vec<String> {
        let new = entries();
        let left = new
            .difference(&self.entries)
            .map(|(kind, path)| format!("{kind} {}", path.display()));
        left.chain(self.processes()).collect()
    }

    fn processes(&self) -> impl Iterator<Item = String> {
        let variable = format!("{MARK}={}", self.mark);
        children_of("/proc").filter_map(move |folder| {
            let pid = folder.file_name()?.to_str()?.parse::<u32>().ok()?;
            let environment = fs::read(folder.join("environ")).ok()?;
            environment
                .split(|&byte| byte == 0)
                .find(|entry| *entry == variable.as_bytes())?;
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            Some(format!("process {pid}: {}", line.trim()))
        })
    }
}

fn entries() -> BTreeSet<(&'static str, PathBuf)> {
    WATCHED
        .iter()
        .flat_map(|&(kind, folder)| children_of(folder).map(move |path| (kind, path)))
        .collect()
}

fn children_of(folder: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_outlives_the_run_is_named() {
        let before = Before::now();
        let (name, value) = before.mark();
        let mut left = process::Command::new("sleep")
            .arg("60")
            .env(name, value)
            .spawn()
            .unwrap();
        let leaks = before.processes().collect::<Vec<_>>();
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(leaks, [format!("process {}: sleep 60", left.id())]);
        assert_eq!(before.processes().count(), 0);
    }
}
