//! The pcapng format (draft-ietf-opsawg-pcapng): any number of sections in either
//! byte order, any number of interfaces, enhanced, simple and obsolete packet
//! blocks. Other blocks are passed over.

use super::{ByteOrder, CaptureError, FRAME_BYTES_MAX, Frame, LinkType, Source};

/// Type of a Section Header Block: a palindrome, so it reads the same in either byte order.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;

const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, still found in old captures.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Byte-order magic of a section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Block type, total length, and the total length again at the end.
const BLOCK_FRAME: u32 = 12;
/// Link type, reserved, snap length.
const INTERFACE_FIXED: u32 = 8;
/// Interface, timestamp (2 × 4), captured length, length on the wire. In the obsolete
/// block the interface has 16 bits and a drop counter takes the other 16.
const PACKET_FIXED: u32 = 20;
/// Interfaces that one section may describe.
const INTERFACES_MAX: usize = 65_536;

/// One interface of the section.
#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    /// Most bytes captured of a frame; 0 for no limit.
    snap_len: u32,
}

/// A pcapng file being read.
pub(super) struct PcapngReader {
    source: Source,
    order: ByteOrder,
    interfaces: Vec<Interface>,
}

impl PcapngReader {
    /// Reads the first section header; its block type has been read.
    pub(super) fn new(source: Source) -> Result<Self, CaptureError> {
        let mut reader = Self {
            source,
            order: ByteOrder::Little,
            interfaces: Vec::new(),
        };
        reader.section(0)?;
        Ok(reader)
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        loop {
            let block = self.source.offset;
            let mut kind = [0; 4];
            match self.source.read_up_to(&mut kind)? {
                0 => return Ok(None),
                4 => {}
                _ => return Err(CaptureError::CutShort { offset: block }),
            }
            let kind = self.order.u32(kind);
            if kind == SECTION_HEADER {
                self.section(block)?;
                continue;
            }
            let mut total = [0; 4];
            self.source.read_exact(&mut total, block)?;
            let total = self.order.u32(total);
            let Some(body_len) = total
                .checked_sub(BLOCK_FRAME)
                .filter(|len| len.is_multiple_of(4))
            else {
                return Err(damaged(
                    block,
                    format!("a block announces a length of {total}"),
                ));
            };
            let frame = match kind {
                INTERFACE_DESCRIPTION => self.interface(body_len, block).map(|()| None)?,
                ENHANCED_PACKET | PACKET => self.packet(kind, body_len, block).map(Some)?,
                SIMPLE_PACKET => self.simple_packet(body_len, block).map(Some)?,
                _ => self.source.skip(body_len, block).map(|()| None)?,
            };
            self.block_end(total, block)?;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// A section header behind its block type: sets the byte order, forgets the interfaces.
    fn section(&mut self, block: u64) -> Result<(), CaptureError> {
        let mut head = [0; 8];
        self.source.read_exact(&mut head, block)?;
        let [l0, l1, l2, l3, m0, m1, m2, m3] = head;
        let magic = [m0, m1, m2, m3];
        self.order = if u32::from_le_bytes(magic) == BYTE_ORDER_MAGIC {
            ByteOrder::Little
        } else if u32::from_be_bytes(magic) == BYTE_ORDER_MAGIC {
            ByteOrder::Big
        } else {
            return Err(damaged(
                block,
                format!("a section's byte-order magic is {magic:02x?}"),
            ));
        };
        self.interfaces.clear();
        let total = self.order.u32([l0, l1, l2, l3]);
        let Some(rest) = total
            .checked_sub(BLOCK_FRAME + 4)
            .filter(|rest| rest.is_multiple_of(4))
        else {
            return Err(damaged(
                block,
                format!("a section header announces a length of {total}"),
            ));
        };
        self.source.skip(rest, block)?;
        self.block_end(total, block)
    }

    fn interface(&mut self, body_len: u32, block: u64) -> Result<(), CaptureError> {
        let mut fixed = [0; INTERFACE_FIXED as usize];
        let options = self.fixed_part(&mut fixed, body_len, block)?;
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(damaged(
                block,
                format!("a section describes more than {INTERFACES_MAX} interfaces"),
            ));
        }
        self.interfaces.push(Interface {
            link: LinkType(u32::from(self.order.u16_at(&fixed, 0).unwrap_or_default())),
            snap_len: self.order.u32_at(&fixed, 4).unwrap_or_default(),
        });
        self.source.skip(options, block)
    }

    fn packet(&mut self, kind: u32, body_len: u32, block: u64) -> Result<Frame, CaptureError> {
        let mut fixed = [0; PACKET_FIXED as usize];
        let rest = self.fixed_part(&mut fixed, body_len, block)?;
        let interface = if kind == PACKET {
            self.order.u16_at(&fixed, 0).map(u32::from)
        } else {
            self.order.u32_at(&fixed, 0)
        };
        let interface = self.described(interface.unwrap_or_default(), block)?;
        let captured = self.order.u32_at(&fixed, 12).unwrap_or_default();
        let wire_len = self.order.u32_at(&fixed, 16).unwrap_or_default();
        self.frame(interface, captured, wire_len, rest, block)
    }

    fn simple_packet(&mut self, body_len: u32, block: u64) -> Result<Frame, CaptureError> {
        let mut fixed = [0; 4];
        let rest = self.fixed_part(&mut fixed, body_len, block)?;
        let interface = self.described(0, block)?;
        let wire_len = self.order.u32(fixed);
        // The captured length is not stored: what fits the block, the snap length and the wire.
        let snap_len = match interface.snap_len {
            0 => u32::MAX,
            snap_len => snap_len,
        };
        let captured = wire_len.min(snap_len).min(rest);
        self.frame(interface, captured, wire_len, rest, block)
    }

    /// Reads a frame of `captured` bytes and passes over what follows it in the block.
    fn frame(
        &mut self,
        interface: Interface,
        captured: u32,
        wire_len: u32,
        rest: u32,
        block: u64,
    ) -> Result<Frame, CaptureError> {
        let Some(behind) = rest
            .checked_sub(captured)
            .filter(|_| captured <= FRAME_BYTES_MAX)
        else {
            return Err(damaged(
                block,
                format!(
                    "a packet of {captured} bytes in a block with room for {rest} (at most {FRAME_BYTES_MAX})"
                ),
            ));
        };
        let framing = interface.link.framing()?;
        let bytes = self.source.read_vec(captured, block)?;
        self.source.skip(behind, block)?;
        Ok(Frame {
            framing,
            bytes,
            wire_len,
        })
    }

    /// Reads the fixed part of a block's body; the length of the rest.
    fn fixed_part(
        &mut self,
        fixed: &mut [u8],
        body_len: u32,
        block: u64,
    ) -> Result<u32, CaptureError> {
        let Some(rest) = body_len.checked_sub(fixed.len() as u32) else {
            return Err(damaged(
                block,
                format!("a block's body of {body_len} bytes is too short for its type"),
            ));
        };
        self.source.read_exact(fixed, block)?;
        Ok(rest)
    }

    fn described(&self, interface: u32, block: u64) -> Result<Interface, CaptureError> {
        self.interfaces
            .get(interface as usize)
            .copied()
            .ok_or_else(|| {
                damaged(
                    block,
                    format!(
                        "a packet of interface {interface}, but the section describes {}",
                        self.interfaces.len()
                    ),
                )
            })
    }

    /// The total length again, which ends every block.
    fn block_end(&mut self, total: u32, block: u64) -> Result<(), CaptureError> {
        let mut again = [0; 4];
        self.source.read_exact(&mut again, block)?;
        let again = self.order.u32(again);
        if again != total {
            return Err(damaged(
                block,
                format!("a block announces {total} bytes at its start and {again} at its end"),
            ));
        }
        Ok(())
    }
}

fn damaged(offset: u64, what: String) -> CaptureError {
    CaptureError::Damaged { offset, what }
}
