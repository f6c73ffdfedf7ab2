//! What is stored beside a generation's maps, in a map that the kernel program does
//! not use, so that any later process can say what is enforced.
//!
//! The pin's name has the generation's number, and the number in `LIVE` says which one counts: what the
//! program does and what is said about it change by the same store.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::maps::{Array, MapError};
use filter_common::abi::Config;
use serde::{Deserialize, Serialize};

use super::{
    DatapathError, mapped,
    mapped::Mapped,
    object::{LIVE, hex},
    pod,
    root::{entries, remove},
};
use crate::compile::Meta;

/// How the names of the pins begin; the generation's number follows.
const META: &str = "META-";

/// How often a reader that is overtaken by a change begins again.
const READ_ATTEMPTS_MAX: u32 = 5;

const CHUNK: usize = 4096;
type Chunk = [u8; CHUNK];
/// The JSON text follows its length.
const LENGTH_BYTES: usize = 4;
/// `BPF_F_MMAPABLE` of linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;

/// The document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) meta: Meta,
    /// Bytes of the load-time constants, in hexadecimal.
    config: String,
    /// See [`super::object::digest`].
    pub(super) object_digest: String,
    /// How long the kernel took to load the program.
    pub(super) load_us: u64,
}

impl Stored {
    pub(super) fn new(meta: Meta, config: &Config, object_digest: String, load_us: u64) -> Self {
        Self {
            meta,
            config: hex(pod::config_bytes(config)),
            object_digest,
            load_us,
        }
    }

    /// The same program with another description.
    pub(super) fn with(&self, meta: Meta) -> Self {
        Self {
            meta,
            ..self.clone()
        }
    }

    pub(super) fn config(&self) -> Option<Config> {
        let digits = self.config.as_bytes();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        pod::config_from_bytes(&bytes?)
    }

    /// Makes the map and pins it in the generation's directory.
    pub(super) fn pin(&self, directory: &Path) -> Result<(), DatapathError> {
        let path = directory.join(name(self.meta.generation));
        let json = serde_json::to_vec(self).map_err(|error| DatapathError::Unfit {
            problem: format!("its description cannot be written: {error}"),
        })?;
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + json.len());
        bytes.extend_from_slice(&(json.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&json);
        let chunks: Vec<Chunk> = bytes
            .chunks(CHUNK)
            .map(|part| {
                let mut chunk = [0; CHUNK];
                chunk[..part.len()].copy_from_slice(part);
                chunk
            })
            .collect();
        // Left by a change that was broken off.
        remove(&path)?;
        pin_array(&path, &chunks)
    }

    /// Reads the document of the generation that the program in `directory` enforces.
    pub(super) fn read(directory: &Path) -> Result<Self, DatapathError> {
        let mut attempts = READ_ATTEMPTS_MAX;
        loop {
            let live = live(directory)?;
            attempts -= 1;
            match Self::read_from(directory.join(name(live))) {
                Ok(stored) => return Ok(stored),
                // Removed by a change that has switched meanwhile.
                Err(_) if attempts > 0 && self::live(directory)? != live => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_from(path: PathBuf) -> Result<Self, DatapathError> {
        let mapped = Mapped::open::<Chunk>(&path)?;
        let bytes = mapped.as_slice::<Chunk>().as_flattened();
        let damaged = |problem: String| DatapathError::Damaged {
            path: path.clone(),
            problem,
        };
        let json = bytes
            .split_first_chunk::<LENGTH_BYTES>()
            .and_then(|(length, rest)| rest.get(..u32::from_ne_bytes(*length) as usize))
            .ok_or_else(|| damaged("its length is wrong".to_owned()))?;
        serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))
    }
}

/// Number of the generation that the program in `directory` enforces now.
pub(super) fn live(directory: &Path) -> Result<u64, DatapathError> {
    let path = directory.join(LIVE);
    let mapped = Mapped::open::<u64>(&path)?;
    mapped
        .words()
        .first()
        .map(|live| live.load(Ordering::Acquire))
        .ok_or_else(|| DatapathError::Damaged {
            path,
            problem: "it is empty".to_owned(),
        })
}

/// Removes the documents of all generations but one.
pub(super) fn retire_all_but(directory: &Path, generation: u64) -> Result<(), DatapathError> {
    let kept = name(generation);
    for pin in entries(directory)? {
        if pin.starts_with(META) && pin != kept {
            remove(&directory.join(pin))?;
        }
    }
    Ok(())
}

/// Name of the pin of a generation's document.
fn name(generation: u64) -> String {
    format!("{META}{generation}")
}

/// Makes an array map of `elements` that only user space reads, and pins it.
pub(super) fn pin_array<T: mapped::Element + aya::Pod>(
    path: &Path,
    elements: &[T],
) -> Result<(), DatapathError> {
    let map_error = |source: MapError| DatapathError::Map {
        map: path.display().to_string(),
        source,
    };
    let map = Array::<_, T>::create(elements.len() as u32, MMAPABLE).map_err(map_error)?;
    map.pin(path).map_err(|error| DatapathError::Kernel {
        action: format!("pin {}", path.display()),
        source: std::io::Error::other(error),
    })?;
    let fd = super::sys::object_get(path).map_err(|source| DatapathError::Io {
        action: "open",
        path: path.to_owned(),
        source,
    })?;
    mapped::fill(&fd, &path.display().to_string(), elements)
}
