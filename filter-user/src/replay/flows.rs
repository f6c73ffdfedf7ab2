//! The table of flows: which frame belongs to which connection, and who began it.

use std::collections::{HashMap, VecDeque};

use super::{
    dialogue::Dialogue,
    packet::{Endpoint, Fragment, FragmentKey, Packet, Tcp, Transport},
    tally::Tally,
};

/// Flows that are kept; frames of further ones are run and counted, not reported.
/// About 300 bytes each.
pub const FLOWS_MAX: usize = 1_000_000;

/// Fragmented packets whose flow is remembered; the oldest is forgotten first.
const FRAGMENTED_MAX: usize = 65_536;

/// A side of a flow: index into [`Flow::ends`].
pub type Side = usize;

/// One connection, or the packets of one protocol between two addresses.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Number of its first frame, by which flows are ordered.
    pub first_frame: u64,
    /// The two ends, the smaller first; equal if a host talks to itself.
    pub ends: [Endpoint; 2],
    /// What it carries.
    pub transport: Transport,
    /// The side that began it.
    pub initiator: Side,
    /// The dialogue before a hello.
    pub dialogue: Dialogue,
    /// Outcomes of its frames.
    pub tally: Tally,
    initiator_certain: bool,
    connection: Connection,
}

/// The state of a TCP connection as far as it tells one connection from the next.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    /// Initial sequence number of the initiator, if its SYN or the SYN-ACK was seen.
    isn: Option<u32>,
    /// Something other than SYNs was seen.
    used: bool,
    /// A FIN or RST was seen.
    closed: bool,
    /// A SYN with another sequence number on an open connection: the start of a new one if
    /// it is acknowledged or continued.
    pending_syn: Option<(Side, u32)>,
}

impl Flow {
    fn new(key: &Key, packet: &Packet<'_>, side: Side, frame: u64) -> Self {
        let mut flow = Self {
            first_frame: frame,
            ends: key.ends,
            transport: key.transport,
            initiator: side,
            dialogue: Dialogue::default(),
            tally: Tally::default(),
            initiator_certain: false,
            connection: Connection::default(),
        };
        if let Some(tcp) = packet.tcp {
            flow.begin(tcp, side);
        }
        flow
    }

    /// The initiator's end.
    pub fn src(&self) -> Endpoint {
        self.ends[self.initiator]
    }

    /// The other end.
    pub fn dst(&self) -> Endpoint {
        self.ends[1 - self.initiator]
    }

    /// A hello came from `side`: the initiator, unless a SYN has said so before.
    pub fn hello_from(&mut self, side: Side) {
        if !self.initiator_certain {
            self.initiator = side;
            self.initiator_certain = true;
        }
    }

    fn begin(&mut self, tcp: Tcp, side: Side) {
        match (tcp.syn, tcp.ack) {
            (true, None) => {
                self.initiator = side;
                self.initiator_certain = true;
                self.connection.isn = Some(tcp.seq);
            }
            (true, Some(ack)) => {
                self.initiator = 1 - side;
                self.initiator_certain = true;
                self.connection.isn = Some(ack.wrapping_sub(1));
            }
            (false, _) => {}
        }
    }

    /// Whether `tcp` from `side` begins another connection, and how many earlier frames of
    /// this flow (SYNs that were not understood yet) belong to that one.
    fn superseded_by(&mut self, tcp: Tcp, side: Side) -> Option<u64> {
        let connection = &mut self.connection;
        match (tcp.syn, tcp.ack) {
            (true, None) => {
                if side == self.initiator && connection.isn == Some(tcp.seq) {
                    return None;
                }
                if connection.closed || !connection.used && side == self.initiator {
                    return Some(0);
                }
                connection.pending_syn = Some((side, tcp.seq));
                None
            }
            (_, ack) => {
                let (syn_side, isn) = connection.pending_syn?;
                let next = isn.wrapping_add(1);
                let acknowledged = tcp.syn && side != syn_side && ack == Some(next);
                let continued = !tcp.syn && !tcp.rst && side == syn_side && tcp.seq == next;
                (acknowledged || continued).then_some(1)
            }
        }
    }

    fn update(&mut self, tcp: Tcp) {
        self.connection.used |= !tcp.syn || tcp.ack.is_some();
        self.connection.closed |= tcp.fin || tcp.rst;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    transport: Transport,
    ends: [Endpoint; 2],
}

impl Key {
    /// The key of a packet and the side that sent it.
    fn of(packet: &Packet<'_>) -> (Self, Side) {
        let (ends, side) = if packet.src <= packet.dst {
            ([packet.src, packet.dst], 0)
        } else {
            ([packet.dst, packet.src], 1)
        };
        let key = Self {
            transport: packet.transport,
            ends,
        };
        (key, side)
    }
}

/// The flow of a fragmented packet.
#[derive(Clone, Copy, Debug)]
struct Fragmented {
    flow: usize,
    side: Side,
    /// The first fragment is not seen yet: `flow` is a stand-in.
    orphan: bool,
}

/// All flows of a capture.
#[derive(Default)]
pub struct FlowTable {
    flows: Vec<Flow>,
    current: HashMap<Key, usize>,
    fragmented: HashMap<FragmentKey, Fragmented>,
    fragmented_order: VecDeque<FragmentKey>,
}

impl FlowTable {
    /// The flow that a packet belongs to and the side that sent it, made if need be;
    /// `None` beyond [`FLOWS_MAX`]. Counts the frame.
    pub fn assign(&mut self, packet: &Packet<'_>, frame: u64) -> Option<(usize, Side)> {
        let placed = match packet.fragment {
            Fragment::Whole => self.assign_whole(packet, frame)?,
            Fragment::First(fragment) => {
                let (flow, side) = self.assign_whole(packet, frame)?;
                self.adopt_orphan(fragment, flow);
                self.remember(fragment, Fragmented { flow, side, orphan: false });
                (flow, side)
            }
            Fragment::Later(fragment) => match self.fragmented.get(&fragment) {
                Some(known) => (known.flow, known.side),
                None => {
                    let (key, side) = Key::of(packet);
                    let flow = self.push(Flow::new(&key, packet, side, frame))?;
                    self.remember(fragment, Fragmented { flow, side, orphan: true });
                    (flow, side)
                }
            },
        };
        self.flow(placed.0).tally.frames += 1;
        Some(placed)
    }

    /// A flow by the index that [`Self::assign`] gave.
    pub fn flow(&mut self, index: usize) -> &mut Flow {
        &mut self.flows[index]
    }

    /// The flows in the order of their first frames.
    pub fn into_flows(self) -> Vec<Flow> {
        let mut flows = self.flows;
        // An orphan that was adopted has given away its frames.
        flows.retain(|flow| flow.tally.frames > 0);
        flows.sort_by_key(|flow| flow.first_frame);
        flows
    }

    fn assign_whole(&mut self, packet: &Packet<'_>, frame: u64) -> Option<(usize, Side)> {
        let (key, side) = Key::of(packet);
        let Some(&known) = self.current.get(&key) else {
            let flow = self.push(Flow::new(&key, packet, side, frame))?;
            self.current.insert(key, flow);
            if let Some(tcp) = packet.tcp {
                self.flow(flow).update(tcp);
            }
            return Some((flow, side));
        };
        let Some(tcp) = packet.tcp else {
            return Some((known, side));
        };
        let Some(earlier) = self.flow(known).superseded_by(tcp, side) else {
            self.flow(known).update(tcp);
            return Some((known, side));
        };
        let mut next = Flow::new(&key, packet, side, frame);
        if earlier > 0 {
            let (syn_side, isn) = self.flow(known).connection.pending_syn?;
            next.initiator = syn_side;
            next.initiator_certain = true;
            next.connection.isn = Some(isn);
            next.tally.frames = earlier;
        }
        next.update(tcp);
        let flow = self.push(next)?;
        let old = self.flow(known);
        old.tally.frames = old.tally.frames.saturating_sub(earlier);
        old.connection.pending_syn = None;
        self.current.insert(key, flow);
        Some((flow, side))
    }

    fn push(&mut self, flow: Flow) -> Option<usize> {
        if self.flows.len() >= FLOWS_MAX {
            return None;
        }
        self.flows.push(flow);
        Some(self.flows.len() - 1)
    }

    fn remember(&mut self, key: FragmentKey, fragmented: Fragmented) {
        if self.fragmented.insert(key, fragmented).is_some() {
            return;
        }
        self.fragmented_order.push_back(key);
        if self.fragmented_order.len() > FRAGMENTED_MAX
            && let Some(oldest) = self.fragmented_order.pop_front()
        {
            self.fragmented.remove(&oldest);
        }
    }

    /// Later fragments came before the first: their frames are the flow's.
    fn adopt_orphan(&mut self, key: FragmentKey, flow: usize) {
        let Some(&Fragmented { flow: orphan, orphan: true, .. }) = self.fragmented.get(&key) else {
            return;
        };
        let orphan = self.flow(orphan);
        let first_frame = orphan.first_frame;
        let tally = std::mem::take(&mut orphan.tally);
        let flow = self.flow(flow);
        flow.first_frame = flow.first_frame.min(first_frame);
        flow.tally.merge(tally);
    }
}
