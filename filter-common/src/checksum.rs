//! The Internet checksum (RFC 1071). The kernel program lets the kernel sum (`bpf_csum_diff`); this is what
//! the host build does instead, and what both fold with.

/// The ones' complement sum of `bytes` and of `start`, folded to 16 bits. A last odd byte counts as the
/// high half of a word.
pub fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut sum = u64::from(start);
    for word in bytes.chunks(2) {
        let low = word.get(1).copied().unwrap_or_default();
        sum += u64::from(u16::from_be_bytes([word[0], low]));
    }
    fold(sum)
}

/// A sum of 16-bit words, folded to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u32
}

/// Sum of the four 16-bit words of `x`.
#[inline(always)]
pub const fn words(x: u64) -> u32 {
    ((x >> 48) + (x >> 32 & 0xffff) + (x >> 16 & 0xffff) + (x & 0xffff)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_rfc_1071_style_examples_sums_to_all_ones() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(sum(&header, 0), 0xffff);
        assert_eq!(sum(&header[..10], sum(&header[10..], 0)), 0xffff);
    }

    #[test]
    fn an_odd_byte_is_the_high_half_of_a_word() {
        assert_eq!(sum(&[0x12, 0x34, 0x56], 0), 0x1234 + 0x5600);
    }

    #[test]
    fn any_sum_is_folded_whole() {
        for (sum, folded) in [
            (0, 0),
            (0xffff, 0xffff),
            (0x1_0000, 1),
            (0x1_ffff, 1),
            (u64::MAX, 0xffff),
        ] {
            assert_eq!(fold(sum), folded, "{sum:x}");
        }
    }
}
