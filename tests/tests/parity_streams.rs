//! The host build and the program in the kernel say the same about any sequence of segments: what one
//! keeps of a stream, the other does.

use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures::Host,
    mutate::{Random, mutate},
    packet::{Checksum, Packet, flag, http::Request, tls::ClientHello},
    runner::Judge,
};
use filter_user::compile::Role;

const SEED: u64 = 0x0EDF_0000_2026_0401;
const SEGMENTS: usize = 20_000;
const SEGMENTS_ALL: usize = 1_000_000;
/// Connections at a time: segments of one meet what others left.
const CONNECTIONS: usize = 8;
/// Segments after which connections get other ports.
const SEGMENTS_PER_CONNECTION: usize = 30;

const POLICY: &str = r#"
version = 1
[[rule]]
id = "names"
domains = ["blocked.example"]
action = "drop"
[[rule]]
id = "seen"
domains = ["seen.example"]
action = "observe"
"#;

#[test]
fn sequences_get_one_answer_on_a_live_interface() {
    compare(Role::Live, SEED);
}

#[test]
fn sequences_get_one_answer_in_replay() {
    compare(Role::Replay { checksums: false }, SEED + 2);
}

/// A connection: what its client might send, and where it stands.
struct Connection {
    client: String,
    server: String,
    isn: u32,
    streams: [Vec<u8>; 2],
    sent: usize,
}

impl Connection {
    fn new(number: usize, random: &mut Random) -> Self {
        let http = random.below(3) == 0;
        let padding = random.below(3_000);
        let streams = ["www.allowed.example", "www.blocked.example"].map(|name| {
            if http {
                return Request::to(name).body(&[b'x'; 300]).bytes();
            }
            let hello = ClientHello::named(name).padding(padding);
            let mut stream = if padding.is_multiple_of(2) {
                hello.record()
            } else {
                hello.records_of(1 + padding / 4)
            };
            stream.extend([0x17, 3, 3, 0, 1, 7]);
            stream
        });
        let port = if http { 80 } else { 443 };
        Self {
            client: format!("192.0.2.{}:{}", 1 + number % 250, 1_024 + number % 60_000),
            server: format!("203.0.113.9:{port}"),
            isn: random.number() as u32,
            streams,
            sent: 0,
        }
    }

    /// The client's next segment, or one of the server's.
    fn segment(&mut self, random: &mut Random) -> Packet {
        let stream = &self.streams[random.below(2)];
        let up = Packet::tcp(&self.client, &self.server);
        let down = Packet::tcp(&self.server, &self.client).seq(0x2000_0000);
        let next = self.isn.wrapping_add(1);
        let at = match random.below(4) {
            0 => random.below(stream.len()),
            _ => self.sent.min(stream.len() - 1),
        };
        let len = 1 + random.below(stream.len() - at);
        match random.below(24) {
            0..=2 => return up.seq(self.isn).flags(flag::SYN),
            3 | 4 => {
                let flags = flag::SYN | flag::ACK;
                return down.flags(flags).ack(next);
            }
            5 => return up.seq(next.wrapping_add(at as u32)).flags(flag::RST),
            6 => {
                let acked = next.wrapping_add(self.sent as u32);
                return down.shift_seq(1).ack(acked).payload(vec![0x17; 100]);
            }
            7 => self.isn = next.wrapping_add(random.below(stream.len()) as u32),
            _ => {}
        }
        self.sent = at + len;
        let data = up
            .seq(next.wrapping_add(at as u32))
            .payload(&stream[at..at + len]);
        bend(data, random)
    }
}

/// Mostly leaves a segment as it is.
fn bend(segment: Packet, random: &mut Random) -> Packet {
    match random.below(30) {
        0 => segment.checksum(Checksum::Wrong),
        1 => segment.checksum(Checksum::Partial),
        2 => segment.flags(flag::PSH),
        3 => segment.flags(flag::SYN),
        4 => segment.flags(flag::ACK | flag::FIN),
        5 => segment.flags(flag::ACK | flag::URG).urgent(3),
        6 => segment.tcp_options(&[1, 1, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        7 => segment.shift_ack(100),
        8 => segment.shift_ack(-70_000),
        _ => segment,
    }
}

fn compare(role: Role, seed: u64) {
    let compiled = compiled(POLICY, &Host::default(), role);
    let (mut kernel, mut host) = (InKernel::load(&compiled), OnHost::load(&compiled));
    let count = if std::env::var_os("EDGEFILTER_TEST_ALL").is_some_and(|v| v == "1") {
        SEGMENTS_ALL
    } else {
        SEGMENTS
    };
    let mut random = Random::new(seed);
    let mut opened = 0;
    let mut connections: Vec<Connection> = Vec::new();
    for round in 0..count {
        if round % (CONNECTIONS * SEGMENTS_PER_CONNECTION) == 0 {
            connections.clear();
        }
        while connections.len() < CONNECTIONS {
            connections.push(Connection::new(opened, &mut random));
            opened += 1;
        }
        let connection = &mut connections[random.below(CONNECTIONS)];
        let mut frame = connection.segment(&mut random).build();
        if random.below(20) == 0 {
            frame = mutate(&frame, &frame, &mut random);
        }
        let (in_kernel, on_host) = (kernel.judge(&frame), host.judge(&frame));
        assert_eq!(
            in_kernel, on_host,
            "segment {round} of {count}, seed {seed:x}: kernel and host build differ on {frame:02x?}"
        );
    }
    assert_eq!(kernel.counters(), host.counters());
    println!("{count} segments of {opened} connections");
}
