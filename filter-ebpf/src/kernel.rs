//! The surroundings of one packet in the kernel.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use filter_common::{
    abi::{Config, Line, Rule, Table},
    env::{Env, Rules},
    hello::Progress,
    hit::{Hit, Qualifiers},
    limits::{NAMES_PER_HELLO_MAX, STREAM_BYTES_MAX},
    origins,
    tables::Lines,
    work::{Variable as _, Work},
};

use crate::{
    calls, maps,
    memory::MapMemory,
    packet::{Window, first_buffer_len, opaque},
    rules::Generation,
};

/// One packet and the running generation.
pub(crate) struct Kernel {
    ctx: XdpContext,
}

impl Kernel {
    #[inline(always)]
    pub(crate) const fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// Length of the frame, all buffers included. A helper call: not for the path of every packet.
    #[inline(always)]
    pub(crate) fn frame_len(&self) -> u32 {
        // SAFETY: the context the kernel gave us.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as u32 }
    }

    /// Index of the interface the frame came in on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}

impl Lines for Kernel {
    #[inline(always)]
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        // A copy of the zero-sized generation: what it returns lives in maps.
        const GENERATION: &Generation = &Generation;
        GENERATION.line(table, index)
    }
}

impl Rules for Kernel {
    #[inline(always)]
    fn config(&self) -> &Config {
        crate::rules::config()
    }

    #[inline(always)]
    fn rule(&self, slot: u16) -> Option<&Rule> {
        maps::RULES.get(u32::from(slot))
    }

    #[inline(always)]
    fn now_tai_ns(&self) -> u64 {
        Generation.now_tai_ns()
    }

    #[inline(always)]
    fn observe(&self, slot: u16) {
        Generation.observe(slot);
    }
}

impl Env for Kernel {
    type Window<const N: usize> = Window<N>;
    type Memory = MapMemory;

    #[inline(always)]
    fn contains(&self, len: u32) -> bool {
        len as usize <= first_buffer_len(&self.ctx) || len <= self.frame_len()
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: u32) -> Option<Window<N>> {
        Window::new(&self.ctx, offset)
    }

    #[inline(always)]
    fn port_class(&self, port: u16) -> u8 {
        match maps::PORT_CLASS.get(0) {
            Some(classes) => classes[usize::from(port)],
            None => 0,
        }
    }

    #[inline(always)]
    fn serves_v4(&self, addr: u32) -> bool {
        origins::serves_v4(self, addr)
    }

    #[inline(always)]
    fn serves_v6(&self, addr: [u64; 2]) -> bool {
        calls::serves_v6(addr[0], addr[1]) != 0
    }

    #[inline(always)]
    fn fetch(&mut self, offset: u32, len: u32, at: u32) -> bool {
        let Some(work) = calls::work() else { return false };
        let (at, len) = (opaque(u64::from(at)), opaque(u64::from(len)));
        if at >= STREAM_BYTES_MAX as u64 || len == 0 || len > STREAM_BYTES_MAX as u64 {
            return false;
        }
        if at + len > STREAM_BYTES_MAX as u64 {
            return false;
        }
        // SAFETY: `at + len` is in bounds: twice STREAM_BYTES_MAX fits `bytes`, as the verifier
        // reckons, and the sum was checked.
        let result = unsafe {
            let to = (&raw mut work.bytes as *mut u8).add(at as usize);
            bpf_xdp_load_bytes(self.ctx.ctx, offset, to as *mut c_void, len as u32)
        };
        result == 0
    }

    #[inline(always)]
    fn work(&mut self) -> Option<&mut Work<MapMemory>> {
        calls::work()
    }

    #[inline(always)]
    fn search_v4(&self, addr: u32, qualifiers: Qualifiers) -> Hit {
        Hit(calls::search_v4(u64::from(addr), qualifiers.pack()))
    }

    #[inline(always)]
    fn search_v6(&self, addr: [u64; 2], qualifiers: Qualifiers) -> Hit {
        Hit(calls::search_v6(addr[0], addr[1], qualifiers.pack()))
    }

    #[inline(always)]
    fn read_tls(&mut self, len: u32) -> Progress {
        Progress::from_u8(calls::read_tls(u64::from(len)) as u8)
    }

    #[inline(always)]
    fn read_http(&mut self, len: u32) -> Progress {
        Progress::from_u8(calls::read_http(u64::from(len)) as u8)
    }

    #[inline(always)]
    fn search_names(&mut self, qualifiers: Qualifiers) -> Hit {
        let mut best = Hit::NONE;
        for index in 0..NAMES_PER_HELLO_MAX as u32 {
            let Some(work) = calls::work() else { return best };
            if index >= work.name_count.get() {
                break;
            }
            let hit = Hit(calls::search_name(u64::from(index), qualifiers.pack()));
            if hit > best {
                best = hit;
                work.name_reported.set(index);
            }
        }
        best
    }
}
