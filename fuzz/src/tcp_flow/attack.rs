//! A client that wants a blocked name: it sends pieces of an allowed hello and a blocked one in any
//! order, with anything wrong that the filter might not notice, and the host may get any of what passes.

use filter_tests::packet::{Checksum, flag, http::Request, tls::ClientHello};

use super::{
    Setup,
    link::{Fate, Link, hello, is_blocked, with_link},
    segment::Segment,
};
use crate::input::Input;

/// Steps of a script; more only repeat what fewer can do.
const STEPS_MAX: usize = 40;
/// Bytes behind the hello.
const TAIL_LEN: usize = 60;
/// What lies there: like the start of application data.
const JUNK: u8 = 0x17;

/// The two hellos and what else may lie in their places.
struct Streams {
    allowed: Vec<u8>,
    blocked: Vec<u8>,
    junk: Vec<u8>,
    /// Where pieces begin and end.
    places: [usize; 16],
}

impl Streams {
    /// The blocked hello is longer than the allowed one by `extra` bytes or a few more.
    fn new(setup: Setup, extra: usize) -> Self {
        let mut allowed = hello_for(setup, "allowed.example", 0);
        let mut blocked = hello_for(setup, "blocked.example", extra);
        let twin = hello_for(setup, "allowed.example", extra);
        let mut differ = (0..twin.len()).filter(|&at| twin[at] != blocked[at]);
        let first = differ.next().expect("two names");
        let last = differ.next_back().unwrap_or(first);
        let (shorter, complete) = (allowed.len(), blocked.len());
        let end = complete + TAIL_LEN;
        allowed.resize(end, JUNK);
        blocked.resize(end, JUNK);
        let places = [
            0,
            1,
            3,
            5,
            6,
            first / 2,
            first,
            first + 2,
            last + 1,
            last + 6,
            (last + complete) / 2,
            complete - 1,
            complete,
            shorter,
            complete + TAIL_LEN / 2,
            end,
        ];
        Self {
            junk: vec![JUNK; end],
            allowed,
            blocked,
            places,
        }
    }

    fn of(&self, which: u8) -> &[u8] {
        match which % 4 {
            0 | 3 => &self.blocked,
            1 => &self.allowed,
            _ => &self.junk,
        }
    }
}

fn hello_for(setup: Setup, name: &str, extra: usize) -> Vec<u8> {
    if setup.http {
        let path = "x".repeat(setup.padding);
        let request = Request::line(&format!("GET /{path} HTTP/1.1"))
            .header(&format!("Host: {name}"))
            .header("Accept: */*");
        return match extra {
            0 => request.bytes(),
            _ => request.header(&format!("X: {}", "x".repeat(extra))).bytes(),
        };
    }
    let hello = ClientHello::named(name).padding(setup.padding + extra);
    match setup.record_len {
        0 => hello.record(),
        len => hello.records_of(len),
    }
}

pub(super) fn check(setup: Setup, input: Input<'_>) {
    with_link(setup, |link| attack(link, input));
}

fn attack(link: &mut Link<'_>, mut input: Input<'_>) {
    let setup = link.setup;
    let streams = Streams::new(setup, usize::from(input.byte() % 3) * 20);
    let mut client = Client {
        start: setup.isn.wrapping_add(1),
        clock: 1_000,
    };
    client.open(link, setup.isn);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        client.step(link, &streams, &mut input);
        served_blocked(link);
    }
    // At last it sends what the host still wants, in order.
    link.settle();
    served_blocked(link);
    for to in [streams.places[8], streams.blocked.len()] {
        let from = (link.host.rcv_nxt().wrapping_sub(client.start)) as usize;
        if from < to {
            let segment = client.data(link, from, &streams.blocked[from..to]);
            let _ = link.send(&segment, Fate::Arrives);
            served_blocked(link);
        }
    }
}

/// Panics if the host's application has a whole hello with a blocked name.
fn served_blocked(link: &Link<'_>) {
    let names = hello(link.setup, &link.host.delivered()).unwrap_or_default();
    assert!(!is_blocked(&names), "the host serves a blocked name");
}

struct Client {
    /// Sequence number of the connection's first byte.
    start: u32,
    /// Value of the next timestamp.
    clock: u32,
}

impl Client {
    fn open(&mut self, link: &mut Link<'_>, isn: u32) {
        let syn = Segment {
            flags: flag::SYN,
            timestamp: link.setup.timestamps.then_some(self.clock),
            ..Segment::new(isn, 0, &[])
        };
        let _ = link.send(&syn, Fate::Arrives);
    }

    fn data(&mut self, link: &Link<'_>, at: usize, bytes: &[u8]) -> Segment {
        Segment {
            timestamp: link.setup.timestamps.then_some(self.clock),
            ..Segment::new(
                self.start.wrapping_add(at as u32),
                link.host.snd_nxt(),
                bytes,
            )
        }
    }

    /// One segment. Three bytes of input: what is odd about it and whose bytes it has; which; what
    /// becomes of it.
    fn step(&mut self, link: &mut Link<'_>, streams: &Streams, input: &mut Input<'_>) {
        let (kind, range, fate) = (input.byte(), input.byte(), input.byte());
        let (a, b) = (
            streams.places[usize::from(range >> 4)],
            streams.places[usize::from(range & 0x0f)],
        );
        let (from, to) = (a.min(b), a.max(b));
        let bytes = &streams.of(kind >> 4)[from..to];
        let mut segment = self.data(link, from, bytes);
        match fate >> 2 & 7 {
            1 => segment.ack = segment.ack.wrapping_sub(1),
            2 => segment.ack = segment.ack.wrapping_sub(70_000),
            3 => segment.ack = segment.ack.wrapping_sub(300),
            _ => {}
        }
        self.bend(&mut segment, kind & 0x0f, from);
        if fate & 0x20 != 0 {
            self.clock = self.clock.wrapping_add(10);
        }
        if fate & 0x40 != 0 {
            link.settle();
        }
        let fate = match fate & 3 {
            0 | 1 => Fate::Arrives,
            2 => Fate::Waits,
            _ => Fate::Lost,
        };
        let _ = link.send(&segment, fate);
        if segment.has(flag::SYN) && link.host.rcv_nxt() == segment.seq.wrapping_add(1) {
            // A new connection on the same ports.
            self.start = link.host.rcv_nxt();
        }
    }

    fn bend(&self, segment: &mut Segment, how: u8, from: usize) {
        match how {
            4 => segment.checksum = Checksum::Wrong,
            5 => segment.checksum = Checksum::Partial,
            6 => segment.flags = flag::PSH,
            7 => segment.flags |= flag::SYN,
            8 => {
                segment.flags |= flag::URG;
                segment.urgent = 1 + from as u16 % 7;
            }
            9 => {
                segment.flags = flag::RST | flag::ACK;
                segment.payload.clear();
            }
            10 => segment.flags |= flag::FIN,
            11 => segment.signed = true,
            12 => {
                segment.timestamp = segment.timestamp.map(|value| value.wrapping_sub(500));
            }
            13 => segment.ack = segment.ack.wrapping_add(1),
            14 => {
                segment.flags = flag::SYN;
                segment.seq = segment.seq.wrapping_sub(1);
                segment.payload.clear();
            }
            15 => {
                // From before the connection's start on.
                let before = segment.seq.wrapping_sub(self.start).wrapping_add(9);
                segment.seq = segment.seq.wrapping_sub(before);
                segment
                    .payload
                    .splice(0..0, std::iter::repeat_n(0x16, before as usize));
            }
            _ => {}
        }
    }
}
