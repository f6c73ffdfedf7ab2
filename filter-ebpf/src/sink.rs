//! The programs at both ends of the way to the block page's namespace (tc, ingress).
//!
//! `sink_in`, at the page's end, gives the first segment of a connection that was taken over to the
//! server that listens there, so that the kernel makes an established socket of it and the server just
//! accepts. Where the kernel cannot, `sink_repair` is in its place, and tells a process what it needs to make
//! such a socket. `sink_out`, at the edge's end, sends what the page answers straight to where the client's
//! frames came from: by routing it would meet connection tracking that never saw the page's half.

mod frame;
mod kfunc;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_CSUM_LEVEL_INC, BPF_F_INGRESS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_level, bpf_redirect, bpf_sk_release, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_skb_vlan_push, bpf_skc_lookup_tcp,
        bpf_skc_to_tcp_sock,
    },
    macros::classifier,
    programs::TcContext,
};
use filter_common::{
    abi::{FlowKey, Handover, Sink, Taken, sink, taken},
    flow::flags,
    limits::{PAGE_MSS_V4, PAGE_MSS_V6, PAGE_WINDOW_SCALE, STAMP_AHEAD, TAKEN_HELLO_BYTES_MAX},
    respond::counted::Answer,
    wire::TCP_LEN,
};

use self::frame::{Frame, load, store};
use crate::{
    maps,
    packet::one_to,
    respond::count,
    sockets::{self, CURRENT_NETNS, LISTEN},
    state::lookup,
    taken as connections,
};

/// `TC_ACT_OK` and `TC_ACT_SHOT` of linux/pkt_cls.h.
const PASS: i32 = 0;
const DROP: i32 = 2;

/// Where the window is in a TCP header.
const WINDOW_AT: u32 = 14;

/// Bytes of a timestamps option behind two that do nothing, and how they begin.
const TIMESTAMPS_LEN: u32 = 12;
const TIMESTAMPS: u32 = 0x0101_080a;

/// At the page's end, where the kernel takes connections over.
#[classifier]
fn sink_in(ctx: TcContext) -> i32 {
    come_in::<ByKernel>(ctx.skb.skb)
}

/// At the page's end, where a process makes the sockets.
#[classifier]
fn sink_repair(ctx: TcContext) -> i32 {
    come_in::<ByProcess>(ctx.skb.skb)
}

/// How a connection is handed to the page's server.
trait HandOver {
    /// Whether its socket is there when the next segment comes.
    const IS_AT_ONCE: bool;

    /// Hands over a connection with the segment, of which `socket` listens on the port.
    fn hand_over(skb: *mut __sk_buff, frame: &Frame, entry: &Taken, socket: *mut bpf_sock) -> i32;
}

#[inline(always)]
fn come_in<H: HandOver>(skb: *mut __sk_buff) -> i32 {
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
    arrive::<H>(skb, &frame, entry)
}

/// A segment of a connection that was taken over.
#[inline(always)]
fn arrive<H: HandOver>(skb: *mut __sk_buff, frame: &Frame, entry: &mut Taken) -> i32 {
    let is_bare = frame.len == 0;
    let begins = !is_bare && (frame.seq == entry.seq || frame.seq == entry.start);
    if H::IS_AT_ONCE && !begins && !is_bare {
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
        if !begins {
            return dropped(Answer::SinkStray);
        }
        // This connection only: other ports may be served. When the client sends its hello again it is
        // told.
        entry.state = taken::REFUSED;
        return dropped(Answer::SinkNobody);
    }
    // SAFETY: a socket that the lookup returned.
    let listens = unsafe { (*socket).state } == LISTEN;
    if !listens && is_bare && frame.ack != entry.ack {
        entry.flags |= taken::flag::HEARD;
    }
    let action = match (listens, begins) {
        // A connection before on the same ports, whose client left without a word. When this one sends its
        // hello again it is told.
        (false, true) if entry.flags & taken::flag::SERVER_RESET == 0 => {
            entry.state = taken::REFUSED;
            dropped(Answer::SinkRefused)
        }
        (false, _) => PASS,
        // Sent again by somebody who saw it, after the end of the connection.
        (true, true) if entry.flags & taken::flag::HEARD != 0 => dropped(Answer::SinkStray),
        // There was no room for it at first, and now it is not to wait. When it comes once more it is told.
        (true, true) if is_busy() => {
            entry.state = taken::REFUSED;
            dropped(Answer::SinkRefused)
        }
        (true, true) => {
            end_server(skb, entry);
            match frame.seq == entry.start || put_in_front(skb, frame, entry) {
                true => H::hand_over(skb, frame, entry, socket),
                false => dropped(Answer::SinkRefused),
            }
        }
        // To a listener it means nothing, and it would answer with an RST.
        (true, false) if H::IS_AT_ONCE && frame.flags & flags::FIN != 0 => PASS,
        (true, false) => dropped(Answer::SinkStray),
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

/// Ends the server's half, once.
#[inline(always)]
fn end_server(skb: *mut __sk_buff, entry: &mut Taken) {
    if entry.flags & taken::flag::SERVER_RESET == 0 {
        entry.flags |= taken::flag::SERVER_RESET;
        // At the other end it becomes the RST.
        // SAFETY: the context the kernel gave us, and its own device.
        unsafe { bpf_clone_redirect(skb, (*skb).ifindex, 0) };
    }
}

/// The segment, with what the server had before it in front, opens a connection at the listening socket.
struct ByKernel;

impl HandOver for ByKernel {
    const IS_AT_ONCE: bool = true;

    #[inline(always)]
    fn hand_over(skb: *mut __sk_buff, frame: &Frame, _: &Taken, socket: *mut bpf_sock) -> i32 {
        // SAFETY: a socket that the lookup returned.
        let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
        if tcp.is_null() {
            return dropped(Answer::SinkRefused);
        }
        let mut attributes = kfunc::RequestAttributes {
            mss: if frame.is_v4() {
                PAGE_MSS_V4
            } else {
                PAGE_MSS_V6
            },
            wscale_ok: 1,
            snd_wscale: PAGE_WINDOW_SCALE,
            ..kfunc::RequestAttributes::default()
        };
        let mut stamps = [0; 2];
        if timestamps(skb, frame, &mut stamps) {
            attributes.tstamp_ok = 1;
            let [stamp, echo] = stamps;
            attributes.rcv_tsval = stamp;
            // The page's clock goes on from here.
            attributes.rcv_tsecr = echo.wrapping_add(STAMP_AHEAD);
        }
        if !kfunc::assign(skb, tcp.cast(), &mut attributes) {
            return dropped(Answer::SinkRefused);
        }
        count(Answer::SinkAssigned);
        PASS
    }
}

/// A process is told of the connection; the segment is not needed any more.
struct ByProcess;

impl HandOver for ByProcess {
    const IS_AT_ONCE: bool = false;

    #[inline(always)]
    fn hand_over(skb: *mut __sk_buff, frame: &Frame, entry: &Taken, _: *mut bpf_sock) -> i32 {
        let before = frame.seq.wrapping_sub(entry.start);
        let whole = before.wrapping_add(frame.len);
        let Some(len) = one_to::<{ TAKEN_HELLO_BYTES_MAX as u64 }>(whole) else {
            return dropped(Answer::SinkRefused);
        };
        let mut window = 0u16;
        if !load(skb, frame.transport + WINDOW_AT, &mut window) {
            return dropped(Answer::SinkRefused);
        }
        let mut stamps = [0; 2];
        let has_stamps = timestamps(skb, frame, &mut stamps);
        let Some(mut record) = maps::HANDOVERS.reserve::<Handover>(0) else {
            return dropped(Answer::SinkQueueFull);
        };
        let to = record.as_mut_ptr();
        // SAFETY: the reserved record, and `len` bytes of a hello that long.
        let is_read = unsafe {
            (*to).key = frame.key;
            (*to).start = entry.start;
            (*to).ack = entry.ack;
            (*to).window = u16::from_be(window);
            (*to).len = len as u16;
            (*to).flags = u32::from(has_stamps) * Handover::TIMESTAMPS;
            (*to).timestamps = stamps;
            let hello = (&raw mut (*to).hello).cast();
            let payload = frame.transport + frame.header_len;
            bpf_skb_load_bytes(skb.cast(), payload, hello, len as u32) == 0
        };
        if !is_read {
            record.discard(0);
            return dropped(Answer::SinkRefused);
        }
        record.submit(0);
        dropped(Answer::SinkTold)
    }
}

/// Writes the client's timestamp and the one that it gives back, where the option is as it usually is; `false`
/// if it is not. (What an `Option` has beside `None` is undefined, and the verifier refuses to store it.)
#[inline(always)]
fn timestamps(skb: *mut __sk_buff, frame: &Frame, to: &mut [u32; 2]) -> bool {
    let at = frame.transport + TCP_LEN;
    let mut kind = 0u32;
    if frame.header_len < TCP_LEN + TIMESTAMPS_LEN
        || !load(skb, at, &mut kind)
        || u32::from_be(kind) != TIMESTAMPS
        || !load(skb, at + size_of::<u32>() as u32, to)
    {
        return false;
    }
    *to = [u32::from_be(to[0]), u32::from_be(to[1])];
    true
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
            && bpf_skb_store_bytes(skb, payload, kept.cast(), len as u32, 0) == 0
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
    let answered = connections::load(&of_client).or_else(|| connections::of_origin(&of_client));
    if let Some(entry) = answered {
        return reply(skb, &frame, &entry);
    }
    match connections::load(&frame.key) {
        Some(entry) if entry.state == taken::PAGE => reset_server(skb, &frame, &entry),
        _ => dropped(Answer::SinkOther),
    }
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
