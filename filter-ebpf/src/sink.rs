//! The programs at both ends of the way to the block page's namespace (tc, ingress).
//!
//! `sink_in`, at the page's end, gives the first segment of a connection that was taken over to the
//! server that listens there, so that the kernel makes an established socket of it and the server just
//! accepts. `sink_out`, at the edge's end, sends what the page answers straight to where the client's
//! frames came from: by routing it would meet connection tracking that never saw the page's half.

mod frame;
mod kfunc;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_CSUM_LEVEL_INC, BPF_F_INGRESS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_level, bpf_redirect, bpf_sk_release, bpf_skb_change_tail,
        bpf_skb_vlan_push, bpf_skc_lookup_tcp, bpf_skc_to_tcp_sock,
    },
    macros::classifier,
    programs::TcContext,
};
use filter_common::{
    abi::{FlowKey, Sink, Taken, sink, taken},
    flow::flags,
    limits::TAKEN_HELLO_BYTES_MAX,
    respond::counted::Answer,
};

use self::frame::{Frame, load, store};
use crate::{maps, packet::one_to, respond::count, sockets, state::lookup, taken as connections};

/// `TC_ACT_OK` and `TC_ACT_SHOT` of linux/pkt_cls.h.
const PASS: i32 = 0;
const DROP: i32 = 2;

/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: u32 = 10;

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface that the frame came in on.
const CURRENT_NETNS: u64 = u64::MAX;

/// Bytes of a TCP header without options.
const TCP_LEN: u32 = 20;

/// The client's side of a connection whose SYN was not seen: segments that any path takes, a window that
/// is scaled as nearly everybody's is (too large a guess makes the page's few packets no more).
const MSS_V4: u16 = 1_200;
const MSS_V6: u16 = 1_220;
const WINDOW_SCALE: u8 = 8;

/// Bytes of a timestamps option behind two that do nothing, and how they begin.
const TIMESTAMPS_LEN: u32 = 12;
const TIMESTAMPS: u32 = 0x0101_080a;

/// At the page's end.
#[classifier]
fn sink_in(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(frame) = Frame::read(skb) else {
        return dropped(Answer::SinkStray);
    };
    if frame.is_partial() {
        trust_checksum(skb);
    }
    if frame.flags & (flags::SYN | flags::RST) != 0 {
        return PASS;
    }
    let Some(entry) = connections::entry(&frame.key) else {
        // The page is the server of a blocked address.
        return PASS;
    };
    if entry.state != taken::PAGE {
        return dropped(Answer::SinkStray);
    }
    arrive(skb, &frame, entry)
}

/// A segment of a connection that was taken over.
#[inline(always)]
fn arrive(skb: *mut __sk_buff, frame: &Frame, entry: &mut Taken) -> i32 {
    let begins = frame.seq == entry.seq || frame.seq == entry.start;
    let is_bare = frame.len == 0;
    if !begins && !is_bare {
        // Behind the first in the same batch there is no socket yet, and will be when this gets there.
        return PASS;
    }
    let mut tuple = [0u8; size_of::<bpf_sock_tuple>()];
    let tuple: *mut bpf_sock_tuple = (&raw mut tuple).cast();
    // SAFETY: as large as a tuple, which is made of integers and aligned to four.
    let len = sockets::fill(unsafe { &mut *tuple }, &frame.key);
    // SAFETY: the context the kernel gave us, and a tuple of the stated length.
    let socket = unsafe { bpf_skc_lookup_tcp(skb.cast(), tuple, len, CURRENT_NETNS, 0) };
    if socket.is_null() {
        if !is_bare && let Some(sink) = maps::SINK.get_ptr_mut(0) {
            // Nobody serves the page: from now on it is refused.
            // SAFETY: an aligned word of the map.
            unsafe { (&raw mut (*sink.cast::<Sink>()).state).write_volatile(sink::DOWN) };
        }
        return dropped(if is_bare {
            Answer::SinkStray
        } else {
            Answer::SinkRefused
        });
    }
    // SAFETY: a socket that the lookup returned.
    let listens = unsafe { (*socket).state } == LISTEN;
    if !listens && is_bare && frame.ack != entry.ack {
        entry.flags |= taken::flag::HEARD;
    }
    let action = match (listens, is_bare) {
        // A connection before on the same ports, whose client left without a word. When this one sends its
        // hello again it is told.
        (false, false) if entry.flags & taken::flag::SERVER_RESET == 0 => {
            entry.state = taken::REFUSED;
            dropped(Answer::SinkRefused)
        }
        (false, _) => PASS,
        // To a listener it means nothing, and it would answer with an RST.
        (true, true) if frame.flags & flags::FIN == 0 => dropped(Answer::SinkStray),
        (true, true) => PASS,
        // Sent again by somebody who saw it, after the end of the connection.
        (true, false) if entry.flags & taken::flag::HEARD != 0 => dropped(Answer::SinkStray),
        // There was no room for it at first, and now it is not to wait. When it comes once more it is told.
        (true, false) if is_busy() => {
            entry.state = taken::REFUSED;
            dropped(Answer::SinkRefused)
        }
        (true, false) => assign(skb, frame, entry, socket),
    };
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    action
}

/// Whether who is not yet at the page is to be refused.
#[inline(always)]
fn is_busy() -> bool {
    let sink = maps::SINK.get(0);
    sink.is_some_and(|sink: &Sink| sink.state == sink::BUSY)
}

/// Gives the segment, with what the server had before it in front, to a listening socket.
#[inline(always)]
fn assign(skb: *mut __sk_buff, frame: &Frame, entry: &mut Taken, socket: *mut bpf_sock) -> i32 {
    if entry.flags & taken::flag::SERVER_RESET == 0 {
        entry.flags |= taken::flag::SERVER_RESET;
        // At the other end it becomes the RST that ends the server's half.
        // SAFETY: the context the kernel gave us, and its own device.
        unsafe { bpf_clone_redirect(skb, (*skb).ifindex, 0) };
    }
    if frame.seq != entry.start && !put_in_front(skb, frame, entry) {
        return dropped(Answer::SinkRefused);
    }
    // SAFETY: a socket that the lookup returned.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return dropped(Answer::SinkRefused);
    }
    let mut attributes = kfunc::RequestAttributes {
        mss: if frame.is_v4() { MSS_V4 } else { MSS_V6 },
        wscale_ok: 1,
        snd_wscale: WINDOW_SCALE,
        ..kfunc::RequestAttributes::default()
    };
    if frame.header_len >= TCP_LEN + TIMESTAMPS_LEN {
        let mut options = [0u32; 3];
        if load(skb, frame.transport + TCP_LEN, &mut options)
            && u32::from_be(options[0]) == TIMESTAMPS
        {
            attributes.tstamp_ok = 1;
            attributes.rcv_tsval = u32::from_be(options[1]);
            attributes.rcv_tsecr = u32::from_be(options[2]);
        }
    }
    if !kfunc::assign(skb, tcp.cast(), &mut attributes) {
        return dropped(Answer::SinkRefused);
    }
    count(Answer::SinkAssigned);
    PASS
}

/// Makes the segment begin where the page's server begins to read.
#[inline(always)]
fn put_in_front(skb: *mut __sk_buff, frame: &Frame, entry: &Taken) -> bool {
    let kept = lookup(&raw const maps::TAKEN_HELLOS, &frame.key);
    if kept.is_null() {
        return false;
    }
    let before = frame.seq.wrapping_sub(entry.start);
    let Some(len) = one_to::<{ TAKEN_HELLO_BYTES_MAX as u64 }>(before.wrapping_add(frame.len))
    else {
        return false;
    };
    let payload = frame.transport + frame.header_len;
    // SAFETY: the context the kernel gave us, and `len` bytes of an element that long.
    let grown = unsafe {
        bpf_skb_change_tail(skb, payload + len as u32, 0) == 0
            && aya_ebpf::helpers::generated::bpf_skb_store_bytes(
                skb,
                payload,
                kept.cast(),
                len as u32,
                0,
            ) == 0
    };
    if !grown || !frame.set_length(skb, payload + len as u32) {
        return false;
    }
    let start = entry.start.to_be();
    if !store(skb, frame.transport + frame::SEQ_AT, &start) {
        return false;
    }
    // The bytes were checked when they came in, those of the last segment included.
    if !frame.is_partial() {
        trust_checksum(skb);
    }
    true
}

/// The kernel takes the TCP checksum for verified: frames of senders on this machine carry an unfinished
/// one, and nothing that only came by wire has that.
#[inline(always)]
fn trust_checksum(skb: *mut __sk_buff) {
    // SAFETY: the context the kernel gave us.
    unsafe { bpf_csum_level(skb, u64::from(BPF_CSUM_LEVEL_INC)) };
}

/// At the edge's end.
#[classifier]
fn sink_out(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(frame) = Frame::read(skb) else {
        return dropped(Answer::SinkOther);
    };
    let of_client = FlowKey {
        src: frame.key.dst,
        dst: frame.key.src,
        src_port: frame.key.dst_port,
        dst_port: frame.key.src_port,
        ..frame.key
    };
    if let Some(entry) = answered(&of_client) {
        return reply(skb, &frame, &entry);
    }
    match connections::load(&frame.key) {
        Some(entry) if entry.state == taken::PAGE => reset_server(skb, &frame, &entry),
        _ => dropped(Answer::SinkOther),
    }
}

/// The connection of a client that the page answers.
#[inline(always)]
fn answered(key: &FlowKey) -> Option<Taken> {
    if let Some(entry) = connections::load(key) {
        return Some(entry);
    }
    let entry: *const Taken = lookup(&raw const maps::ORIGIN_CLIENTS, key).cast();
    // SAFETY: an element of the map or null, valid until the program returns.
    unsafe { entry.as_ref().copied() }
}

/// What the page sends to a client.
#[inline(always)]
fn reply(skb: *mut __sk_buff, frame: &Frame, entry: &Taken) -> i32 {
    if frame.flags & (flags::RST | flags::ACK) == flags::RST {
        // "No such socket": the client is not to hear of it.
        return dropped(Answer::SinkStray);
    }
    if !address(skb, entry, &entry.client_mac, &entry.edge_mac) {
        return dropped(Answer::Failed);
    }
    count(Answer::SinkReply);
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(entry.interface, 0) as i32 }
}

/// The copy of the segment that was taken over becomes an RST to the server, as if from the client's
/// interface.
#[inline(always)]
fn reset_server(skb: *mut __sk_buff, frame: &Frame, entry: &Taken) -> i32 {
    let end = frame.transport + TCP_LEN;
    // SAFETY: the context the kernel gave us.
    let cut = unsafe { bpf_skb_change_tail(skb, end, 0) == 0 };
    let made = cut
        && frame.set_length(skb, end)
        && frame.write_reset(skb, entry.next)
        && address(skb, entry, &entry.edge_mac, &entry.client_mac);
    if !made {
        return dropped(Answer::Failed);
    }
    count(Answer::SinkServerReset);
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(entry.interface, u64::from(BPF_F_INGRESS)) as i32 }
}

/// Writes the link header that the frames of the connection have.
#[inline(always)]
fn address(skb: *mut __sk_buff, entry: &Taken, to: &[u8; 6], from: &[u8; 6]) -> bool {
    if !store(skb, 0, to) || !store(skb, 6, from) {
        return false;
    }
    if entry.flags & taken::flag::TAGGED == 0 {
        return true;
    }
    let (kind, control) = ((entry.tag >> 16) as u16, entry.tag as u16);
    // SAFETY: the context the kernel gave us.
    unsafe { bpf_skb_vlan_push(skb, kind.to_be(), control) == 0 }
}

#[inline(always)]
fn dropped(answer: Answer) -> i32 {
    count(answer);
    DROP
}
