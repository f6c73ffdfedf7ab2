//! Parts of the path behind function boundaries.
//!
//! Each is a global function: the verifier checks it once, on its own, with unknown scalars for
//! arguments, and not again at each call. Hence no pointer arguments; what is larger than a
//! scalar goes through the working area.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_csum_diff, bpf_get_smp_processor_id, bpf_loop, bpf_redirect_map},
    programs::XdpContext,
};
use filter_common::{
    abi::redirect,
    checksum,
    env::{Env as _, Rules as _},
    flow::{self, Segment},
    hello::Progress,
    hit::{self, Listed, Qualifiers, listed},
    hostname, http,
    limits::{EXTENSIONS_MAX, RECORDS_MAX, STREAM_BYTES_MAX},
    origins, proxy, respond,
    tls::{self, Shape, Step},
    wire,
    work::{HANDSHAKE_AT, Variable as _, Work},
};

use crate::{
    kernel::Kernel,
    maps,
    memory::MapMemory,
    packet::{mask, one_to, opaque},
    rules::Generation,
    sockets, state,
};

/// Extensions that one turn of `bpf_loop` looks at: a turn costs about 10 ns.
const EXTENSIONS_PER_TURN: u32 = 8;

/// This CPU's working area.
#[inline(always)]
pub(crate) fn work() -> Option<&'static mut Work<MapMemory>> {
    // SAFETY: helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let work = maps::WORK.get_ptr_mut(cpu)?;
    // SAFETY: this CPU's element, and an XDP program is not preempted by another. Each
    // function uses one reference at a time.
    Some(unsafe { &mut *work })
}

/// [`wire::skip_tags`]; packed [`wire::Tags`]. Inline, all that follows would be verified once for
/// each number of tags.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn skip_tags(ctx: *mut xdp_md, ethertype: u64) -> u64 {
    let kernel = Kernel::new(XdpContext::new(ctx));
    wire::Tags::pack(wire::skip_tags(&kernel, ethertype as u16))
}

/// [`wire::walk_extensions`]; a packed [`wire::Chain`]. The context is the one pointer that
/// a global function may take.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn walk_extensions(
    ctx: *mut xdp_md,
    protocol: u64,
    at: u64,
    end: u64,
) -> u64 {
    let kernel = Kernel::new(XdpContext::new(ctx));
    wire::walk_extensions(&kernel, protocol as u8, at as u32, end as u32).pack()
}

/// What [`redirect`] returns for a frame that must be changed first.
pub(crate) const TO_BE_ANSWERED: u64 = u32::MAX as u64;

/// Sends the frame where the rule in `slot` redirects to; the XDP action, or [`TO_BE_ANSWERED`]. A function
/// of its own for the stack of the program, which is that of the deepest chain of calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn redirect(slot: u64) -> u64 {
    match Generation.rule(slot as u16) {
        Some(rule) if redirect::needs_response(rule.redirect_index) => TO_BE_ANSWERED,
        // SAFETY: a device map and a scalar key; the flags are the action on failure.
        Some(rule) => unsafe {
            bpf_redirect_map(
                (&raw const maps::REDIRECT).cast_mut().cast(),
                u64::from(rule.redirect_index),
                u64::from(xdp_action::XDP_DROP),
            ) as u64
        },
        None => u64::from(xdp_action::XDP_DROP),
    }
}

/// [`flow::plan`]; a packed [`flow::Reading`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn plan(ctx: *mut xdp_md, place: u64, numbers: u64, rest: u64) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    flow::plan(&mut kernel, Segment::unpack([place, numbers, rest])).pack()
}

/// [`flow::judge`]; a packed [`flow::Reading`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge(ctx: *mut xdp_md) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    flow::judge(&mut kernel).pack()
}

/// [`flow::watch`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn watch(ctx: *mut xdp_md, place: u64, numbers: u64, rest: u64) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    flow::watch(&mut kernel, Segment::unpack([place, numbers, rest]));
    0
}

/// [`flow::course`]; a packed [`flow::Course`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn course(ctx: *mut xdp_md, place: u64, numbers: u64, rest: u64) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    flow::course(&mut kernel, Segment::unpack([place, numbers, rest])).pack()
}

/// [`respond::follow`]; a packed [`flow::Reading`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn follow(ctx: *mut xdp_md, numbers: u64, rest: u64) -> u64 {
    // As in `settle`.
    opaque(ctx.addr() as u64);
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    // Where the payload lies does not matter.
    respond::follow(&mut kernel, Segment::unpack([0, numbers, rest])).pack()
}

/// [`flow::between`]; a packed [`flow::Course`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn between(ctx: *mut xdp_md, place: u64, numbers: u64) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    // Flags and ports do not matter.
    flow::between(&mut kernel, Segment::unpack([place, numbers, 0])).pack()
}

/// [`flow::settle`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn settle(ctx: *mut xdp_md, state: u64, next: u64, kept: u64) -> u64 {
    // Unused by what is called, the compiler would pass anything in its place, and the verifier insists.
    opaque(ctx.addr() as u64);
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    let settled = flow::settle(&mut kernel, state as u32, next as u32, kept as u32);
    u64::from(settled)
}

/// [`state::count_connection`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_connection(interface: u64, answered: u64) -> u64 {
    state::count_connection(interface as u32, answered != 0);
    0
}

/// [`flow::forget_known`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn forget(ctx: *mut xdp_md) -> u64 {
    // As in `settle`.
    opaque(ctx.addr() as u64);
    flow::forget_known(&mut Kernel::new(XdpContext::new(ctx)));
    0
}

/// [`flow::options_at`]; packed [`flow::Options`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn options(ctx: *mut xdp_md, offset: u64, len: u64) -> u64 {
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    flow::options_at(&mut kernel, offset as u32, len as u32).pack()
}

/// The sum ([`checksum::fold`]) of `len` bytes of the frame at `offset` and of `start`; 0 if they are not
/// all there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sum(ctx: *mut xdp_md, offset: u64, len: u64, start: u64) -> u64 {
    /// What kernels before Linux 6.13 sum in one call.
    const CHUNK: u64 = 512;
    const CHUNKS_MAX: u64 = (STREAM_BYTES_MAX as u64).div_ceil(CHUNK);
    let mut kernel = Kernel::new(XdpContext::new(ctx));
    if !kernel.fetch_aside(offset as u32, len as u32) {
        return 0;
    }
    let Some(work) = work() else { return 0 };
    let Some(len) = one_to::<{ STREAM_BYTES_MAX as u64 }>(len as u32) else {
        return 0;
    };
    // SAFETY: the area is far larger than `len` bytes and the zeros that make whole words of them.
    let bytes = unsafe {
        let bytes = work.bytes.as_mut_ptr().add(HANDSHAKE_AT as usize);
        let end = bytes.add(len as usize);
        for i in 0..3 {
            end.add(i).write_volatile(0);
        }
        bytes
    };
    let padded = (len + 3) & !3;
    let mut sum = 0u32;
    for chunk in 0..CHUNKS_MAX {
        let at = chunk * CHUNK;
        if at >= padded {
            break;
        }
        let len = opaque(padded - at).min(CHUNK);
        // SAFETY: within the area; the kernel reads no more than `len` bytes, a multiple of four.
        sum = unsafe {
            bpf_csum_diff(
                ptr::null_mut(),
                0,
                bytes.add(at as usize).cast(),
                mask::<0x3fc>(len) as u32,
                sum,
            ) as u32
        };
    }
    // The kernel's sum is of words in its own byte order.
    let summed = (checksum::fold(u64::from(sum)) as u16).swap_bytes();
    u64::from(checksum::fold(u64::from(summed) + start))
}

/// [`sockets::look_up`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn look_up_socket(
    ctx: *mut xdp_md,
    payload: u64,
    numbers: u64,
    rest: u64,
) -> u64 {
    // Where the payload lies does not matter, only whether there is any.
    sockets::look_up(ctx, Segment::unpack([payload, numbers, rest]));
    0
}

/// Whether `len` bytes fetched aside are those of the stream at `at`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn compare(at: u64, len: u64) -> u64 {
    let Some(work) = work() else { return 0 };
    flow::begin_comparison(work, at as u32, len as u32);
    repeat(flow::COMPARE_STEPS_MAX, compare_turn);
    u64::from(flow::finish_comparison(work))
}

/// [`origins::search_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_v4(addr: u64, qualifiers: u64) -> u64 {
    origins::search_v4(&Generation, addr as u32, Qualifiers::unpack(qualifiers)).0
}

/// [`origins::search_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_v6(high: u64, low: u64, qualifiers: u64) -> u64 {
    origins::search_v6(&Generation, [high, low], Qualifiers::unpack(qualifiers)).0
}

/// [`origins::listed_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn listed_v6(high: u64, low: u64, length: u64, qualifiers: u64) -> u64 {
    let qualifiers = Qualifiers::unpack(qualifiers);
    origins::listed_v6(&Generation, [high, low], length as u8, qualifiers).pack()
}

/// [`origins::serves_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn serves_v4(addr: u64) -> u64 {
    u64::from(origins::serves_v4(&Generation, addr as u32))
}

/// [`origins::serves_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn serves_v6(high: u64, low: u64) -> u64 {
    u64::from(origins::serves_v6(&Generation, [high, low]))
}

/// [`hit::apply`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn apply(slot: u64, specificity: u64, qualifiers: u64) -> u64 {
    let qualifiers = Qualifiers::unpack(qualifiers);
    hit::apply(&Generation, slot as u16, specificity as u16, qualifiers).0
}

/// [`listed`] for a name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn listed_name(
    set: u64,
    kinds: u64,
    specificity: u64,
    qualifiers: u64,
) -> u64 {
    let qualifiers = Qualifiers::unpack(qualifiers);
    listed(
        &Generation,
        set as u32,
        kinds as u32,
        specificity as u16,
        qualifiers,
    )
    .pack()
}

/// [`hostname::collect_suffix`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn collect_suffix(lane_0: u64, lane_1: u64, len_and_whole: u64) -> u64 {
    if let Some(work) = work() {
        hostname::collect_suffix(&Generation, work, [lane_0, lane_1], len_and_whole as u32);
    }
    0
}

/// The deciding rule for the name at `index`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_name(index: u64, qualifiers: u64) -> u64 {
    let Some(work) = work() else { return 0 };
    if !hostname::begin(&Generation, work, index as u32) {
        return 0;
    }
    repeat(hostname::STEPS_MAX, name_turn);
    hostname::finish(work);
    hostname::try_candidates(work, |set, kinds, specificity| {
        Listed::unpack(listed_name(
            u64::from(set),
            u64::from(kinds),
            u64::from(specificity),
            qualifiers,
        ))
    })
    .0
}

/// [`proxy::read`]; a packed [`proxy::Header`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_proxy(len: u64) -> u64 {
    let Some(work) = work() else { return 0 };
    proxy::read(work, len as u32).pack()
}

/// Reads the ClientHello in the first `len` bytes of the stream; a [`Progress`] discriminant.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_tls(len: u64) -> u64 {
    read_tls_stream(len as u32) as u64
}

#[inline(always)]
fn read_tls_stream(len: u32) -> Progress {
    let Some(work) = work() else {
        return Progress::Other;
    };
    work.begin();
    let message = match tls::shape(work, len) {
        Shape::Decided(progress) => return progress,
        Shape::OneRecord(message) => message,
        Shape::Several => {
            work.records.begin(work.begins.get(), len);
            repeat(RECORDS_MAX, record_turn);
            match work.records.finish(work) {
                Ok(message) => message,
                Err(progress) => return progress,
            }
        }
    };
    if let Some(progress) = tls::begin_extensions(work, message) {
        return progress;
    }
    repeat(EXTENSIONS_MAX / EXTENSIONS_PER_TURN, extension_turn);
    tls::finish_extensions(work)
}

/// Reads the request head in the first `len` bytes of the stream; a [`Progress`] discriminant.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_http(len: u64, certain: u64) -> u64 {
    read_http_stream(len as u32, certain != 0) as u64
}

#[inline(always)]
fn read_http_stream(len: u32, certain: bool) -> Progress {
    let Some(work) = work() else {
        return Progress::Other;
    };
    work.begin();
    if let Some(progress) = http::begin(work, len, certain) {
        return progress;
    }
    repeat(http::STEPS_MAX, http_turn);
    http::finish(work)
}

type Turn = unsafe extern "C" fn(u64, *mut c_void) -> i64;

#[inline(always)]
fn repeat(turns: u32, turn: Turn) {
    // SAFETY: `bpf_loop` calls `turn` with the turn's number and the null pointer.
    unsafe { bpf_loop(turns, turn as *mut c_void, ptr::null_mut(), 0) };
}

/// What `bpf_loop` wants to hear from a turn.
#[inline(always)]
fn answer(step: Step) -> i64 {
    match step {
        Step::Again => 0,
        Step::Done => 1,
    }
}

unsafe extern "C" fn record_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    answer(tls::record_step(work))
}

unsafe extern "C" fn extension_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    for _ in 0..EXTENSIONS_PER_TURN {
        if tls::extension_step(work) == Step::Done {
            return 1;
        }
    }
    0
}

unsafe extern "C" fn name_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    answer(hostname::step(
        &Generation,
        work,
        |_, [lane_0, lane_1], len_and_whole| {
            collect_suffix(lane_0, lane_1, u64::from(len_and_whole));
        },
    ))
}

unsafe extern "C" fn compare_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    answer(flow::compare_step(work))
}

unsafe extern "C" fn http_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    answer(http::step(work))
}
