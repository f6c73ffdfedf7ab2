//! The maps. Names and shapes are part of the ABI; sizes of the tables are set by the loader.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMap, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf},
};
use filter_common::{
    abi::{Directions, FlowKey, Line, NextHop, Outcome, Response, Rule, RuleCounters, Sink, Taken},
    flow::{Blocked, Entry},
    limits::{
        BLOCKED_FLOWS_MAX, EVENT_RING_BYTES, FLOWS_MAX, HANDOVER_RING_BYTES, HELLO_KEPT_BYTES,
        HELLOS_MAX, INTERFACES_COUNTED_MAX, LONG_HELLOS_MAX, NEXT_HOPS_MAX, ORIGIN_CLIENTS_MAX,
        REDIRECT_TARGETS_MAX, RULES_MAX, STREAM_BYTES_MAX, TAKEN_HELLO_BYTES_MAX, TAKEN_HELLOS_MAX,
        TAKEN_MAX, VLAN_TAGS_MAX,
    },
    respond::{Budget, Draft, Request},
    work::Work,
};

use crate::memory::MapMemory;

/// Table maps of a generation, sized and filled by the loader.
macro_rules! tables {
    ($($name:ident)*) => {
        $(#[map]
        pub(crate) static $name: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);)*
    };
}

tables! {
    V4_SUMMARY V4_BUCKETS V6_SUMMARY V6_BUCKETS
    SERVED_V4_SUM SERVED_V4_BKT SERVED_V6_SUM SERVED_V6_BKT
    NAME_SUMMARY NAME_BUCKETS RULE_SETS
}

/// Number of the generation in place: of all that a live program reads, the one word that changes what
/// it does.
#[map]
pub(crate) static LIVE: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Rules, two by slot, see [`filter_common::abi::rule_index`].
#[map]
pub(crate) static RULES: Array<Rule> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `port_class` bits of every port.
#[map]
pub(crate) static PORT_CLASS: Array<[u8; 65_536]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Devices that rules redirect to, by `redirect_index`.
#[map]
pub(crate) static REDIRECT: DevMap = DevMap::with_max_entries(REDIRECT_TARGETS_MAX as u32, 0);

/// Per-rule counters, shared by all generations.
#[map]
pub(crate) static RULE_COUNTERS: PerCpuArray<RuleCounters> =
    PerCpuArray::with_max_entries(RULES_MAX as u32, 0);

/// Per-reason counters, shared by all generations.
#[map]
pub(crate) static REASONS: PerCpuArray<[u64; 64]> = PerCpuArray::with_max_entries(1, 0);

/// Sampled events, shared by all generations.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES as u32, 0);

/// Rate limit and losses of [`EVENTS`], shared by all generations.
#[map]
pub(crate) static EVENT_STATE: PerCpuArray<EventState> = PerCpuArray::with_max_entries(1, 0);

/// See [`EVENT_STATE`].
#[repr(C)]
pub(crate) struct EventState {
    /// First jiffy of the current window.
    pub(crate) window_start: u64,
    /// Events emitted in the current window.
    pub(crate) in_window: u64,
    /// Events not emitted because the window's share was used up.
    pub(crate) suppressed: u64,
    /// Events lost because the ring was full.
    pub(crate) lost: u64,
}

/// What became of the last packet, under `feature::TRACE`.
#[map]
pub(crate) static OUTCOME: Array<Outcome> = Array::with_max_entries(1, 0);

/// Least recently used entries are evicted per CPU: no list is shared by CPUs.
const BPF_F_NO_COMMON_LRU: u32 = 1 << 1;

/// Undecided streams, shared by all generations.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Entry> =
    LruHashMap::with_max_entries(FLOWS_MAX, BPF_F_NO_COMMON_LRU);

/// Bytes of undecided streams, shared by all generations.
#[map]
pub(crate) static HELLOS: LruHashMap<FlowKey, [u8; HELLO_KEPT_BYTES as usize]> =
    LruHashMap::with_max_entries(HELLOS_MAX, BPF_F_NO_COMMON_LRU);

/// Bytes of undecided streams that do not fit [`HELLOS`], shared by all generations.
#[map]
pub(crate) static LONG_HELLOS: LruHashMap<FlowKey, [u8; STREAM_BYTES_MAX]> =
    LruHashMap::with_max_entries(LONG_HELLOS_MAX, 0);

/// Blocked connections, shared by all generations.
#[map]
pub(crate) static BLOCKED: LruHashMap<FlowKey, Blocked> =
    LruHashMap::with_max_entries(BLOCKED_FLOWS_MAX, BPF_F_NO_COMMON_LRU);

/// Connections that were judged, by the index of the interface that the client's payload came in on;
/// shared by all generations.
#[map]
pub(crate) static DIRECTIONS: PerCpuHashMap<u32, Directions> =
    PerCpuHashMap::with_max_entries(INTERFACES_COUNTED_MAX, 0);

/// Working areas, one per CPU (a per-CPU map holds at most 32 KiB); the loader sets their number.
/// An XDP program is not preempted by another one on its CPU.
#[map]
pub(crate) static WORK: Array<Work<MapMemory>> = Array::with_max_entries(1, 0);

/// The clock as last read on this CPU.
#[map]
pub(crate) static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

/// See [`CLOCK`].
#[repr(C)]
pub(crate) struct Clock {
    /// When it was read.
    pub(crate) jiffies: u64,
    /// CLOCK_TAI in nanoseconds.
    pub(crate) tai_ns: u64,
}

/// Where the program that answers writes, one per CPU.
#[map]
pub(crate) static DESK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(1, 0);

/// Most bytes of a link header: MAC addresses, VLAN tags, type.
pub(crate) const LINK_BYTES_MAX: usize = 14 + 4 * VLAN_TAGS_MAX;

/// See [`DESK`].
#[repr(C)]
pub(crate) struct Desk {
    /// The frame as far as it was read.
    pub(crate) request: Request,
    /// Its link header.
    pub(crate) link: [u8; LINK_BYTES_MAX],
    /// The answer.
    pub(crate) draft: Draft,
    /// The entry of a connection that is refused.
    pub(crate) taken: Taken,
    /// What this CPU may still send to addresses that have not proven themselves.
    pub(crate) budget: Budget,
}

/// What the lookups note about the current packet, under `feature::OBSERVE`.
#[map]
pub(crate) static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// See [`NOTES`].
#[repr(C)]
pub(crate) struct Notes {
    /// Slot of the first rule that observed, plus one; 0 for none.
    pub(crate) observed: u32,
    /// What it hit: a `Reason` discriminant.
    pub(crate) reason: u32,
    /// Frame length in bytes.
    pub(crate) frame_len: u32,
    /// Zero.
    pub(crate) reserved: u32,
}

/// The program that answers, of the same generation: element 0.
#[map]
pub(crate) static RESPONDER: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What it is told.
#[map]
pub(crate) static RESPONSE: PerCpuArray<Response> = PerCpuArray::with_max_entries(1, 0);

/// What became of frames that were to be answered, shared by all generations.
#[map]
pub(crate) static ANSWERS: PerCpuArray<[u64; 32]> = PerCpuArray::with_max_entries(1, 0);

/// Connections that are answered in the server's place, shared by all generations.
#[map]
pub(crate) static TAKEN: LruHashMap<FlowKey, Taken> = LruHashMap::with_max_entries(TAKEN_MAX, 0);

/// Two bits for each client port, in words side by side, of which one is set if there is an entry in
/// [`TAKEN`] for it, so that nearly all segments need not be looked up there. Both are set before the entry
/// is made; the controller clears them, one after the other. Shared.
#[map]
pub(crate) static TAKEN_PORTS: Array<[[u64; 2]; 1024]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Streams that are handed to the block page in parts, up to the end of the part that completed the name;
/// shared by all generations.
#[map]
pub(crate) static TAKEN_HELLOS: LruHashMap<FlowKey, [u8; TAKEN_HELLO_BYTES_MAX as usize]> =
    LruHashMap::with_max_entries(TAKEN_HELLOS_MAX, 0);

/// Connections that a process is to make sockets of; one page where it does not.
#[map]
pub(crate) static HANDOVERS: RingBuf = RingBuf::with_byte_size(HANDOVER_RING_BYTES, 0);

/// Clients of blocked addresses that the block page answers, shared by all generations.
#[map]
pub(crate) static ORIGIN_CLIENTS: LruHashMap<FlowKey, Taken> =
    LruHashMap::with_max_entries(ORIGIN_CLIENTS_MAX, 0);

/// The way to the block page, shared by all generations.
#[map]
pub(crate) static SINK: Array<Sink> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The device that leads to it, shared by all generations.
#[map]
pub(crate) static SINK_DEV: DevMap = DevMap::with_max_entries(1, 0);

/// Next hops that rules send to, shared by all generations.
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> =
    Array::with_max_entries(NEXT_HOPS_MAX as u32, BPF_F_MMAPABLE);
