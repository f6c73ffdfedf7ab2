//! A segment as the client meant it.

use std::fmt;

use filter_tests::packet::{Checksum, Packet, flag};

/// A TCP segment from the client.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) timestamp: Option<u32>,
    /// Whether there is an MD5 signature.
    pub(super) signed: bool,
    /// The urgent pointer.
    pub(super) urgent: u16,
    pub(super) checksum: Checksum,
    pub(super) payload: Vec<u8>,
}

impl Segment {
    pub(super) fn new(seq: u32, ack: u32, payload: &[u8]) -> Self {
        Self {
            seq,
            ack,
            flags: flag::ACK,
            timestamp: None,
            signed: false,
            urgent: 0,
            checksum: Checksum::Right,
            payload: payload.to_vec(),
        }
    }

    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The frame, from the client to this port of the host.
    pub(super) fn frame(&self, port: u16) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(value) = self.timestamp {
            options.extend_from_slice(&[1, 1, 8, 10]);
            options.extend_from_slice(&value.to_be_bytes());
            options.extend_from_slice(&[0, 0, 0, 1]);
        }
        if self.signed {
            options.extend_from_slice(&[1, 1, 19, 18]);
            options.extend_from_slice(&[0x77; 16]);
        }
        Packet::tcp("192.0.2.7:40000", &format!("203.0.113.2:{port}"))
            .seq(self.seq)
            .ack(self.ack)
            .flags(self.flags)
            .urgent(self.urgent)
            .tcp_options(&options)
            .checksum(self.checksum)
            .payload(self.payload.clone())
            .build()
    }
}

/// A segment of the host's answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) len: usize,
}

impl Reply {
    /// The frame, from this port of the host.
    pub(super) fn frame(&self, port: u16) -> Vec<u8> {
        Packet::tcp(&format!("203.0.113.2:{port}"), "192.0.2.7:40000")
            .seq(self.seq)
            .ack(self.ack)
            .flags(self.flags)
            .payload(vec![0x17; self.len])
            .build()
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seq,
            ack,
            flags,
            timestamp,
            signed,
            urgent,
            checksum,
            payload,
        } = self;
        write!(
            f,
            "seq {seq:x} ack {ack:x} flags {flags:02x} urgent {urgent} {checksum:?} {timestamp:?} signed {signed} {} bytes \"{}\"",
            payload.len(),
            payload.escape_ascii()
        )
    }
}
