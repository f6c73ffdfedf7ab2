//! Refusing: one frame is answered with one frame, as [`filter_common::respond`] says.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
        bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use filter_common::{
    abi::{Response, Taken, taken as state},
    reason::Reason,
    respond::{
        Cause, DRAFT_BYTES, Draft, Occasion, REPLY_BYTES_MAX, Refusal, Reply, compose,
        counted::Answer, plan,
    },
    wire::{self, Packet},
};

use crate::{
    kernel::Kernel,
    maps::{self, Desk, LINK_BYTES_MAX},
    packet::{one_to, opaque},
    respond::{Answerable, count},
    taken,
};

/// Bytes of a MAC address.
const MAC: usize = 6;

/// Answers the frame; the XDP action.
#[inline(always)]
pub(crate) fn answer(frame: &Answerable<'_>) -> u32 {
    let (action, what) = refuse(frame.kernel.context().ctx, frame.response);
    count(what);
    action
}

/// Answers a frame that is refused: the XDP action, and what became of it.
#[inline(always)]
fn refuse(raw: *mut xdp_md, response: &Response) -> (u32, Answer) {
    let Some(desk) = desk() else {
        return dropped(Answer::Failed);
    };
    if read_request(raw) == 0 {
        return dropped(Answer::Failed);
    }
    let entry = entry(response);
    let occasion = Occasion::of(response, entry.as_deref());
    let refusal = plan(&occasion, &desk.request);
    if refusal.is_rationed() && !has_budget(desk) {
        return dropped(Answer::Limited);
    }
    let next = match &entry {
        Some(entry) => entry.next,
        None => 0,
    };
    let Some(reply) = Reply::unpack(write_answer(raw, refusal as u64, u64::from(next))) else {
        return dropped(match refusal {
            Refusal::Silent | Refusal::Unverified => refusal.counted(),
            _ => Answer::Failed,
        });
    };
    if !put(raw, desk, reply) {
        return dropped(Answer::Failed);
    }
    remember(desk, response, &occasion, refusal, entry);
    let action = if reply.goes_back {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_PASS
    };
    (action, refusal.counted())
}

const fn dropped(what: Answer) -> (u32, Answer) {
    (xdp_action::XDP_DROP, what)
}

/// The connection that the frame belongs to, if it was answered before.
#[inline(always)]
fn entry(response: &Response) -> Option<&'static mut Taken> {
    if response.reason != Reason::Taken as u8 {
        return None;
    }
    taken::entry(&response.key)
}

/// Reads the frame's headers into this CPU's request; 0 if there is no IP packet. A global function, as in
/// [`crate::calls`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_request(raw: *mut xdp_md) -> u64 {
    let Some(desk) = desk() else { return 0 };
    let mut kernel = Kernel::new(XdpContext::new(raw));
    let mut packet = Packet::EMPTY;
    if wire::parse(&kernel, &mut packet).is_err() {
        return 0;
    }
    desk.request.read(&mut kernel, &packet);
    1
}

/// Writes the answer to this CPU's request into its draft; a packed [`Reply`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn write_answer(raw: *mut xdp_md, refusal: u64, next: u64) -> u64 {
    let Some(desk) = desk() else { return 0 };
    let copy = |draft: &mut Draft, from: u32, len: u32, at: u32| copy(raw, draft, from, len, at);
    let refusal = Refusal::from_u8(refusal as u8);
    let reply = compose(&mut desk.draft, &desk.request, refusal, next as u32, copy);
    Reply::pack(reply)
}

/// What the connection's next segments need to know.
#[inline(always)]
fn remember(
    desk: &mut Desk,
    response: &Response,
    occasion: &Occasion,
    refusal: Refusal,
    entry: Option<&mut Taken>,
) {
    let stage = refusal.stage();
    match entry {
        Some(entry) => entry.flags |= stage,
        None if occasion.cause == Cause::Name && response.has(Response::NAMED) => {
            desk.taken = Taken::of(response, state::REFUSED, taken::now());
            desk.taken.flags |= stage;
            taken::store(&response.key, &desk.taken);
        }
        None => {}
    }
}

/// This CPU's place to write at.
#[inline(always)]
fn desk() -> Option<&'static mut Desk> {
    let desk = maps::DESK.get_ptr_mut(0)?;
    // SAFETY: this CPU's element, and an XDP program is not preempted by another.
    Some(unsafe { &mut *desk })
}

#[inline(always)]
fn has_budget(desk: &mut Desk) -> bool {
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    desk.budget.take(now)
}

/// Copies bytes of the frame into the draft.
#[inline(always)]
fn copy(raw: *mut xdp_md, draft: &mut Draft, from: u32, len: u32, at: u32) -> bool {
    const HALF: u64 = DRAFT_BYTES as u64 / 2;
    let at = opaque(u64::from(at));
    let Some(len) = one_to::<HALF>(len) else {
        return false;
    };
    if at > HALF {
        return false;
    }
    // SAFETY: twice half a draft at most.
    unsafe {
        let to = draft.bytes.as_mut_ptr().add(at as usize);
        bpf_xdp_load_bytes(raw, from, to.cast(), len as u32) == 0
    }
}

/// Puts the answer in the place of the frame's IP packet.
#[inline(always)]
fn put(raw: *mut xdp_md, desk: &mut Desk, reply: Reply) -> bool {
    let network = desk.request.network;
    let Some(link_len) = one_to::<{ LINK_BYTES_MAX as u64 }>(network) else {
        return false;
    };
    let link = desk.link.as_mut_ptr();
    // SAFETY: there is room for as many bytes.
    if unsafe { bpf_xdp_load_bytes(raw, 0, link.cast(), link_len as u32) } != 0 {
        return false;
    }
    if reply.goes_back {
        let macs = &mut desk.link;
        for i in 0..MAC {
            (macs[i], macs[MAC + i]) = (macs[MAC + i], macs[i]);
        }
    }
    if !resize(raw, network + reply.len) {
        return false;
    }
    let Some(reply_len) = one_to::<{ REPLY_BYTES_MAX as u64 }>(reply.len) else {
        return false;
    };
    let at = opaque(u64::from(reply.at));
    if at > (DRAFT_BYTES - REPLY_BYTES_MAX) as u64 {
        return false;
    }
    // SAFETY: within the link header's room and the draft, as just checked.
    unsafe {
        let answer = desk.draft.bytes.as_mut_ptr().add(at as usize);
        bpf_xdp_store_bytes(raw, 0, desk.link.as_mut_ptr().cast(), link_len as u32) == 0
            && bpf_xdp_store_bytes(raw, network, answer.cast(), reply_len as u32) == 0
    }
}

/// Makes the frame as long as this, with anything in it. It grows at its head: behind its tail there may be no
/// room, and before its head every driver leaves some.
#[inline(always)]
fn resize(raw: *mut xdp_md, len: u32) -> bool {
    // SAFETY: the context the kernel gave us; nothing points into the frame.
    unsafe {
        let more = len.wrapping_sub(bpf_xdp_get_buff_len(raw) as u32) as i32;
        if more > 0 {
            return bpf_xdp_adjust_head(raw, -more) == 0;
        }
        more == 0 || bpf_xdp_adjust_tail(raw, more) == 0
    }
}
