//! Reading files within limits, and finding lines and columns in them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::digest::FileDigest;
use super::limits::SOURCE_BYTES_MAX;

/// A stretch of bytes in one of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Index of the source.
    pub(super) source: SourceId,
    /// First byte.
    pub(super) start: u32,
    /// Byte after the last one, not before `start`.
    pub(super) end: u32,
}

/// Which of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId(u32);

impl SourceId {
    /// The span of a byte range, whose ends are within a source and so below [`SOURCE_BYTES_MAX`].
    pub(super) fn span(self, range: std::ops::Range<usize>) -> Span {
        Span {
            source: self,
            start: range.start as u32,
            end: range.end.max(range.start) as u32,
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// One file that was read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Every file that was read, kept for the messages.
#[derive(Debug, Default)]
pub(super) struct Sources {
    sources: Vec<Source>,
    bytes: u64,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error("cannot read the file: {}", describe(.0))]
    Io(#[from] io::Error),
    #[error("this is a directory, not a file")]
    Directory,
    #[error("this is not a regular file")]
    Special,
    #[error("the file has {bytes} bytes; at most {limit} are read")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("with this file the policy's files exceed {SOURCE_BYTES_MAX} bytes")]
    TotalTooLarge,
    #[error("the file is not text: byte {byte:#04x} is not UTF-8")]
    NotText {
        byte: u8,
        line: usize,
        column: usize,
    },
}

impl ReadError {
    /// Line and column of what is wrong, if it is at one place.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        match self {
            Self::NotText { line, column, .. } => Some((*line, *column)),
            Self::Io(_)
            | Self::Directory
            | Self::Special
            | Self::TooLarge { .. }
            | Self::TotalTooLarge => None,
        }
    }

    /// What to do.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "check the path, or create the file"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "check the permissions of the file and its directories"
            }
            Self::Io(_) => "check the file and the disk that it is on",
            Self::Directory => "name a file in it",
            Self::Special => "name a regular file; pipes and devices are not read",
            Self::TooLarge { .. } => {
                "check that it is the right file; long lists belong in `hosts_file`, `domains_file` or `origins_file`"
            }
            Self::TotalTooLarge => "split the policy, or shorten its lists",
            Self::NotText { .. } => "save the file as UTF-8",
        }
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

impl Sources {
    /// Reads a regular file of at most `limit` bytes of UTF-8. Sizes are checked before reading, and
    /// again while reading, for files that grow.
    pub(super) fn read(&mut self, path: &Path, limit: u64) -> Result<SourceId, ReadError> {
        let (mut file, bytes) = open(path, limit)?;
        let mut text = Vec::with_capacity(bytes as usize + 1);
        file.by_ref().take(limit + 1).read_to_end(&mut text)?;
        if text.len() as u64 > limit {
            let bytes = text.len() as u64;
            return Err(ReadError::TooLarge { bytes, limit });
        }
        let text = String::from_utf8(text).map_err(|error| not_text(&error))?;
        self.add(path, text, limit)
    }

    /// Takes a text of at most `limit` bytes.
    pub(super) fn add(
        &mut self,
        path: &Path,
        text: String,
        limit: u64,
    ) -> Result<SourceId, ReadError> {
        let bytes = text.len() as u64;
        if bytes > limit {
            return Err(ReadError::TooLarge { bytes, limit });
        }
        if self.bytes + bytes > SOURCE_BYTES_MAX {
            return Err(ReadError::TotalTooLarge);
        }
        self.bytes += bytes;
        self.sources.push(Source {
            path: path.into(),
            text,
        });
        Ok(SourceId(self.sources.len() as u32 - 1))
    }

    /// The source of this id, which came from these sources.
    pub(super) fn source(&self, id: SourceId) -> &Source {
        &self.sources[id.0 as usize]
    }

    /// Line and column of a span's first character, both counted from 1; columns are characters.
    pub(super) fn position(&self, span: Span) -> (usize, usize) {
        position(&self.source(span.source).text, span.start as usize)
    }
}

/// A regular file of at most `limit` bytes, and how many they are.
fn open(path: &Path, limit: u64) -> Result<(File, u64), ReadError> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe without a writer must not hold up the controller.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ReadError::Directory);
    }
    if !metadata.is_file() {
        return Err(ReadError::Special);
    }
    let bytes = metadata.len();
    if bytes > limit {
        return Err(ReadError::TooLarge { bytes, limit });
    }
    Ok((file, bytes))
}

/// Bytes of a file that are hashed at a time.
const HASHED_BYTES: usize = 1 << 18;

/// Digest of a file's bytes, which are not kept; `limit` as in [`Sources::read`].
pub(super) fn digest_file(path: &Path, limit: u64) -> Result<FileDigest, ReadError> {
    let (file, _) = open(path, limit)?;
    let mut file = file.take(limit + 1);
    let mut hash = Sha256::new();
    let mut piece = vec![0; HASHED_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&piece[..count]),
        }
    }
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let at = text.floor_char_boundary(at);
    let before = &text.as_bytes()[..at];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let column = text[line_start..at].chars().filter(|&c| c != BOM).count() + 1;
    (line, column)
}

/// The mark that some editors put before UTF-8; not a character of the text.
pub(super) const BOM: char = '\u{feff}';

fn not_text(error: &std::string::FromUtf8Error) -> ReadError {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(&bytes[..at]);
    let (line, column) = position(&before, before.len());
    ReadError::NotText {
        byte: bytes.get(at).copied().unwrap_or_default(),
        line,
        column,
    }
}

const _: () = assert!(
    SOURCE_BYTES_MAX < u32::MAX as u64,
    "spans hold 32-bit offsets"
);
