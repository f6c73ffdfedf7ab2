//! Segments: an answer with the end of the stream, and resets.

use super::{
    Request,
    draft::{Draft, Network, Reply, TRANSPORT},
};
use crate::{
    flow::flags,
    limits::STAMP_AHEAD,
    wire::{TCP, TCP_LEN},
};

/// A fatal alert, `unrecognized_name` (RFC 8446, sections 5.1 and 6.2; RFC 6066, section 3), in a record of
/// TLS 1.2, which all versions take before one is agreed on.
pub const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// An answer without a page (RFC 7725).
pub const UNAVAILABLE: [u8; 84] =
    *b"HTTP/1.1 451 Unavailable For Legal Reasons\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Two NOPs and a timestamps option.
const STAMPS_LEN: u32 = 12;
const STAMPS: u32 = 0x0101_080a;
const WINDOW: u16 = u16::MAX;

/// Where in the header.
const SEQ: usize = TRANSPORT + 4;
const ACK: usize = TRANSPORT + 8;
const LEN_AND_FLAGS: usize = TRANSPORT + 12;
const WINDOW_AT: usize = TRANSPORT + 14;
const CHECKSUM: usize = TRANSPORT + 16;
const OPTIONS: usize = TRANSPORT + TCP_LEN as usize;

/// A fatal alert and the end of the stream.
#[inline(always)]
pub(super) fn alert(draft: &mut Draft, request: &Request) -> Reply {
    last_words(draft, request, &ALERT)
}

/// An answer to a request and the end of the stream.
#[inline(always)]
pub(super) fn unavailable(draft: &mut Draft, request: &Request) -> Reply {
    last_words(draft, request, &UNAVAILABLE)
}

/// A segment with `text` and the end of the stream, in the server's place. Its timestamp is ahead of any that the
/// server has sent.
#[inline(always)]
fn last_words<const N: usize>(draft: &mut Draft, request: &Request, text: &[u8; N]) -> Reply {
    let header_len = if request.stamped {
        draft.put32(OPTIONS, STAMPS);
        draft.put32(OPTIONS + 4, request.echo.wrapping_add(STAMP_AHEAD));
        draft.put32(OPTIONS + 8, request.stamp);
        TCP_LEN + STAMPS_LEN
    } else {
        TCP_LEN
    };
    draft.put(TRANSPORT + header_len as usize, text);
    ports(draft, request.dst_port, request.src_port);
    draft.put32(SEQ, request.ack);
    draft.put32(ACK, request.end());
    let bits = flags::PSH | flags::ACK | flags::FIN;
    draft.put16(LEN_AND_FLAGS, (header_len as u16) << 10 | bits as u16);
    draft.put16(WINDOW_AT, WINDOW);
    let len = header_len + N as u32;
    draft.finish(Network::back(request, TCP), len, CHECKSUM)
}

/// A reset to the sender, with the number that it expects (RFC 9293, section 3.10.7.1).
#[inline(always)]
pub(super) fn reset_back(draft: &mut Draft, request: &Request) -> Reply {
    ports(draft, request.dst_port, request.src_port);
    if request.has(flags::ACK) {
        draft.put32(SEQ, request.ack);
        header(draft, flags::RST);
    } else {
        draft.put32(ACK, request.end());
        header(draft, flags::RST | flags::ACK);
    }
    draft.finish(Network::back(request, TCP), TCP_LEN, CHECKSUM)
}

/// The segment as a reset with this number, in its own direction. A client that is still opening its
/// connection believes it by the acknowledgement.
#[inline(always)]
pub(super) fn reset_onward(draft: &mut Draft, request: &Request, seq: u32) -> Reply {
    ports(draft, request.src_port, request.dst_port);
    draft.put32(SEQ, seq);
    if request.has(flags::ACK) {
        draft.put32(ACK, request.ack);
    }
    header(draft, flags::RST | request.flags & flags::ACK);
    draft.finish(Network::onward(request, TCP), TCP_LEN, CHECKSUM)
}

#[inline(always)]
fn ports(draft: &mut Draft, src: u16, dst: u16) {
    draft.put16(TRANSPORT, src);
    draft.put16(TRANSPORT + 2, dst);
}

/// Length and flags of a header without options.
#[inline(always)]
fn header(draft: &mut Draft, bits: u8) {
    draft.put16(LEN_AND_FLAGS, (TCP_LEN as u16) << 10 | bits as u16);
}
