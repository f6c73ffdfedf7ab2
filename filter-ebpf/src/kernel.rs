//! The surroundings of one packet in the kernel.

use aya_ebpf::{
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use filter_common::{
    abi::{Config, Line, Rule, Table, Taken, feature},
    env::{Env, Rules},
    flow::{Blocked, Course, Options, Peer, Reading, Segment},
    hello::Progress,
    hit::{Hit, Listed, Qualifiers},
    limits::{NAMES_PER_HELLO_MAX, STREAM_BYTES_MAX},
    proxy::Header,
    reason::Reason,
    tables::Lines,
    wire::{Chain, Tags},
    work::{HANDSHAKE_AT, Variable as _, Work},
};

use crate::{
    calls, maps,
    memory::MapMemory,
    packet::{Window, first_buffer_len, mask, one_to, opaque},
    rules::{self, Generation},
    state, taken,
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

    /// The context, for messages.
    #[inline(always)]
    pub(crate) const fn context(&self) -> &XdpContext {
        &self.ctx
    }

    /// Length of the frame, all buffers included. A helper call: not for the path of every packet.
    #[inline(always)]
    pub(crate) fn frame_len(&self) -> u32 {
        // SAFETY: the context the kernel gave us.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as u32 }
    }

    /// Copies `len` bytes of the frame at `offset` to `at` in the working area: both at most
    /// STREAM_BYTES_MAX, twice which fits it, as the verifier reckons.
    #[inline(always)]
    fn load_bytes(&self, offset: u32, len: u64, at: u64) -> bool {
        let Some(work) = calls::work() else {
            return false;
        };
        // SAFETY: in bounds, see above.
        let result = unsafe {
            let to = work.bytes.as_mut_ptr().add(at as usize);
            bpf_xdp_load_bytes(self.ctx.ctx, offset, to.cast(), len as u32)
        };
        result == 0
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
        const GENERATION: &Generation = &Generation;
        GENERATION.rule(slot)
    }

    #[inline(always)]
    fn now_tai_ns(&self) -> u64 {
        Generation.now_tai_ns()
    }

    #[inline(always)]
    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
        Generation.apply(slot, specificity, qualifiers)
    }

    #[inline(always)]
    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed {
        Generation.listed_v6(addr, length, qualifiers)
    }

    #[inline(always)]
    fn observe(&self, slot: u16, reason: Reason) {
        Generation.observe(slot, reason);
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
            // Not every kernel's verifier knows that a 16-bit word has 16 bits once its bytes are swapped.
            Some(classes) => classes[mask::<0xffff>(u64::from(port)) as usize],
            None => 0,
        }
    }

    #[inline(always)]
    fn serves_v4(&self, addr: u32) -> u32 {
        calls::serves_v4(u64::from(addr)) as u32
    }

    #[inline(always)]
    fn serves_v6(&self, addr: [u64; 2]) -> u32 {
        calls::serves_v6(addr[0], addr[1]) as u32
    }

    #[inline(always)]
    fn plan(&mut self, segment: Segment) -> Reading {
        let [place, numbers, rest] = segment.pack();
        Reading::unpack(calls::plan(self.ctx.ctx, place, numbers, rest))
    }

    #[inline(always)]
    fn judge(&mut self) -> Reading {
        Reading::unpack(calls::judge(self.ctx.ctx))
    }

    #[inline(always)]
    fn watch(&mut self, segment: Segment) {
        let [place, numbers, rest] = segment.pack();
        calls::watch(self.ctx.ctx, place, numbers, rest);
    }

    #[inline(always)]
    fn course(&mut self, segment: Segment) -> Course {
        let [place, numbers, rest] = segment.pack();
        Course::unpack(calls::course(self.ctx.ctx, place, numbers, rest))
    }

    #[inline(always)]
    fn between(&mut self, segment: Segment) -> Course {
        let [place, numbers, _] = segment.pack();
        Course::unpack(calls::between(self.ctx.ctx, place, numbers))
    }

    #[inline(always)]
    fn settle(&mut self, state: u32, next: u32, kept: u32) -> bool {
        let (state, next, kept) = (u64::from(state), u64::from(next), u64::from(kept));
        calls::settle(self.ctx.ctx, state, next, kept) != 0
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn count_connection(&mut self, answered: bool) {
        calls::count_connection(u64::from(self.ifindex()), u64::from(answered));
    }

    #[inline(always)]
    fn fetch(&mut self, offset: u32, len: u32, at: u32) -> bool {
        let Some(len) = one_to::<{ STREAM_BYTES_MAX as u64 }>(len) else {
            return false;
        };
        let at = opaque(u64::from(at));
        if at > STREAM_BYTES_MAX as u64 || at + len > STREAM_BYTES_MAX as u64 {
            return false;
        }
        self.load_bytes(offset, len, at)
    }

    #[inline(always)]
    fn fetch_aside(&mut self, offset: u32, len: u32) -> bool {
        let Some(len) = one_to::<{ STREAM_BYTES_MAX as u64 }>(len) else {
            return false;
        };
        self.load_bytes(offset, len, u64::from(HANDSHAKE_AT))
    }

    #[inline(always)]
    fn look_up_peer(&mut self, segment: Segment) {
        if rules::has(feature::SOCKETS) {
            let [_, numbers, rest] = segment.pack();
            let payload = u64::from(segment.len != 0);
            calls::look_up_socket(self.ctx.ctx, payload, numbers, rest);
        } else if let Some(work) = calls::work() {
            work.peer = Peer::default();
            work.queued.set(0);
        }
    }

    #[inline(always)]
    fn options(&mut self, offset: u32, len: u32) -> Options {
        Options::unpack(calls::options(
            self.ctx.ctx,
            u64::from(offset),
            u64::from(len),
        ))
    }

    #[inline(always)]
    fn sum(&mut self, offset: u32, len: u32, start: u32) -> u32 {
        let (offset, len) = (u64::from(offset), u64::from(len));
        calls::sum(self.ctx.ctx, offset, len, u64::from(start)) as u32
    }

    #[inline(always)]
    fn compare(&mut self, at: u32, len: u32) -> bool {
        calls::compare(u64::from(at), u64::from(len)) != 0
    }

    #[inline(always)]
    fn flow_load(&mut self) -> bool {
        state::load_flow()
    }

    #[inline(always)]
    fn flow_store(&mut self) -> bool {
        state::store_flow()
    }

    #[inline(always)]
    fn answers_store(&mut self) {
        state::store_answers();
    }

    #[inline(always)]
    fn forget(&mut self) {
        calls::forget(self.ctx.ctx);
    }

    #[inline(always)]
    fn flow_delete(&mut self) {
        state::delete_flow();
    }

    #[inline(always)]
    fn hello_load(&mut self, len: u32) -> bool {
        state::load_hello(len)
    }

    #[inline(always)]
    fn hello_store(&mut self, len: u32) -> bool {
        state::store_hello(len)
    }

    #[inline(always)]
    fn hello_delete(&mut self) {
        state::delete_hello();
    }

    #[inline(always)]
    fn blocked_load(&mut self) -> Option<Blocked> {
        state::load_blocked()
    }

    #[inline(always)]
    fn blocked_store(&mut self, blocked: Blocked) {
        state::store_blocked(blocked);
    }

    #[inline(always)]
    fn blocked_delete(&mut self) {
        state::delete_blocked();
    }

    #[inline(always)]
    fn port_taken(&self, port: u16) -> bool {
        taken::has_port(port)
    }

    #[inline(always)]
    fn follow(&mut self, segment: Segment) -> Reading {
        let [_, numbers, rest] = segment.pack();
        Reading::unpack(calls::follow(self.ctx.ctx, numbers, rest))
    }

    #[inline(always)]
    fn taken_load(&mut self) -> Option<Taken> {
        calls::work().and_then(|work| taken::load(&work.key))
    }

    #[inline(always)]
    fn taken_reopen(&mut self, at: u32) {
        if let Some(work) = calls::work() {
            taken::reopen(&work.key, at);
        }
    }

    #[inline(always)]
    fn taken_delete(&mut self) {
        if let Some(work) = calls::work() {
            taken::delete(&work.key);
        }
    }

    #[inline(always)]
    fn work(&mut self) -> Option<&mut Work<MapMemory>> {
        calls::work()
    }

    #[inline(always)]
    fn skip_tags(&self, ethertype: u16) -> Option<Tags> {
        Tags::unpack(calls::skip_tags(self.ctx.ctx, u64::from(ethertype)))
    }

    #[inline(always)]
    fn walk_extensions(&self, protocol: u8, at: u32, end: u32) -> Chain {
        let (protocol, at, end) = (u64::from(protocol), u64::from(at), u64::from(end));
        Chain::unpack(calls::walk_extensions(self.ctx.ctx, protocol, at, end))
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
    fn read_proxy(&mut self, len: u32) -> Header {
        Header::unpack(calls::read_proxy(u64::from(len)))
    }

    #[inline(always)]
    fn read_tls(&mut self, len: u32) -> Progress {
        Progress::from_u8(calls::read_tls(u64::from(len)) as u8)
    }

    #[inline(always)]
    fn read_http(&mut self, len: u32, certain: bool) -> Progress {
        Progress::from_u8(calls::read_http(u64::from(len), u64::from(certain)) as u8)
    }

    #[inline(always)]
    fn search_names(&mut self, qualifiers: Qualifiers) -> Hit {
        let mut best = Hit::NONE;
        for index in 0..NAMES_PER_HELLO_MAX as u32 {
            let Some(work) = calls::work() else {
                return best;
            };
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
