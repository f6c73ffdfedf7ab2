//! The PROXY protocol's header before a hello (HAProxy's `proxy-protocol.txt`, versions 1 and 2):
//! what a load balancer puts before the client's bytes, on ports that the host configuration names.
//!
//! Only its end is looked for. What it says of addresses is not used: rules go by the packet's.

use crate::{
    limits::PROXY_HEADER_BYTES_MAX,
    work::{Memory, Work},
};

/// How every header of version 1 begins.
const V1_PREFIX: &[u8; 6] = b"PROXY ";
/// Section 2.1: the longest line of version 1, with its CRLF.
const V1_BYTES_MAX: u32 = 107;
/// Section 2.2: how every header of version 2 begins.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length of what follows.
const V2_FIXED_BYTES: u32 = 16;

/// What the beginning of a stream is: one scalar, for a function boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(u32);

impl Header {
    /// No header: the stream begins with something else.
    pub const NONE: Self = Self(0);
    /// A header, or the beginning of one, that goes on behind what is there.
    pub const INCOMPLETE: Self = Self(u32::MAX);
    /// A header that breaks its grammar or is too long.
    pub const MALFORMED: Self = Self(u32::MAX - 1);

    /// Bytes of a whole header; 0 for the other three.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        if self.0 <= PROXY_HEADER_BYTES_MAX {
            self.0
        } else {
            0
        }
    }

    /// Whether there is no byte of it.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// As a scalar.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.0 as u64
    }

    /// Back from [`Header::pack`].
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        Self(packed as u32)
    }
}

/// Whether a payload that starts with `first` can be the start of a header.
#[inline(always)]
pub const fn can_start_with(first: u8) -> bool {
    first == V1_PREFIX[0] || first == V2_SIGNATURE[0]
}

/// Looks for a header in the first `len` bytes of the stream.
#[inline(always)]
pub fn read<M: Memory>(work: &Work<M>, len: u32) -> Header {
    if len == 0 {
        return Header::INCOMPLETE;
    }
    match work.byte(0) {
        b'P' => version_1(work, len),
        b'\r' => version_2(work, len),
        _ => Header::NONE,
    }
}

/// One line. Strict receivers end it at CRLF, lenient ones might at either byte: anything but the two
/// together is refused.
#[inline(always)]
fn version_1<M: Memory>(work: &Work<M>, len: u32) -> Header {
    if let Some(decided) = decided_by_prefix(work, len, V1_PREFIX) {
        return decided;
    }
    for at in V1_PREFIX.len() as u32..V1_BYTES_MAX - 1 {
        if at >= len {
            return Header::INCOMPLETE;
        }
        match work.byte(at) {
            b'\r' if at + 1 >= len => return Header::INCOMPLETE,
            b'\r' if work.byte(at + 1) == b'\n' && has_family(work) => return Header(at + 2),
            b'\r' | b'\n' => return Header::MALFORMED,
            _ => {}
        }
    }
    Header::MALFORMED
}

/// `TCP4 `, `TCP6 ` or `UNKNOWN` behind the prefix of a whole line.
#[inline(always)]
fn has_family<M: Memory>(work: &Work<M>) -> bool {
    const TCP: u32 = 0x54_43_50;
    const UNK: u32 = 0x55_4e_4b;
    const NOW: u32 = 0x4e_4f_57;
    match work.be24(6) {
        TCP => matches!(work.byte(9), b'4' | b'6') && work.byte(10) == b' ',
        UNK => work.be24(9) == NOW && work.byte(12) == b'N',
        _ => false,
    }
}

#[inline(always)]
fn version_2<M: Memory>(work: &Work<M>, len: u32) -> Header {
    if let Some(decided) = decided_by_prefix(work, len, V2_SIGNATURE) {
        return decided;
    }
    if len < V2_FIXED_BYTES {
        return Header::INCOMPLETE;
    }
    // Version 2; the commands LOCAL and PROXY.
    if work.byte(12) & 0xfe != 0x20 {
        return Header::MALFORMED;
    }
    let whole = V2_FIXED_BYTES + work.be16(14);
    if whole > PROXY_HEADER_BYTES_MAX {
        return Header::MALFORMED;
    }
    if len < whole {
        return Header::INCOMPLETE;
    }
    Header(whole)
}

/// What a stream is that does not begin with `prefix`, or not yet; `None` if all of it is there.
#[inline(always)]
fn decided_by_prefix<M: Memory, const N: usize>(
    work: &Work<M>,
    len: u32,
    prefix: &[u8; N],
) -> Option<Header> {
    let mut at = 0;
    while at < N {
        if at as u32 >= len {
            return Some(Header::INCOMPLETE);
        }
        if work.byte(at as u32) != prefix[at] {
            return Some(Header::NONE);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{format, string::String, vec, vec::Vec};

    use super::*;
    use crate::testing::work;

    fn header(stream: &[u8]) -> Header {
        read(&work(stream), stream.len() as u32)
    }

    fn whole(len: usize) -> Header {
        Header(len as u32)
    }

    /// A header of version 2 with `more` behind its fixed part.
    fn version_2(command: u8, family: u8, more: &[u8]) -> Vec<u8> {
        let len = (more.len() as u16).to_be_bytes();
        [V2_SIGNATURE, &[command, family][..], &len, more].concat()
    }

    /// Section 2.1's examples, its longest line and the LF-only and CR-only ends that no sender makes.
    #[test]
    fn version_1_ends_with_its_line() {
        let longest = format!(
            "PROXY UNKNOWN {} {} 65535 65535\r\n",
            ["ffff"; 8].join(":"),
            ["ffff"; 8].join(":")
        );
        assert_eq!(longest.len(), 107);
        for line in [
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "PROXY TCP6 ffff::1 ffff::2 1 2\r\n",
            "PROXY UNKNOWN\r\n",
            &longest,
        ] {
            for behind in ["", "\x16\x03\x01", "GET / HTTP/1.1\r\n"] {
                let stream = format!("{line}{behind}");
                assert_eq!(header(stream.as_bytes()), whole(line.len()), "{stream:?}");
            }
            for cut in 1..line.len() {
                assert_eq!(
                    header(&line.as_bytes()[..cut]),
                    Header::INCOMPLETE,
                    "{line} {cut}"
                );
            }
        }
    }

    #[test]
    fn lines_that_receivers_may_read_differently_are_malformed() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nGET",
            "PROXY TCP4 192.0.2.1\r 192.0.2.2 1 2\r\n",
            "PROXY / HTTP/1.1\r\nHost: x\r\n",
            "PROXY TCP5 1\r\n",
            "PROXY \r\n",
            &long,
        ] {
            assert_eq!(header(line.as_bytes()), Header::MALFORMED, "{line:?}");
        }
    }

    #[test]
    fn version_2_ends_where_its_length_says() {
        let v4 = version_2(0x21, 0x11, &[0; 12]);
        let v6 = version_2(0x21, 0x21, &[0; 36]);
        let local = version_2(0x20, 0x00, &[]);
        let options = version_2(0x21, 0x11, &[0x5a; 600]);
        let longest = version_2(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES_MAX as usize - 16]);
        for bytes in [v4, v6, local, options, longest] {
            let stream = [&bytes[..], b"\x16\x03\x01"].concat();
            assert_eq!(header(&stream), whole(bytes.len()));
            for cut in (1..bytes.len()).step_by(1 + bytes.len() / 64) {
                assert_eq!(header(&bytes[..cut]), Header::INCOMPLETE, "{cut}");
            }
        }
    }

    #[test]
    fn version_2_of_another_version_command_or_size_is_malformed() {
        let too_long = version_2(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES_MAX as usize - 15]);
        for bytes in [
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x31, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            too_long,
        ] {
            assert_eq!(header(&bytes), Header::MALFORMED);
        }
    }

    #[test]
    fn other_beginnings_are_no_header() {
        for stream in [
            &b"\x16\x03\x01"[..],
            b"POST / HTTP/1.1\r\n",
            b"PROXX TCP4 ",
            b"\r\nGET / HTTP/1.1\r\n",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"proxy TCP4 ",
        ] {
            assert_eq!(
                header(stream),
                Header::NONE,
                "{}",
                String::from_utf8_lossy(stream)
            );
        }
    }

    #[test]
    fn headers_survive_packing() {
        for header in [
            Header::NONE,
            Header::INCOMPLETE,
            Header::MALFORMED,
            Header(107),
        ] {
            assert_eq!(Header::unpack(header.pack()), header);
        }
        assert!(Header::INCOMPLETE.is_empty() && Header::MALFORMED.is_empty());
    }
}
