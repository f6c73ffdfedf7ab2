//! What tests may leave behind on the machine: looked at before and after.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Named network namespaces.
const NAMESPACES: &str = "/run/netns";

/// Pins of every namespace that edgefilter runs in, `netns-<inode>`.
const PINS: &str = "/sys/fs/bpf/edgefilter";

/// Locks and run state, named like the pins.
const RUN_STATE: &str = "/run/edgefilter";

/// Folders whose entries must be the same after a run.
const WATCHED: [(&str, &str); 4] = [
    ("network namespace", NAMESPACES),
    ("interface", "/sys/class/net"),
    ("pins", PINS),
    ("run state", RUN_STATE),
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
        let variable = format!("{MARK}={}", self.mark);
        let elsewhere: Vec<_> = children_of(NAMESPACES)
            .filter(|path| is_elsewhere(path, &variable))
            .flat_map(|path| {
                let inode = fs::metadata(&path).map_or(0, |data| data.ino());
                let named = format!("netns-{inode}");
                [
                    path,
                    Path::new(PINS).join(&named),
                    Path::new(RUN_STATE).join(named),
                ]
            })
            .collect();
        entries()
            .difference(&self.entries)
            .filter(|(_, path)| !elsewhere.contains(path))
            .map(|(kind, path)| format!("{kind} {}", path.display()))
            .chain(processes(&variable))
            .collect()
    }
}

/// Processes with this variable in their environment.
fn processes(variable: &str) -> impl Iterator<Item = String> {
    children_of("/proc").filter_map(move |folder| {
        let pid = folder.file_name()?.to_str()?.parse::<u32>().ok()?;
        let environment = fs::read(folder.join("environ")).ok()?;
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        has_variable(&environment, variable).then(|| format!("process {pid}: {}", line.trim()))
    })
}

/// Whether a namespace called `prefix-PID-…` belongs to a live process outside this run: somebody
/// else's tests on the same machine.
fn is_elsewhere(namespace: &Path, variable: &str) -> bool {
    let owner = namespace
        .file_name()
        .and_then(|name| name.to_str()?.split('-').nth(1));
    owner
        .and_then(|pid| pid.parse::<u32>().ok())
        .and_then(|pid| fs::read(format!("/proc/{pid}/environ")).ok())
        .is_some_and(|environment| !has_variable(&environment, variable))
}

fn has_variable(environment: &[u8], variable: &str) -> bool {
    environment
        .split(|&byte| byte == 0)
        .any(|entry| entry == variable.as_bytes())
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
        let variable = format!("{name}={value}");
        // The kernel may let `spawn` return before it shows the new program's environment.
        let mut leaks = Vec::new();
        for _ in 0..100 {
            leaks = processes(&variable).collect();
            if !leaks.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(leaks, [format!("process {}: sleep 60", left.id())]);
        assert_eq!(processes(&variable).count(), 0);
    }
}
