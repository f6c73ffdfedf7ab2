//! Connections of this host's own processes to blocked origins: they fail at once, where the packets
//! alone would leave a proxy waiting for its time to run out.
//!
//! Attached to a control group that the operator names. Runs in the process's own context, where an XDP
//! program may come in between: what both count is added to by one instruction.

use core::arch::asm;

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_set_retval, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use filter_common::{
    abi::{Action, RuleCounters, feature},
    hit::{Hit, Qualifiers},
    limits::RULES_MAX,
    origins,
    reason::Reason,
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
    decide(search_v4(addr, qualifiers(address)))
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
    if wire::is_mapped(addr) {
        return decide(search_v4(addr[1] as u32, qualifiers));
    }
    if !has(feature::V6) || !origins::maybe_v6(&Generation, addr) {
        return ALLOWED;
    }
    decide(Hit(calls::search_v6(addr[0], addr[1], qualifiers.pack())))
}

#[inline(always)]
fn search_v4(addr: u32, qualifiers: Qualifiers) -> Hit {
    if !has(feature::V4) || !origins::touches_v4(&Generation, addr) {
        return Hit::NONE;
    }
    Hit(calls::search_v4(u64::from(addr), qualifiers.pack()))
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

#[inline(always)]
fn decide(hit: Hit) -> i32 {
    if hit.is_none() || matches!(hit.action(), Action::Observe) {
        return ALLOWED;
    }
    count(hit.slot());
    // SAFETY: a helper that takes a number.
    unsafe { bpf_set_retval(-EACCES) };
    REFUSED
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
