//! Array maps as memory: filling them without a system call per element, and
//! reading what the kernel has.

use std::{
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::AtomicU64,
};

use filter_common::abi::{Line, Rule, Sink};
use memmap2::{Mmap, MmapMut, MmapOptions};

use super::{DatapathError, sys};

/// What may be viewed in a mapped array: fixed-width integers without padding, valid for every bit
/// pattern, its size a multiple of eight (so that the kernel lays elements out back to back) and its
/// alignment at most a page's.
pub(super) trait Element: Copy {}
impl Element for Line {}
impl Element for Rule {}
impl Element for [u8; 65_536] {}
impl Element for [u8; 4096] {}
impl Element for [u64; 2048] {}
impl Element for u64 {}
impl Element for [u64; size_of::<Sink>() / 8] {}

/// Copies `elements` into an array map made with `BPF_F_MMAPABLE` and at least as many entries.
pub(super) fn fill<T: Element>(
    map: &impl AsFd,
    name: &str,
    elements: &[T],
) -> Result<(), DatapathError> {
    let bytes = bytes_of(elements);
    // SAFETY: the map was made by this call's owner and no program that reads it is attached yet, so
    // nothing else writes to the memory.
    let mut memory = unsafe {
        MmapOptions::new()
            .len(bytes.len())
            .map_mut(map.as_fd().as_raw_fd())
    }
    .map_err(|source| DatapathError::Kernel {
        action: format!("map the memory of {name} ({} bytes)", bytes.len()),
        source,
    })?;
    memory.copy_from_slice(bytes);
    Ok(())
}

/// The contents of a pinned array map. Nothing in it is taken away; a change may add words while it is
/// read, which then lead to nothing that the reader knows.
#[derive(Debug)]
pub(super) struct Mapped {
    memory: Mmap,
}

/// A pinned array map that a running program reads, for adding words to it.
#[derive(Debug)]
pub(super) struct Writable {
    memory: MmapMut,
}

impl Writable {
    /// Maps all of a pinned array of `T`.
    pub(super) fn open<T: Element>(path: &Path) -> Result<Self, DatapathError> {
        let (fd, length) = open::<T>(path)?;
        // SAFETY: the memory belongs to the map, which cannot shrink; it is used as atomic words only.
        let memory = unsafe { MmapOptions::new().len(length).map_mut(fd.as_raw_fd()) }
            .map_err(io_error(path, "map the memory of"))?;
        Ok(Self { memory })
    }

    /// All of it, as words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        words(&self.memory)
    }

    /// Element `index` of a map of `T`, as words; none beyond the end.
    pub(super) fn element<T: Element>(&self, index: usize) -> &[AtomicU64] {
        let words_each = size_of::<T>() / size_of::<u64>();
        let at = index.saturating_mul(words_each);
        self.words().get(at..at + words_each).unwrap_or_default()
    }
}

/// Mapped memory, which is page-aligned, as words that others may store at any time.
fn words(memory: &[u8]) -> &[AtomicU64] {
    // SAFETY: page-aligned, as many whole words as fit, every bit pattern is valid.
    unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), memory.len() / size_of::<u64>()) }
}

fn io_error(path: &Path, action: &'static str) -> impl Fn(std::io::Error) -> DatapathError {
    move |source| DatapathError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Opens a pinned array of `T`: its descriptor and its bytes.
fn open<T: Element>(path: &Path) -> Result<(OwnedFd, usize), DatapathError> {
    let fd = sys::object_get(path).map_err(io_error(path, "open"))?;
    let info = aya::maps::MapInfo::from_pin(path).map_err(|source| DatapathError::Map {
        map: path.display().to_string(),
        source,
    })?;
    if info.value_size() as usize != size_of::<T>() {
        return Err(DatapathError::Damaged {
            path: path.to_owned(),
            problem: format!(
                "its values have {} bytes instead of {}",
                info.value_size(),
                size_of::<T>()
            ),
        });
    }
    Ok((fd, info.max_entries() as usize * size_of::<T>()))
}

impl Mapped {
    /// Maps all of a pinned array of `T`.
    pub(super) fn open<T: Element>(path: &Path) -> Result<Self, DatapathError> {
        let (fd, length) = open::<T>(path)?;
        // SAFETY: the memory belongs to the map, which cannot shrink.
        let memory = unsafe { MmapOptions::new().len(length).map(fd.as_raw_fd()) }
            .map_err(io_error(path, "map the memory of"))?;
        Ok(Self { memory })
    }

    /// All elements.
    pub(super) fn as_slice<T: Element>(&self) -> &[T] {
        let count = self.memory.len() / size_of::<T>();
        // SAFETY: the memory is page-aligned, holds `count` elements, and every bit pattern is a
        // valid `T`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), count) }
    }

    /// All of it, as words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        words(&self.memory)
    }

    /// Whether the map holds exactly these elements.
    pub(super) fn equals<T: Element>(&self, elements: &[T]) -> bool {
        self.memory[..] == *bytes_of(elements)
    }
}

fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: `Element`s have no padding, so every byte is initialised.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}
