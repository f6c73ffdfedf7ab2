//! The XDP program of edgefilter: filter-common's path of a packet over the kernel's maps and
//! packet pointers.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod calls;
mod connect;
mod exit;
mod kernel;
mod maps;
mod memory;
mod packet;
mod page;
mod refuse;
mod respond;
mod rules;
mod sink;
mod sockets;
mod state;
mod taken;

use aya_ebpf::{macros::xdp, programs::XdpContext};
use filter_common::{abi::feature, fast, pipeline, wire::Packet};

use crate::kernel::Kernel;

/// The filter.
#[xdp(frags)]
#[inline(always)]
fn edgefilter(ctx: XdpContext) -> u32 {
    let mut kernel = Kernel::new(ctx);
    let glance = fast::look(&kernel);
    if glance.is_sure && !exit::reports(&kernel, glance) {
        return exit::record_glance(&kernel, glance);
    }
    if rules::has(feature::OBSERVE) {
        rules::begin_notes(kernel.frame_len());
    }
    let mut packet = Packet::EMPTY;
    let decision = pipeline::decide(&mut kernel, &mut packet);
    exit::record(&kernel, &packet, decision)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program with a reachable loop like this one.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
