//! The host build as on the host where connections end: it knows what their sockets say.

use std::collections::HashMap;

use filter_common::flow::{Peer, peer};
use filter_tests::{
    adapter::OnHost,
    packet::flag,
    runner::{Counters, Judge, Seen},
};
use filter_user::host::StreamTable;

const PASS: u32 = 2;
/// Where the TCP header is in a frame with an IPv4 header without options.
const TCP_AT: usize = 14 + 20;
/// Where the addresses and ports are that tell connections apart.
const ENDS_AT: usize = 14 + 12;
const ENDS_LEN: usize = 4 + 4 + 2 + 2;

/// A judge whose answers the sockets follow: what passes is received.
pub(crate) struct AtHost {
    judge: OnHost,
    sockets: HashMap<[u8; ENDS_LEN], Socket>,
}

/// A connection of the host, which answers nothing.
struct Socket {
    start: u32,
    rcv_nxt: u32,
    snd_nxt: u32,
    /// Start and end of what came beyond `rcv_nxt`.
    beyond: Vec<(u32, u32)>,
}

impl AtHost {
    pub(crate) fn new(judge: OnHost) -> Self {
        Self {
            judge,
            sockets: HashMap::new(),
        }
    }

    /// [`OnHost::set_full`].
    pub(crate) fn set_full(&mut self, table: StreamTable, full: bool) {
        self.judge.set_full(table, full);
    }
}

impl Socket {
    fn receive(&mut self, from: u32, to: u32) {
        self.beyond.push((from, to));
        while let Some(index) = self.beyond.iter().position(|(from, to)| {
            self.rcv_nxt.wrapping_sub(*from) as i32 >= 0 && to.wrapping_sub(self.rcv_nxt) as i32 > 0
        }) {
            self.rcv_nxt = self.beyond.swap_remove(index).1;
        }
    }
}

impl Judge for AtHost {
    fn judge(&mut self, frame: &[u8]) -> Seen {
        let word = |at: usize| {
            let bytes = frame[TCP_AT + at..].first_chunk().expect("a TCP header");
            u32::from_be_bytes(*bytes)
        };
        let ends = *frame[ENDS_AT..].first_chunk().expect("both ends");
        let (seq, ack) = (word(4), word(8));
        let (header_len, flags) = (usize::from(frame[TCP_AT + 12] >> 4) * 4, frame[TCP_AT + 13]);
        let len = (frame.len() - TCP_AT - header_len) as u32;
        if flags & flag::SYN != 0 {
            let start = seq.wrapping_add(1);
            self.sockets.insert(
                ends,
                Socket {
                    start,
                    rcv_nxt: start,
                    snd_nxt: ack,
                    beyond: Vec::new(),
                },
            );
            self.judge.set_peer(Peer {
                kind: peer::LISTENER,
                ..Peer::default()
            });
            return self.judge.judge(frame);
        }
        let socket = self.sockets.get_mut(&ends).expect("a connection");
        self.judge.set_peer(Peer {
            kind: peer::CONNECTION,
            start: socket.start,
            rcv_nxt: socket.rcv_nxt,
            snd_una: socket.snd_nxt,
            snd_nxt: socket.snd_nxt,
            ts_recent: 0,
        });
        let seen = self.judge.judge(frame);
        if seen.action == PASS {
            socket.receive(seq, seq.wrapping_add(len));
        }
        seen
    }

    fn counters(&self) -> Counters {
        self.judge.counters()
    }
}
