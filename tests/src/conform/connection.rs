//! One connection of the raw client: honest by itself, and bent by whoever sends through it.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::station::{Reply, Station};
use crate::packet::{Packet, flag};

/// Milliseconds on the client's clock when a connection starts; an older timestamp has room below.
const CLOCK_START_MS: u32 = 50_000_000;
/// Time-outs before the first and each further retransmission.
const RETRANSMIT_MS: [u64; 4] = [60, 120, 240, 400];
/// Attempts at a handshake.
const SYN_MAX: usize = 4;
/// Pieces that are sent without a pause: hundreds of tiny segments at once would only fill queues
/// and get lost.
pub(super) const BURST: usize = 8;
/// Most payload of one segment, in bytes.
pub const SEGMENT_BYTES_MAX: usize = 1_200;

/// How a segment becomes frames: one, unless it is fragmented.
pub type Wrap = fn(Packet) -> Vec<Vec<u8>>;

/// A segment in one frame, as it is.
pub fn plain(packet: Packet) -> Vec<Vec<u8>> {
    vec![packet.build()]
}

/// An established connection.
#[derive(Debug)]
pub struct Connection<'s> {
    station: &'s Station,
    local: SocketAddr,
    remote: SocketAddr,
    inbox: Receiver<Reply>,
    opened: Instant,
    /// Sequence number of the stream's first byte.
    start: u32,
    /// Bytes of the stream that the server has acknowledged.
    acked: usize,
    server_next: u32,
    server_clock: u32,
    answer: Vec<u8>,
    reset: bool,
    ended: bool,
}

impl<'s> Connection<'s> {
    /// Opens a connection. `syn_payload` goes with the SYN; `confirm`: whether the third ACK is
    /// sent by itself. `None` if no server answers.
    pub fn open(
        station: &'s Station,
        remote: SocketAddr,
        syn_payload: &[u8],
        confirm: bool,
    ) -> Option<Self> {
        let (local, inbox) = station.port(remote);
        let mut connection = Self {
            station,
            local,
            remote,
            inbox,
            opened: Instant::now(),
            start: 0x5EED_0001_u32.wrapping_mul(u32::from(local.port())),
            acked: 0,
            server_next: 0,
            server_clock: 0,
            answer: Vec::new(),
            reset: false,
            ended: false,
        };
        for _ in 0..SYN_MAX {
            connection.send_syn(syn_payload);
            if connection.synchronise() {
                if confirm {
                    connection.acknowledge();
                }
                return Some(connection);
            }
            if connection.reset {
                return None;
            }
        }
        None
    }

    fn send_syn(&self, payload: &[u8]) {
        let mut options = vec![2, 4, 0x05, 0xB4];
        options.extend_from_slice(&self.timestamp());
        let packet = self.station.packet(self.local, self.remote);
        let packet = packet
            .flags(flag::SYN)
            .seq(self.start.wrapping_sub(1))
            .ack(0)
            .tcp_options(&options)
            .payload(payload);
        self.station.send(&packet.build());
    }

    /// Waits for the SYN-ACK.
    fn synchronise(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_millis(1_000);
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Ok(reply) = self.inbox.recv_timeout(left) else {
                return false;
            };
            if reply.flags & flag::RST != 0 {
                self.reset = true;
                return false;
            }
            if reply.flags & flag::SYN != 0 {
                self.server_next = reply.seq.wrapping_add(1);
                self.server_clock = reply.timestamp.unwrap_or_default();
                self.acked = reply.ack.wrapping_sub(self.start) as usize;
                return true;
            }
        }
        false
    }

    /// The timestamp option with two no-operations before it (RFC 7323, appendix A).
    fn timestamp(&self) -> [u8; 12] {
        let clock = CLOCK_START_MS.wrapping_add(self.opened.elapsed().as_millis() as u32);
        let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[4..8].copy_from_slice(&clock.to_be_bytes());
        option[8..12].copy_from_slice(&self.server_clock.to_be_bytes());
        option
    }

    /// Its address, as the server sees it.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// An honest segment with these bytes of the stream.
    pub fn segment(&self, at: usize, bytes: &[u8]) -> Packet {
        let packet = self.station.packet(self.local, self.remote);
        packet
            .seq(self.start.wrapping_add(at as u32))
            .ack(self.server_next)
            .tcp_options(&self.timestamp())
            .payload(bytes)
    }

    /// Sends frames as they are.
    pub fn send(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.station.send(frame);
        }
    }

    fn acknowledge(&self) {
        let packet = self.segment(self.acked, &[]).flags(flag::ACK);
        self.station.send(&packet.build());
    }

    /// Takes in what the server sends for so long; acknowledges its data.
    pub fn listen(&mut self, time: Duration) {
        self.listen_until(time, |_| false);
    }

    /// As [`Connection::listen`], but ends as soon as `done` holds.
    fn listen_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + time;
        while !done(self) && !self.reset {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(reply) => self.take(reply),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, reply: Reply) {
        if reply.flags & flag::RST != 0 {
            self.reset = true;
            return;
        }
        let acked = reply.ack.wrapping_sub(self.start) as usize;
        if acked < 1 << 24 {
            self.acked = self.acked.max(acked);
        }
        if let Some(clock) = reply.timestamp {
            self.server_clock = clock;
        }
        if reply.flags & flag::SYN != 0 {
            // The third ACK was lost or held back.
            self.acknowledge();
            return;
        }
        let fin = reply.flags & flag::FIN != 0;
        if reply.seq != self.server_next || (reply.payload.is_empty() && !fin) {
            return;
        }
        self.server_next = reply
            .seq
            .wrapping_add(reply.payload.len() as u32 + u32::from(fin));
        self.answer.extend_from_slice(&reply.payload);
        self.ended |= fin;
        self.acknowledge();
    }

    /// Sends again what is not acknowledged of `stream`, as a TCP would, until everything is or
    /// it gives up. `bend` and `wrap` are applied to each segment; `bend` also gets the place and
    /// the length of its payload.
    pub fn persist(
        &mut self,
        stream: &[u8],
        bend: impl Fn(Packet, usize, usize) -> Packet,
        wrap: Wrap,
    ) {
        for patience_ms in RETRANSMIT_MS {
            let patience = Duration::from_millis(patience_ms);
            self.listen_until(patience, |it| it.acked >= stream.len());
            if self.reset || self.acked >= stream.len() {
                return;
            }
            let mut at = self.acked;
            for piece in stream[at..].chunks(SEGMENT_BYTES_MAX) {
                let packet = bend(self.segment(at, piece), at, piece.len());
                self.send(&wrap(packet));
                at += piece.len();
            }
        }
    }

    /// Waits for an answer until nothing more has come for `quiet`, at most for `limit`.
    pub fn settle(&mut self, quiet: Duration, limit: Duration) {
        let deadline = Instant::now() + limit;
        let before = self.answer.len();
        self.listen_until(limit, |it| it.ended || it.answer.len() > before);
        loop {
            let len = self.answer.len();
            let left = deadline.saturating_duration_since(Instant::now());
            self.listen_until(quiet.min(left), |it| it.ended || it.answer.len() > len);
            if self.ended || self.answer.len() == len {
                return;
            }
        }
    }

    /// Sends the next part of the stream in these pieces, again if need be.
    pub fn say(&mut self, stream: &mut Vec<u8>, pieces: &[&[u8]]) {
        for (index, piece) in pieces.iter().enumerate() {
            if index % BURST == BURST - 1 {
                self.listen(Duration::from_millis(1));
            }
            for bytes in piece.chunks(SEGMENT_BYTES_MAX) {
                self.send(&plain(self.segment(stream.len(), bytes)));
                stream.extend_from_slice(bytes);
            }
        }
        self.persist(stream, |packet, _, _| packet, plain);
    }

    /// What the server sent so far.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Exactly at the next byte, or the server answers with a challenge only.
        let packet = self.segment(self.acked, &[]);
        self.station
            .send(&packet.flags(flag::RST | flag::ACK).build());
        self.station.close(self.local);
    }
}
