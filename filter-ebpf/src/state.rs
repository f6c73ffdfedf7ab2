//! What is kept of streams, in maps that all generations share. The key and the entry lie in the
//! working area: map memory serves as key and value without a copy on the stack.

use core::ptr;

use aya_ebpf::helpers::generated::{
    bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem, bpf_probe_read_kernel,
};
use filter_common::{
    abi::{Directions, FlowKey},
    flow::{Blocked, Entry},
    limits::{HELLO_KEPT_BYTES, STREAM_BYTES_MAX},
    work::{HANDSHAKE_AT, Work},
};

use crate::{
    calls::work,
    maps,
    memory::MapMemory,
    packet::{one_to, opaque},
};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// Loads the entry of the working area's flow.
#[inline(always)]
pub(crate) fn load_flow() -> bool {
    let Some(work) = work() else { return false };
    let entry: *const Entry = lookup(&raw const maps::FLOWS, &work.key).cast();
    if entry.is_null() {
        return false;
    }
    // SAFETY: an element of the map, valid until the program returns.
    work.entry = unsafe { entry.read() };
    true
}

/// Stores the working area's entry; of one that exists only what is the client's, since the other
/// direction may be at its half. `false` if the table does not take it.
#[inline(always)]
pub(crate) fn store_flow() -> bool {
    let Some(work) = work() else { return false };
    let entry: *mut Entry = lookup(&raw const maps::FLOWS, &work.key).cast_mut().cast();
    if entry.is_null() {
        return update(&raw const maps::FLOWS, &work.key, &raw const work.entry);
    }
    // SAFETY: an element of the map, valid until the program returns; integers, for which a torn
    // write is a wrong number at worst.
    unsafe { copy_words(&raw const work.entry.flow, &raw mut (*entry).flow) };
    true
}

/// Copies a value of 32-bit words, one by one: all at once is a call, for which the stack is too short.
#[inline(always)]
unsafe fn copy_words<T>(from: *const T, to: *mut T) {
    let (from, to): (*const u32, *mut u32) = (from.cast(), to.cast());
    for i in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: the caller's values, which are made of words.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// Stores what is the server's of the working area's entry.
#[inline(always)]
pub(crate) fn store_answers() {
    let Some(work) = work() else { return };
    let entry: *mut Entry = lookup(&raw const maps::FLOWS, &work.key).cast_mut().cast();
    if !entry.is_null() {
        // SAFETY: as in `store_flow`.
        unsafe { (*entry).answers = work.entry.answers };
    }
}

/// Counts a connection on an interface.
#[inline(always)]
pub(crate) fn count_connection(interface: u32, answered: bool) {
    let (answered, unanswered) = (u64::from(answered), u64::from(!answered));
    if let Some(counted) = maps::DIRECTIONS.get_ptr_mut(interface) {
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        let counted = unsafe { &mut *counted };
        counted.answered += answered;
        counted.unanswered += unanswered;
        return;
    }
    // In the area for fetched bytes, and not on the stack, which is short.
    let Some(work) = work() else { return };
    // SAFETY: the area is aligned to eight bytes, and far larger. A full table counts nothing of further
    // interfaces.
    unsafe {
        let first: *mut Directions = work.bytes.as_mut_ptr().add(HANDSHAKE_AT as usize).cast();
        first.write_volatile(Directions {
            answered,
            unanswered,
        });
        bpf_map_update_elem(
            (&raw const maps::DIRECTIONS).cast_mut().cast(),
            (&raw const interface).cast(),
            first.cast_const().cast(),
            BPF_NOEXIST,
        );
    }
}

/// Deletes the entry.
#[inline(always)]
pub(crate) fn delete_flow() {
    if let Some(work) = work() {
        delete_key(&raw const maps::FLOWS, &work.key);
    }
}

/// Loads the first `len` bytes kept of the stream.
#[inline(always)]
pub(crate) fn load_hello(len: u32) -> bool {
    let Some(work) = work() else { return false };
    let len = opaque(u64::from(len));
    if len == 0 {
        return true;
    }
    if len <= u64::from(HELLO_KEPT_BYTES) {
        let kept = lookup(&raw const maps::HELLOS, &work.key);
        return !kept.is_null() && take(work, kept, len);
    }
    if len <= STREAM_BYTES_MAX as u64 {
        let kept = lookup(&raw const maps::LONG_HELLOS, &work.key);
        return !kept.is_null() && take(work, kept, len);
    }
    false
}

/// Copies kept bytes to the stream area; `len` is in the bounds of both.
#[inline(always)]
fn take(work: &mut Work<MapMemory>, kept: *const u8, len: u64) -> bool {
    // SAFETY: the caller has checked `len` against the kept bytes, and the stream area is larger.
    unsafe { bpf_probe_read_kernel(work.bytes.as_mut_ptr().cast(), len as u32, kept.cast()) == 0 }
}

/// Keeps the first `len` bytes of the stream area, of which those that the entry knows of are kept already.
/// `false` if the table does not take them; what was kept is left as it was.
#[inline(always)]
pub(crate) fn store_hello(len: u32) -> bool {
    let Some(work) = work() else { return false };
    if len > HELLO_KEPT_BYTES {
        let stored = update(&raw const maps::LONG_HELLOS, &work.key, work.bytes.as_ptr());
        if stored {
            delete_key(&raw const maps::HELLOS, &work.key);
        }
        return stored;
    }
    if work.entry.flow.kept != 0 {
        let kept = lookup(&raw const maps::HELLOS, &work.key).cast_mut();
        if !kept.is_null() && append(work, kept, len) {
            return true;
        }
    }
    update(&raw const maps::HELLOS, &work.key, work.bytes.as_ptr())
}

/// Copies what is new of the first `len` bytes of the stream area behind those kept; `false` if that
/// is nothing, or more than a segment or two: the verifier is content with two halves.
#[inline(always)]
fn append(work: &Work<MapMemory>, kept: *mut u8, len: u32) -> bool {
    const HALF: u64 = HELLO_KEPT_BYTES as u64 / 2;
    let old = opaque(u64::from(work.entry.flow.kept));
    if old > HALF {
        return false;
    }
    let Some(new) = one_to::<HALF>(len.wrapping_sub(old as u32)) else {
        return false;
    };
    // SAFETY: both runs are in bounds as just checked: the stream area is larger than what is kept.
    unsafe {
        let from = work.bytes.as_ptr().add(old as usize);
        bpf_probe_read_kernel(kept.add(old as usize).cast(), new as u32, from.cast()) == 0
    }
}

/// Forgets the bytes kept.
#[inline(always)]
pub(crate) fn delete_hello() {
    let Some(work) = work() else { return };
    delete_key(&raw const maps::HELLOS, &work.key);
    delete_key(&raw const maps::LONG_HELLOS, &work.key);
}

/// The entry of a blocked connection.
#[inline(always)]
pub(crate) fn load_blocked() -> Option<Blocked> {
    let work = work()?;
    let entry: *const Blocked = lookup(&raw const maps::BLOCKED, &work.key).cast();
    if entry.is_null() {
        return None;
    }
    // SAFETY: an element of the map, valid until the program returns.
    Some(unsafe { entry.read() })
}

/// Stores the entry of a blocked connection, if the table takes it.
#[inline(always)]
pub(crate) fn store_blocked(blocked: Blocked) {
    if let Some(work) = work() {
        update(&raw const maps::BLOCKED, &work.key, &raw const blocked);
    }
}

/// Deletes the entry of a blocked connection.
#[inline(always)]
pub(crate) fn delete_blocked() {
    if let Some(work) = work() {
        delete_key(&raw const maps::BLOCKED, &work.key);
    }
}

#[inline(always)]
pub(crate) fn lookup<M>(map: *const M, key: &FlowKey) -> *const u8 {
    // SAFETY: a map with this key type.
    unsafe { bpf_map_lookup_elem(map.cast_mut().cast(), ptr::from_ref(key).cast()).cast() }
}

/// `false` if the kernel refuses. A full table evicts, so that this takes a processor whose share of free
/// elements is used up, or whose locks are held; an element in place of which the new one was to come stays.
#[inline(always)]
pub(crate) fn update<M, V>(map: *const M, key: &FlowKey, value: *const V) -> bool {
    // SAFETY: a map with this key type, and memory of at least the map's value size.
    let result = unsafe {
        bpf_map_update_elem(
            map.cast_mut().cast(),
            ptr::from_ref(key).cast(),
            value.cast(),
            BPF_ANY,
        )
    };
    result == 0
}

#[inline(always)]
pub(crate) fn delete_key<M>(map: *const M, key: &FlowKey) {
    // SAFETY: a map with this key type.
    unsafe { bpf_map_delete_elem(map.cast_mut().cast(), ptr::from_ref(key).cast()) };
}
