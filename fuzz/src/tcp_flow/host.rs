//! A host at the end of a connection: takes exactly the segments that Linux takes, and answers.
//!
//! The rules are those of `tcp_v4_rcv`, `tcp_check_req`, `tcp_validate_incoming`, `tcp_ack` and
//! `tcp_data_queue`. Which of two bytes beyond a gap counts differs between systems and cases: it is
//! a choice.

use filter_common::flow::{Peer, peer};
use filter_tests::packet::{Checksum, flag};

use super::{
    Setup,
    segment::{Reply, Segment},
};

/// Sequence number of the host's own SYN before any, and how far apart those of two connections are: a
/// client does not know the next before it is told.
const ISS: u32 = 0x5000_0000;
const ISS_STEP: u32 = 0x0123_4567;
/// Bytes that the host takes beyond the next one, and that the client's window has.
const WINDOW: u32 = 65_535;
/// Bytes of an answer.
const ANSWER_LEN: u32 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listen,
    SynReceived,
    Established,
}

/// The host.
pub(super) struct LinuxHost {
    setup: Setup,
    state: State,
    /// Sequence number of the host's own SYN, the last that was sent.
    iss: u32,
    /// Sequence number of the client's first byte.
    start: u32,
    snd_una: u32,
    snd_nxt: u32,
    /// Bytes that the client has acknowledged: so far back are acknowledgements still taken.
    bytes_acked: u32,
    ts_recent: u32,
    /// Starts of the connections that a cookie was sent for, and the cookies.
    cookies: Vec<(u32, u32)>,
    /// Bytes by their place behind `start`.
    bytes: Vec<Option<u8>>,
    /// Bytes that came in order.
    received: usize,
    /// Where the client has finished.
    end: Option<usize>,
    /// Places of urgent bytes, which the application does not read.
    urgent: Vec<usize>,
}

impl LinuxHost {
    pub(super) const fn new(setup: Setup) -> Self {
        Self {
            setup,
            state: State::Listen,
            iss: ISS,
            start: 0,
            snd_una: ISS,
            snd_nxt: ISS,
            bytes_acked: 0,
            ts_recent: 0,
            cookies: Vec::new(),
            bytes: Vec::new(),
            received: 0,
            end: None,
            urgent: Vec::new(),
        }
    }

    /// The number that a client acknowledges.
    pub(super) const fn snd_nxt(&self) -> u32 {
        match self.state {
            State::Listen => self.iss.wrapping_add(1),
            State::SynReceived | State::Established => self.snd_nxt,
        }
    }

    pub(super) const fn rcv_nxt(&self) -> u32 {
        self.start.wrapping_add(self.received as u32)
    }

    pub(super) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Bytes that came in order, urgent ones included.
    pub(super) const fn received(&self) -> usize {
        self.received
    }

    /// What the application reads.
    pub(super) fn delivered(&self) -> Vec<u8> {
        let in_order = self.bytes[..self.received].iter().enumerate();
        in_order
            .filter(|(place, _)| !self.urgent.contains(place))
            .filter_map(|(_, byte)| *byte)
            .collect()
    }

    /// What its socket says of a segment.
    pub(super) fn peer(&self, segment: &Segment) -> Peer {
        let carries = !segment.payload.is_empty() && !segment.has(flag::SYN);
        match self.state {
            State::Listen if carries && self.opens(segment) => Peer {
                kind: peer::COOKIE,
                start: segment.seq,
                rcv_nxt: segment.seq,
                snd_una: segment.ack,
                snd_nxt: segment.ack,
                ts_recent: 0,
            },
            State::Listen if carries && self.setup.cookies => Peer {
                kind: peer::NO_COOKIE,
                ..Peer::default()
            },
            State::Listen => Peer {
                kind: peer::LISTENER,
                ..Peer::default()
            },
            State::SynReceived | State::Established => Peer {
                kind: peer::CONNECTION,
                start: self.start,
                rcv_nxt: self.rcv_nxt(),
                snd_una: self.snd_una,
                snd_nxt: self.snd_nxt,
                ts_recent: self.ts_recent,
            },
        }
    }

    /// The application answers.
    pub(super) const fn answer(&mut self) -> Reply {
        let seq = self.snd_nxt;
        self.snd_nxt = seq.wrapping_add(ANSWER_LEN);
        Reply {
            seq,
            ack: self.rcv_nxt(),
            flags: flag::ACK | flag::PSH,
            len: ANSWER_LEN as usize,
        }
    }

    /// Takes a segment, or refuses it.
    pub(super) fn receive(&mut self, segment: &Segment) -> Option<Reply> {
        if segment.checksum != Checksum::Right || segment.signed {
            return None;
        }
        match self.state {
            State::Listen => self.listening(segment),
            State::SynReceived => self.asked(segment),
            State::Established => self.connected(segment),
        }
    }

    fn listening(&mut self, segment: &Segment) -> Option<Reply> {
        if segment.has(flag::RST) {
            return None;
        }
        if segment.has(flag::ACK) {
            if self.opens(segment) {
                let cookie = segment.ack.wrapping_sub(1);
                self.begin(segment.seq, cookie, segment);
                self.state = State::Established;
                return self.data(segment);
            }
            return None;
        }
        if !segment.has(flag::SYN) || segment.has(flag::FIN) {
            return None;
        }
        let start = segment.seq.wrapping_add(1);
        self.iss = self.iss.wrapping_add(ISS_STEP);
        if self.setup.cookies {
            self.cookies.push((start, self.iss));
        } else {
            self.begin(start, self.iss, segment);
            if self.setup.fast_open && !segment.payload.is_empty() {
                self.state = State::Established;
                self.place(&Segment {
                    seq: start,
                    ..segment.clone()
                });
            }
        }
        Some(Reply {
            seq: self.iss,
            ack: start.wrapping_add(self.received as u32),
            flags: flag::SYN | flag::ACK,
            len: 0,
        })
    }

    /// Whether a segment has the right cookie.
    fn opens(&self, segment: &Segment) -> bool {
        let kind = segment.flags & (flag::SYN | flag::ACK | flag::RST);
        kind == flag::ACK
            && self
                .cookies
                .contains(&(segment.seq, segment.ack.wrapping_sub(1)))
    }

    fn begin(&mut self, start: u32, iss: u32, segment: &Segment) {
        *self = Self {
            state: State::SynReceived,
            iss,
            start,
            snd_una: iss.wrapping_add(1),
            snd_nxt: iss.wrapping_add(1),
            ts_recent: self.timestamp(segment).unwrap_or(0),
            cookies: std::mem::take(&mut self.cookies),
            ..Self::new(self.setup)
        };
    }

    fn timestamp(&self, segment: &Segment) -> Option<u32> {
        segment.timestamp.filter(|_| self.setup.timestamps)
    }

    /// A SYN was answered: `tcp_check_req`.
    fn asked(&mut self, segment: &Segment) -> Option<Reply> {
        let again = segment.seq == self.start.wrapping_sub(1);
        if segment.has(flag::SYN) && !segment.has(flag::ACK | flag::RST) && again {
            return Some(Reply {
                seq: self.iss,
                ack: self.start,
                flags: flag::SYN | flag::ACK,
                len: 0,
            });
        }
        if !self.in_window(segment) || self.is_old(segment) {
            return None;
        }
        if segment.has(flag::RST | flag::SYN) {
            self.state = State::Listen;
            return None;
        }
        if !segment.has(flag::ACK) || segment.ack != self.snd_nxt {
            return None;
        }
        self.state = State::Established;
        self.data(segment)
    }

    fn in_window(&self, segment: &Segment) -> bool {
        let end = segment.seq.wrapping_add(segment.payload.len() as u32);
        let before = (end.wrapping_sub(self.rcv_nxt()) as i32) < 0;
        let beyond = segment.seq.wrapping_sub(self.rcv_nxt()) as i32 > WINDOW as i32;
        !before && !beyond
    }

    /// PAWS: a timestamp more than one tick older than the last.
    fn is_old(&self, segment: &Segment) -> bool {
        self.timestamp(segment)
            .is_some_and(|value| self.ts_recent.wrapping_sub(value) as i32 > 1)
    }

    fn connected(&mut self, segment: &Segment) -> Option<Reply> {
        if self.is_old(segment) && !segment.has(flag::RST) || !self.in_window(segment) {
            return None;
        }
        if segment.has(flag::RST) {
            if segment.seq == self.rcv_nxt() {
                self.state = State::Listen;
            }
            return None;
        }
        if segment.has(flag::SYN) || !segment.has(flag::ACK) {
            return None;
        }
        let unsent = (self.snd_nxt.wrapping_sub(segment.ack) as i32) < 0;
        let acked = segment.ack.wrapping_sub(self.snd_una) as i32;
        let window = WINDOW.min(self.bytes_acked) as i32;
        if unsent || acked < -window {
            return None;
        }
        if acked > 0 {
            self.snd_una = segment.ack;
            self.bytes_acked += acked.unsigned_abs();
        }
        self.data(segment)
    }

    fn data(&mut self, segment: &Segment) -> Option<Reply> {
        if let Some(value) = self.timestamp(segment)
            && segment.seq.wrapping_sub(self.rcv_nxt()) as i32 <= 0
        {
            self.ts_recent = value;
        }
        if segment.payload.is_empty() && !segment.has(flag::FIN) {
            return None;
        }
        self.place(segment);
        Some(Reply {
            seq: self.snd_nxt,
            ack: self.rcv_nxt(),
            flags: flag::ACK,
            len: 0,
        })
    }

    fn place(&mut self, segment: &Segment) {
        let from = segment.seq.wrapping_sub(self.start) as i32;
        // Linux queues what is in order whole, and drops what it has beyond the gap that was (`tcp_ofo_queue`).
        let in_order = self.setup.server && from <= self.received as i32;
        for (index, byte) in segment.payload.iter().enumerate() {
            let place = from + index as i32;
            let Ok(place) = usize::try_from(place) else {
                continue;
            };
            if place < self.received || self.end.is_some_and(|end| place >= end) {
                continue;
            }
            if self.bytes.len() <= place {
                self.bytes.resize(place + 1, None);
            }
            if self.bytes[place].is_none() || self.setup.last_wins || in_order {
                self.bytes[place] = Some(*byte);
            }
        }
        if segment.has(flag::URG) && segment.urgent != 0 {
            // What was received is urgent no more (`tcp_check_urg`).
            let place = usize::try_from(from + i32::from(segment.urgent) - 1).ok();
            let received = self.received;
            self.urgent.extend(place.filter(|place| *place >= received));
        }
        if segment.has(flag::FIN) {
            let end = usize::try_from(from + segment.payload.len() as i32).ok();
            self.end = self.end.or(end.filter(|end| *end >= self.received));
        }
        while self.bytes.get(self.received).is_some_and(Option::is_some) {
            self.received += 1;
        }
    }
}
