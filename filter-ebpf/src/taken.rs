//! Connections that are answered in the server's place, in maps that all generations share.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use filter_common::abi::{FlowKey, Taken, taken};

use crate::{
    maps,
    packet::mask,
    state::{delete_key, lookup, update},
};

/// Bits of a word of the map of ports.
const PORTS_PER_WORD: u16 = 64;

/// Whether there may be a connection from this client port.
#[inline(always)]
pub(crate) fn has_port(port: u16) -> bool {
    match maps::TAKEN_PORTS.get(0) {
        Some(words) => {
            // As in `Kernel::port_class`.
            let word = mask::<0x3ff>(u64::from(port / PORTS_PER_WORD));
            let [first, second] = words[word as usize];
            (first | second) >> (port % PORTS_PER_WORD) & 1 != 0
        }
        None => false,
    }
}

/// The connection of a client.
#[inline(always)]
pub(crate) fn load(key: &FlowKey) -> Option<Taken> {
    let entry: *const Taken = lookup(&raw const maps::TAKEN, key).cast();
    if entry.is_null() {
        return None;
    }
    // SAFETY: an element of the map, valid until the program returns.
    Some(unsafe { entry.read() })
}

/// The client of a blocked address, which the page is the server of.
#[inline(always)]
pub(crate) fn of_origin(key: &FlowKey) -> Option<Taken> {
    let entry: *const Taken = lookup(&raw const maps::ORIGIN_CLIENTS, key).cast();
    // SAFETY: an element of the map or null, valid until the program returns.
    unsafe { entry.as_ref().copied() }
}

/// Notes that another connection may start at `at`.
#[inline(always)]
pub(crate) fn reopen(key: &FlowKey, at: u32) {
    if let Some(entry) = entry(key) {
        entry.reopened_at = at;
        entry.flags |= taken::flag::REOPENED;
    }
}

/// The connection of a client, in its map: others may write it at the same time, and a lost write is a
/// wrong number at worst.
#[inline(always)]
pub(crate) fn entry(key: &FlowKey) -> Option<&'static mut Taken> {
    let entry: *mut Taken = lookup(&raw const maps::TAKEN, key).cast_mut().cast();
    // SAFETY: an element of the map or null, valid until the program returns; integers.
    unsafe { entry.as_mut() }
}

/// Remembers a connection: first the port, so that none of its segments passes by. `false` if the table
/// does not take it.
#[inline(always)]
pub(crate) fn store(key: &FlowKey, taken: &Taken) -> bool {
    set_port(key.src_port);
    update(&raw const maps::TAKEN, key, &raw const *taken)
}

/// Forgets a connection; its port's bit stays until the controller has looked for others.
#[inline(always)]
pub(crate) fn delete(key: &FlowKey) {
    delete_key(&raw const maps::TAKEN, key);
}

/// Now, for [`Taken::used`].
#[inline(always)]
pub(crate) fn now() -> u32 {
    const NS_PER_S: u64 = 1_000_000_000;
    // SAFETY: helper without arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } / NS_PER_S) as u32
}

#[inline(always)]
fn set_port(port: u16) {
    let Some(words) = maps::TAKEN_PORTS.get_ptr_mut(0) else {
        return;
    };
    let bit = 1u64 << (port % PORTS_PER_WORD);
    // SAFETY: the index is in the array's bounds, and the words aligned; other processors set bits too.
    unsafe {
        let word = (&raw mut *words)
            .cast::<[u64; 2]>()
            .add(usize::from(port / PORTS_PER_WORD) & 1023);
        asm!(
            "lock *(u64 *)({p} + 0) |= {v}",
            "lock *(u64 *)({p} + 8) |= {v}",
            p = in(reg) word,
            v = in(reg) bit,
            options(nostack, preserves_flags)
        );
    }
}
