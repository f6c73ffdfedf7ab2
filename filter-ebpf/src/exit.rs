//! The one way out: counts the reason and the rule, traces, reports, acts.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_tai_ns, bpf_probe_read_kernel},
};
use filter_common::{
    abi::{Event, FlowKey, NO_SLOT, Outcome, Response, Verdict, feature},
    env::Rules,
    fast::Glance,
    limits::{EVENT_NAME_BYTES, EVENT_WINDOW_JIFFIES, NAME_BYTES_MAX},
    pipeline::Decision,
    reason::Reason,
    wire::Packet,
    work::{Span, Variable as _},
};

use crate::{
    calls,
    kernel::Kernel,
    maps::{self, EventState},
    packet::{is_probe, opaque},
    rules::{self, has},
};

/// What is reported of a packet: discriminants, and not the enums, since by each of their values the
/// verifier would walk all that follows once more.
#[derive(Clone, Copy)]
struct Report {
    verdict: u8,
    reason: u8,
    protocol: u8,
    slot: u16,
}

impl Report {
    #[inline(always)]
    const fn of(decision: &Decision) -> Self {
        Self {
            verdict: decision.verdict as u8,
            reason: decision.reason as u8,
            protocol: decision.protocol as u8,
            slot: decision.hit.slot(),
        }
    }

    /// By way of map memory, from which the verifier takes any value for possible: all the ways to a
    /// decision join here. What is left there is for the program that answers.
    #[inline(always)]
    fn through(response: *mut Response, decision: &Decision) -> Self {
        let report = Self::of(decision);
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        unsafe {
            (*response).slot = report.slot;
            (*response).verdict = report.verdict;
            (*response).reason = report.reason;
            (*response).protocol = report.protocol;
            Self {
                verdict: (&raw const (*response).verdict).read_volatile(),
                reason: (&raw const (*response).reason).read_volatile(),
                protocol: (&raw const (*response).protocol).read_volatile(),
                slot: (&raw const (*response).slot).read_volatile(),
            }
        }
    }
}

/// Whether a packet that a first look is sure of is to be reported: an event tells more than that look
/// has seen.
#[inline(always)]
pub(crate) fn reports(kernel: &Kernel, glance: Glance) -> bool {
    if !has(feature::EVENTS) || glance.hit.is_none() {
        return false;
    }
    event_state().is_none_or(|state| has_room(kernel, state))
}

/// As [`record`], for a packet that a first look is enough for and that is not to be reported. Nothing
/// has observed it.
#[inline(always)]
pub(crate) fn record_glance(kernel: &Kernel, glance: Glance) -> u32 {
    let decision = glance.decision();
    let mut report = Report::of(&decision);
    if decision.hit.is_none() {
        if !is_probe(kernel.context()) {
            count_reason(report.reason);
            note(kernel, report);
        }
        return xdp_action::XDP_PASS;
    }
    let action = act(&mut report);
    if is_probe(kernel.context()) {
        return unless_answered(action);
    }
    rules::count(report.slot, kernel.frame_len());
    count_reason(report.reason);
    note(kernel, report);
    if has(feature::EVENTS)
        && let Some(state) = event_state()
    {
        state.suppressed += 1;
    }
    action
}

/// Counts and reports the decision; the XDP action.
#[inline(always)]
pub(crate) fn record(kernel: &Kernel, packet: &Packet, decision: Decision) -> u32 {
    let Some(response) = maps::RESPONSE.get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    let mut report = Report::through(response, &decision);
    let action = act(&mut report);
    if is_probe(kernel.context()) {
        return unless_answered(action);
    }
    if report.slot != NO_SLOT {
        rules::count(report.slot, kernel.frame_len());
    } else if report.verdict == Verdict::Pass as u8
        && let Some((slot, reason)) = rules::observed()
    {
        report.verdict = Verdict::Observe as u8;
        report.reason = reason;
        report.slot = slot;
    }
    count_reason(report.reason);
    note(kernel, report);
    // One event tells of a connection that was answered; what it still sends is only counted.
    let is_news = report.slot != NO_SLOT && report.reason != Reason::Taken as u8;
    if has(feature::EVENTS) && is_news {
        emit(kernel, packet, report);
    }
    if action == TO_BE_ANSWERED {
        return answer(kernel, report);
    }
    action
}

/// The action for the controller's own frames, which nothing is sent for.
#[inline(always)]
const fn unless_answered(action: u32) -> u32 {
    match action {
        TO_BE_ANSWERED => xdp_action::XDP_DROP,
        action => action,
    }
}

/// Goes on to the program that answers; the frame is dropped if that is not there.
#[inline(always)]
fn answer(kernel: &Kernel, mut report: Report) -> u32 {
    if has(feature::RESPOND) {
        // SAFETY: a context of this program; on success the call does not return.
        unsafe { maps::RESPONDER.tail_call(kernel.context(), 0) };
    }
    report.reason = Reason::RefuseFailed as u8;
    count_reason(report.reason);
    note(kernel, report);
    xdp_action::XDP_DROP
}

/// Tells those who want to hear of every packet.
#[inline(always)]
fn note(kernel: &Kernel, report: Report) {
    if has(feature::TRACE) {
        trace(kernel, report);
    }
    if has(feature::DEBUG) {
        debug(kernel, report);
    }
}

#[inline(always)]
fn act(report: &mut Report) -> u32 {
    const PASS: u8 = Verdict::Pass as u8;
    const OBSERVE: u8 = Verdict::Observe as u8;
    const REFUSE: u8 = Verdict::Refuse as u8;
    const REDIRECT: u8 = Verdict::Redirect as u8;
    match report.verdict {
        PASS | OBSERVE => xdp_action::XDP_PASS,
        REFUSE => TO_BE_ANSWERED,
        REDIRECT if report.reason == Reason::Taken as u8 => TO_BE_ANSWERED,
        REDIRECT => redirect(report),
        _ => xdp_action::XDP_DROP,
    }
}

/// As an action: the frame goes to the program that answers.
const TO_BE_ANSWERED: u32 = calls::TO_BE_ANSWERED as u32;

/// To the rule's interface; dropped if that has no device.
#[inline(always)]
fn redirect(report: &mut Report) -> u32 {
    if !has(feature::REDIRECT | feature::RESPOND) {
        return xdp_action::XDP_DROP;
    }
    let action = calls::redirect(u64::from(report.slot)) as u32;
    if action != xdp_action::XDP_REDIRECT && action != TO_BE_ANSWERED {
        report.reason = Reason::RedirectFailed as u8;
    }
    action
}

#[inline(always)]
fn count_reason(reason: u8) {
    if let Some(reasons) = maps::REASONS.get_ptr_mut(0) {
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        let reasons = unsafe { &mut *reasons };
        reasons[opaque(u64::from(reason)) as usize & 63] += 1;
    }
}

/// The name that the outcome reports, in the working area: empty if none was read.
#[inline(always)]
fn reported_name(report: Report) -> Span {
    use filter_common::abi::Protocol;
    let nothing = Span { at: 0, len: 0 };
    if report.protocol != Protocol::Tls as u8 && report.protocol != Protocol::Http as u8 {
        return nothing;
    }
    let Some(work) = calls::work() else {
        return nothing;
    };
    if work.name_count.get() == 0 {
        nothing
    } else {
        work.name(work.name_reported.get())
    }
}

/// Copies at most `N` bytes of a name out of the working area; how many.
#[inline(always)]
fn copy_name<const N: usize>(name: Span, to: *mut u8) -> u16 {
    let Some(work) = calls::work() else { return 0 };
    let at = opaque(u64::from(name.at));
    let len = opaque(u64::from(name.len.min(N as u32)));
    if len == 0 || len > N as u64 || at > (work.bytes.len() - N) as u64 {
        return 0;
    }
    // SAFETY: both runs are in bounds as just checked; `to` has room for `N`.
    unsafe {
        let from = (&raw const work.bytes as *const u8).add(at as usize);
        bpf_probe_read_kernel(to.cast(), len as u32, from.cast());
    }
    len as u16
}

#[inline(always)]
fn trace(kernel: &Kernel, report: Report) {
    let Some(outcome) = maps::OUTCOME.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: traced programs run one at a time, under BPF_PROG_TEST_RUN.
    let outcome: &mut Outcome = unsafe { &mut *outcome };
    outcome.verdict = report.verdict;
    outcome.reason = report.reason;
    outcome.protocol = report.protocol;
    outcome.reserved = 0;
    outcome.slot = report.slot;
    outcome.slot_version = slot_version(kernel, report.slot);
    outcome.frame_len = kernel.frame_len();
    outcome.name_len =
        copy_name::<NAME_BYTES_MAX>(reported_name(report), (&raw mut outcome.name).cast());
}

/// One line a packet, for looking at a single flow in a test setup: far too dear for traffic.
#[inline(never)]
fn debug(kernel: &Kernel, report: Report) {
    aya_log_ebpf::info!(
        kernel.context(),
        "verdict {} reason {} slot {}",
        report.verdict,
        report.reason,
        report.slot
    );
}

#[inline(always)]
fn slot_version(kernel: &Kernel, slot: u16) -> u32 {
    match kernel.rule(slot) {
        Some(rule) => rule.slot_version,
        None => 0,
    }
}

/// Whether this CPU's share of the window has room for another event.
#[inline(always)]
fn has_room(kernel: &Kernel, state: &mut EventState) -> bool {
    // SAFETY: helper without arguments, which the kernel inlines.
    let now = unsafe { bpf_jiffies64() };
    if now - state.window_start >= EVENT_WINDOW_JIFFIES {
        state.window_start = now;
        state.in_window = 0;
    }
    state.in_window < u64::from(kernel.config().events_per_window)
}

#[inline(always)]
fn event_state() -> Option<&'static mut EventState> {
    let state = maps::EVENT_STATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's element, and an XDP program is not preempted by another.
    Some(unsafe { &mut *state })
}

/// Puts an event into the ring, within this CPU's share of the window. A function of its own, so that its stack and that of reading a hello
/// are not added up.
#[inline(never)]
fn emit(kernel: &Kernel, packet: &Packet, report: Report) {
    let Some(state) = event_state() else { return };
    if !has_room(kernel, state) {
        state.suppressed += 1;
        return;
    }
    state.in_window += 1;
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        state.lost += 1;
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: every field is written, the name's unused bytes are cleared first.
    unsafe {
        (*event).tai_ns = bpf_ktime_get_tai_ns();
        (*event).generation = rules::generation();
        write_flow(kernel, packet, &raw mut (*event).flow);
        (*event).ifindex = kernel.ifindex();
        (*event).frame_len = kernel.frame_len();
        (*event).slot_version = slot_version(kernel, report.slot);
        (*event).slot = report.slot;
        (*event).verdict = report.verdict;
        (*event).reason = report.reason;
        (*event).protocol = report.protocol;
        (*event).reserved = [0; 5];
        (*event).name = [0; EVENT_NAME_BYTES];
        (*event).name_len = if report.reason == Reason::Hostname as u8 {
            let to = (&raw mut (*event).name).cast();
            copy_name::<EVENT_NAME_BYTES>(reported_name(report), to)
        } else {
            0
        };
    }
    entry.submit(0);
}

/// The packet's addresses and ports, as it has them.
///
/// # Safety
///
/// `flow` points to writable memory of a key.
#[inline(always)]
pub(crate) unsafe fn write_flow(kernel: &Kernel, packet: &Packet, flow: *mut FlowKey) {
    let ports = packet.ports(kernel);
    // SAFETY: the caller's key; addresses are written as big-endian words.
    unsafe {
        (*flow).src = [packet.src[0].to_be(), packet.src[1].to_be()];
        (*flow).dst = [packet.dst[0].to_be(), packet.dst[1].to_be()];
        (*flow).src_port = ports.src;
        (*flow).dst_port = ports.dst;
        (*flow).protocol = packet.protocol;
        (*flow).reserved = [0; 3];
    }
}
