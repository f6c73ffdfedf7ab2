//! Sending frames to the block page, or to a next hop.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{
        bpf_redirect_map, bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
};
use filter_common::{
    abi::{NextHop, Sink, Taken, redirect, sink, taken},
    env::{Env as _, Window as _},
    limits::NEXT_HOPS_MAX,
    respond::counted::Answer,
    wire::{ETHERNET_LEN, VLAN_TAG_LEN},
};

use crate::{
    calls, maps,
    respond::{Answerable, count, dropped},
    state::update,
    taken as connections,
};

const MAC_LEN: usize = 6;
const TAGGED_LEN: u32 = ETHERNET_LEN + VLAN_TAG_LEN;

/// Where the flags are in a TCP header, and the one that keeps the kernel from putting segments together.
const TCP_FLAGS_AT: u32 = 13;
const PUSH: u8 = 0x08;

/// The way to the block page, as the controller has it.
#[inline(always)]
pub(crate) fn sink() -> Option<&'static Sink> {
    maps::SINK.get(0)
}

/// Hands the connection that this segment belongs to over to the block page.
#[inline(always)]
pub(crate) fn take_over(frame: &Answerable<'_>) -> u32 {
    let response = &frame.response;
    let entry = Taken::of(response, taken::PAGE, connections::now());
    if response.seq != response.start && !hand_over_hello(frame) {
        return dropped(Answer::Failed);
    }
    let Some(entry) = seen_on(frame, entry) else {
        return dropped(Answer::Failed);
    };
    if !connections::store(&response.key, &entry) {
        return dropped(Answer::Failed);
    }
    send(frame, &entry, Answer::PageTaken)
}

/// Keeps the stream up to this segment's end, which lies in the working area, for the block page.
#[inline(always)]
fn hand_over_hello(frame: &Answerable<'_>) -> bool {
    let Some(work) = calls::work() else {
        return false;
    };
    let kept = update(
        &raw const maps::TAKEN_HELLOS,
        &frame.response.key,
        work.bytes.as_ptr(),
    );
    if !kept {
        return false;
    }
    // Together with what comes behind it the segment could not be made longer.
    let at = u32::from(frame.packet.transport as u16) + TCP_FLAGS_AT;
    let Some(flags) = frame.kernel.window::<1>(at) else {
        return false;
    };
    let flags = [flags.u8::<0>() | PUSH];
    store_bytes(frame, at, &flags)
}

/// Sends a segment of a connection that the block page has there.
#[inline(always)]
pub(crate) fn pass_on(frame: &Answerable<'_>) -> u32 {
    let Some(entry) = connections::entry(&frame.response.key) else {
        return dropped(Answer::Failed);
    };
    entry.used = connections::now();
    let entry = *entry;
    send(frame, &entry, Answer::PageSegment)
}

/// Sends a segment for a blocked address to the block page, which then is the server.
#[inline(always)]
pub(crate) fn take_origin(frame: &Answerable<'_>) -> u32 {
    let response = &frame.response;
    if let Some(known) = connections::of_origin(&response.key) {
        return send(frame, &known, Answer::PageOrigin);
    }
    let entry = Taken::of(response, taken::ORIGIN, connections::now());
    let Some(entry) = seen_on(frame, entry) else {
        return dropped(Answer::Failed);
    };
    if !update(
        &raw const maps::ORIGIN_CLIENTS,
        &response.key,
        &raw const entry,
    ) {
        return dropped(Answer::Failed);
    }
    send(frame, &entry, Answer::PageOrigin)
}

/// The entry with where its client is.
#[inline(always)]
fn seen_on(frame: &Answerable<'_>, mut entry: Taken) -> Option<Taken> {
    let link = frame.kernel.window::<18>(0)?;
    // Compilers and verifiers alike prefer words to arrays of bytes.
    let dst = u64::from(link.be32::<0>()) << 16 | u64::from(link.be16::<4>());
    let src = u64::from(link.be32::<6>()) << 16 | u64::from(link.be16::<10>());
    entry.edge_mac = mac(dst);
    entry.client_mac = mac(src);
    entry.interface = frame.kernel.ifindex();
    if frame.packet.network == TAGGED_LEN {
        entry.flags |= taken::flag::TAGGED;
        entry.tag = link.be32::<12>();
    }
    Some(entry)
}

#[inline(always)]
const fn mac(address: u64) -> [u8; MAC_LEN] {
    let [_, _, a, b, c, d, e, f] = address.to_be_bytes();
    [a, b, c, d, e, f]
}

/// Puts the frame, without its tag, on the way to the block page.
#[inline(always)]
fn send(frame: &Answerable<'_>, entry: &Taken, answer: Answer) -> u32 {
    let Some(sink) = sink() else {
        return dropped(Answer::Failed);
    };
    if entry.flags & taken::flag::TAGGED != 0 && frame.packet.network == TAGGED_LEN {
        let mut ethertype = [0u8; 2];
        if !load_bytes(frame, TAGGED_LEN - 2, &mut ethertype) || !shorten(frame) {
            return dropped(Answer::Failed);
        }
        if !store_bytes(frame, ETHERNET_LEN - 2, &ethertype) {
            return dropped(Answer::Failed);
        }
    } else if frame.packet.network != ETHERNET_LEN {
        return dropped(Answer::Failed);
    }
    let sent =
        store_bytes(frame, 0, &sink.sink_mac) && store_bytes(frame, MAC_LEN as u32, &sink.edge_mac);
    if !sent {
        return dropped(Answer::Failed);
    }
    let action = redirect_to(&raw const maps::SINK_DEV, 0, answer);
    if action == xdp_action::XDP_DROP {
        close();
    }
    action
}

/// The device is gone, and with it the process that served: from now on what leads to the page is
/// refused, also where no controller is there to say so.
#[inline(always)]
fn close() {
    if let Some(sink) = maps::SINK.get_ptr_mut(0) {
        // SAFETY: an aligned word of the map.
        unsafe { (&raw mut (*sink.cast::<Sink>()).state).write_volatile(sink::DOWN) };
    }
}

/// Sends the frame to the rule's next hop.
#[inline(always)]
pub(crate) fn to_next_hop(frame: &Answerable<'_>) -> u32 {
    let index = frame.response.redirect_index & !redirect::NEXT_HOP & (NEXT_HOPS_MAX as u32 - 1);
    let Some(hop) = maps::NEXT_HOPS.get(index) else {
        return dropped(Answer::NextHopUnknown);
    };
    let NextHop {
        device,
        resolved,
        dst_mac,
        src_mac,
        reserved: _,
    } = hop;
    if *resolved == 0 {
        return dropped(Answer::NextHopUnknown);
    }
    if !store_bytes(frame, 0, dst_mac) || !store_bytes(frame, MAC_LEN as u32, src_mac) {
        return dropped(Answer::Failed);
    }
    redirect_to(&raw const maps::REDIRECT, *device, Answer::NextHop)
}

#[inline(always)]
fn redirect_to<M>(map: *const M, key: u32, answer: Answer) -> u32 {
    // SAFETY: a device map and a scalar key; the flags are the action on failure.
    let action = unsafe {
        bpf_redirect_map(
            map.cast_mut().cast(),
            u64::from(key),
            u64::from(xdp_action::XDP_DROP),
        ) as u32
    };
    if action != xdp_action::XDP_REDIRECT {
        return dropped(Answer::Failed);
    }
    count(answer);
    action
}

/// Takes four bytes off the frame's beginning.
#[inline(always)]
fn shorten(frame: &Answerable<'_>) -> bool {
    // SAFETY: the context the kernel gave us; no window is used behind this.
    unsafe { bpf_xdp_adjust_head(frame.kernel.context().ctx, VLAN_TAG_LEN as i32) == 0 }
}

#[inline(always)]
fn store_bytes<const N: usize>(frame: &Answerable<'_>, offset: u32, bytes: &[u8; N]) -> bool {
    let from: *const c_void = ptr::from_ref(bytes).cast();
    // SAFETY: the context the kernel gave us, and as many bytes.
    unsafe {
        bpf_xdp_store_bytes(
            frame.kernel.context().ctx,
            offset,
            from.cast_mut(),
            N as u32,
        ) == 0
    }
}

#[inline(always)]
fn load_bytes<const N: usize>(frame: &Answerable<'_>, offset: u32, bytes: &mut [u8; N]) -> bool {
    let to: *mut c_void = ptr::from_mut(bytes).cast();
    // SAFETY: the context the kernel gave us, and room for as many bytes.
    unsafe { bpf_xdp_load_bytes(frame.kernel.context().ctx, offset, to, N as u32) == 0 }
}
