//! A client that means well, on a network that loses, repeats and reorders: it gets through.

use filter_tests::packet::{flag, http::Request, tls::ClientHello};

use super::{
    Setup,
    link::{Fate, Link, with_link},
    segment::Segment,
};
use crate::input::Input;

/// Pieces that the client sends before it starts over from what is missing.
const PIECES_MAX: usize = 24;
/// Turns without loss in which everything must arrive.
const TURNS_MAX: usize = 3;
/// What becomes of pieces of which none overtakes another.
const JOINED_FATES: [u8; 8] = [0, 0, 2, 4, 4, 2, 6, 6];
/// Bytes of application data at most.
const TAIL_MAX: usize = 600;

pub(super) fn check(setup: Setup, input: Input<'_>) {
    with_link(setup, |link| talk(link, input));
}

fn talk(link: &mut Link<'_>, mut input: Input<'_>) {
    let setup = link.setup;
    let bits = input.byte();
    let mut client = Client {
        start: setup.isn.wrapping_add(1),
        clock: 1_000,
        stream: Vec::new(),
    };
    // A filter that has not seen the start takes what comes first for it: the path does not reorder then.
    let joined = bits & 2 != 0;
    client.open(link, joined);
    let pieces: Vec<[u8; 2]> = (0..usize::from(input.byte()) % PIECES_MAX)
        .map(|_| [input.byte(), input.byte()])
        .collect();
    client.stream = stream(setup, input.rest());
    let mut at = 0;
    let mut late: Vec<Segment> = Vec::new();
    for [len, fate] in pieces {
        let to = (at + 1 + usize::from(len) * 2).min(client.stream.len());
        let segment = client.data(link, at, to);
        match if joined {
            JOINED_FATES[usize::from(fate % 8)]
        } else {
            fate % 8
        } {
            0 | 1 => attempt(link, &segment, Fate::Arrives),
            // Behind the filter; on its way to a socket of the same host nothing is.
            2 if !setup.server => attempt(link, &segment, Fate::Lost),
            3 => late.push(segment),
            4 => {
                attempt(link, &segment, Fate::Arrives);
                attempt(link, &segment, Fate::Arrives);
            }
            5 => attempt(link, &segment, Fate::Waits),
            // Lost before the filter.
            2 | 6 => {}
            _ => {
                for segment in std::mem::take(&mut late).into_iter().rev() {
                    attempt(link, &segment, Fate::Arrives);
                }
                attempt(link, &segment, Fate::Arrives);
            }
        }
        at = if joined || fate & 0x80 != 0 {
            link.host.received().min(to)
        } else {
            to
        };
        if link.is_answered() {
            // Who acknowledges the answer has the acknowledgement that came with it.
            at = at.max(link.host.received());
        }
        if at == client.stream.len() {
            break;
        }
    }
    link.settle();
    client.finish(link, usize::from(bits >> 2));
}

/// What is dropped now is sent again later.
fn attempt(link: &mut Link<'_>, segment: &Segment, fate: Fate) {
    let _ = link.send(segment, fate);
}

struct Client {
    start: u32,
    clock: u32,
    stream: Vec<u8>,
}

impl Client {
    fn open(&mut self, link: &mut Link<'_>, joined: bool) {
        let syn = Segment {
            flags: flag::SYN,
            timestamp: link.setup.timestamps.then_some(self.clock),
            ..Segment::new(self.start.wrapping_sub(1), 0, &[])
        };
        self.handshake(link, &syn, joined);
        let ack = Segment {
            timestamp: syn.timestamp,
            ..Segment::new(self.start, link.host.snd_nxt(), &[])
        };
        self.handshake(link, &ack, joined);
        assert!(link.host.is_established());
    }

    fn handshake(&self, link: &mut Link<'_>, segment: &Segment, joined: bool) {
        if joined {
            link.deliver(segment);
        } else {
            let sent = link.send(segment, Fate::Arrives);
            assert_eq!(sent, Ok(()), "the handshake passes");
        }
    }

    fn data(&mut self, link: &Link<'_>, from: usize, to: usize) -> Segment {
        self.clock += 1;
        Segment {
            timestamp: link.setup.timestamps.then_some(self.clock),
            ..Segment::new(
                self.start.wrapping_add(from as u32),
                link.host.snd_nxt(),
                &self.stream[from..to],
            )
        }
    }

    /// Sends what is missing, again and again, in pieces of another length each time.
    fn finish(&mut self, link: &mut Link<'_>, piece: usize) {
        let mut said = Vec::new();
        for turn in 0..TURNS_MAX {
            let len = 20 + (piece * 37 + turn * 101) % 1_400;
            let mut at = link.host.received();
            while at < self.stream.len() {
                let to = (at + len).min(self.stream.len());
                let segment = self.data(link, at, to);
                if let Err(reason) = link.send(&segment, Fate::Arrives) {
                    said.push((turn, at, to, reason));
                }
                at = to;
            }
            if link.host.received() == self.stream.len() {
                assert_eq!(link.host.delivered(), self.stream);
                return;
            }
        }
        panic!(
            "{} of {} bytes arrived; dropped: {said:?}",
            link.host.received(),
            self.stream.len()
        );
    }
}

/// An allowed hello and application data behind it.
fn stream(setup: Setup, data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(TAIL_MAX)];
    if setup.http {
        let path = "x".repeat(setup.padding);
        let body = letters(data);
        let mut stream = Vec::new();
        for _ in 0..=setup.record_len % 3 {
            stream.extend(
                Request::line(&format!("POST /{path} HTTP/1.1"))
                    .header(&format!("Content-Length: {}", body.len()))
                    .header("Host: www.allowed.example")
                    .body(&body)
                    .bytes(),
            );
        }
        return stream;
    }
    let hello = ClientHello::named("www.allowed.example").padding(setup.padding * 20);
    let mut stream = match setup.record_len {
        0 => hello.record(),
        len => hello.records_of(len),
    };
    stream.extend([0x14, 3, 3, 0, 1, 1]);
    for part in data.chunks(150) {
        stream.extend([0x17, 3, 3, 0, part.len() as u8]);
        stream.extend(part);
    }
    stream
}

/// A body that asks for no blocked host.
fn letters(data: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 16] = b"aGE: T/hos\r\n.\tx@";
    data.iter()
        .map(|byte| LETTERS[usize::from(byte & 0x0f)])
        .collect()
}
