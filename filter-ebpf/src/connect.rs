//! Connections of this host's own processes to blocked origins: they fail at once, where the packets
//! alone would leave a proxy waiting for its time to run out.
//!
//! Where the operator wants it, and a rule leads to the block page, the connection is led to the page's server
//! instead, which listens on the loopback interface for this: on an address for each rule.
//!
//! Attached to a control group that the operator names. Runs in the process's own context, where an XDP
//! program may come in between: what both count is added to by one instruction.

use core::arch::asm;

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_set_retval, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use filter_common::{
    abi::{Action, RuleCounters, Sink, feature, local_page_address, redirect, sink},
    env::Rules as _,
    hit::{Hit, Qualifiers},
    limits::RULES_MAX,
    origins,
    reason::Reason,
    respond::counted::Answer,
    wire,
};

use crate::{
    calls, maps,
    packet::opaque,
    rules::{self, Generation, has},
};

/// What the program returns: the connection goes on.
const ALLOWED: i32 = 1;
/// The connection fails, with the error that was set.
const REFUSED: i32 = 0;

/// `EACCES` of asm-generic/errno-base.h.
const EACCES: i32 = 13;

/// `connect` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
fn connect_v4(ctx: SockAddrContext) -> i32 {
    let address = ctx.sock_addr;
    // SAFETY: the context the kernel gave us; the field is in network byte order.
    let addr = u32::from_be(unsafe { (*address).user_ip4 });
    decide(
        search_v4(addr, qualifiers(address)),
        is_tcp(address),
        |page| {
            // SAFETY: as above; the kernel takes the field as it takes it from the process.
            unsafe { (&raw mut (*address).user_ip4).write_volatile(page.to_be()) };
            lead(address)
        },
    )
}

/// `connect` to an IPv6 address, which may be a mapped one.
#[cgroup_sock_addr(connect6)]
fn connect_v6(ctx: SockAddrContext) -> i32 {
    let address = ctx.sock_addr;
    // SAFETY: as above; each word is read by itself, as the kernel demands.
    let [a, b, c, d] = unsafe {
        [
            (&raw const (*address).user_ip6[0]).read_volatile(),
            (&raw const (*address).user_ip6[1]).read_volatile(),
            (&raw const (*address).user_ip6[2]).read_volatile(),
            (&raw const (*address).user_ip6[3]).read_volatile(),
        ]
        .map(|word| u64::from(u32::from_be(word)))
    };
    let addr = [a << 32 | b, c << 32 | d];
    let qualifiers = qualifiers(address);
    let hit = if wire::is_mapped(addr) {
        search_v4(addr[1] as u32, qualifiers)
    } else if !has(feature::V6) || !origins::maybe_v6(&Generation, addr) {
        return ALLOWED;
    } else {
        Hit(calls::search_v6(addr[0], addr[1], qualifiers.pack()))
    };
    decide(hit, is_tcp(address), |page| {
        // A socket for IPv6 alone is refused by the kernel: there is no such range of IPv6.
        // SAFETY: as above.
        unsafe {
            (&raw mut (*address).user_ip6[0]).write_volatile(0);
            (&raw mut (*address).user_ip6[1]).write_volatile(0);
            (&raw mut (*address).user_ip6[2]).write_volatile(MAPPED.to_be());
            (&raw mut (*address).user_ip6[3]).write_volatile(page.to_be());
        }
        lead(address)
    })
}

/// The third word of an IPv4 address as IPv6 has it (RFC 4291, 2.5.5.2).
const MAPPED: u32 = 0xffff;

/// Sends the connection to the port of the page's server.
#[inline(always)]
fn lead(address: *mut bpf_sock_addr) {
    if let Some(port) = local_port() {
        // SAFETY: the context the kernel gave us.
        unsafe { (&raw mut (*address).user_port).write_volatile(u32::from(port.to_be())) };
    }
}

/// Where the page's server listens for this host's proxies, if it does.
#[inline(always)]
fn local_port() -> Option<u16> {
    let sink: *const Sink = maps::SINK.get_ptr(0)?.cast();
    // SAFETY: aligned words of the map.
    let (state, port) = unsafe {
        (
            (&raw const (*sink).state).read_volatile(),
            (&raw const (*sink).local_port).read_volatile() as u16,
        )
    };
    (state == sink::UP && port != 0).then_some(port)
}

#[inline(always)]
fn search_v4(addr: u32, qualifiers: Qualifiers) -> Hit {
    if !has(feature::V4) || !origins::touches_v4(&Generation, addr) {
        return Hit::NONE;
    }
    Hit(calls::search_v4(u64::from(addr), qualifiers.pack()))
}

#[inline(always)]
fn is_tcp(address: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context the kernel gave us.
    unsafe { (*address).protocol == u32::from(wire::TCP) }
}

#[inline(always)]
fn qualifiers(address: *mut bpf_sock_addr) -> Qualifiers {
    // SAFETY: the context the kernel gave us; the port is in network byte order in the low half.
    let (port, protocol) = unsafe { ((*address).user_port, (*address).protocol) };
    if has(feature::OBSERVE) {
        rules::begin_notes(0);
    }
    Qualifiers {
        protocol: protocol as u8,
        port: u16::from_be(port as u16),
        port_shown: true,
        reason: Reason::LocalConnection,
    }
}

/// The verdict about a connection; `lead` gives it the address that stands for the rule in place of its own.
#[inline(always)]
fn decide(hit: Hit, is_tcp: bool, lead: impl FnOnce(u32)) -> i32 {
    if hit.is_none() || matches!(hit.action(), Action::Observe) {
        return ALLOWED;
    }
    count(hit.slot());
    if is_tcp && local_port().is_some() && leads_to_page(hit) {
        lead(local_page_address(hit.slot()));
        count_answer(Answer::PageLocal);
        return ALLOWED;
    }
    // SAFETY: a helper that takes a number.
    unsafe { bpf_set_retval(-EACCES) };
    REFUSED
}

#[inline(always)]
fn leads_to_page(hit: Hit) -> bool {
    matches!(hit.action(), Action::Redirect)
        && Generation
            .rule(hit.slot())
            .is_some_and(|rule| rule.redirect_index == redirect::PAGE)
}

#[inline(always)]
fn count_answer(answer: Answer) {
    if let Some(answers) = maps::ANSWERS.get_ptr_mut(0) {
        let at = opaque(answer as u64) as usize & 31;
        // SAFETY: within the element's 32 words.
        unsafe { add_one(answers.cast::<u64>().add(at)) };
    }
}

/// Counts a connection for its rule and its reason.
#[inline(always)]
fn count(slot: u16) {
    let index = u32::from(slot) & (RULES_MAX as u32 - 1);
    if let Some(counters) = maps::RULE_COUNTERS.get_ptr_mut(index) {
        let counters: *mut RuleCounters = counters;
        // SAFETY: a word of this processor's element.
        unsafe { add_one(&raw mut (*counters).packets) };
    }
    if let Some(reasons) = maps::REASONS.get_ptr_mut(0) {
        let at = opaque(Reason::LocalConnection as u64) as usize & 63;
        // SAFETY: within the element's 64 words.
        unsafe { add_one(reasons.cast::<u64>().add(at)) };
    }
}

/// Adds to a counter in one instruction.
///
/// # Safety
///
/// An aligned word of map memory.
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    // SAFETY: as the caller promises; the verifier checks it.
    unsafe {
        asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) 1u64, options(nostack));
    }
}
