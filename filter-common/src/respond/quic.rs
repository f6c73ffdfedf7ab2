//! QUIC: a Version Negotiation packet that offers nothing, so that the client gives up QUIC at once and comes
//! back over TCP.

use super::{
    LongHeader, Request,
    draft::{Draft, Network, Reply, TRANSPORT},
};
use crate::{
    env::{Env, Window},
    limits::QUIC_DATAGRAM_BYTES_MIN,
    wire::{Payload, UDP, UDP_LEN},
};

/// Most bytes of a connection id in version 1 (RFC 9000, section 17.2).
pub(super) const ID_BYTES_MAX: u32 = 20;

/// First byte, version and the length of the destination's connection id.
const BEFORE_IDS: u32 = 6;
/// A long header with the bit that is fixed in version 1, as servers send it (RFC 9000, section 17.2.1).
const FIRST_BYTE: u8 = 0xc0;
const LONG_HEADER: u8 = 0x80;

/// Versions that nobody uses: reserved to exercise negotiation (RFC 9000, section 15).
const RESERVED: u32 = 0x1a1a_1a1a;
const RESERVED_TOO: u32 = 0x2a2a_2a2a;
const VERSION_LEN: u32 = 4;

const CHECKSUM: usize = TRANSPORT + 6;

/// The long header at the beginning of a datagram.
#[inline(always)]
pub(super) fn read<E: Env>(env: &E, payload: Payload) -> LongHeader {
    if payload.len <= BEFORE_IDS {
        return LongHeader::NONE;
    }
    let Some(header) = env.window::<6>(payload.offset) else {
        return LongHeader::NONE;
    };
    let dst_id_len = u32::from(header.u8::<5>());
    if header.u8::<0>() & LONG_HEADER == 0
        || dst_id_len > ID_BYTES_MAX
        || payload.len <= BEFORE_IDS + dst_id_len
    {
        return LongHeader::NONE;
    }
    let Some(source) = env.window::<1>(payload.offset + BEFORE_IDS + dst_id_len) else {
        return LongHeader::NONE;
    };
    let src_id_len = u32::from(source.u8::<0>());
    if src_id_len > ID_BYTES_MAX || payload.len < BEFORE_IDS + dst_id_len + 1 + src_id_len {
        return LongHeader::NONE;
    }
    LongHeader {
        is_there: true,
        version: header.be32::<1>(),
        offset: payload.offset,
        dst_id_len,
        src_id_len,
    }
}

/// Whether a server would answer this with Version Negotiation (RFC 9000, sections 5.2.2 and 6.1): a
/// datagram as large as one that opens a connection, which is no negotiation itself.
#[inline(always)]
pub(super) const fn may_negotiate(request: &Request) -> bool {
    request.protocol == UDP
        && request.is_sound
        && request.quic.is_there
        && request.quic.version != 0
        && request.payload_len >= QUIC_DATAGRAM_BYTES_MIN
}

/// Version Negotiation (RFC 9000, section 17.2.1): the connection ids change places, and the one version on
/// the list is not the client's.
#[inline(always)]
pub(super) fn negotiate(
    draft: &mut Draft,
    request: &Request,
    mut copy: impl FnMut(&mut Draft, u32, u32, u32) -> bool,
) -> Option<Reply> {
    let LongHeader {
        version,
        offset,
        dst_id_len,
        src_id_len,
        ..
    } = request.quic;
    if dst_id_len > ID_BYTES_MAX || src_id_len > ID_BYTES_MAX {
        return None;
    }
    let start = TRANSPORT as u32 + UDP_LEN;
    draft.put8(start as usize, FIRST_BYTE);
    draft.put8((start + BEFORE_IDS - 1) as usize, src_id_len as u8);
    let first_id = start + BEFORE_IDS;
    let dst_id = offset + BEFORE_IDS;
    if src_id_len != 0 && !copy(draft, dst_id + dst_id_len + 1, src_id_len, first_id) {
        return None;
    }
    let second_id = first_id + src_id_len + 1;
    draft.put8((second_id - 1) as usize, dst_id_len as u8);
    if dst_id_len != 0 && !copy(draft, dst_id, dst_id_len, second_id) {
        return None;
    }
    let list = second_id + dst_id_len;
    let offered = if version == RESERVED {
        RESERVED_TOO
    } else {
        RESERVED
    };
    draft.put32(list as usize, offered);
    let len = list + VERSION_LEN - TRANSPORT as u32;
    draft.put16(TRANSPORT, request.dst_port);
    draft.put16(TRANSPORT + 2, request.src_port);
    draft.put16(TRANSPORT + 4, len as u16);
    Some(draft.finish(Network::back(request, UDP), len, CHECKSUM))
}
