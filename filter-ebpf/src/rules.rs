//! The running generation's constants, tables and rules, read from maps.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_tai_ns};
use filter_common::{
    abi::{Config, Line, Rule, RuleCounters, Table, feature, rule_index},
    env,
    hit::{Hit, Listed, Qualifiers},
    limits::RULES_MAX,
    reason::Reason,
    tables::Lines,
};

use crate::{calls, maps, packet::opaque_ref};

/// Load-time constants: the loader overwrites them, the kernel freezes them, and the verifier
/// removes the code that they switch off.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::EMPTY;

/// The constants as the loader has set them.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    // The compiler must not fold the values it sees here.
    opaque_ref(&CONFIG)
}

/// Whether a feature is on.
#[inline(always)]
pub(crate) fn has(feature: u32) -> bool {
    config().features & feature != 0
}

/// Number of the generation in place. Only for packets that hit something: others need not look. A
/// function of its own for the stack of the program, which is that of the deepest chain of calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn generation() -> u64 {
    match maps::LIVE.get_ptr(0) {
        // SAFETY: an aligned word of a map; user space stores it as a whole, at any time.
        Some(live) => unsafe { live.read_volatile() },
        None => 0,
    }
}

/// The running generation.
#[derive(Clone, Copy)]
pub(crate) struct Generation;

impl Lines for Generation {
    #[inline(always)]
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        match table {
            Table::V4Summary => maps::V4_SUMMARY.get(index),
            Table::V4Buckets => maps::V4_BUCKETS.get(index),
            Table::V6Summary => maps::V6_SUMMARY.get(index),
            Table::V6Buckets => maps::V6_BUCKETS.get(index),
            Table::ServedV4Summary => maps::SERVED_V4_SUM.get(index),
            Table::ServedV4Buckets => maps::SERVED_V4_BKT.get(index),
            Table::ServedV6Summary => maps::SERVED_V6_SUM.get(index),
            Table::ServedV6Buckets => maps::SERVED_V6_BKT.get(index),
            Table::NameSummary => maps::NAME_SUMMARY.get(index),
            Table::NameBuckets => maps::NAME_BUCKETS.get(index),
            Table::RuleSets => maps::RULE_SETS.get(index),
        }
    }
}

impl env::Rules for Generation {
    #[inline(always)]
    fn config(&self) -> &Config {
        config()
    }

    #[inline(always)]
    fn rule(&self, slot: u16) -> Option<&Rule> {
        maps::RULES.get(rule_index(slot, generation()))
    }

    /// Reading CLOCK_TAI costs 37 ns, so it is read once a jiffy: a rule starts and ends up to
    /// one jiffy (1 to 10 ms) late.
    #[inline(always)]
    fn now_tai_ns(&self) -> u64 {
        // SAFETY: helper without arguments.
        let jiffies = unsafe { bpf_jiffies64() };
        let Some(clock) = maps::CLOCK.get_ptr_mut(0) else {
            // SAFETY: helper without arguments.
            return unsafe { bpf_ktime_get_tai_ns() };
        };
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        let clock = unsafe { &mut *clock };
        if clock.jiffies != jiffies {
            clock.jiffies = jiffies;
            // SAFETY: helper without arguments.
            clock.tai_ns = unsafe { bpf_ktime_get_tai_ns() };
        }
        clock.tai_ns
    }

    #[inline(always)]
    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
        Hit(calls::apply(
            u64::from(slot),
            u64::from(specificity),
            qualifiers.pack(),
        ))
    }

    #[inline(always)]
    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed {
        let length = u64::from(length);
        Listed::unpack(calls::listed_v6(
            addr[0],
            addr[1],
            length,
            qualifiers.pack(),
        ))
    }

    #[inline(always)]
    fn observe(&self, slot: u16, reason: Reason) {
        let Some(notes) = maps::NOTES.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        let notes = unsafe { &mut *notes };
        count(slot, notes.frame_len);
        if notes.observed == 0 {
            notes.observed = u32::from(slot) + 1;
            notes.reason = reason as u32;
        }
    }
}

/// The first rule that observed this packet, and what it hit: a [`Reason`] discriminant.
#[inline(always)]
pub(crate) fn observed() -> Option<(u16, u8)> {
    if !has(feature::OBSERVE) {
        return None;
    }
    // SAFETY: this CPU's element, and an XDP program is not preempted by another.
    let notes = unsafe { &*maps::NOTES.get_ptr(0)? };
    if notes.observed == 0 {
        return None;
    }
    Some(((notes.observed - 1) as u16, notes.reason as u8))
}

/// Prepares the notes for a packet.
#[inline(always)]
pub(crate) fn begin_notes(frame_len: u32) {
    if let Some(notes) = maps::NOTES.get_ptr_mut(0) {
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        unsafe {
            *notes = maps::Notes {
                observed: 0,
                reason: 0,
                frame_len,
                reserved: 0,
            }
        };
    }
}

/// Counts a packet for a rule.
#[inline(always)]
pub(crate) fn count(slot: u16, frame_len: u32) {
    if let Some(counters) =
        maps::RULE_COUNTERS.get_ptr_mut(u32::from(slot) & (RULES_MAX as u32 - 1))
    {
        // SAFETY: this CPU's element, and an XDP program is not preempted by another.
        let counters: &mut RuleCounters = unsafe { &mut *counters };
        counters.packets += 1;
        counters.bytes += u64::from(frame_len);
    }
}
