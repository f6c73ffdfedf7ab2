//! Any hello, in any records and segments, in any order and again: the name of the plain parse.

use filter_common::{abi::Protocol, hello::Progress, reason::Reason};
use filter_tests::{
    adapter::{InKernel, OnHost},
    mutate::Random,
    packet::{
        flag,
        tls::{ClientHello, record},
    },
    runner::Judge,
};
use filter_user::host::Reader;

use crate::{
    connection::{Connection, Fate},
    hellos::{Hello, Piece},
    opened, pieces, policy, random_cuts, shuffle,
};

const SEED: u64 = 0x0EDF_0000_2026_0301;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// A hello with any extensions around its name, and with names of any length that a host may have.
fn message(name: &str, random: &mut Random) -> Vec<u8> {
    let mut hello = ClientHello::new();
    if random.below(3) == 0 {
        hello = hello.grease();
    }
    hello = hello
        .session_id(random.below(33) as u8)
        .ciphers(1 + random.below(40));
    let count = random.below(12);
    let place = random.below(count + 1);
    for at in 0..=count {
        if at == place {
            hello = hello.sni(name);
            continue;
        }
        let number = 100 + random.below(1_000) as u16;
        let len_max = if random.below(8) == 0 { 2_000 } else { 60 };
        let len = random.below(len_max);
        let body: Vec<u8> = (0..len).map(|_| random.number() as u8).collect();
        hello = hello.extension(number, &body);
    }
    hello.handshake()
}

fn name(random: &mut Random) -> String {
    let label: String = (0..1 + random.below(40))
        .map(|_| char::from(b'a' + random.below(26) as u8))
        .collect();
    let suffix = ["blocked.example", "allowed.example", "Blocked.Example."][random.below(3)];
    format!("{label}.{suffix}")
}

/// The message in records cut anywhere, with empty ones and warnings between.
fn records(message: &[u8], random: &mut Random) -> Vec<u8> {
    // Small records of a long message are more than is kept of a stream.
    let smallest = if message.len() > 4_000 { 2 } else { 0 };
    let len_max = [1, 7, 300, 16_384][smallest + random.below(4 - smallest)];
    let mut stream = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        if len_max > 7 && random.below(6) == 0 {
            stream.extend(record(HANDSHAKE, &[]));
        }
        if len_max > 7 && random.below(6) == 0 {
            stream.extend(record(ALERT, &[1, 112]));
        }
        let (part, others) = rest.split_at(rest.len().min(1 + random.below(len_max)));
        stream.extend(record(HANDSHAKE, part));
        rest = others;
    }
    stream
}

/// Sends hellos; how many segments that took.
fn any_hello(judge: &mut dyn Judge, rounds: usize) -> usize {
    let mut random = Random::new(SEED);
    let mut reader = Reader::default();
    let mut segments = 0;
    for client in 0..rounds {
        let name = name(&mut random);
        let bytes = records(&message(&name, &mut random), &mut random);
        let plain = reader.read(Protocol::Tls, &bytes, true);
        assert_eq!(plain, (Progress::Named, vec![name.clone().into_bytes()]));
        let hello = Hello {
            title: name,
            port: 443,
            complete: bytes.len(),
            bytes,
        };
        let count = random.below(12);
        let mut sent = pieces(&hello, &random_cuts(&hello, count, &mut random));
        for _ in 0..random.below(3) {
            let from = random.below(hello.bytes.len());
            let to = from + 1 + random.below(hello.bytes.len() - from);
            sent.push(Piece::of(&hello, from, to));
        }
        shuffle(&mut sent, &mut random);
        segments += sent.len();
        let isn = random.number() as u32;
        let mut connection = opened(judge, client, hello.port, isn);
        connection.send_all(&sent);
        assert_judged(&connection, &hello, &sent);
    }
    segments
}

/// A blocked name is hit and its hello does not arrive; an allowed one arrives; both by their name.
fn assert_judged(connection: &Connection<'_>, hello: &Hello, sent: &[Piece]) {
    let what = || {
        let cuts: Vec<_> = sent
            .iter()
            .map(|piece| (piece.at, piece.bytes.len()))
            .collect();
        format!("{}: {cuts:?}", hello.title)
    };
    let plain = hello.title.trim_end_matches('.').as_bytes();
    assert_eq!(connection.name, plain, "{}", what());
    if hello.title.to_ascii_lowercase().contains(".blocked.") {
        connection.assert_blocked(hello, &what);
    } else {
        assert_eq!(connection.hits, 0, "{}", what());
        assert!(connection.got_through(hello), "{}", what());
    }
}

/// The host takes an urgent byte out of the stream: before a hello it may be anything.
fn urgent_byte_first(judge: &mut dyn Judge) {
    for (client, urgent) in [(0, 0x17), (1, b'x')] {
        let mut connection = opened(judge, client, 443, 7);
        let piece = Piece {
            at: 0,
            bytes: vec![urgent],
        };
        let fate = connection.send_bent(&piece, |packet| {
            packet.flags(flag::ACK | flag::URG).urgent(1)
        });
        assert_eq!(fate, Fate::Dropped(Some(Reason::BadFlags)), "{urgent:#x}");
    }
}

#[test]
fn an_urgent_byte_before_a_hello_is_not_let_through() {
    urgent_byte_first(&mut OnHost::load(&policy()));
    urgent_byte_first(&mut InKernel::load(&policy()));
}

#[test]
fn any_hello_in_any_order_has_the_name_of_the_plain_parse() {
    let segments = any_hello(&mut OnHost::load(&policy()), 10_000);
    println!("{segments} segments through the host build");
    let segments = any_hello(&mut InKernel::load(&policy()), 1_000);
    println!("{segments} segments through the kernel");
}
