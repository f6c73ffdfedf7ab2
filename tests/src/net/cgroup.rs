//! Control groups of version 2 for processes of a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::report;

/// A control group, removed when it is dropped; its processes must be gone by then.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// Makes one in the first hierarchy that is mounted.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(role: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
        let hierarchy = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, path, "cgroup2", ..] = fields[..] else {
                return None;
            };
            Some(PathBuf::from(path))
        });
        let name = format!("edgefilter-{role}-{}", std::process::id());
        let path = hierarchy.expect("a mounted cgroup2 hierarchy").join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        Self { path }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            let problem = format!("remove {}: {error}", self.path.display());
            report("control group", &[problem]);
        }
    }
}
