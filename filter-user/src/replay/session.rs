//! One replay: every frame in order through a [`Runner`], outcomes filed by flow.

use std::collections::BTreeMap;

use filter_common::{abi::Protocol, reason::Reason};

use super::{
    Ran, RunError, Runner,
    capture::{ETHERNET_HEADER, Frame},
    flows::{Flow, FlowTable, Side},
    held::Held,
    offload,
    packet::{self, Dissected, Packet, Tcp, Transport},
    tally::Checked,
    unsupported::{self, Unsupported},
};

/// What was counted over the whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Frames in the capture.
    pub frames: u64,
    /// Flows that they belong to.
    pub flows: u64,
    /// Flows with a name.
    pub named: u64,
    /// Flows that a rule hit.
    pub hit: u64,
    /// Flows with a hello that was neither understood nor is unsupported.
    pub unparsed: u64,
    /// Flows reported as unsupported.
    pub unsupported: u64,
    /// Frames held back at first because of a gap before them.
    pub held: u64,
    /// Of these, frames not kept for another try because of a limit.
    pub held_dropped: u64,
    /// Of these, frames whose gap the capture never fills.
    pub held_unresolved: u64,
    /// Frames cut short.
    pub truncated: u64,
    /// Frames of flows beyond the number that is kept.
    pub untracked: u64,
    /// Frames by the reason of their verdict; a frame fed again counts once, at last.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// What a replay found.
pub struct Findings {
    /// All flows, in the order of their first frames.
    pub flows: Vec<Flow>,
    /// Counts over the whole capture.
    pub summary: Summary,
}

/// A replay under way.
pub struct Session<'r> {
    runner: &'r mut dyn Runner,
    repair_offloaded: bool,
    table: FlowTable,
    held: Held,
    summary: Summary,
}

/// What is kept of a packet while the program runs.
#[derive(Clone, Copy)]
struct Placed {
    flow: usize,
    side: Side,
    /// It may be fed again, or make others be: a TCP segment that is not a fragment.
    segment: bool,
    /// It moves the stream on: payload or SYN.
    advances: bool,
    /// A UDP datagram with a QUIC long header.
    quic: bool,
}

impl<'r> Session<'r> {
    /// `checksums`: whether the runner judges checksums, so that no header may be touched.
    pub fn new(runner: &'r mut dyn Runner, checksums: bool) -> Self {
        Self {
            runner,
            repair_offloaded: !checksums,
            table: FlowTable::default(),
            held: Held::default(),
            summary: Summary::default(),
        }
    }

    /// Feeds one frame.
    pub fn frame(&mut self, frame: Frame) -> Result<(), RunError> {
        self.summary.frames += 1;
        let snapped = frame.wire_len as usize > frame.bytes.len();
        let mut ethernet = frame.framing.to_ethernet(frame.bytes);
        if self.repair_offloaded && !snapped {
            offload::repair_lengths(&mut ethernet);
        }
        let placed = match packet::dissect(&ethernet, snapped) {
            Dissected::Packet(packet) => self.place(&packet),
            Dissected::NotIp => None,
            Dissected::Headless => {
                self.summary.truncated += 1;
                None
            }
        };
        if ethernet.len() < ETHERNET_HEADER {
            // Not even an Ethernet header: the kernel takes no such frame in a test run.
            self.count(Reason::Truncated.as_str());
            return Ok(());
        }
        let ran = match self.runner.run(&ethernet) {
            Ok(ran) => ran,
            Err(RunError::TooLong { .. }) => {
                self.count(Unsupported::FrameTooLong.as_str());
                self.mark(placed, Unsupported::FrameTooLong);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let reason = checked(&ran)?.reason;
        let Some(placed) = placed else {
            self.count(reason.as_str());
            return Ok(());
        };
        if placed.segment && reason == Reason::HeldBack {
            self.summary.held += 1;
            if !self.held.keep((placed.flow, placed.side), ethernet) {
                self.summary.held_dropped += 1;
                self.record(placed, &ran)?;
            }
            return Ok(());
        }
        self.record(placed, &ran)?;
        if placed.segment && placed.advances {
            self.feed_held(placed)?;
        }
        Ok(())
    }

    /// Ends the replay.
    pub fn finish(mut self) -> Findings {
        let left: Vec<_> = self.held.left().collect();
        for ((flow, _), frames) in left {
            self.table.flow(flow).tally.unparsed = Some(Reason::HeldBack);
            self.summary.held_unresolved += frames as u64;
            *self
                .summary
                .reasons
                .entry(Reason::HeldBack.as_str())
                .or_default() += frames as u64;
        }
        let flows = self.table.into_flows();
        let mut summary = self.summary;
        let count =
            |of: &dyn Fn(&Flow) -> bool| flows.iter().filter(|flow| of(flow)).count() as u64;
        summary.flows = flows.len() as u64;
        summary.named = count(&|flow| flow.tally.name().is_some());
        summary.hit = count(&|flow| flow.tally.hit.is_some_and(|hit| hit.has_rule()));
        summary.unparsed = count(&|flow| flow.tally.is_unparsed());
        summary.unsupported = count(&|flow| flow.tally.unsupported().is_some());
        Findings { flows, summary }
    }

    /// Files a packet under its flow, with what is known before the program has run.
    fn place(&mut self, packet: &Packet<'_>) -> Option<Placed> {
        if packet.unsupported == Some(Unsupported::Truncated) {
            self.summary.truncated += 1;
        }
        let Some((index, side)) = self.table.assign(packet, self.summary.frames) else {
            self.summary.untracked += 1;
            return None;
        };
        let flow = self.table.flow(index);
        let unsupported = packet.unsupported.or_else(|| {
            packet.tcp?;
            flow.dialogue
                .segment(side, packet.src.port?, packet.dst.port?, packet.payload)
        });
        flow.tally.unsupported = flow.tally.unsupported.or(unsupported);
        let syn = matches!(packet.tcp, Some(Tcp { syn: true, .. }));
        Some(Placed {
            flow: index,
            side,
            segment: packet.tcp.is_some() && packet.fragment == packet::Fragment::Whole,
            advances: syn || !packet.payload.is_empty(),
            quic: packet.transport == Transport::UDP && unsupported::is_quic(packet.payload),
        })
    }

    /// Files an outcome under its flow.
    fn record(&mut self, placed: Placed, ran: &Ran) -> Result<(), RunError> {
        let outcome = checked(ran)?;
        self.count(outcome.reason.as_str());
        let flow = self.table.flow(placed.flow);
        // What looks like a request to a program that reads segment by segment and, here, maybe on
        // every port, but is the greeting of a server ("220 mail.example") or TLS.
        let no_request = flow.is_answer(placed.side) || flow.dialogue.is_tls(placed.side);
        if outcome.protocol == Protocol::Http && no_request && !is_origin(outcome.reason) {
            return Ok(());
        }
        if outcome.reason == Reason::QuicUnread && !placed.quic {
            return Ok(());
        }
        flow.tally.unsupported = flow
            .tally
            .unsupported
            .or(unsupported::by_reason(outcome.reason));
        if !outcome.name.is_empty() && flow.transport == Transport::TCP {
            flow.hello_from(placed.side);
        }
        // What the sender would repeat is no verdict on the flow.
        if outcome.reason == Reason::HeldBack {
            flow.tally.unparsed = Some(Reason::HeldBack);
        } else {
            flow.tally.record(&outcome);
        }
        Ok(())
    }

    /// Feeds the frames held back in a direction again, until none of them is accepted any more.
    fn feed_held(&mut self, placed: Placed) -> Result<(), RunError> {
        let direction = (placed.flow, placed.side);
        loop {
            let frames = self.held.take(direction);
            let tried = frames.len();
            let mut kept = 0;
            for frame in frames {
                let ran = self.runner.run(&frame)?;
                if checked(&ran)?.reason == Reason::HeldBack && self.held.keep(direction, frame) {
                    kept += 1;
                    continue;
                }
                self.record(placed, &ran)?;
            }
            if kept == 0 || kept == tried {
                return Ok(());
            }
        }
    }

    fn mark(&mut self, placed: Option<Placed>, unsupported: Unsupported) {
        if let Some(placed) = placed {
            let tally = &mut self.table.flow(placed.flow).tally;
            tally.unsupported = tally.unsupported.or(Some(unsupported));
        }
    }

    fn count(&mut self, reason: &'static str) {
        *self.summary.reasons.entry(reason).or_default() += 1;
    }
}

/// Whether the verdict comes from an address, whatever the payload is.
fn is_origin(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::OriginSource | Reason::OriginDestination | Reason::RedirectFailed
    )
}

fn checked(ran: &Ran) -> Result<Checked<'_>, RunError> {
    Checked::new(&ran.outcome).ok_or(RunError::UnknownOutcome {
        verdict: ran.outcome.verdict,
        reason: ran.outcome.reason,
        protocol: ran.outcome.protocol,
    })
}
