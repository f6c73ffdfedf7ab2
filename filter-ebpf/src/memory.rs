//! Map memory as the working area's memory.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use filter_common::{
    limits::{HELLO_BYTES_MAX, STREAM_BYTES_MAX},
    work::{BYTES, HANDSHAKE_AT, Memory, Variable},
};

use crate::packet::opaque;

/// Memory of a map.
pub(crate) struct MapMemory;

/// A variable in map memory, read and written with volatile accesses.
#[repr(transparent)]
pub(crate) struct MapVariable(UnsafeCell<u32>);

// SAFETY: it lies in an element that one CPU's program uses at a time.
unsafe impl Sync for MapVariable {}

impl Variable for MapVariable {
    #[inline(always)]
    fn get(&self) -> u32 {
        // SAFETY: valid, aligned memory that one program at a time uses.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn set(&self, value: u32) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

impl Memory for MapMemory {
    type Var = MapVariable;

    #[inline(always)]
    fn copy(bytes: &mut [u8; BYTES], from: u32, to: u32, len: u32) {
        // The callers' bounds once more, where the verifier sees them.
        let from = opaque(u64::from(from));
        let to = opaque(u64::from(to));
        let len = opaque(u64::from(len));
        if from >= STREAM_BYTES_MAX as u64
            || to < u64::from(HANDSHAKE_AT)
            || to >= u64::from(HANDSHAKE_AT) + HELLO_BYTES_MAX as u64
            || len == 0
            || len > HELLO_BYTES_MAX as u64
        {
            return;
        }
        let bytes = bytes.as_mut_ptr();
        // SAFETY: both runs lie in `bytes`, as asserted beside its definition.
        unsafe {
            bpf_probe_read_kernel(
                bytes.add(to as usize).cast(),
                len as u32,
                bytes.add(from as usize).cast(),
            );
        }
    }
}
