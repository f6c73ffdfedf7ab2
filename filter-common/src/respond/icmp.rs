//! ICMP and ICMPv6: communication administratively prohibited.

use super::{
    ICMP, ICMPV6, Request,
    draft::{Draft, Network, Reply, TRANSPORT},
};
use crate::{limits::ICMP_QUOTE_BYTES_MAX, wire::Family};

/// Bytes before the quotation (RFC 792; RFC 4443, section 3.1).
const HEADER_LEN: u32 = 8;
const CHECKSUM: usize = TRANSPORT + 2;

/// Destination unreachable, communication administratively prohibited (RFC 1812, section 5.2.7.1).
const PROHIBITED_V4: u16 = 0x030d;
/// Destination unreachable, communication with it administratively prohibited (RFC 4443, section 3.1).
const PROHIBITED_V6: u16 = 0x0101;

/// The messages of ICMP that ask for an answer and are no error: echo requests.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// An error with the beginning of the packet: as much as is bounded, at least what RFC 792 demands of
/// every packet that is long enough.
#[inline(always)]
pub(super) fn prohibited(
    draft: &mut Draft,
    request: &Request,
    mut copy: impl FnMut(&mut Draft, u32, u32, u32) -> bool,
) -> Option<Reply> {
    // Whole words: what is summed is what is quoted.
    let quote = request.packet_len.min(ICMP_QUOTE_BYTES_MAX) & !3;
    let at = TRANSPORT as u32 + HEADER_LEN;
    if !copy(draft, request.network, quote, at) {
        return None;
    }
    let len = HEADER_LEN + quote;
    Some(match request.family {
        Family::V4 => {
            draft.put16(TRANSPORT, PROHIBITED_V4);
            draft.finish_plain(Network::back(request, ICMP), len, CHECKSUM)
        }
        Family::V6 => {
            draft.put16(TRANSPORT, PROHIBITED_V6);
            draft.finish(Network::back(request, ICMPV6), len, CHECKSUM)
        }
    })
}

/// Whether a packet between two hosts may be answered with an error (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4): it is no error itself. Of ICMP only what asks for an answer is sure to be none.
#[inline(always)]
pub(super) const fn may_answer(request: &Request) -> bool {
    match (request.family, request.protocol) {
        (Family::V4, ICMP) => request.icmp_type == ECHO_V4,
        (Family::V6, ICMPV6) => request.icmp_type == ECHO_V6,
        _ => true,
    }
}
