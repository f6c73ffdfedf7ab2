//! Tables of streams that take nothing new, for tests of what the program does then. The kernel's own
//! refuse only for a moment, and not on request: a hash table without eviction stands in for them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Pod,
    maps::{HashMap, MapError},
};
use filter_common::{
    abi::FlowKey,
    flow::{Blocked, Entry},
    limits::{HELLO_KEPT_BYTES, STREAM_BYTES_MAX},
};

use super::{DatapathError, object::Pins};
use crate::host::StreamTable;

const BPFFS: &str = "/sys/fs/bpf";

/// Full tables, pinned as long as this lives: long enough for a program to take them.
pub(super) struct FullTables {
    directory: PathBuf,
    pub(super) pins: Pins,
}

impl FullTables {
    pub(super) fn make(tables: &[StreamTable]) -> Result<Self, DatapathError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgefilter-full-{}-{number}", std::process::id());
        let directory = Path::new(BPFFS).join(name);
        fs::create_dir(&directory).map_err(|source| DatapathError::Io {
            action: "make",
            path: directory.clone(),
            source,
        })?;
        let mut made = Self {
            directory,
            pins: Pins::default(),
        };
        for table in tables {
            let name = table.name();
            let path = made.directory.join(name);
            let filled = match table {
                StreamTable::Flows => fill::<{ size_of::<Entry>() }>(&path),
                StreamTable::Hellos => fill::<{ HELLO_KEPT_BYTES as usize }>(&path),
                StreamTable::LongHellos => fill::<STREAM_BYTES_MAX>(&path),
                StreamTable::Blocked => fill::<{ size_of::<Blocked>() }>(&path),
            };
            filled.map_err(|source| DatapathError::Map {
                map: name.to_owned(),
                source,
            })?;
            made.pins.by_name.push((name, path));
        }
        Ok(made)
    }
}

impl Drop for FullTables {
    fn drop(&mut self) {
        let mut pins = self.pins.by_name.iter().map(|(_, path)| path);
        let removed: io::Result<()> = pins.try_for_each(fs::remove_file);
        if let Err(error) = removed.and_then(|()| fs::remove_dir(&self.directory)) {
            let directory = self.directory.display();
            tracing::error!(%directory, %error, "cannot remove pins");
        }
    }
}

/// Pins a table with room for one connection, which it has.
fn fill<const VALUE: usize>(path: &Path) -> Result<(), MapError>
where
    [u8; VALUE]: Pod,
{
    let mut table = HashMap::<_, [u8; size_of::<FlowKey>()], [u8; VALUE]>::create(1, 0)?;
    table.insert([0; size_of::<FlowKey>()], [0; VALUE], 0)?;
    table
        .pin(path)
        .map_err(|error| MapError::PinError { name: None, error })
}
