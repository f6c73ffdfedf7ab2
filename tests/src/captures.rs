//! Captures to judge: the repository's own, and further ones where they are found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use filter_user::replay::capture::{Capture, CaptureError, Frame};

const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/captures");
/// Further captures, where they are found; `EDGEFILTER_CORPORA` names another folder.
const CORPORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");

/// The repository's captures, and those beside it.
///
/// # Panics
/// If the repository has none.
pub fn captures() -> Vec<PathBuf> {
    let mut found = Vec::new();
    captures_under(Path::new(OWN), &mut found);
    assert!(!found.is_empty(), "no captures in {OWN}");
    let corpora = std::env::var_os("EDGEFILTER_CORPORA").unwrap_or_else(|| CORPORA.into());
    if Path::new(&corpora).exists() {
        captures_under(Path::new(&corpora), &mut found);
    }
    found.sort();
    found
}

fn captures_under(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            captures_under(&path, found);
        } else if path.to_string_lossy().contains(".pcap") {
            found.push(path);
        }
    }
}

/// All frames; none of a link type that is not read.
///
/// # Panics
/// If the capture is damaged.
pub fn read(path: &Path) -> Vec<Frame> {
    let refused = |error| match error {
        CaptureError::UnsupportedLink { .. } => Vec::new(),
        error => panic!("{}: {error}", path.display()),
    };
    let mut capture = match Capture::open(path) {
        Ok(capture) => capture,
        Err(error) => return refused(error),
    };
    let mut frames = Vec::new();
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return frames,
            Err(error) => return refused(error),
        }
    }
}
