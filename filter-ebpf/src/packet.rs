//! Packet memory: the only place that dereferences it.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use filter_common::{abi::PROBE_MARK, env, limits::HEADER_OFFSET_MAX};

/// `x & MASK` in one instruction that the compiler can neither drop nor move away from the use:
/// the verifier takes the bound from it. Not declared pure, or the compiler might make it twice:
/// two pointers that the verifier cannot tell to be one.
#[inline(always)]
pub(crate) fn mask<const MASK: i32>(mut x: u64) -> u64 {
    // SAFETY: one ALU instruction on a register.
    unsafe {
        asm!("{0} &= {m}", inout(reg) x, m = const MASK, options(nomem, nostack, preserves_flags));
    }
    x
}

/// `x` with everything forgotten that the compiler knows about it, so that a check behind it
/// stays, and stays on the register that is used. A real instruction: an empty one would leave
/// two lines of BTF line information at one offset, which the kernel refuses.
#[inline(always)]
pub(crate) fn opaque(mut x: u64) -> u64 {
    // SAFETY: moves a register to itself.
    unsafe {
        asm!("{0} = {0}", inout(reg) x, options(nomem, nostack, preserves_flags));
    }
    x
}

/// `x` as a number from 1 to `MAX`, if it is one, with both bounds where the verifier of every kernel
/// sees them: from `x != 0` that of Linux 6.1 derives no lower bound.
#[inline(always)]
pub(crate) fn one_to<const MAX: u64>(x: u32) -> Option<u64> {
    let less_one = opaque(u64::from(x).wrapping_sub(1));
    if less_one >= MAX {
        return None;
    }
    // Opaque again, or the compiler would take the addition back where the number is used.
    Some(opaque(less_one + 1))
}

/// As [`opaque`], for a reference: the compiler knows nothing about what it points to.
#[inline(always)]
pub(crate) fn opaque_ref<T>(x: &'static T) -> &'static T {
    let mut pointer: *const T = x;
    // SAFETY: moves a register to itself; the memory behind it is only read later.
    unsafe {
        asm!("{0} = {0}", inout(reg) pointer, options(readonly, nostack, preserves_flags));
        &*pointer
    }
}

/// Bytes of the frame's first buffer, the part that a [`Window`] can see.
#[inline(always)]
pub(crate) fn first_buffer_len(ctx: &XdpContext) -> usize {
    ctx.data_end() - ctx.data()
}

/// Whether the frame is the controller's: [`PROBE_MARK`] lies before it.
#[inline(always)]
pub(crate) fn is_probe(ctx: &XdpContext) -> bool {
    let start = ctx.metadata();
    if opaque((start + size_of::<u64>()) as u64) as usize > ctx.metadata_end() {
        return false;
    }
    let mark: u64;
    // SAFETY: the eight bytes of metadata that were just checked.
    unsafe {
        asm!("{v} = *(u64 *)({p} + 0)", v = out(reg) mark, p = in(reg) start, options(pure, readonly, nostack, preserves_flags));
    }
    mark == PROBE_MARK
}

/// `N` bytes of packet memory that the verifier has seen checked.
#[derive(Clone, Copy)]
pub(crate) struct Window<const N: usize>(*const u8);

impl<const N: usize> Window<N> {
    /// The window at `offset`, if the frame's first buffer holds it.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext, offset: u32) -> Option<Self> {
        if offset > HEADER_OFFSET_MAX {
            return None;
        }
        let start = ctx.data() + mask::<{ HEADER_OFFSET_MAX as i32 }>(u64::from(offset)) as usize;
        // Hidden from the compiler, which would turn `start + 1 > end` into `start >= end`,
        // from which the kernel derives no range.
        if opaque((start + N) as u64) as usize > ctx.data_end() {
            return None;
        }
        Some(Self(start as *const u8))
    }
}

macro_rules! load {
    ($name:ident, $size:literal, $bytes:literal, $type:ty) => {
        #[inline(always)]
        fn $name<const O: usize>(self) -> $type {
            const { assert!(O < N && N - O >= $bytes) };
            let value: u64;
            // SAFETY: `Window::new` has checked `N` bytes from the pointer on. The load is one
            // instruction, which may be unaligned in packet memory; a Rust read may not.
            unsafe {
                asm!(
                    concat!("{v} = *(", $size, " *)({p} + {o})"),
                    v = out(reg) value,
                    p = in(reg) self.0,
                    o = const O,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
            (value as $type).to_be()
        }
    };
}

impl<const N: usize> env::Window<N> for Window<N> {
    load!(u8, "u8", 1, u8);
    load!(be16, "u16", 2, u16);
    load!(be32, "u32", 4, u32);
    load!(be64, "u64", 8, u64);
}
