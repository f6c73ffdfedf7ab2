//! Programs that only the benchmark loads: a mutator that makes every packet another one before it
//! goes on to what is measured, and what the filter is compared with.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, xdp_action},
    helpers::bpf_redirect,
    macros::{map, xdp},
    maps::{Array, LpmTrie, PerCpuArray, ProgramArray, lpm_trie::Key},
    programs::XdpContext,
};

const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const UDP: u8 = 17;

/// Source addresses in the order in which they are used, as words in network byte order; IPv4 has
/// one. A power of two of them.
#[map]
static SOURCES: Array<[u32; 4]> = Array::with_max_entries(1 << 20, BPF_F_MMAPABLE);

/// The next source of each processor, and how many there are less one.
#[map]
static CURSOR: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// What is measured, if it handles frames of several buffers.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What is measured, if it does not: one array takes no programs of both kinds.
#[map]
static TARGET_LINEAR: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Blocked prefixes for [`lpm`].
#[map]
static LPM_V4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(2_000_000, BPF_F_NO_PREALLOC);

/// Likewise.
#[map]
static LPM_V6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(2_000_000, BPF_F_NO_PREALLOC);

/// Index of the interface that [`flood`] sends to.
#[map]
static EGRESS: Array<u32> = Array::with_max_entries(1, 0);

/// Gives the frame its next source address and goes on to [`TARGET`].
#[xdp(frags)]
fn mutate(ctx: XdpContext) -> u32 {
    next_source(&ctx);
    // SAFETY: a context of this program; on success the call does not return.
    unsafe { TARGET.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// Likewise, to [`TARGET_LINEAR`].
#[xdp]
fn mutate_linear(ctx: XdpContext) -> u32 {
    next_source(&ctx);
    // SAFETY: a context of this program; on success the call does not return.
    unsafe { TARGET_LINEAR.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// Gives the frame its next source address and sends it out.
#[xdp]
fn flood(ctx: XdpContext) -> u32 {
    next_source(&ctx);
    let Some(&interface) = EGRESS.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the helper takes any number, and answers with an action.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// Drops everything: as many packets as there can be.
#[xdp(frags)]
fn drop_all(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Passes everything: what all costs are the difference to.
#[xdp(frags)]
fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// As [`empty`], for a filter that takes single buffers only.
#[xdp]
fn empty_linear(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops what comes from a prefix in the kernel's own trie: how one would begin.
#[xdp(frags)]
fn lpm(ctx: XdpContext) -> u32 {
    let blocked = match source(&ctx) {
        Some(Source::V4(at)) => {
            // SAFETY: checked by `source`.
            let key = Key::new(32, unsafe { at.read_unaligned() });
            LPM_V4.get(&key).is_some()
        }
        Some(Source::V6(at)) => {
            // SAFETY: checked by `source`.
            let key = Key::new(128, unsafe { at.read_unaligned() });
            LPM_V6.get(&key).is_some()
        }
        None => false,
    };
    if blocked {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Where the source address lies.
enum Source {
    V4(*mut u32),
    V6(*mut [u32; 4]),
}

/// Bytes that every frame of the benchmark has at least.
const FRAME_LEN_MIN: usize = 74;

#[inline(always)]
fn source(ctx: &XdpContext) -> Option<Source> {
    let start = ctx.data();
    if start + FRAME_LEN_MIN > ctx.data_end() {
        return None;
    }
    // SAFETY: within the bytes just checked.
    let ethertype = unsafe { ((start + 12) as *const u16).read_unaligned() };
    match ethertype {
        ETHERTYPE_IPV4 => Some(Source::V4((start + ETHERNET_LEN + 12) as *mut u32)),
        ETHERTYPE_IPV6 => Some(Source::V6((start + ETHERNET_LEN + 8) as *mut [u32; 4])),
        _ => None,
    }
}

#[inline(always)]
fn next_source(ctx: &XdpContext) {
    let Some(cursor) = CURSOR.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: one test run at a time on a processor.
    let [next, mask] = unsafe { &mut *cursor };
    let Some(new) = SOURCES.get(*next & *mask) else {
        return;
    };
    *next = next.wrapping_add(1);
    let start = ctx.data();
    match source(ctx) {
        Some(Source::V4(at)) => {
            // SAFETY: all within FRAME_LEN_MIN bytes, which `source` has checked.
            unsafe {
                let change = change(at.read_unaligned(), new[0]);
                at.write_unaligned(new[0]);
                fix((start + ETHERNET_LEN + 10) as *mut u16, change);
                let protocol = ((start + ETHERNET_LEN + 9) as *const u8).read();
                fix(
                    (start + ETHERNET_LEN + 20 + sum_at(protocol)) as *mut u16,
                    change,
                );
            }
        }
        Some(Source::V6(at)) => {
            // SAFETY: likewise.
            unsafe {
                let old = at.read_unaligned();
                let mut all = 0;
                for i in 0..4 {
                    all += change(old[i], new[i]);
                }
                at.write_unaligned(*new);
                let protocol = ((start + ETHERNET_LEN + 6) as *const u8).read();
                fix(
                    (start + ETHERNET_LEN + 40 + sum_at(protocol)) as *mut u16,
                    all,
                );
            }
        }
        None => {}
    }
}

/// Where the transport's checksum lies in its header.
#[inline(always)]
fn sum_at(protocol: u8) -> usize {
    if protocol == UDP { 6 } else { 16 }
}

/// What a changed word adds to a sum (RFC 1624).
#[inline(always)]
fn change(old: u32, new: u32) -> u64 {
    u64::from(!old) + u64::from(new)
}

/// Updates a checksum.
///
/// # Safety
///
/// `at` is valid for reading and writing.
#[inline(always)]
unsafe fn fix(at: *mut u16, change: u64) {
    // SAFETY: the caller's promise.
    let old = unsafe { at.read_unaligned() };
    let mut sum = u64::from(!old) + change;
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: the caller's promise.
    unsafe { at.write_unaligned(!(sum as u16)) };
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program with a reachable loop like this one.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
