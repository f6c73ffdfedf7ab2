//! The program that answers what is refused, and sends to the block page or a next hop.
//!
//! Reached by a tail call, so that it has a stack and a budget of its own, and loaded only where a rule
//! needs it. The working area is still as the decision has left it: an XDP program is not preempted by
//! another one on its CPU.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use filter_common::{
    abi::{Response, rule_flag},
    env::Rules as _,
    reason::Reason,
    respond::{self, Way, counted::Answer},
    wire::{self, Packet},
};

use crate::{calls, exit::write_flow, kernel::Kernel, maps, page, refuse, state};

/// One frame that is to be answered.
pub(crate) struct Answerable<'a> {
    /// The frame.
    pub(crate) kernel: &'a Kernel,
    /// Its headers.
    pub(crate) packet: &'a Packet,
    /// What the decision has left.
    pub(crate) response: &'static mut Response,
}

/// Answers the frame that the filter has just decided about.
#[xdp(frags)]
fn respond(ctx: XdpContext) -> u32 {
    let kernel = Kernel::new(ctx);
    let Some(response) = maps::RESPONSE.get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: this CPU's element, and an XDP program is not preempted by another.
    let response = unsafe { &mut *response };
    let mut packet = Packet::EMPTY;
    if wire::parse(&kernel, &mut packet).is_err() {
        return dropped(Answer::Failed);
    }
    let len = complete(&kernel, &packet, response);
    let frame = Answerable {
        kernel: &kernel,
        packet: &packet,
        response,
    };
    let way = match page::sink() {
        Some(sink) => respond::way(frame.response, sink, &packet, len),
        None => Way::Refuse,
    };
    if let Some(why) = way.counted() {
        count(why);
    }
    match way {
        Way::Takeover => page::take_over(&frame),
        Way::Segment => page::pass_on(&frame),
        Way::Origin => page::take_origin(&frame),
        Way::NextHop => page::to_next_hop(&frame),
        Way::Refuse | Way::Down | Way::InFlight | Way::Tags | Way::TooLong => {
            refuse::answer(&frame)
        }
    }
}

/// Fills in what the packet, its rule and the working area tell; bytes of TCP payload.
#[inline(always)]
fn complete(kernel: &Kernel, packet: &Packet, response: &mut Response) -> u32 {
    let ports = packet.ports(kernel);
    // SAFETY: this CPU's element.
    unsafe { write_flow(kernel, packet, &raw mut response.key) };
    response.flags = 0;
    response.start = 0;
    response.next = 0;
    response.seq = 0;
    response.ack = 0;
    response.slot_version = 0;
    response.redirect_index = 0;
    if let Some(rule) = kernel.rule(response.slot) {
        response.slot_version = rule.slot_version;
        response.redirect_index = rule.redirect_index;
        if rule.flags & rule_flag::QUIC != 0 {
            response.flags |= Response::QUIC;
        }
    }
    if response.reason == Reason::QuicRefused as u8 {
        response.flags |= Response::QUIC;
    }
    if packet.protocol != wire::TCP || !ports.shown {
        return 0;
    }
    let Ok(segment) = packet.segment(kernel, ports.dst, 0) else {
        return 0;
    };
    if let Some(work) = calls::work() {
        respond::describe(response, work, segment);
        if response.has(Response::NAMED) && !response.has(Response::VERIFIED) {
            // What cannot be answered yet is read again when it comes again.
            state::delete_blocked();
        }
    }
    segment.len
}

/// Counts what became of a frame.
#[inline(always)]
pub(crate) fn count(answer: Answer) {
    if let Some(answers) = maps::ANSWERS.get_ptr_mut(0) {
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        unsafe { (*answers)[answer as usize & 31] += 1 };
    }
}

/// Drops a frame, and counts why.
#[inline(always)]
pub(crate) fn dropped(answer: Answer) -> u32 {
    count(answer);
    xdp_action::XDP_DROP
}
