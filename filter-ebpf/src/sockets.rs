//! What the host itself knows of a connection: read from its sockets.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple, xdp_md},
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
        bpf_tcp_check_syncookie, bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
        bpf_xdp_load_bytes,
    },
};
use filter_common::{
    abi::{FlowKey, feature},
    flow::{Peer, Segment, flags, peer},
    wire::{self, TCP_LEN},
    work::{HANDSHAKE_AT, Variable as _},
};

use crate::{
    calls::work,
    rules::{config, has},
};

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface that the frame came in on.
pub(crate) const CURRENT_NETNS: u64 = u64::MAX;

/// `TCP_LISTEN` and `TCP_NEW_SYN_RECV` of `net/tcp_states.h`.
pub(crate) const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;

/// Bytes of an IPv6 header; an IPv4 header and the start of TCP's are as long.
const NETWORK_LEN: u32 = 40;

/// Writes what the host knows of the working area's flow, to which `segment` belongs, to the
/// working area.
#[inline(always)]
pub(crate) fn look_up(ctx: *mut xdp_md, segment: Segment) {
    let Some(work) = work() else { return };
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    // SAFETY: both are made of integers of 32 bits and less.
    let tuple = unsafe {
        clear(&raw mut work.peer);
        clear(tuple.as_mut_ptr());
        tuple.assume_init_mut()
    };
    work.queued.set(0);
    let len = fill(tuple, &work.key);
    // SAFETY: the context the kernel gave us, and a tuple of the stated length.
    let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple, len, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return;
    }
    work.peer = read(ctx, socket, segment);
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
}

/// Zeros, word by word: a call of `memset` would cost stack, of which the callers leave none.
///
/// # Safety
///
/// Valid for writes, aligned to four bytes, and fine with zeros.
#[inline(always)]
unsafe fn clear<T>(to: *mut T) {
    for word in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: within `T`.
        unsafe { to.cast::<u32>().add(word).write_volatile(0) };
    }
}

/// Fills the tuple for a packet from the key's source; its length.
#[inline(always)]
pub(crate) fn fill(tuple: &mut bpf_sock_tuple, key: &FlowKey) -> u32 {
    let (src_port, dst_port) = (key.src_port.to_be(), key.dst_port.to_be());
    let (src, dst) = (
        [u64::from_be(key.src[0]), u64::from_be(key.src[1])],
        [u64::from_be(key.dst[0]), u64::from_be(key.dst[1])],
    );
    if wire::is_mapped(src) && wire::is_mapped(dst) {
        // SAFETY: writing integers to a union of integers.
        let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        ipv4.saddr = (src[1] as u32).to_be();
        ipv4.daddr = (dst[1] as u32).to_be();
        ipv4.sport = src_port;
        ipv4.dport = dst_port;
        return size_of_val(ipv4) as u32;
    }
    // SAFETY: writing integers to a union of integers.
    let ipv6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
    let halves = |x: u64| [((x >> 32) as u32).to_be(), (x as u32).to_be()];
    let ([s0, s1], [s2, s3]) = (halves(src[0]), halves(src[1]));
    let ([d0, d1], [d2, d3]) = (halves(dst[0]), halves(dst[1]));
    ipv6.saddr = [s0, s1, s2, s3];
    ipv6.daddr = [d0, d1, d2, d3];
    ipv6.sport = src_port;
    ipv6.dport = dst_port;
    size_of_val(ipv6) as u32
}

#[inline(always)]
fn read(ctx: *mut xdp_md, socket: *mut bpf_sock, segment: Segment) -> Peer {
    let offsets = &config().sockets;
    // SAFETY: a socket that the lookup returned.
    match unsafe { (*socket).state } {
        // A flood of SYNs costs nothing more.
        LISTEN if segment.len == 0 || segment.flags & flags::SYN != 0 => listener(peer::LISTENER),
        LISTEN => at_listener(ctx, socket, segment),
        NEW_SYN_RECV => {
            // SAFETY: a socket that the lookup returned.
            let request = unsafe { bpf_skc_to_tcp_request_sock(socket.cast()) };
            if request.is_null() {
                return Peer::default();
            }
            let start = field(request.cast(), offsets.request_rcv_isn).wrapping_add(1);
            let sent = field(request.cast(), offsets.request_snt_isn).wrapping_add(1);
            Peer {
                kind: peer::CONNECTION,
                start,
                rcv_nxt: start,
                snd_una: sent,
                snd_nxt: sent,
                ts_recent: field(request.cast(), offsets.request_ts_recent),
            }
        }
        _ => {
            // SAFETY: a socket that the lookup returned.
            let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
            if tcp.is_null() {
                return Peer::default();
            }
            if has(feature::RESPOND)
                && let Some(work) = work()
            {
                let queued = field(tcp.cast(), offsets.write_seq)
                    .wrapping_sub(field(tcp.cast(), offsets.snd_nxt));
                work.queued.set(queued);
            }
            let rcv_nxt = field(tcp.cast(), offsets.rcv_nxt);
            Peer {
                kind: peer::CONNECTION,
                start: rcv_nxt.wrapping_sub(field(tcp.cast(), offsets.bytes_received)),
                rcv_nxt,
                snd_una: field(tcp.cast(), offsets.snd_una),
                snd_nxt: field(tcp.cast(), offsets.snd_nxt),
                ts_recent: field(tcp.cast(), offsets.ts_recent),
            }
        }
    }
}

#[inline(always)]
fn listener(kind: u32) -> Peer {
    Peer {
        kind,
        ..Peer::default()
    }
}

/// What a listening socket will make of payload: under SYN cookies, a segment with a right cookie
/// opens the connection, and its sequence number is the start (`cookie_v4_check`).
#[inline(always)]
fn at_listener(ctx: *mut xdp_md, socket: *mut bpf_sock, segment: Segment) -> Peer {
    let Some(work) = work() else {
        return Peer::default();
    };
    // SAFETY: the area for fetched bytes is larger than both headers.
    let (network, tcp) = unsafe {
        let network = work.bytes.as_mut_ptr().add(HANDSHAKE_AT as usize);
        (network, network.add(NETWORK_LEN as usize))
    };
    // SAFETY: the context the kernel gave us, and room for as many bytes.
    let loaded = unsafe {
        let (from, to) = (u32::from(segment.network), network.cast());
        bpf_xdp_load_bytes(ctx, from, to, NETWORK_LEN) == 0
    };
    // SAFETY: as before.
    let loaded = loaded
        && unsafe {
            let (from, to) = (u32::from(segment.transport), tcp.cast());
            bpf_xdp_load_bytes(ctx, from, to, TCP_LEN) == 0
        };
    if !loaded {
        return listener(peer::LISTENER);
    }
    if has_cookie(socket, network, tcp) {
        return Peer {
            start: segment.seq,
            rcv_nxt: segment.seq,
            snd_una: segment.ack,
            snd_nxt: segment.ack,
            ..listener(peer::COOKIE)
        };
    }
    let ipv4 = wire::is_mapped([u64::from_be(work.key.src[0]), u64::from_be(work.key.src[1])]);
    if takes_cookies(socket, network, tcp, ipv4, segment.seq) {
        return listener(peer::NO_COOKIE);
    }
    listener(peer::LISTENER)
}

/// Whether the socket takes the acknowledgement in these headers for its cookie.
#[inline(always)]
fn has_cookie(socket: *mut bpf_sock, network: *mut u8, tcp: *mut u8) -> bool {
    // SAFETY: a socket that the lookup returned, and headers of these lengths.
    unsafe {
        bpf_tcp_check_syncookie(
            socket.cast(),
            network.cast(),
            NETWORK_LEN,
            tcp.cast(),
            TCP_LEN,
        ) == 0
    }
}

/// Whether the socket takes cookies at all: a right one is made in the place of these headers.
#[inline(always)]
fn takes_cookies(
    socket: *mut bpf_sock,
    network: *mut u8,
    tcp: *mut u8,
    ipv4: bool,
    seq: u32,
) -> bool {
    const SEQ: usize = 4;
    const ACK: usize = 8;
    const OFFSET_AND_FLAGS: usize = 12;
    // SAFETY: `tcp` has TCP_LEN bytes and is aligned to four, the headers have these lengths.
    unsafe {
        let header = u16::from_be_bytes([(TCP_LEN as u8 / 4) << 4, flags::ACK]);
        tcp.add(OFFSET_AND_FLAGS)
            .cast::<u16>()
            .write_volatile(header.to_be());
        let cookie = if ipv4 {
            bpf_tcp_raw_gen_syncookie_ipv4(network.cast(), tcp.cast(), TCP_LEN)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv6(network.cast(), tcp.cast(), TCP_LEN)
        };
        // The cookie is the host's number in its SYN-ACK for a SYN with `seq`.
        let words = [(SEQ, seq), (ACK, cookie as u32)];
        for (at, number) in words {
            let number = number.wrapping_add(1).to_be();
            tcp.add(at).cast::<u32>().write_volatile(number);
        }
    }
    has_cookie(socket, network, tcp)
}

/// The 32-bit field at `offset` of a kernel structure. The verifier knows the structure's type
/// from the pointer and the offset from the frozen constants, and checks one against the other.
#[inline(always)]
fn field(structure: *const u8, offset: u32) -> u32 {
    let value: u64;
    let at = structure.wrapping_add(offset as usize);
    // SAFETY: a load that the verifier checks.
    unsafe {
        asm!("{v} = *(u32 *)({p} + 0)", v = out(reg) value, p = in(reg) at, options(readonly, nostack, preserves_flags));
    }
    value as u32
}
