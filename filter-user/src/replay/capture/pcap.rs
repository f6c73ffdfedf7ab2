//! The classic pcap format (draft-ietf-opsawg-pcap): both byte orders, micro- and
//! nanoseconds, and the record header of Kuznetzov's "modified" variant.

use super::{ByteOrder, CaptureError, FRAME_BYTES_MAX, Frame, LinkType, Source};

/// Rest of the file header behind the magic number.
const FILE_HEADER_REST: usize = 20;
/// Offset of the link type in that rest.
const LINK_TYPE_OFFSET: usize = 16;
/// Link type proper; the upper bits say whether frames carry their check sequence.
const LINK_TYPE_MASK: u32 = 0x0000_ffff;
/// Timestamp (2 × 4), captured length, length on the wire.
const RECORD_HEADER: usize = 16;
/// Behind the record header of the modified variant: interface, protocol, packet type, padding.
const MODIFIED_EXTRA: u32 = 8;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;

/// A pcap file being read.
pub(super) struct PcapReader {
    source: Source,
    order: ByteOrder,
    modified: bool,
    link: LinkType,
}

impl PcapReader {
    /// Reads the file header behind `magic`; `None` if that is not pcap's.
    pub(super) fn new(magic: [u8; 4], mut source: Source) -> Result<Option<Self>, CaptureError> {
        let known = |magic| {
            matches!(
                magic,
                MAGIC_MICROSECONDS | MAGIC_NANOSECONDS | MAGIC_MODIFIED
            )
        };
        let order = if known(u32::from_le_bytes(magic)) {
            ByteOrder::Little
        } else if known(u32::from_be_bytes(magic)) {
            ByteOrder::Big
        } else {
            return Ok(None);
        };
        let mut rest = [0; FILE_HEADER_REST];
        source.read_exact(&mut rest, 0)?;
        let link = order.u32_at(&rest, LINK_TYPE_OFFSET).unwrap_or_default() & LINK_TYPE_MASK;
        let link = LinkType(link);
        // Refused at once: a capture has one link type, and nothing in it could be read.
        link.framing()?;
        Ok(Some(Self {
            source,
            order,
            modified: order.u32(magic) == MAGIC_MODIFIED,
            link,
        }))
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        let record = self.source.offset;
        let mut header = [0; RECORD_HEADER];
        match self.source.read_up_to(&mut header)? {
            0 => return Ok(None),
            RECORD_HEADER => {}
            _ => return Err(CaptureError::CutShort { offset: record }),
        }
        let captured = self.order.u32_at(&header, 8).unwrap_or_default();
        let wire_len = self.order.u32_at(&header, 12).unwrap_or_default();
        if captured > FRAME_BYTES_MAX {
            return Err(CaptureError::Damaged {
                offset: record,
                what: format!(
                    "a record announces {captured} captured bytes, more than {FRAME_BYTES_MAX}"
                ),
            });
        }
        if self.modified {
            self.source.skip(MODIFIED_EXTRA, record)?;
        }
        Ok(Some(Frame {
            framing: self.link.framing()?,
            bytes: self.source.read_vec(captured, record)?,
            wire_len,
        }))
    }
}
