//! Captures made in memory.

use std::io::Cursor;

use super::{ByteOrder, Capture, CaptureError, Frame};

impl ByteOrder {
    fn put16(self, to: &mut Vec<u8>, number: u16) {
        match self {
            Self::Little => to.extend(number.to_le_bytes()),
            Self::Big => to.extend(number.to_be_bytes()),
        }
    }

    fn put32(self, to: &mut Vec<u8>, number: u32) {
        match self {
            Self::Little => to.extend(number.to_le_bytes()),
            Self::Big => to.extend(number.to_be_bytes()),
        }
    }
}

/// A pcap file being written.
pub(in crate::replay) struct Pcap {
    order: ByteOrder,
    modified: bool,
    pub(in crate::replay) bytes: Vec<u8>,
}

impl Pcap {
    pub(in crate::replay) fn new(link: u32) -> Self {
        Self::with(ByteOrder::Little, 0xa1b2_c3d4, link)
    }

    pub(super) fn with(order: ByteOrder, magic: u32, link: u32) -> Self {
        let mut bytes = Vec::new();
        order.put32(&mut bytes, magic);
        order.put16(&mut bytes, 2);
        order.put16(&mut bytes, 4);
        for number in [0, 0, 262_144, link] {
            order.put32(&mut bytes, number);
        }
        Self {
            order,
            modified: magic == 0xa1b2_cd34,
            bytes,
        }
    }

    pub(in crate::replay) fn frame(self, frame: &[u8]) -> Self {
        let wire_len = frame.len() as u32;
        self.snapped(frame, wire_len)
    }

    pub(in crate::replay) fn snapped(mut self, frame: &[u8], wire_len: u32) -> Self {
        for number in [1, 2, frame.len() as u32, wire_len] {
            self.order.put32(&mut self.bytes, number);
        }
        if self.modified {
            self.bytes.extend([0xee; 8]);
        }
        self.bytes.extend(frame);
        self
    }
}

/// A pcapng file being written.
pub(super) struct Pcapng {
    order: ByteOrder,
    pub(super) bytes: Vec<u8>,
}

impl Pcapng {
    pub(super) fn new(order: ByteOrder) -> Self {
        Self {
            order,
            bytes: Vec::new(),
        }
        .section(order)
    }

    pub(super) fn section(mut self, order: ByteOrder) -> Self {
        self.order = order;
        let mut body = Vec::new();
        order.put32(&mut body, 0x1a2b_3c4d);
        order.put16(&mut body, 1);
        order.put16(&mut body, 0);
        body.extend([0xff; 8]);
        // An option, as real writers have it.
        order.put16(&mut body, 4);
        order.put16(&mut body, 4);
        body.extend(b"test\0\0\0\0");
        self.block(0x0a0d_0d0a, &body)
    }

    pub(super) fn interface(self, link: u16, snap_len: u32) -> Self {
        let mut body = Vec::new();
        self.order.put16(&mut body, link);
        self.order.put16(&mut body, 0);
        self.order.put32(&mut body, snap_len);
        self.block(1, &body)
    }

    pub(super) fn enhanced(self, interface: u32, frame: &[u8], wire_len: u32) -> Self {
        let mut body = Vec::new();
        for number in [interface, 0, 0, frame.len() as u32, wire_len] {
            self.order.put32(&mut body, number);
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        // A comment behind the packet's data.
        self.order.put16(&mut body, 1);
        self.order.put16(&mut body, 4);
        body.extend(b"note\0\0\0\0");
        self.block(6, &body)
    }

    pub(super) fn obsolete(self, interface: u16, frame: &[u8]) -> Self {
        let mut body = Vec::new();
        self.order.put16(&mut body, interface);
        self.order.put16(&mut body, 0xffff);
        for number in [0, 0, frame.len() as u32, frame.len() as u32] {
            self.order.put32(&mut body, number);
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(2, &body)
    }

    pub(super) fn simple(self, frame: &[u8], wire_len: u32) -> Self {
        let mut body = Vec::new();
        self.order.put32(&mut body, wire_len);
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(3, &body)
    }

    pub(super) fn block(mut self, kind: u32, body: &[u8]) -> Self {
        let total = body.len() as u32 + 12;
        self.order.put32(&mut self.bytes, kind);
        self.order.put32(&mut self.bytes, total);
        self.bytes.extend(body);
        self.order.put32(&mut self.bytes, total);
        self
    }
}

/// All frames of a capture in memory, and the error that ended it, if any.
pub(super) fn frames_of(bytes: Vec<u8>) -> (Vec<Frame>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::new(Box::new(Cursor::new(bytes))) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}
