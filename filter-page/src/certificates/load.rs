//! Finding pairs in the directory, and reading those that changed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Certificates, PAIRS_MAX, Pair, parse};

/// What tells that chain or key were replaced or written to.
pub(super) type Stamp = [Option<FileStamp>; 2];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of contents, then of the file's own data.
    times: [i64; 4],
}

impl FileStamp {
    /// None if it cannot be looked at; that is a state like any other.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            times: [
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ],
        })
    }

    /// Whether it is the same file with the same contents, whatever its name is now: renaming changes
    /// the time of the file's own data only.
    pub(crate) fn is_same_contents(&self, other: &Self) -> bool {
        let contents = |stamp: &Self| (stamp.times[0], stamp.times[1]);
        (self.device, self.inode, self.size) == (other.device, other.inode, other.size)
            && contents(self) == contents(other)
    }
}

pub(super) fn reload(before: &Certificates, directory: &Path) -> Certificates {
    let mut after = Certificates::default();
    let found = find(directory, &mut after.problems).unwrap_or_else(|cause| {
        let unreadable = format!(
            "{}: {cause}; the last good certificates stay",
            directory.display()
        );
        after.problems.push(unreadable);
        after.pairs = before.pairs.clone();
        Vec::new()
    });
    for (chain, key) in found {
        let stamp = [FileStamp::of(&chain), FileStamp::of(&key)];
        let pair = match before.pairs.get(&chain) {
            Some(pair) if pair.stamp == stamp => pair.clone(),
            known => read(&chain, &key, stamp, known),
        };
        after.pairs.insert(chain, pair);
    }
    let problems = after.pairs.values().filter_map(|pair| pair.problem.clone());
    after.problems.extend(problems);
    after.index();
    after
}

fn read(chain: &Path, key: &Path, stamp: Stamp, known: Option<&Pair>) -> Pair {
    match parse::pair(chain, key) {
        Ok(certificate) => Pair {
            stamp,
            certificate: Some(Arc::new(certificate)),
            problem: None,
        },
        Err(problem) => Pair {
            stamp,
            certificate: known.and_then(|pair| pair.certificate.clone()),
            problem: Some(problem),
        },
    }
}

/// Pairs of chain and key, by their names.
fn find(directory: &Path, problems: &mut Vec<String>) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut paths = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let mut pairs = Vec::new();
    for path in &paths {
        if is_hidden(path) {
            continue;
        }
        let (chain, key) = if path.is_dir() {
            (path.join("fullchain.pem"), path.join("privkey.pem"))
        } else if has_extension(path, &["pem", "crt"]) {
            (path.clone(), path.with_extension("key"))
        } else {
            continue;
        };
        match (chain.exists(), key.exists()) {
            (true, true) => pairs.push((chain, key)),
            // The key may be in the same directory for another use.
            (false, _) => {}
            (true, false) => problems.push(format!(
                "{}: no key {} beside it",
                chain.display(),
                key.display()
            )),
        }
    }
    if pairs.len() > PAIRS_MAX {
        problems.push(format!(
            "{}: {} pairs, at most {PAIRS_MAX} are used",
            directory.display(),
            pairs.len()
        ));
        pairs.truncate(PAIRS_MAX);
    }
    Ok(pairs)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .is_some_and(|extension| extensions.iter().any(|one| extension == *one))
}
