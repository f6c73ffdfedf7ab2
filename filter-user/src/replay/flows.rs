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
pub(super) type Side = usize;

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
    pending_syn: Option<PendingSyn>,
}

/// SYNs of what may be the next connection, filed under this one for now.
#[derive(Clone, Copy, Debug)]
struct PendingSyn {
    side: Side,
    isn: u32,
    /// How often it was sent, and the number of the first.
    frames: u64,
    first_frame: u64,
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

    /// Whether what `side` sends is certainly an answer.
    pub fn is_answer(&self, side: Side) -> bool {
        self.initiator_certain && side != self.initiator
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

    /// Whether `tcp` from `side` begins another connection than this one.
    fn succession(&mut self, tcp: Tcp, side: Side, frame: u64) -> Succession {
        let begun_by = self.initiator;
        let connection = &mut self.connection;
        if !tcp.syn || tcp.ack.is_some() {
            let Some(syn) = connection.pending_syn else {
                return Succession::Same;
            };
            let next = syn.isn.wrapping_add(1);
            let acknowledged = tcp.syn && side != syn.side && tcp.ack == Some(next);
            let continued = !tcp.syn && !tcp.rst && side == syn.side && tcp.seq == next;
            return if acknowledged || continued {
                Succession::NextAfter(syn)
            } else {
                Succession::Same
            };
        }
        if side == begun_by && connection.isn == Some(tcp.seq) {
            return Succession::Same;
        }
        if connection.closed || (!connection.used && side == begun_by) {
            return Succession::Next;
        }
        match &mut connection.pending_syn {
            Some(pending) if pending.side == side && pending.isn == tcp.seq => pending.frames += 1,
            pending => {
                *pending = Some(PendingSyn {
                    side,
                    isn: tcp.seq,
                    frames: 1,
                    first_frame: frame,
                });
            }
        }
        Succession::Same
    }

    fn update(&mut self, tcp: Tcp) {
        self.connection.used |= !tcp.syn || tcp.ack.is_some();
        self.connection.closed |= tcp.fin || tcp.rst;
    }
}

/// What a TCP segment says about the flow that its ports name.
enum Succession {
    /// It belongs to it.
    Same,
    /// It begins the next.
    Next,
    /// It belongs to the next, which these SYNs have begun.
    NextAfter(PendingSyn),
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
pub(super) struct FlowTable {
    flows: Vec<Flow>,
    current: HashMap<Key, usize>,
    fragmented: HashMap<FragmentKey, Fragmented>,
    fragmented_order: VecDeque<FragmentKey>,
}

impl FlowTable {
    /// The flow that a packet belongs to and the side that sent it, made if need be;
    /// `None` beyond [`FLOWS_MAX`]. Counts the frame.
    pub(super) fn assign(&mut self, packet: &Packet<'_>, frame: u64) -> Option<(usize, Side)> {
        let placed = match packet.fragment {
            Fragment::Whole => self.assign_whole(packet, frame)?,
            Fragment::First(fragment) => {
                let (flow, side) = self.assign_whole(packet, frame)?;
                self.adopt_orphan(fragment, flow);
                self.remember(
                    fragment,
                    Fragmented {
                        flow,
                        side,
                        orphan: false,
                    },
                );
                (flow, side)
            }
            Fragment::Later(fragment) => match self.fragmented.get(&fragment) {
                Some(known) => (known.flow, known.side),
                None => {
                    let (key, side) = Key::of(packet);
                    let flow = self.push(Flow::new(&key, packet, side, frame))?;
                    self.remember(
                        fragment,
                        Fragmented {
                            flow,
                            side,
                            orphan: true,
                        },
                    );
                    (flow, side)
                }
            },
        };
        self.flow(placed.0).tally.frames += 1;
        Some(placed)
    }

    /// A flow by the index that [`Self::assign`] gave.
    pub(super) fn flow(&mut self, index: usize) -> &mut Flow {
        &mut self.flows[index]
    }

    /// The flows in the order of their first frames.
    pub(super) fn into_flows(self) -> Vec<Flow> {
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
        let succession = self.flow(known).succession(tcp, side, frame);
        let mut next = match succession {
            Succession::Same => {
                self.flow(known).update(tcp);
                return Some((known, side));
            }
            Succession::Next | Succession::NextAfter(_) => Flow::new(&key, packet, side, frame),
        };
        next.update(tcp);
        if let Succession::NextAfter(syn) = succession {
            next.first_frame = syn.first_frame;
            next.initiator = syn.side;
            next.initiator_certain = true;
            next.connection.isn = Some(syn.isn);
            next.tally.frames = syn.frames;
            let old = self.flow(known);
            old.tally.frames = old.tally.frames.saturating_sub(syn.frames);
            old.connection.pending_syn = None;
        }
        let flow = self.push(next)?;
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
        let Some(&Fragmented {
            flow: orphan,
            orphan: true,
            ..
        }) = self.fragmented.get(&key)
        else {
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
