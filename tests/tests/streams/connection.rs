//! A connection, the filter in it, and the server at its end.

use filter_common::reason::Reason;
use filter_tests::{
    packet::{Packet, flag},
    runner::Judge,
};

use crate::hellos::{Hello, Piece};

/// The server's first sequence number: what clients acknowledge unless told otherwise.
pub(crate) const SERVER_ISN: u32 = 0x2000_0000;

const DROP: u32 = 1;
const PASS: u32 = 2;

/// A connection through a filter, and the server behind it: the first byte that comes in order at
/// each place is the one it keeps.
pub(crate) struct Connection<'a> {
    pub(crate) judge: &'a mut dyn Judge,
    src: String,
    dst: String,
    pub(crate) isn: u32,
    pub(crate) received: Vec<u8>,
    beyond: Vec<Piece>,
    pub(crate) hits: usize,
    /// The name that was reported last.
    pub(crate) name: Vec<u8>,
    /// What the client acknowledges.
    pub(crate) ack: u32,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed(Option<Reason>),
    Dropped(Option<Reason>),
}

impl<'a> Connection<'a> {
    /// Opens one with ports that no other connection of the same judge has.
    pub(crate) fn open(judge: &'a mut dyn Judge, client: usize, port: u16, isn: u32) -> Self {
        let mut connection = Self::joined(judge, client, port, isn);
        connection.syn(isn);
        connection
    }

    /// One whose SYN the filter has not seen.
    pub(crate) fn joined(judge: &'a mut dyn Judge, client: usize, port: u16, isn: u32) -> Self {
        Self {
            judge,
            src: format!(
                "192.0.{}.{}:{}",
                client / 50_000,
                1 + client % 250,
                10_000 + client % 50_000
            ),
            dst: format!("203.0.113.9:{port}"),
            isn,
            received: Vec::new(),
            beyond: Vec::new(),
            hits: 0,
            name: Vec::new(),
            ack: 0x2000_0001,
        }
    }

    /// The server's SYN-ACK to the SYN with this number.
    pub(crate) fn answer(&mut self, isn: u32) {
        let answer = Packet::tcp(&self.dst, &self.src)
            .flags(flag::SYN | flag::ACK)
            .seq(SERVER_ISN)
            .ack(isn.wrapping_add(1));
        assert_eq!(self.judge.judge(&answer.build()).action, PASS);
    }

    /// A segment of the server.
    pub(crate) fn answers(&mut self, packet: impl FnOnce(Packet) -> Packet) {
        let frame = packet(Packet::tcp(&self.dst, &self.src)).build();
        assert_eq!(self.judge.judge(&frame).action, PASS, "answers pass");
    }

    pub(crate) fn packet(&self, seq: u32) -> Packet {
        Packet::tcp(&self.src, &self.dst).seq(seq).ack(self.ack)
    }

    pub(crate) fn syn(&mut self, isn: u32) {
        let frame = self.packet(isn).flags(flag::SYN).build();
        assert_eq!(self.judge.judge(&frame).action, PASS, "a SYN passes");
    }

    pub(crate) fn send(&mut self, piece: &Piece) -> Fate {
        let seq = self.isn.wrapping_add(1).wrapping_add(piece.at as u32);
        let frame = self.packet(seq).payload(piece.bytes.clone()).build();
        self.sent(piece, &frame)
    }

    /// A SYN that carries the first piece (TCP Fast Open).
    pub(crate) fn send_with_syn(&mut self, piece: &Piece) -> Fate {
        let syn = self.packet(self.isn).flags(flag::SYN);
        let frame = syn.payload(piece.bytes.clone()).build();
        self.sent(piece, &frame)
    }

    /// As [`Connection::send`], bent.
    pub(crate) fn send_bent(&mut self, piece: &Piece, bend: impl FnOnce(Packet) -> Packet) -> Fate {
        let seq = self.isn.wrapping_add(1).wrapping_add(piece.at as u32);
        let frame = bend(self.packet(seq).payload(piece.bytes.clone())).build();
        self.sent(piece, &frame)
    }

    fn sent(&mut self, piece: &Piece, frame: &[u8]) -> Fate {
        let seen = self.judge.judge(frame);
        self.hits += usize::from(seen.rule.is_some());
        if !seen.name.is_empty() {
            self.name = seen.name;
        }
        if seen.action == DROP {
            return Fate::Dropped(seen.reason);
        }
        self.beyond.push(piece.clone());
        self.deliver();
        Fate::Passed(seen.reason)
    }

    /// What was sent so far never reached the server.
    pub(crate) fn forget_sent(&mut self) {
        self.beyond.clear();
    }

    /// The server takes what is in order.
    fn deliver(&mut self) {
        loop {
            let have = self.received.len() as i64;
            let next = self.beyond.iter().position(|piece| piece.at <= have);
            let Some(next) = next else {
                return;
            };
            let piece = self.beyond.remove(next);
            let known = (have - piece.at) as usize;
            self.received
                .extend_from_slice(piece.bytes.get(known..).unwrap_or_default());
        }
    }

    /// Sends the pieces in this order; what is dropped is sent again when everything else was, as a
    /// client does, until nothing more passes.
    pub(crate) fn send_all(&mut self, pieces: &[Piece]) {
        let mut waiting = pieces.to_vec();
        for _ in 0..=pieces.len() {
            let before = waiting.len();
            waiting.retain(|piece| matches!(self.send(piece), Fate::Dropped(_)));
            if waiting.is_empty() || waiting.len() == before {
                return;
            }
        }
    }

    /// Whether the server has the whole hello.
    pub(crate) fn got_through(&self, hello: &Hello) -> bool {
        self.received.starts_with(&hello.bytes[..hello.complete])
    }

    /// The rule hit, and the server cannot act on what it has.
    pub(crate) fn assert_blocked(&self, hello: &Hello, what: &dyn Fn() -> String) {
        assert!(self.hits > 0, "{}: no hit: {}", hello.title, what());
        assert!(
            !self.got_through(hello),
            "{}: it got through: {}",
            hello.title,
            what()
        );
    }
}
