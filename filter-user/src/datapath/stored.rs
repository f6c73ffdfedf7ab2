//! What is stored beside a generation's maps, in a map that the kernel program does
//! not use, so that any later process can say what is enforced.

use std::path::Path;

use aya::maps::{Array, MapError};
use filter_common::abi::Config;
use serde::{Deserialize, Serialize};

use super::{DatapathError, mapped, mapped::Mapped, object::hex, pod};
use crate::compile::Meta;

/// Name of the pin.
pub(super) const META: &str = "META";

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
        let path = directory.join(META);
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
        pin_array(&path, &chunks)
    }

    /// Reads the document of a generation.
    pub(super) fn read(directory: &Path) -> Result<Self, DatapathError> {
        let path = directory.join(META);
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
