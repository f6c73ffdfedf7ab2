//! What the host itself knows of a connection: read from its sockets.

use core::arch::asm;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple, xdp_md},
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
    },
};
use filter_common::{
    abi::FlowKey,
    flow::{Peer, peer},
    wire,
};

use crate::{calls::work, rules::config};

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface that the frame came in on.
const CURRENT_NETNS: u64 = u64::MAX;

/// `TCP_LISTEN` and `TCP_NEW_SYN_RECV` of `net/tcp_states.h`.
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;

/// Writes what the host knows of the working area's flow to the working area.
#[inline(always)]
pub(crate) fn look_up(ctx: *mut xdp_md) {
    let Some(work) = work() else { return };
    work.peer = Peer::default();
    // SAFETY: a union of integers, all of which are set below as far as the helper reads it.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let len = fill(&mut tuple, &work.key);
    // SAFETY: the context the kernel gave us, and a tuple of the stated length.
    let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), &raw mut tuple, len, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return;
    }
    work.peer = read(socket);
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
}

/// Fills the tuple for a packet from the key's source; its length.
#[inline(always)]
fn fill(tuple: &mut bpf_sock_tuple, key: &FlowKey) -> u32 {
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
fn read(socket: *mut bpf_sock) -> Peer {
    let offsets = &config().sockets;
    // SAFETY: a socket that the lookup returned.
    match unsafe { (*socket).state } {
        LISTEN => Peer {
            kind: peer::LISTENER,
            ..Peer::default()
        },
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
