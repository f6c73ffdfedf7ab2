//! Whether the host will accept a segment: only such bytes may teach the filter anything.
//!
//! Linux refuses segments with a wrong checksum, without ACK, with SYN or RST, with an MD5 or AO
//! option, with a timestamp older than accepted before, or with an acknowledgement number that it
//! has not sent (`tcp_rcv_state_process`, `tcp_validate_incoming`, `tcp_ack`); it takes the urgent
//! byte out of the stream. A decoy that only the filter believes must not stand for the data that
//! the host reads.

use super::{
    Segment, flags,
    held::{flow, host},
    peer,
};
use crate::{
    abi::feature,
    checksum::{self, words},
    env::{Env, Window},
    reason::Reason,
    wire::{self, Family, IPV4_LEN},
    work::{HANDSHAKE_AT, Memory, Variable as _, Work},
};

/// Bytes of options that a TCP header has at most.
const OPTIONS_LEN_MAX: u32 = 40;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_TIMESTAMPS: u8 = 8;
const OPTION_MD5: u8 = 19;
const OPTION_AO: u8 = 29;

/// Two NOPs and a timestamps option of ten bytes, all that nearly every segment with payload has.
const TIMESTAMPS_ALONE: u32 = 0x0101_080a;
const TIMESTAMPS_ALONE_LEN: u32 = 12;

/// What the options of a segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether there is a timestamp.
    pub timestamped: bool,
    /// Whether there is an MD5 (RFC 2385) or AO (RFC 5925) signature.
    pub signed: bool,
    /// The timestamp's value.
    pub timestamp: u32,
}

impl Options {
    /// As one scalar, for a function boundary.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        (self.timestamped as u64) << 32 | (self.signed as u64) << 33 | self.timestamp as u64
    }

    /// Back from [`Options::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self {
            timestamped: packed >> 32 & 1 != 0,
            signed: packed >> 33 & 1 != 0,
            timestamp: packed as u32,
        }
    }
}

/// The timestamps of a segment (RFC 7323).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Whether there are any.
    pub timestamped: bool,
    /// The sender's.
    pub timestamp: u32,
    /// The receiver's, which the sender gives back.
    pub echo: u32,
}

/// State of a walk over options.
#[derive(Default)]
#[repr(C)]
pub struct OptionWalk<M: Memory> {
    at: M::Var,
    timestamped: M::Var,
    signed: M::Var,
    timestamp: M::Var,
    echo: M::Var,
}

/// Reads `len` bytes of options of the frame at `offset`.
#[inline(always)]
pub fn options_at<E: Env>(env: &mut E, offset: u32, len: u32) -> Options {
    if len == TIMESTAMPS_ALONE_LEN
        && let Some(options) = env.window::<12>(offset)
        && options.be32::<0>() == TIMESTAMPS_ALONE
    {
        if let Some(work) = env.work() {
            work.options.echo.set(options.be32::<8>());
        }
        return Options {
            timestamped: true,
            signed: false,
            timestamp: options.be32::<4>(),
        };
    }
    if !env.fetch_aside(offset, len) {
        return Options::default();
    }
    match env.work() {
        Some(work) => read_options(work, len),
        None => Options::default(),
    }
}

/// Reads `len` bytes of options fetched aside, like the kernel's `tcp_parse_options`.
#[inline(always)]
fn read_options<M: Memory>(work: &Work<M>, len: u32) -> Options {
    let walk = &work.options;
    walk.at.set(0);
    walk.timestamped.set(0);
    walk.signed.set(0);
    walk.timestamp.set(0);
    walk.echo.set(0);
    for _ in 0..OPTIONS_LEN_MAX {
        if !one_option(work, len) {
            break;
        }
    }
    Options {
        timestamped: walk.timestamped.get() != 0,
        signed: walk.signed.get() != 0,
        timestamp: walk.timestamp.get(),
    }
}

/// Reads the next option; `false` behind the last.
#[inline(always)]
fn one_option<M: Memory>(work: &Work<M>, len: u32) -> bool {
    let walk = &work.options;
    let offset = walk.at.get();
    if offset >= len {
        return false;
    }
    let at = HANDSHAKE_AT + offset;
    let kind = work.byte(at);
    if kind == OPTION_NOP {
        walk.at.set(offset + 1);
        return true;
    }
    let option_len = u32::from(work.byte(at + 1));
    if kind == OPTION_END || option_len < 2 || option_len > len - offset {
        return false;
    }
    if kind == OPTION_TIMESTAMPS && option_len == 10 {
        walk.timestamped.set(1);
        walk.timestamp
            .set(work.be16(at + 2) << 16 | work.be16(at + 4));
        walk.echo.set(work.be16(at + 6) << 16 | work.be16(at + 8));
    }
    if kind == OPTION_MD5 || kind == OPTION_AO {
        walk.signed.set(1);
    }
    walk.at.set(offset + option_len);
    true
}

/// Why the host will not accept a segment with payload; [`Reason::NoMatch`] if it will.
#[inline(always)]
pub(super) fn refused<E: Env>(env: &mut E, segment: Segment) -> Reason {
    if segment.flags & flags::ACK == 0 || segment.flags & (flags::SYN | flags::URG) != 0 {
        return Reason::BadFlags;
    }
    let host = host(env);
    if host.numbered() {
        let unsent = host.snd_nxt.wrapping_sub(segment.ack) as i32;
        let acked = segment.ack.wrapping_sub(host.snd_una) as i32;
        // Once something was acknowledged, Linux takes older acknowledgements within the window.
        if unsent < 0 || acked < 0 && host.fresh() {
            return Reason::BadSequence;
        }
    }
    let flow = flow(env);
    if flow.kept != 0 {
        // In an undecided stream the acknowledgements do not go back, and as long as there is no
        // socket the host has sent nothing that they could go on to.
        let ahead = segment.ack.wrapping_sub(flow.ack) as i32;
        let opening = matches!(host.kind, peer::COOKIE | peer::NO_COOKIE);
        if ahead < 0 || ahead > 0 && opening {
            return Reason::BadSequence;
        }
    }
    let options = options(env, segment);
    if options.signed {
        return Reason::BadOptions;
    }
    // One tick of tolerance, as TCP_PAWS_WINDOW.
    if options.timestamped
        && host.ts_recent != 0
        && host.ts_recent.wrapping_sub(options.timestamp) as i32 > 1
    {
        return Reason::BadOptions;
    }
    if !checksums_hold(env, segment) {
        return Reason::BadChecksum;
    }
    remember_timestamp(env);
    Reason::NoMatch
}

/// Later segments of a connection that passes through must not be older than this one. What the
/// options say is still in the working area.
#[inline(always)]
fn remember_timestamp<E: Env>(env: &mut E) {
    if env.config().features & feature::ANSWERS == 0 {
        return;
    }
    let Some(work) = env.work() else { return };
    let timestamp = work.options.timestamp.get();
    let newer = timestamp.wrapping_sub(work.peer.ts_recent) as i32 > 0;
    if work.peer.kind == peer::SEEN
        && work.peer.ts_recent != 0
        && work.options.timestamped.get() != 0
        && newer
    {
        work.entry.flow.ts_recent = timestamp;
    }
}

/// The timestamp that a segment gives back; 0 if it has none.
#[inline(always)]
pub(super) fn echoed_timestamp<E: Env>(env: &mut E, segment: Segment) -> u32 {
    stamps(env, segment).echo
}

/// The timestamps of a segment.
#[inline(always)]
pub fn stamps<E: Env>(env: &mut E, segment: Segment) -> Stamps {
    let options = options(env, segment);
    if !options.timestamped {
        return Stamps::default();
    }
    Stamps {
        timestamped: true,
        timestamp: options.timestamp,
        echo: env.work().map_or(0, |work| work.options.echo.get()),
    }
}

#[inline(always)]
fn options<E: Env>(env: &mut E, segment: Segment) -> Options {
    if let Some(work) = env.work() {
        work.options.timestamped.set(0);
    }
    let transport = u32::from(segment.transport);
    let Some(header) = env.window::<20>(transport) else {
        return Options::default();
    };
    let len = (u32::from(header.u8::<12>() >> 4) * 4).saturating_sub(20);
    if len == 0 {
        return Options::default();
    }
    env.options(transport + 20, len)
}

/// Whether the IPv4 header's and the TCP checksum are right (RFC 791, RFC 9293), as far as they
/// are to be judged. Senders on this machine leave the pseudo-header's sum in the field for a
/// device to complete, where [`feature::CHECKSUM_PARTIAL`] says so.
#[inline(always)]
pub(super) fn checksums_hold<E: Env>(env: &mut E, segment: Segment) -> bool {
    let features = env.config().features;
    if features & feature::CHECKSUMS == 0 {
        return true;
    }
    let (network, transport) = (u32::from(segment.network), u32::from(segment.transport));
    let (family, pseudo) = pseudo_header(env, segment);
    if family == Family::V4 && !ipv4_header_holds(env, network) {
        return false;
    }
    if features & feature::CHECKSUM_PARTIAL != 0 {
        let field = match env.window::<20>(transport) {
            Some(header) => u32::from(header.be16::<16>()),
            None => return false,
        };
        if field == checksum::fold(u64::from(pseudo)) {
            return true;
        }
    }
    env.sum(transport, segment.end() - transport, pseudo) == 0xffff
}

#[inline(always)]
fn ipv4_header_holds<E: Env>(env: &mut E, network: u32) -> bool {
    let Some(header) = env.window::<20>(network) else {
        return false;
    };
    let len = u32::from(header.u8::<0>() & 0x0f) * 4;
    if len != IPV4_LEN {
        return env.sum(network, len, 0) == 0xffff;
    }
    let sum = u64::from(header.be32::<0>())
        + u64::from(header.be32::<4>())
        + u64::from(header.be32::<8>())
        + u64::from(header.be32::<12>())
        + u64::from(header.be32::<16>());
    checksum::fold(sum) == 0xffff
}

/// The family, and the sum of the 16-bit words of the pseudo-header (RFC 9293, section 3.1;
/// RFC 8200, section 8.1).
#[inline(always)]
fn pseudo_header<E: Env>(env: &mut E, segment: Segment) -> (Family, u32) {
    let Some(work) = env.work() else {
        return (Family::V6, 0);
    };
    let key = work.key;
    let (src, dst) = (
        [u64::from_be(key.src[0]), u64::from_be(key.src[1])],
        [u64::from_be(key.dst[0]), u64::from_be(key.dst[1])],
    );
    let family = if wire::is_mapped(src) && wire::is_mapped(dst) {
        Family::V4
    } else {
        Family::V6
    };
    // The mapped form's constant words are taken off again.
    let mapped_words = match family {
        Family::V4 => 2 * 0xffff,
        Family::V6 => 0,
    };
    let len = segment.end() - u32::from(segment.transport);
    let addresses = words(src[0]) + words(src[1]) + words(dst[0]) + words(dst[1]);
    let sum = addresses - mapped_words + u32::from(wire::TCP) + (len >> 16) + (len & 0xffff);
    (family, sum)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::testing::work;

    fn read(options: &[u8]) -> Options {
        let mut work = work(&[]);
        let at = HANDSHAKE_AT as usize;
        work.bytes[at..at + options.len()].copy_from_slice(options);
        read_options(&work, options.len() as u32)
    }

    #[test]
    fn timestamps_and_signatures_are_found_anywhere() {
        let timestamps = [8, 10, 0, 1, 2, 3, 0, 0, 0, 9];
        let found = Options {
            timestamped: true,
            signed: false,
            timestamp: 0x0001_0203,
        };
        assert_eq!(read(&timestamps), found);
        let padded: Vec<u8> = [&[1, 1, 4, 2][..], &timestamps].concat();
        assert_eq!(read(&padded), found);
        assert!(read(&[1, 1, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).signed);
        assert!(read(&[29, 4, 0, 0]).signed);
    }

    #[test]
    fn broken_options_end_the_walk() {
        for options in [
            &[8, 0][..],
            &[8, 1],
            &[8, 12, 0, 0],
            &[0, 19, 18],
            &[8],
            &[],
        ] {
            assert_eq!(read(options), Options::default(), "{options:?}");
        }
        assert_eq!(read(&[1; 40]), Options::default());
    }

    #[test]
    fn options_survive_packing() {
        for (timestamped, signed, timestamp) in
            [(true, false, 7), (false, true, 0), (true, true, u32::MAX)]
        {
            let options = Options {
                timestamped,
                signed,
                timestamp,
            };
            assert_eq!(Options::unpack(options.pack()), options);
        }
    }
}
