//! The headers of a frame on the way to or from the block page: Ethernet, IPv4 without options or IPv6
//! without extension headers, TCP. Read and written with helpers, since only few frames come here.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use filter_common::{
    abi::FlowKey,
    checksum,
    flow::flags,
    wire::{self, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, TCP, TCP_LEN},
};

const IPV4_PLAIN: u32 = 0x45;
const IPV4_FRAGMENT: u32 = 0x3fff;

/// Where the sequence number is in a TCP header.
pub(super) const SEQ_AT: u32 = 4;

/// What is read of a frame.
pub(super) struct Frame {
    /// Addresses and ports, as the packet has them.
    pub(super) key: FlowKey,
    /// Where the TCP header starts.
    pub(super) transport: u32,
    /// Its length.
    pub(super) header_len: u32,
    /// Bytes of payload.
    pub(super) len: u32,
    /// Sequence number.
    pub(super) seq: u32,
    /// Acknowledgement number.
    pub(super) ack: u32,
    /// TCP flags.
    pub(super) flags: u8,
    /// The checksum field.
    checksum: u16,
    /// Sum of the pseudo-header without the length.
    pseudo: u32,
}

impl Frame {
    /// Reads the headers; `None` if they are not of this shape.
    #[inline(always)]
    pub(super) fn read(skb: *mut __sk_buff) -> Option<Self> {
        let mut ethertype = 0u16;
        if !load(skb, ETHERNET_LEN - 2, &mut ethertype) {
            return None;
        }
        let mut key = FlowKey {
            protocol: TCP,
            ..FlowKey::default()
        };
        let (transport, end) = match u16::from_be(ethertype) {
            ETHERTYPE_IPV4 => {
                let mut header = [0u32; 5];
                if !load(skb, ETHERNET_LEN, &mut header) {
                    return None;
                }
                let word = |i: usize| u32::from_be(header[i]);
                if word(0) >> 24 != IPV4_PLAIN
                    || word(1) & IPV4_FRAGMENT != 0
                    || word(2) >> 16 & 0xff != u32::from(TCP)
                {
                    return None;
                }
                let (src, dst) = (wire::mapped(word(3)), wire::mapped(word(4)));
                key.src = [src[0].to_be(), src[1].to_be()];
                key.dst = [dst[0].to_be(), dst[1].to_be()];
                (ETHERNET_LEN + IPV4_LEN, ETHERNET_LEN + (word(0) & 0xffff))
            }
            ETHERTYPE_IPV6 => {
                let mut header = [0u64; 5];
                if !load(skb, ETHERNET_LEN, &mut header) {
                    return None;
                }
                let first = u64::from_be(header[0]);
                if first >> 60 != 6 || first >> 8 & 0xff != u64::from(TCP) {
                    return None;
                }
                key.src = [header[1], header[2]];
                key.dst = [header[3], header[4]];
                let len = (first >> 16 & 0xffff) as u32;
                (ETHERNET_LEN + IPV6_LEN, ETHERNET_LEN + IPV6_LEN + len)
            }
            _ => return None,
        };
        let mut tcp = [0u32; 5];
        if !load(skb, transport, &mut tcp) {
            return None;
        }
        let word = |i: usize| u32::from_be(tcp[i]);
        key.src_port = (word(0) >> 16) as u16;
        key.dst_port = word(0) as u16;
        let header_len = (word(3) >> 28) * 4;
        let payload = transport + header_len;
        if header_len < TCP_LEN || payload > end {
            return None;
        }
        Some(Self {
            transport,
            header_len,
            len: end - payload,
            seq: word(1),
            ack: word(2),
            flags: (word(3) >> 16) as u8,
            checksum: (word(4) >> 16) as u16,
            pseudo: pseudo(&key, transport),
            key,
        })
    }

    /// Whether the packet is IPv4.
    #[inline(always)]
    pub(super) const fn is_v4(&self) -> bool {
        self.transport == ETHERNET_LEN + IPV4_LEN
    }

    /// Whether the checksum field holds the pseudo-header's sum: a device was to complete it.
    #[inline(always)]
    pub(super) fn is_partial(&self) -> bool {
        let len = self.header_len + self.len;
        let sum = checksum::fold(u64::from(self.pseudo) + u64::from(len));
        sum == u32::from(self.checksum)
    }

    /// Writes the lengths of a packet that ends at `end`.
    #[inline(always)]
    pub(super) fn set_length(&self, skb: *mut __sk_buff, end: u32) -> bool {
        if !self.is_v4() {
            let len = ((end - ETHERNET_LEN - IPV6_LEN) as u16).to_be();
            return store(skb, ETHERNET_LEN + 4, &len);
        }
        let mut header = [0u32; 5];
        if !load(skb, ETHERNET_LEN, &mut header) {
            return false;
        }
        let first = u32::from_be(header[0]) & 0xffff_0000 | (end - ETHERNET_LEN) & 0xffff;
        header[0] = first.to_be();
        // Lifetime and protocol stay, the checksum is made anew.
        let third = u32::from_be(header[2]) & 0xffff_0000;
        let mut sum = u64::from(third);
        sum += u64::from(first);
        for i in [1, 3, 4] {
            sum += u64::from(u32::from_be(header[i]));
        }
        header[2] = (third | !checksum::fold(sum) & 0xffff).to_be();
        store(skb, ETHERNET_LEN, &header)
    }

    /// Turns the TCP header, which nothing follows any more, into an RST with this sequence number.
    #[inline(always)]
    pub(super) fn write_reset(&self, skb: *mut __sk_buff, seq: u32) -> bool {
        let ports = u32::from(self.key.src_port) << 16 | u32::from(self.key.dst_port);
        let offset_and_flags = 5 << 28 | u32::from(flags::RST) << 16;
        let len = TCP_LEN;
        let sum = u64::from(self.pseudo)
            + u64::from(len)
            + u64::from(ports)
            + u64::from(seq)
            + u64::from(offset_and_flags);
        let checksum = !checksum::fold(sum) & 0xffff;
        let words = [
            ports.to_be(),
            seq.to_be(),
            0,
            offset_and_flags.to_be(),
            (checksum << 16).to_be(),
        ];
        store(skb, self.transport, &words)
    }
}

/// Sum of the pseudo-header's 16-bit words, without the length.
#[inline(always)]
fn pseudo(key: &FlowKey, transport: u32) -> u32 {
    let words = |x: u64| checksum::words(u64::from_be(x));
    let sum = words(key.src[0]) + words(key.src[1]) + words(key.dst[0]) + words(key.dst[1]);
    // The mapped form's constant words are taken off again.
    let mapped = if transport == ETHERNET_LEN + IPV4_LEN {
        2 * 0xffff
    } else {
        0
    };
    sum - mapped + u32::from(TCP)
}

/// Reads a value of the frame, in the frame's byte order.
#[inline(always)]
pub(super) fn load<T: Copy>(skb: *mut __sk_buff, offset: u32, to: &mut T) -> bool {
    let to: *mut c_void = ptr::from_mut(to).cast();
    // SAFETY: the context the kernel gave us, and room for as many bytes of integers.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to, size_of::<T>() as u32) == 0 }
}

/// Writes a value into the frame.
#[inline(always)]
pub(super) fn store<T: Copy>(skb: *mut __sk_buff, offset: u32, from: &T) -> bool {
    let from: *const c_void = ptr::from_ref(from).cast();
    // SAFETY: the context the kernel gave us, and as many bytes.
    unsafe { bpf_skb_store_bytes(skb, offset, from, size_of::<T>() as u32, 0) == 0 }
}
