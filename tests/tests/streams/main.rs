//! Hellos cut into segments in every way: whatever order, overlap and repetition, the name is
//! found with the byte that completes the hello, and a server never gets that byte of a blocked
//! one. Through the host build in numbers, through the program in the kernel in a smaller set.

mod any;
mod at_host;
mod connection;
mod directions;
mod full;
mod hellos;
mod late;

use at_host::AtHost;
use connection::{Connection, Fate, SERVER_ISN};
use filter_common::{
    abi::feature,
    flow::{Peer, peer},
    reason::Reason,
};
use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures::Host,
    mutate::Random,
    packet::{Packet, flag, http::Request, tls::ClientHello},
    runner::Judge,
};
use filter_user::compile::{Compiled, Role};
use hellos::{Hello, Piece, hellos, later_requests, proxied};

const SEED: u64 = 0x0EDF_0000_2026_0201;
const ISN: u32 = 0xFFFF_FF00;
const PASS: u32 = 2;

const POLICY: &str = r#"
version = 1
[[rule]]
id = "names"
domains = ["test.example", "blocked.example"]
action = "drop"
"#;

fn policy() -> Compiled {
    compiled(POLICY, &Host::default(), Role::Replay { checksums: false })
}

/// The same where the connections end.
fn policy_at_host() -> Compiled {
    let host = Host {
        own: vec!["203.0.113.9"],
        serves: vec!["203.0.113.9"],
        ..Host::default()
    };
    let mut compiled = compiled(POLICY, &host, Role::Live);
    compiled.config.features |= feature::SOCKETS;
    compiled
}

/// A request with a body of ten bytes.
fn upload(name: &str) -> Vec<u8> {
    Request::line("POST / HTTP/1.1")
        .header(&format!("Host: {name}"))
        .header("Content-Length: 10")
        .body(b"0123456789")
        .bytes()
}

/// The same on ports where a PROXY protocol header may come first.
fn policy_behind_proxy() -> Compiled {
    let host = Host {
        proxied: vec![443, 80],
        ..Host::default()
    };
    compiled(POLICY, &host, Role::Replay { checksums: false })
}

/// Pieces between these places, which are sorted.
fn pieces(hello: &Hello, cuts: &[usize]) -> Vec<Piece> {
    let ends = cuts.iter().copied().chain([hello.bytes.len()]);
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in ends {
        if to > from {
            pieces.push(Piece::of(hello, from, to));
            from = to;
        }
    }
    pieces
}

fn random_cuts(hello: &Hello, count: usize, random: &mut Random) -> Vec<usize> {
    let mut cuts: Vec<_> = (0..count)
        .map(|_| random.below(hello.bytes.len()))
        .collect();
    cuts.sort_unstable();
    cuts
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

/// Every other connection of those that are opened is also answered.
fn opened(judge: &mut dyn Judge, client: usize, port: u16, isn: u32) -> Connection<'_> {
    let mut connection = Connection::open(judge, client, port, isn);
    if (client / 2).is_multiple_of(2) {
        connection.answer(isn);
    }
    connection
}

/// In order: everything before the piece that completes the hello, or shows the name of a request,
/// passes as incomplete, and that piece and all behind it are dropped.
///
/// Every other connection is one whose SYN was not seen.
fn in_order(judge: &mut dyn Judge, client: usize, hello: &Hello, cuts: &[usize]) {
    let what = || format!("cut at {cuts:?}");
    let mut connection = match client % 2 {
        0 => opened(judge, client, hello.port, ISN),
        _ => Connection::joined(judge, client, hello.port, ISN),
    };
    let pieces = pieces(hello, cuts);
    let mut hit = false;
    for piece in &pieces {
        let end = piece.at as usize + piece.bytes.len();
        let fate = connection.send(piece);
        let opened = client.is_multiple_of(2);
        let expected = match (hit, fate) {
            (true, _) if opened => Fate::Dropped(Some(Reason::BlockedFlow)),
            // Without its start each segment is judged by itself: what is behind the hello is of no
            // use to a server that does not get that.
            (true, fate) => fate,
            (false, Fate::Dropped(_)) => Fate::Dropped(Some(Reason::Hostname)),
            (false, Fate::Passed(_)) => Fate::Passed(Some(Reason::HelloIncomplete)),
        };
        assert_eq!(fate, expected, "{}: {} at {end}", hello.title, what());
        hit |= matches!(fate, Fate::Dropped(_));
        assert!(hit || end < hello.complete, "{}: {}", hello.title, what());
        // A TLS server must get whole hellos; a request's Host may show early.
        if hello.port == 443 && end < hello.complete {
            assert!(!hit, "{}: {} hit at {end} already", hello.title, what());
        }
    }
    connection.assert_blocked(hello, &what);
}

/// Byte by byte, in two at every place, in four at random places.
fn every_cut(
    judge: &mut dyn Judge,
    hellos: &[Hello],
    stride: usize,
    random_rounds: usize,
) -> usize {
    let mut random = Random::new(SEED);
    let mut client = 0;
    for hello in hellos {
        if hello.bytes.len() / stride < 700 {
            let bytes: Vec<_> = (1..hello.bytes.len()).collect();
            in_order(judge, client, hello, &bytes);
            client += 1;
        }
        for cut in (1..hello.bytes.len()).step_by(stride) {
            in_order(judge, client, hello, &[cut]);
            client += 1;
        }
        for _ in 0..random_rounds {
            let cuts = random_cuts(hello, 3, &mut random);
            in_order(judge, client, hello, &cuts);
            client += 1;
        }
    }
    client
}

/// Any order; repetitions with other cuts; overlaps that disagree; data from before the start.
fn any_order(judge: &mut dyn Judge, hellos: &[Hello], rounds: usize) -> usize {
    let mut random = Random::new(SEED + 2);
    let mut client = 0;
    for hello in hellos {
        for round in 0..rounds {
            client += 1;
            let count = 1 + random.below(6);
            let cuts = random_cuts(hello, count, &mut random);
            let mut sent = pieces(hello, &cuts);
            for _ in 0..random.below(4) {
                sent.push(odd_piece(hello, &mut random));
            }
            shuffle(&mut sent, &mut random);
            // The client goes on sending what was not acknowledged.
            sent.extend(pieces(hello, &cuts));
            let isn = random.number() as u32;
            let mut connection = opened(judge, client, hello.port, isn);
            connection.send_all(&sent);
            let whole = connection.got_through(hello);
            assert!(
                !whole,
                "{} round {round}: it got through: {sent:?}",
                hello.title
            );
        }
    }
    client
}

/// A repetition, maybe with other bytes, maybe reaching before the start.
fn odd_piece(hello: &Hello, random: &mut Random) -> Piece {
    let len = hello.bytes.len();
    let from = random.below(len);
    let to = (from + 1 + random.below(len)).min(len);
    let mut piece = Piece::of(hello, from, to);
    match random.below(3) {
        0 => {}
        1 => {
            let at = random.below(piece.bytes.len());
            piece.bytes[at] ^= 1 << random.below(8);
        }
        _ => {
            let before = 1 + random.below(40);
            let mut bytes = vec![b'G'; before];
            bytes.extend_from_slice(&hello.bytes[..to]);
            piece = Piece {
                at: -(before as i64),
                bytes,
            };
        }
    }
    piece
}

/// Pieces in any order, and some bytes twice.
fn reordered(hello: &Hello, random: &mut Random) -> Vec<Piece> {
    let count = 1 + random.below(8);
    let mut sent = pieces(hello, &random_cuts(hello, count, random));
    let from = random.below(hello.bytes.len());
    sent.push(Piece::of(hello, from, hello.bytes.len()));
    shuffle(&mut sent, random);
    sent
}

/// Honest reordering and repetition: the hit comes, whatever the order.
fn honest(judge: &mut dyn Judge, hellos: &[Hello], rounds: usize) -> usize {
    let mut random = Random::new(SEED + 4);
    let mut client = 0;
    for hello in hellos {
        for _ in 0..rounds {
            client += 1;
            let sent = reordered(hello, &mut random);
            let mut connection = opened(judge, client, hello.port, ISN);
            connection.send_all(&sent);
            connection.assert_blocked(hello, &|| format!("{sent:?}"));
        }
    }
    client
}

/// The events of a connection in the middle of a hello.
fn events(judge: &mut dyn Judge, hellos: &[Hello]) {
    for (client, hello) in hellos.iter().enumerate() {
        let half = hello.complete / 4;
        let (first, rest) = (
            Piece::of(hello, 0, half),
            Piece::of(hello, half, hello.bytes.len()),
        );
        let title = &hello.title;
        let nothing = || "events".to_owned();
        let port = hello.port;

        // Another SYN on the same ports does not make the filter forget the half hello.
        let mut connection = Connection::open(judge, 8 * client, port, ISN);
        connection.send(&first);
        connection.syn(ISN.wrapping_add(half as u32).wrapping_add(77));
        connection.send(&rest);
        connection.assert_blocked(hello, &nothing);

        // But a new connection on them is read from its own start.
        let mut connection = Connection::open(judge, 8 * client + 1, port, ISN);
        connection.send(&first);
        connection.syn(7_000);
        connection.isn = 7_000;
        connection.received.clear();
        connection.send_all(&pieces(hello, &[half, half * 2]));
        connection.assert_blocked(hello, &nothing);

        // An RST beside the stream changes nothing, one in it ends it.
        let mut connection = Connection::open(judge, 8 * client + 2, port, ISN);
        connection.send(&first);
        let beside = connection
            .packet(ISN.wrapping_add(half as u32 + 9))
            .flags(flag::RST);
        assert_eq!(connection.judge.judge(&beside.build()).action, PASS);
        connection.send(&rest);
        connection.assert_blocked(hello, &nothing);

        let mut connection = Connection::open(judge, 8 * client + 3, port, ISN);
        connection.send(&first);
        let within = connection
            .packet(ISN.wrapping_add(1 + half as u32))
            .flags(flag::RST);
        assert_eq!(connection.judge.judge(&within.build()).action, PASS);
        connection.syn(99);
        connection.isn = 99;
        connection.received.clear();
        connection.send_all(&pieces(hello, &[half]));
        connection.assert_blocked(hello, &nothing);

        // A hello in the SYN itself is read, whole or in part.
        let mut connection = Connection::joined(judge, 8 * client + 5, port, ISN);
        assert!(
            matches!(
                connection.send_with_syn(&Piece::of(hello, 0, hello.bytes.len())),
                Fate::Dropped(_)
            ),
            "{title}"
        );
        let mut connection = Connection::joined(judge, 8 * client + 6, port, ISN);
        let fate = connection.send_with_syn(&first);
        assert_eq!(fate, Fate::Passed(Some(Reason::HelloIncomplete)), "{title}");
        connection.send(&rest);
        connection.assert_blocked(hello, &nothing);
        // But it does not take the place of one that is being read.
        let mut connection = Connection::open(judge, 8 * client + 7, port, ISN);
        connection.send(&first);
        connection.isn = ISN.wrapping_add(half as u32 - 1);
        let fate = connection.send_with_syn(&Piece {
            at: 0,
            bytes: b"x".to_vec(),
        });
        assert_eq!(fate, Fate::Dropped(Some(Reason::HeldBack)), "{title}");
        connection.isn = ISN;
        connection.send(&rest);
        connection.assert_blocked(hello, &nothing);

        // What lies beyond a gap waits, what contradicts is dropped, and both judge nothing.
        let mut connection = Connection::open(judge, 8 * client + 4, port, ISN);
        connection.send(&first);
        let beyond = Piece::of(hello, half + 1, hello.bytes.len());
        assert_eq!(
            connection.send(&beyond),
            Fate::Dropped(Some(Reason::HeldBack)),
            "{title}"
        );
        let mut contradiction = Piece::of(hello, 0, half + 1);
        contradiction.bytes[half - 1] ^= 1;
        let fate = connection.send(&contradiction);
        assert_eq!(fate, Fate::Dropped(Some(Reason::Overlap)), "{title}");
        assert_eq!(connection.hits, 0, "{title}");
        // The same bytes again do no harm.
        assert!(
            matches!(connection.send(&first), Fate::Passed(_)),
            "{title}"
        );
        connection.send(&rest);
        connection.assert_blocked(hello, &nothing);
    }
}

/// [`honest`] on the host where connections end, which answers nothing.
fn unanswered(hellos: &[Hello], rounds: usize) {
    let mut random = Random::new(SEED + 8);
    let mut judge = AtHost::new(OnHost::load(&policy()));
    for (client, hello) in (0..rounds).flat_map(|_| hellos).enumerate() {
        let sent = reordered(hello, &mut random);
        let mut connection = Connection::open(&mut judge, client, hello.port, ISN);
        connection.send_all(&sent);
        connection.assert_blocked(hello, &|| format!("{sent:?}"));
    }
}

/// Requests behind others, in order, cut in two at many places and in four at random ones: what
/// comes before the last is served.
fn later_at_cuts(judge: &mut dyn Judge, stride: usize, random_rounds: usize) {
    let mut random = Random::new(SEED + 6);
    let mut client = 0;
    for hello in later_requests() {
        let twos = (1..hello.bytes.len()).step_by(stride).map(|cut| vec![cut]);
        let fours = (0..random_rounds).map(|_| random_cuts(&hello, 3, &mut random));
        for cuts in twos.chain(fours).collect::<Vec<_>>() {
            client += 1;
            let mut connection = Connection::open(judge, client, hello.port, ISN);
            for piece in pieces(&hello, &cuts) {
                connection.send(&piece);
            }
            connection.assert_blocked(&hello, &|| format!("cut at {cuts:?}"));
            let before = hello.bytes.len() - Request::to("www.blocked.example").bytes().len();
            let served = cuts.iter().filter(|cut| **cut <= before).max();
            assert!(
                connection.received.len() >= served.copied().unwrap_or_default(),
                "{}: {cuts:?}",
                hello.title
            );
        }
    }
}

#[test]
fn a_later_request_is_found_at_every_cut() {
    later_at_cuts(&mut AtHost::new(OnHost::load(&policy())), 1, 400);
}

#[test]
fn behind_a_long_body_reordered_and_repeated_segments_still_hit() {
    let uploads: Vec<_> = later_requests()
        .into_iter()
        .filter(|it| it.bytes.starts_with(b"POST"))
        .collect();
    unanswered(&uploads, 200);
}

#[test]
fn a_head_sent_again_before_its_body_is_read_again() {
    let upload = later_requests().swap_remove(1);
    let head = upload.bytes.windows(4).position(|end| end == b"\r\n\r\n");
    let head = Piece::of(&upload, 0, head.expect("a head") + 4);
    let blocked = hellos().pop().expect("a request");
    // The host has not got it: it is lost, or still on its way.
    let mut judge = OnHost::load(&policy());
    let start = ISN.wrapping_add(1);
    judge.set_peer(Peer {
        kind: peer::CONNECTION,
        start,
        rcv_nxt: start,
        snd_una: SERVER_ISN.wrapping_add(1),
        snd_nxt: SERVER_ISN.wrapping_add(1),
        ts_recent: 0,
    });
    let mut connection = Connection::joined(&mut judge, 1, 80, ISN);
    assert_eq!(connection.send(&head), Fate::Passed(Some(Reason::NoMatch)));
    let (first, rest) = (
        Piece::of(&blocked, 0, 9),
        Piece::of(&blocked, 9, blocked.complete),
    );
    assert_eq!(
        connection.send(&rest),
        Fate::Dropped(Some(Reason::Overlap)),
        "in the place of the head"
    );
    connection.send(&first);
    assert_eq!(
        connection.send(&rest),
        Fate::Dropped(Some(Reason::Hostname))
    );
}

/// The host has the first hello and has asked for a second one: it looks at nothing before that again, so
/// neither does the filter.
#[test]
fn another_first_hello_does_not_hide_the_second() {
    let first = |padding| {
        ClientHello::named("www.allowed.example")
            .padding(padding)
            .record()
    };
    let second = ClientHello::named("www.blocked.example").record();
    // It lies in the padding, where the first hello ended.
    let mut hiding = first(40 + second.len());
    let first = first(40);
    hiding.truncate(first.len());
    hiding.extend(&second);
    let whole = |bytes: &[u8]| Piece {
        at: 0,
        bytes: bytes.to_vec(),
    };
    let mut judge = AtHost::new(OnHost::load(&policy_at_host()));
    let mut connection = Connection::open(&mut judge, 1, 443, ISN);
    let passed = Fate::Passed(Some(Reason::NoMatch));
    assert_eq!(connection.send(&whole(&first)), passed);
    let fate = connection.send(&whole(&hiding));
    assert_eq!(fate, Fate::Dropped(Some(Reason::Hostname)));
}

/// The host's numbers are two counters, and another processor may be moving them on while they are read.
#[test]
fn numbers_that_the_host_is_moving_on_do_not_part_an_entry_from_its_connection() {
    const CUT: usize = 9;
    let blocked = hellos().pop().expect("a request");
    let (first, rest) = (
        Piece::of(&blocked, 0, CUT),
        Piece::of(&blocked, CUT, blocked.complete),
    );
    let start = ISN.wrapping_add(1);
    let torn = start.wrapping_sub(CUT as u32);
    let mut judge = OnHost::load(&policy());
    let mut sent = |piece, start, rcv_nxt| {
        judge.set_peer(Peer {
            kind: peer::CONNECTION,
            start,
            rcv_nxt,
            snd_una: SERVER_ISN.wrapping_add(1),
            snd_nxt: SERVER_ISN.wrapping_add(1),
            ts_recent: 0,
        });
        Connection::joined(&mut judge, 1, 80, ISN).send(piece)
    };
    assert_eq!(
        sent(&first, start, start),
        Fate::Passed(Some(Reason::HelloIncomplete))
    );
    assert_eq!(
        sent(&rest, torn, start),
        Fate::Dropped(Some(Reason::HeldBack))
    );
    let now = start.wrapping_add(CUT as u32);
    assert_eq!(
        sent(&rest, start, now),
        Fate::Dropped(Some(Reason::Hostname))
    );
    assert_eq!(
        sent(&rest, torn, start),
        Fate::Dropped(Some(Reason::BlockedFlow))
    );
}

/// Two cookies at once: the host takes the half hello first, which must not be forgotten for the other.
#[test]
fn a_second_cookie_does_not_hide_half_a_hello() {
    let hello = hellos().pop().expect("a request");
    let (first, rest) = (
        Piece::of(&hello, 0, 9),
        Piece::of(&hello, 9, hello.complete),
    );
    let other = ISN.wrapping_add(70_000);
    let mut judge = OnHost::load(&policy_at_host());
    let mut sent = |kind, isn: u32, piece| {
        let start = isn.wrapping_add(1);
        judge.set_peer(Peer {
            kind,
            start,
            rcv_nxt: start.wrapping_add(if kind == peer::CONNECTION { 9 } else { 0 }),
            snd_una: SERVER_ISN.wrapping_add(1),
            snd_nxt: SERVER_ISN.wrapping_add(1),
            ts_recent: 0,
        });
        Connection::joined(&mut judge, 1, 80, isn).send(piece)
    };
    let incomplete = Fate::Passed(Some(Reason::HelloIncomplete));
    assert_eq!(sent(peer::COOKIE, ISN, &first), incomplete);
    assert_eq!(
        sent(peer::COOKIE, other, &first),
        Fate::Dropped(Some(Reason::HeldBack))
    );
    assert_eq!(
        sent(peer::CONNECTION, ISN, &rest),
        Fate::Dropped(Some(Reason::Hostname))
    );
}

/// Two cookies at once: the host opens one connection by a bare acknowledgement, and has bytes of the other
/// beyond a gap when the first come.
#[test]
fn what_passed_for_another_cookie_hides_no_part_of_a_hello() {
    const CUT: usize = 20;
    const STRAY: usize = 9;
    let hello = hellos().pop().expect("a request");
    assert!(CUT + STRAY < hello.complete);
    let stray = Piece::of(&hello, 0, STRAY);
    let first = Piece::of(&hello, 0, CUT);
    let rest = Piece::of(&hello, CUT + STRAY, hello.complete);
    let mut judge = OnHost::load(&policy_at_host());
    let mut sent = |kind, isn: u32, received: usize, piece| {
        let start = isn.wrapping_add(1);
        judge.set_peer(Peer {
            kind,
            start,
            rcv_nxt: start.wrapping_add(received as u32),
            snd_una: SERVER_ISN.wrapping_add(1),
            snd_nxt: SERVER_ISN.wrapping_add(1),
            ts_recent: 0,
        });
        Connection::joined(&mut judge, 1, 80, isn).send(piece)
    };
    let incomplete = Fate::Passed(Some(Reason::HelloIncomplete));
    let other = ISN.wrapping_add(CUT as u32);
    assert_eq!(sent(peer::COOKIE, other, 0, &stray), incomplete);
    assert_eq!(sent(peer::CONNECTION, ISN, 0, &first), incomplete);
    assert_eq!(
        sent(peer::CONNECTION, ISN, CUT + STRAY, &rest),
        Fate::Dropped(Some(Reason::HeldBack))
    );
}

/// A request behind a body which is dropped for what is wrong with its segment comes again.
#[test]
fn a_later_request_that_the_host_would_refuse_leaves_its_place_as_it_is() {
    type Bend = fn(Packet) -> Packet;
    let refused: [(Bend, Reason); 2] = [
        (|it| it.shift_ack(10_000), Reason::BadSequence),
        (|it| it.flags(flag::PSH), Reason::BadFlags),
    ];
    let request = Request::to("www.blocked.example").bytes();
    for method in ["GET", "POST"] {
        let before = match method {
            "GET" => Request::to("www.allowed.example").bytes(),
            _ => upload("www.allowed.example"),
        };
        let stream = [before.clone(), request.clone()].concat();
        let at = |from: usize, to: usize| Piece {
            at: from as i64,
            bytes: stream[from..to].to_vec(),
        };
        let body = if method == "GET" { 0 } else { 5 };
        let cut = before.len() - body;
        let middle = before.len() + 9;
        for (client, (bend, reason)) in refused.into_iter().enumerate() {
            let mut judge = AtHost::new(OnHost::load(&policy_at_host()));
            let mut connection = Connection::open(&mut judge, client, 80, ISN);
            assert_eq!(
                connection.send(&at(0, cut)),
                Fate::Passed(Some(Reason::NoMatch))
            );
            let next = at(cut, stream.len());
            let fate = connection.send_bent(&next, bend);
            assert_eq!(fate, Fate::Dropped(Some(reason)), "{method}");
            let fate = connection.send(&at(middle, stream.len()));
            assert_eq!(fate, Fate::Dropped(Some(Reason::HeldBack)), "{method}");
            let fate = connection.send(&next);
            assert_eq!(fate, Fate::Dropped(Some(Reason::Hostname)), "{method}");
        }
    }
}

#[test]
fn the_host_build_finds_the_name_at_every_cut() {
    let mut judge = OnHost::load(&policy());
    let connections = every_cut(&mut judge, &hellos(), 1, 200);
    println!("{connections} connections");
}

#[test]
fn the_kernel_finds_the_name_at_many_cuts() {
    let mut judge = InKernel::load(&policy());
    let connections = every_cut(&mut judge, &hellos(), 23, 5);
    println!("{connections} connections");
}

#[test]
fn no_order_of_segments_gets_a_blocked_name_through_the_host_build() {
    let mut judge = OnHost::load(&policy());
    let connections = any_order(&mut judge, &hellos(), 400);
    println!("{connections} connections");
}

#[test]
fn no_order_of_segments_gets_a_blocked_name_through_the_kernel() {
    let mut judge = InKernel::load(&policy());
    let connections = any_order(&mut judge, &hellos(), 20);
    println!("{connections} connections");
}

#[test]
fn reordered_and_repeated_segments_still_hit() {
    let hellos = hellos();
    honest(&mut OnHost::load(&policy()), &hellos, 200);
    honest(&mut InKernel::load(&policy()), &hellos, 10);
}

#[test]
fn events_in_the_middle_of_a_hello_do_not_hide_the_name() {
    let hellos = hellos();
    events(&mut OnHost::load(&policy()), &hellos);
    events(&mut InKernel::load(&policy()), &hellos);
}

#[test]
fn a_proxy_header_before_the_hello_hides_nothing_at_any_cut_and_in_any_order() {
    let hellos = proxied();
    let mut host = OnHost::load(&policy_behind_proxy());
    every_cut(&mut host, &hellos, 1, 20);
    let mut host = OnHost::load(&policy_behind_proxy());
    any_order(&mut host, &hellos, 50);
    honest(&mut OnHost::load(&policy_behind_proxy()), &hellos, 50);
    let mut kernel = InKernel::load(&policy_behind_proxy());
    every_cut(&mut kernel, &hellos, 23, 2);
    any_order(&mut InKernel::load(&policy_behind_proxy()), &hellos, 5);
}
