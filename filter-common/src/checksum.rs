//! The Internet checksum (RFC 1071) over bytes fetched aside.

use crate::{
    limits::STREAM_BYTES_MAX,
    tls::Step,
    work::{HANDSHAKE_AT, Memory, Variable as _, Work},
};

/// Bytes that one step looks at.
pub const STEP_BYTES: u32 = 64;

/// Steps that a sum takes at most.
pub const STEPS_MAX: u32 = STREAM_BYTES_MAX as u32 / STEP_BYTES + 1;

/// State of a sum.
#[derive(Default)]
#[repr(C)]
pub struct Sum<M: Memory> {
    at: M::Var,
    left: M::Var,
    sum: M::Var,
}

/// Prepares the sum of `len` bytes fetched aside and of `start`.
#[inline(always)]
pub fn begin<M: Memory>(work: &Work<M>, len: u32, start: u32) {
    work.sum.at.set(HANDSHAKE_AT);
    work.sum.left.set(len);
    work.sum.sum.set(start);
}

/// Adds some words; a last odd byte counts as the high half of one. At most [`STEPS_MAX`] steps,
/// so that 32 bits hold the sum.
#[inline(always)]
pub fn step<M: Memory>(work: &mut Work<M>) -> Step {
    for _ in 0..STEP_BYTES / 2 {
        let left = work.sum.left.get();
        if left == 0 {
            return Step::Done;
        }
        let at = work.sum.at.get();
        if left == 1 {
            work.sum.sum.add(u32::from(work.byte(at)) << 8);
            work.sum.left.set(0);
            return Step::Done;
        }
        work.sum.sum.add(work.be16(at));
        work.sum.at.set(at + 2);
        work.sum.left.set(left - 2);
    }
    Step::Again
}

/// The sum, folded to 16 bits.
#[inline(always)]
pub fn finish<M: Memory>(work: &Work<M>) -> u32 {
    let mut sum = work.sum.sum.get();
    sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::work;

    fn sum(bytes: &[u8], start: u32) -> u32 {
        let mut work = work(&[]);
        let at = HANDSHAKE_AT as usize;
        work.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        begin(&work, bytes.len() as u32, start);
        for _ in 0..STEPS_MAX {
            if step(&mut work) == Step::Done {
                break;
            }
        }
        finish(&work)
    }

    #[test]
    fn the_header_of_rfc_1071_style_examples_sums_to_all_ones() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(sum(&header, 0), 0xffff);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000), start in 0u32..0x10_0000) {
            let mut padded: Vec<u8> = bytes.clone();
            if padded.len() % 2 == 1 {
                padded.push(0);
            }
            let mut expected = u64::from(start);
            for word in padded.chunks(2) {
                expected += u64::from(u16::from_be_bytes([word[0], word[1]]));
            }
            while expected > 0xffff {
                expected = (expected & 0xffff) + (expected >> 16);
            }
            prop_assert_eq!(u64::from(sum(&bytes, start)), expected);
        }
    }
}
