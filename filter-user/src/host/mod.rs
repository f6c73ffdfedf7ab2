//! The host build of the data path: the same logic that the kernel program is made
//! of, over plain memory. It judges frames where the kernel is not to be asked, and is
//! what the kernel's verdicts are compared with ([`parity`]).

mod env;
pub mod parity;
mod reader;
mod respond;
mod state;
#[cfg(test)]
mod tests;

use filter_common::{
    abi::{Outcome, Protocol, RuleCounters, Verdict, feature},
    flow::Peer,
    limits::NAME_BYTES_MAX,
    pipeline::{self, Decision},
    reason::Reason,
    wire::Packet,
    work::{BYTES, Variable as _},
};

use self::{
    env::{HostEnv, HostRules, HostWork, Surroundings},
    respond::{Answered, Responder},
    state::Streams,
};
pub use self::{reader::Reader, state::StreamTable};
use crate::{
    compile::Compiled,
    replay::{Ran, RunError, Runner},
};

/// Return codes of an XDP program, `enum xdp_action` of `linux/bpf.h`.
pub mod xdp {
    /// The frame is dropped.
    pub const DROP: u32 = 1;
    /// The frame goes on to the network stack.
    pub const PASS: u32 = 2;
    /// The frame, or what was made of it, goes back where it came from.
    pub const TX: u32 = 3;
    /// The frame leaves by another interface.
    pub const REDIRECT: u32 = 4;
}

/// A generation in host memory, with its counters.
pub struct HostRunner {
    compiled: Compiled,
    now_tai_ns: u64,
    work: Box<HostWork>,
    streams: Streams,
    responder: Responder,
    left: Option<Vec<u8>>,
    peer: Peer,
    linear: usize,
    rules: Vec<RuleCounters>,
    reasons: Vec<u64>,
}

impl HostRunner {
    /// A generation at a fixed moment, in CLOCK_TAI nanoseconds.
    pub fn new(compiled: Compiled, now_tai_ns: u64) -> Self {
        let rules = vec![RuleCounters::default(); compiled.rules.len()];
        Self {
            compiled,
            now_tai_ns,
            work: env::working_area(),
            streams: Streams::new(),
            responder: Responder::new(),
            left: None,
            peer: Peer::default(),
            linear: usize::MAX,
            rules,
            reasons: vec![0; Reason::ALL.len()],
        }
    }

    /// Forgets all streams and counts from zero. The working area is left full of `stale`: what the
    /// packet before leaves there, in the kernel, must not matter.
    pub fn restart(&mut self, stale: u8) {
        self.streams = Streams::new();
        self.work.bytes.fill(stale);
        self.rules.fill(RuleCounters::default());
        self.reasons.fill(0);
    }

    /// What the host's socket says of the connections that the next frames belong to. Until told
    /// otherwise there is none, as behind captures and fixtures.
    pub fn set_peer(&mut self, peer: Peer) {
        self.peer = peer;
    }

    /// Has a table of streams take no new connection, as the kernel's may, until told otherwise or
    /// restarted.
    pub fn set_full(&mut self, table: StreamTable, full: bool) {
        self.streams.set_full(table, full);
    }

    /// How many bytes of the next frames lie in their first buffer: headers are read there only.
    pub fn set_linear(&mut self, bytes: usize) {
        self.linear = bytes;
    }

    /// Counters by rule slot.
    pub fn rule_counters(&self) -> &[RuleCounters] {
        &self.rules
    }

    /// Counters by [`Reason`] discriminant.
    pub fn reason_counters(&self) -> &[u64] {
        &self.reasons
    }

    /// What left in the place of the last frame, if it was answered.
    pub fn left(&self) -> Option<&[u8]> {
        self.left.as_deref()
    }

    fn decide(&mut self, frame: &[u8]) -> (u32, Outcome) {
        self.work.begin();
        let mut env = HostEnv::new(
            HostRules::new(&self.compiled, self.now_tai_ns),
            Surroundings {
                frame,
                linear: self.linear,
                peer: self.peer,
            },
            &mut self.work,
            &mut self.streams,
        );
        let mut packet = Packet::EMPTY;
        let decision = pipeline::decide(&mut env, &mut packet);
        let features = self.compiled.config.features;
        let answered = match decision.verdict {
            Verdict::Refuse if features & feature::RESPOND != 0 => {
                self.responder.refuse(&mut env, &packet, decision)
            }
            verdict => Answered {
                action: action(verdict, features),
                frame: None,
            },
        };
        self.left = answered.frame;
        let observed = env.into_observed();
        let outcome = outcome(&self.compiled, &self.work, frame, decision, &observed);
        for slot in observed
            .iter()
            .map(|(slot, _)| *slot)
            .chain([decision.hit.slot()])
        {
            if let Some(counters) = self.rules.get_mut(usize::from(slot)) {
                counters.packets += 1;
                counters.bytes += frame.len() as u64;
            }
        }
        self.reasons[usize::from(outcome.reason)] += 1;
        (answered.action, outcome)
    }
}

impl Runner for HostRunner {
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError> {
        let (action, outcome) = self.decide(frame);
        Ok(Ran { action, outcome })
    }
}

/// The record of a decision, as the program writes it to the trace map.
fn outcome(
    compiled: &Compiled,
    work: &HostWork,
    frame: &[u8],
    decision: Decision,
    observed: &[(u16, Reason)],
) -> Outcome {
    let (verdict, reason, slot) = match observed.first() {
        Some(&(slot, reason)) if decision.verdict == Verdict::Pass => {
            (Verdict::Observe, reason, slot)
        }
        _ => (decision.verdict, decision.reason, decision.hit.slot()),
    };
    let mut name = [0; NAME_BYTES_MAX];
    let reported = reported_name(work, decision.protocol);
    let name_len = reported.len();
    if let Some(room) = name.get_mut(..name_len) {
        room.copy_from_slice(reported);
    }
    Outcome {
        verdict: verdict as u8,
        reason: reason as u8,
        protocol: decision.protocol as u8,
        reserved: 0,
        slot,
        name_len: name_len as u16,
        slot_version: compiled
            .rules
            .get(usize::from(slot))
            .map_or(0, |rule| rule.slot_version),
        frame_len: frame.len() as u32,
        name,
    }
}

/// The name that the outcome carries, at most [`NAME_BYTES_MAX`] bytes of it.
fn reported_name(work: &HostWork, protocol: Protocol) -> &[u8] {
    match protocol {
        Protocol::None | Protocol::Quic => return &[],
        Protocol::Tls | Protocol::Http => {}
    }
    if work.name_count.get() == 0 {
        return &[];
    }
    let span = work.name(work.name_reported.get());
    let at = span.at as usize;
    if at > BYTES - NAME_BYTES_MAX {
        return &[];
    }
    &work.bytes[at..at + (span.len as usize).min(NAME_BYTES_MAX)]
}

/// The program's return code for a verdict; a redirect without an interface to go to drops.
fn action(verdict: Verdict, features: u32) -> u32 {
    match verdict {
        Verdict::Pass | Verdict::Observe => xdp::PASS,
        Verdict::Redirect if features & feature::REDIRECT != 0 => xdp::REDIRECT,
        Verdict::Redirect | Verdict::Refuse | Verdict::Drop => xdp::DROP,
    }
}
