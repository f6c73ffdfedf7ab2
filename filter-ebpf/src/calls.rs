//! Parts of the path behind function boundaries.
//!
//! Each is a global function: the verifier checks it once, on its own, with unknown scalars for
//! arguments, and not again at each call. Hence no pointer arguments; what is larger than a
//! scalar goes through the working area.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_loop};
use filter_common::{
    hello::Progress,
    hit::Qualifiers,
    hostname, http,
    limits::{EXTENSIONS_MAX, RECORDS_MAX},
    origins,
    tls::{self, Shape, Step},
    work::Work,
};

use crate::{maps, memory::MapMemory, rules::Generation};

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

/// Whether names are read on connections to an IPv6 address.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn serves_v6(high: u64, low: u64) -> u64 {
    u64::from(origins::serves_v6(&Generation, [high, low]))
}

/// [`hostname::search_one`] for the name at `index`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search_name(index: u64, qualifiers: u64) -> u64 {
    let Some(work) = work() else { return 0 };
    let qualifiers = Qualifiers::unpack(qualifiers);
    hostname::search_one(&Generation, work, index as u32, qualifiers).0
}

/// Reads the ClientHello in the first `len` bytes of the stream; a [`Progress`] discriminant.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_tls(len: u64) -> u64 {
    read_tls_stream(len as u32) as u64
}

#[inline(always)]
fn read_tls_stream(len: u32) -> Progress {
    let Some(work) = work() else { return Progress::Other };
    work.begin();
    let message = match tls::shape(work, len) {
        Shape::Decided(progress) => return progress,
        Shape::OneRecord(message) => message,
        Shape::Several => {
            work.records.begin(len);
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
pub(crate) extern "C" fn read_http(len: u64) -> u64 {
    read_http_stream(len as u32) as u64
}

#[inline(always)]
fn read_http_stream(len: u32) -> Progress {
    let Some(work) = work() else { return Progress::Other };
    work.begin();
    if let Some(progress) = http::begin(work, len) {
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

unsafe extern "C" fn http_turn(_turn: u64, _context: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    answer(http::step(work))
}
