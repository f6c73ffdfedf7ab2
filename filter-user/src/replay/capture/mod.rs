//! Reading captures: pcap and pcapng, plain or gzip-compressed, frame by frame.
//!
//! The reader is lenient where a capture was cut short (a full disk, a killed
//! tcpdump): what is complete is delivered, then [`CaptureError::CutShort`] says
//! at which byte the file ends. Memory use is bounded by [`FRAME_BYTES_MAX`].

mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

pub use self::link::{ETHERNET_HEADER, Framing, LinkType};
use self::{pcap::PcapReader, pcapng::PcapngReader};

/// Longest frame that is read: libpcap's own bound for most link types. More than
/// this announced by a record means that the file is damaged.
pub const FRAME_BYTES_MAX: u32 = 262_144;

/// Bytes at the start of a file that tell its format.
const MAGIC_BYTES: usize = 4;

/// Why a capture cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("cannot open capture {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read the capture at byte {offset}: {source}")]
    Read {
        /// Offset in the (decompressed) file.
        offset: u64,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// Neither pcap nor pcapng.
    #[error(
        "not a capture: the file starts with {start:02x?}; pcap and pcapng are read, also compressed with gzip"
    )]
    NotACapture {
        /// First bytes of the file.
        start: Vec<u8>,
    },
    /// The file ends within a record.
    #[error("the capture is cut short: it ends within the record at byte {offset}")]
    CutShort {
        /// Offset of the record in the (decompressed) file.
        offset: u64,
    },
    /// A record that contradicts itself.
    #[error("the capture is damaged at byte {offset}: {what}")]
    Damaged {
        /// Offset of the record in the (decompressed) file.
        offset: u64,
        /// The contradiction.
        what: String,
    },
    /// A link type that is not read.
    #[error(
        "link type {link} is not supported; Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276) and loopback (0, 108) are: capture on another interface, or convert the file"
    )]
    UnsupportedLink {
        /// The link type.
        link: LinkType,
    },
}

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the bytes begin with.
    pub framing: Framing,
    /// The captured bytes.
    pub bytes: Vec<u8>,
    /// Length on the wire; more than `bytes` when the frame was snapped short.
    pub wire_len: u32,
}

/// A capture being read.
pub struct Capture {
    format: Format,
}

enum Format {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
}

impl Capture {
    /// Opens a capture file and reads its header.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let open_error = |source| CaptureError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(open_error)?;
        if file.metadata().map_err(open_error)?.is_dir() {
            return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Self::new(Box::new(file))
    }

    /// Reads a capture from a stream.
    pub fn new(stream: Box<dyn Read>) -> Result<Self, CaptureError> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        let start = stream
            .fill_buf()
            .map_err(|source| CaptureError::Read { offset: 0, source })?;
        let stream: Box<dyn Read> = if start.starts_with(&GZIP) {
            Box::new(BufReader::with_capacity(
                1 << 16,
                MultiGzDecoder::new(stream),
            ))
        } else {
            Box::new(stream)
        };
        let mut source = Source { stream, offset: 0 };
        let mut magic = [0; MAGIC_BYTES];
        let got = source.read_up_to(&mut magic)?;
        if got < MAGIC_BYTES {
            return Err(CaptureError::NotACapture {
                start: magic[..got].to_vec(),
            });
        }
        let format = if magic == pcapng::SECTION_HEADER.to_be_bytes() {
            Format::Pcapng(PcapngReader::new(source)?)
        } else if let Some(reader) = PcapReader::new(magic, source)? {
            Format::Pcap(reader)
        } else {
            return Err(CaptureError::NotACapture {
                start: magic.to_vec(),
            });
        };
        Ok(Self { format })
    }

    /// The next frame; `None` at the end. After an error there is nothing more to read.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        match &mut self.format {
            Format::Pcap(reader) => reader.next_frame(),
            Format::Pcapng(reader) => reader.next_frame(),
        }
    }
}

/// Byte order of a file or section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    /// The 32-bit number at `offset` of `bytes`; `None` if it is not all there.
    fn u32_at(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let field = bytes.get(offset..)?.first_chunk()?;
        Some(self.u32(*field))
    }

    /// The 16-bit number at `offset` of `bytes`; `None` if it is not all there.
    fn u16_at(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let field = bytes.get(offset..)?.first_chunk()?;
        Some(self.u16(*field))
    }
}

/// The (decompressed) bytes of a capture, counted.
struct Source {
    stream: Box<dyn Read>,
    offset: u64,
}

impl Source {
    /// Fills `buffer` as far as the stream goes; the number of bytes read.
    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, CaptureError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A gzip stream without its end: the same as a file cut short.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(source) => {
                    return Err(CaptureError::Read {
                        offset: self.offset + filled as u64,
                        source,
                    });
                }
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    /// Fills `buffer`; `record` is where the record that needs it began.
    fn read_exact(&mut self, buffer: &mut [u8], record: u64) -> Result<(), CaptureError> {
        if self.read_up_to(buffer)? < buffer.len() {
            return Err(CaptureError::CutShort { offset: record });
        }
        Ok(())
    }

    /// `len` bytes; the caller has bounded `len`.
    fn read_vec(&mut self, len: u32, record: u64) -> Result<Vec<u8>, CaptureError> {
        let mut bytes = vec![0; len as usize];
        self.read_exact(&mut bytes, record)?;
        Ok(bytes)
    }

    /// Passes over `len` bytes.
    fn skip(&mut self, len: u32, record: u64) -> Result<(), CaptureError> {
        let mut left = len as usize;
        let mut scratch = [0; 4096];
        while left > 0 {
            let step = left.min(scratch.len());
            self.read_exact(&mut scratch[..step], record)?;
            left -= step;
        }
        Ok(())
    }
}
