//! Connections that pass through: what the server's direction says decides what of the client's counts.
//! Each case through the host build and the program in the kernel.

use filter_common::{abi::feature, reason::Reason};
use filter_tests::{
    adapter::{InKernel, OnHost},
    packet::{Packet, flag, http::Request, tls::ClientHello},
    runner::Judge,
};
use filter_user::compile::Compiled;

use crate::{
    connection::{Connection, Fate, SERVER_ISN},
    hellos::Piece,
    policy,
};

const ISN: u32 = 0xFFFF_FFF0;
const TLS: u16 = 443;
const HTTP: u16 = 80;
/// Where a hello is cut in two: within the name.
const CUT: usize = 135;

/// Runs a case where answers may come, and where there are none.
fn each(case: fn(&mut dyn Judge, Sides)) {
    for sides in [Sides::Both, Sides::One] {
        let compiled = sides.of(policy());
        case(&mut OnHost::load(&compiled), sides);
        case(&mut InKernel::load(&compiled), sides);
    }
}

/// Which sides of the filter are said to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Both,
    One,
}

impl Sides {
    fn of(self, mut compiled: Compiled) -> Compiled {
        match self {
            Self::Both => compiled.config.features &= !feature::ONE_SIDED,
            Self::One => compiled.config.features |= feature::ONE_SIDED,
        }
        compiled
    }
}

fn hello(name: &str) -> Vec<u8> {
    let hello = ClientHello::named(name).record();
    let at = hello
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .expect("the name");
    assert!((at + 1..at + name.len() - 1).contains(&CUT), "name at {at}");
    hello
}

fn blocked() -> Vec<u8> {
    hello("www.blocked.example")
}

fn allowed() -> Vec<u8> {
    hello("www.allowed.example")
}

fn piece(of: &[u8], from: usize, to: usize) -> Piece {
    Piece {
        at: from as i64,
        bytes: of[from..to].to_vec(),
    }
}

fn head(of: &[u8]) -> Piece {
    piece(of, 0, CUT)
}

fn tail(of: &[u8]) -> Piece {
    piece(of, CUT, of.len())
}

fn whole(of: &[u8]) -> Piece {
    piece(of, 0, of.len())
}

/// A connection with its handshake seen.
fn established(judge: &mut dyn Judge, client: usize, port: u16) -> Connection<'_> {
    let mut connection = Connection::open(judge, client, port, ISN);
    connection.answer(ISN);
    connection
}

const INCOMPLETE: Fate = Fate::Passed(Some(Reason::HelloIncomplete));
const BLOCKED: Fate = Fate::Dropped(Some(Reason::Hostname));

fn old_timestamp(packet: Packet) -> Packet {
    packet.tcp_options(&timestamps(1_000, 0))
}

fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 8, 10];
    options.extend_from_slice(&value.to_be_bytes());
    options.extend_from_slice(&echo.to_be_bytes());
    options
}

#[test]
fn decoys_that_the_server_refuses_teach_nothing() {
    each(|judge, _| {
        let (real, decoy) = (blocked(), allowed());
        type Bend = fn(Packet) -> Packet;
        let decoys: [(Bend, Reason); 4] = [
            (|it| it.shift_ack(10_000), Reason::BadSequence),
            (|it| it.shift_ack(-1), Reason::BadSequence),
            (|it| it.flags(flag::PSH), Reason::BadFlags),
            (old_timestamp, Reason::BadOptions),
        ];
        for (client, (bend, reason)) in decoys.into_iter().enumerate() {
            let mut connection = Connection::open(judge, client, TLS, ISN);
            // The SYN-ACK gives the SYN's timestamp back.
            connection.answers(|it| {
                it.flags(flag::SYN | flag::ACK)
                    .seq(SERVER_ISN)
                    .ack(ISN.wrapping_add(1))
                    .tcp_options(&timestamps(7, 5_000))
            });
            let refused = Fate::Dropped(Some(reason));
            assert_eq!(connection.send_bent(&whole(&decoy), bend), refused);
            assert_eq!(connection.send(&head(&real)), INCOMPLETE);
            assert_eq!(connection.send_bent(&tail(&decoy), bend), refused);
            assert_eq!(connection.send(&tail(&real)), BLOCKED);
        }
    });
}

#[test]
fn a_missing_timestamp_is_no_reason_to_refuse() {
    each(|judge, _| {
        let mut connection = Connection::open(judge, 0, TLS, ISN);
        connection.answers(|it| {
            it.flags(flag::SYN | flag::ACK)
                .seq(SERVER_ISN)
                .ack(ISN.wrapping_add(1))
                .tcp_options(&timestamps(7, 5_000))
        });
        assert_eq!(connection.send(&whole(&blocked())), BLOCKED);
    });
}

#[test]
fn a_forged_syn_moves_nothing() {
    each(|judge, sides| {
        let real = blocked();
        // Before, between and behind the real SYN and its answer.
        for (client, forged) in [ISN.wrapping_add(100_000), ISN.wrapping_sub(77)]
            .into_iter()
            .enumerate()
        {
            let mut connection = Connection::open(judge, 2 * client, TLS, forged);
            connection.isn = ISN;
            connection.syn(ISN);
            connection.syn(forged.wrapping_add(9));
            connection.answer(ISN);
            connection.syn(forged);
            assert_eq!(connection.send(&head(&real)), INCOMPLETE);
            connection.syn(forged);
            connection.send_all(&[tail(&real)]);
            assert!(connection.hits > 0 && connection.received.len() <= CUT);

            // Without the answer it is not known which is real: what disagrees does not pass.
            let mut connection = Connection::open(judge, 2 * client + 1, TLS, ISN);
            connection.syn(forged);
            connection.send_all(&[tail(&real), head(&real), tail(&real)]);
            if sides == Sides::One {
                assert!(connection.received.len() < real.len(), "{sides:?}");
            }
        }
    });
}

/// Before the SYN is answered, what disagrees with it might make it look forged; the answer says better.
#[test]
fn payload_beside_a_syn_does_not_hide_its_answer() {
    each(|judge, _| {
        let real = blocked();
        let decoys = [
            vec![0x17; 60],
            Request::to("www.allowed.example").bytes(),
            allowed(),
            allowed()[..CUT].to_vec(),
        ];
        let cases = decoys.iter().flat_map(|it| [(it, false), (it, true)]);
        for (client, (decoy, ended)) in cases.enumerate() {
            let mut connection = Connection::open(judge, client, TLS, ISN);
            connection.send(&Piece {
                at: 5_000,
                bytes: decoy.clone(),
            });
            connection.forget_sent();
            if ended {
                // The client takes it back, or says that it was answered.
                let seq = ISN.wrapping_add(5_001 + decoy.len() as u32);
                let reset = connection.packet(seq).flags(flag::RST).build();
                connection.judge.judge(&reset);
                let beyond = piece(&real, real.len() - 1, real.len());
                connection.send_bent(&beyond, |it| it.shift_seq(9_000).shift_ack(500));
                connection.forget_sent();
            }
            connection.answer(ISN);
            connection.send_all(&[tail(&real), head(&real), tail(&real)]);
            assert!(!connection.received.starts_with(&real), "decoy {client}");
        }
        // What lies around the start is no part of the stream, nor what the server has taken of a SYN.
        let mut connection = Connection::open(judge, 20, TLS, ISN);
        let around = Piece {
            at: -60,
            bytes: allowed()[..CUT].to_vec(),
        };
        connection.send(&around);
        connection.answer(ISN);
        assert_eq!(connection.send(&whole(&real)), BLOCKED);
    });
}

#[test]
fn half_a_hello_a_syn_at_the_next_number_minus_one_and_the_other_half() {
    each(|judge, _| {
        let real = blocked();
        for (client, beyond) in [0, 1, 9].into_iter().enumerate() {
            for answered in [false, true] {
                let client = 2 * client + usize::from(answered);
                let mut connection = Connection::open(judge, client, TLS, ISN);
                if answered {
                    connection.answer(ISN);
                }
                assert_eq!(connection.send(&head(&real)), INCOMPLETE);
                connection.syn(ISN.wrapping_add((CUT + beyond) as u32));
                connection.send_all(&[
                    piece(&real, CUT + beyond, real.len()),
                    piece(&real, CUT, CUT + beyond),
                    tail(&real),
                ]);
                assert!(!connection.received.starts_with(&real), "{beyond}");
            }
        }
    });
}

#[test]
fn a_new_connection_on_the_same_ports_is_read_from_its_own_start() {
    each(|judge, _| {
        let real = blocked();
        let mut connection = established(judge, 0, TLS);
        connection.send(&head(&real));
        let isn = ISN.wrapping_add(1_000_000);
        connection.syn(isn);
        connection.answer(isn);
        connection.isn = isn;
        connection.received.clear();
        assert_eq!(
            connection.send(&whole(&allowed())),
            Fate::Passed(Some(Reason::NoMatch))
        );

        // Also after one that was blocked.
        let mut connection = established(judge, 1, TLS);
        assert_eq!(connection.send(&whole(&real)), BLOCKED);
        connection.syn(isn);
        assert_eq!(
            connection.send(&whole(&allowed())),
            Fate::Dropped(Some(Reason::BlockedFlow))
        );
        connection.answer(isn);
        connection.isn = isn;
        assert_eq!(
            connection.send(&whole(&allowed())),
            Fate::Passed(Some(Reason::NoMatch))
        );
    });
}

#[test]
fn only_an_exact_rst_of_the_server_ends_a_stream() {
    each(|judge, _| {
        let real = blocked();
        let next = SERVER_ISN.wrapping_add(1);
        // What the client resets it may go on with: an RST need not reach the server.
        type Reset = fn(&mut Connection);
        let harmless: [Reset; 3] = [
            |it| it.answers(|it| it.flags(flag::RST).seq(SERVER_ISN)),
            |it| it.answers(|it| it.flags(flag::RST | flag::ACK).seq(SERVER_ISN + 2)),
            |it| {
                let seq = it.isn.wrapping_add(1 + CUT as u32);
                let frame = it.packet(seq).flags(flag::RST | flag::ACK).build();
                it.judge.judge(&frame);
            },
        ];
        for (client, reset) in harmless.into_iter().enumerate() {
            let mut connection = established(judge, client, TLS);
            assert_eq!(connection.send(&head(&real)), INCOMPLETE);
            reset(&mut connection);
            assert_eq!(connection.send(&tail(&real)), BLOCKED);
        }
        let mut connection = established(judge, 9, TLS);
        assert_eq!(connection.send(&head(&real)), INCOMPLETE);
        connection.answers(|it| it.flags(flag::RST).seq(next));
        let rest = connection.send(&tail(&real));
        assert_eq!(rest, Fate::Passed(Some(Reason::OtherProtocol)));
    });
}

/// What the filter allowed may have died on its way: until the server acknowledges it, nothing else may
/// take its place.
#[test]
fn a_decoy_that_never_reaches_the_server_opens_nothing() {
    each(|judge, _| {
        let blocked_request = Request::to("www.blocked.example").bytes();
        let allowed_request = Request::to("www.allowed.example").bytes();
        let cases = [
            (TLS, blocked(), allowed()),
            (HTTP, blocked_request, allowed_request),
            (TLS, blocked(), b"SSH-2.0-decoy\r\n".to_vec()),
            (TLS, blocked(), allowed()[..CUT].to_vec()),
        ];
        let acknowledging: fn(Packet) -> Packet = |it| it.shift_ack(500);
        for (index, (port, real, decoy)) in cases.iter().enumerate() {
            let cut = decoy.len().min(CUT) / 2;
            for (way, order) in [
                vec![piece(real, cut, real.len()), piece(real, 0, cut)],
                vec![
                    piece(real, decoy.len().min(real.len() - 1), real.len()),
                    piece(real, 0, decoy.len().min(real.len() - 1)),
                ],
                vec![whole(real)],
            ]
            .into_iter()
            .enumerate()
            {
                for forged in [false, true] {
                    let client = 10 * index + 2 * way + usize::from(forged);
                    let mut connection = established(judge, client, *port);
                    connection.send(&whole(decoy));
                    // The server has nothing of it.
                    connection.received.clear();
                    connection.forget_sent();
                    if forged {
                        // As if an answer had come.
                        let more = piece(real, real.len() - 1, real.len());
                        connection.send_bent(&more, acknowledging);
                        connection.forget_sent();
                    }
                    connection.send_all(&order);
                    connection.send_all(&order);
                    assert!(
                        !connection.received.starts_with(real),
                        "port {port}, decoy {index}, order {way}, forged {forged}"
                    );
                }
            }
        }
    });
}

#[test]
fn an_answer_that_acknowledges_the_hello_ends_the_inspection() {
    each(|judge, _| {
        let hello = allowed();
        let mut connection = established(judge, 0, TLS);
        assert_eq!(
            connection.send(&whole(&hello)),
            Fate::Passed(Some(Reason::NoMatch))
        );
        let acked = ISN.wrapping_add(1).wrapping_add(hello.len() as u32);
        connection.answers(|it| {
            it.seq(SERVER_ISN.wrapping_add(1))
                .ack(acked)
                .payload(b"ServerHello".as_slice())
        });
        // The second hello, behind a HelloRetryRequest, is read like the first.
        let second = Piece {
            at: hello.len() as i64,
            bytes: blocked(),
        };
        assert_eq!(
            connection.send_bent(&second, |it| it.shift_ack(11)),
            BLOCKED
        );
        let finished = Piece {
            at: hello.len() as i64,
            bytes: vec![0x17, 3, 3, 0, 1, 0],
        };
        let passed = Fate::Passed(Some(Reason::OtherProtocol));
        assert_eq!(
            connection.send_bent(&finished, |it| it.shift_ack(11)),
            passed
        );
    });
}

#[test]
fn data_right_behind_a_hello_or_a_request_is_not_held_up() {
    each(|judge, _| {
        for (client, port, first, next) in [
            (0, TLS, allowed(), vec![0x17, 3, 3, 0, 2, 1, 2]),
            (
                1,
                HTTP,
                Request::to("www.allowed.example").bytes(),
                b"a body".to_vec(),
            ),
        ] {
            for answered in [true, false] {
                let mut connection = Connection::open(judge, 2 * client, port, ISN);
                if answered {
                    connection.answer(ISN);
                }
                let rest = Piece {
                    at: first.len() as i64,
                    bytes: next.clone(),
                };
                assert_eq!(
                    connection.send(&whole(&first)),
                    Fate::Passed(Some(Reason::NoMatch))
                );
                assert!(matches!(connection.send(&rest), Fate::Passed(_)));
                // And the first again, in case it was lost.
                assert!(matches!(connection.send(&whole(&first)), Fate::Passed(_)));
                assert!(matches!(connection.send(&rest), Fate::Passed(_)));
            }
        }
    });
}

/// What was lost is sent again together with more, and that is lost in its turn, while the first copy arrives
/// late: the client goes on behind the shorter one.
#[test]
fn the_rest_of_a_longer_copy_that_was_lost_is_read_by_itself() {
    each(|judge, _| {
        let request = Request::to("www.blocked.example").bytes();
        let uploaded = format!("{} and more", String::from_utf8_lossy(&request));
        let upload = Request::line("POST / HTTP/1.1")
            .header("Host: www.allowed.example")
            .header(&format!("Content-Length: {}", uploaded.len()))
            .body(uploaded.as_bytes())
            .bytes();
        let head = upload.len() - uploaded.len();
        let hello = allowed();
        let with = |data: &[u8]| [&hello, data].concat();
        let other = b"SSH-2.0-client and more".to_vec();
        let cases = [
            (HTTP, head + 5, upload, true),
            (TLS, hello.len(), with(&[0x17, 3, 3, 0, 2, 1, 2]), true),
            (TLS, hello.len(), with(&blocked()), false),
            (TLS, 16, other, true),
        ];
        for (client, (port, shorter, stream, passes)) in cases.iter().enumerate() {
            let mut connection = established(judge, client, *port);
            let first = connection.send(&piece(stream, 0, *shorter));
            assert!(matches!(first, Fate::Passed(_)), "{client}: {first:?}");
            for from in [0, *shorter] {
                let fate = connection.send(&piece(stream, from, stream.len()));
                let passed = matches!(fate, Fate::Passed(_));
                assert_eq!(passed, *passes, "{client}: from {from}: {fate:?}");
            }
        }
    });
}

/// Lost on a path that takes shorter packets only, what was allowed comes again in pieces, when more has
/// passed behind it.
#[test]
fn what_was_allowed_in_one_segment_may_come_again_in_pieces() {
    each(|judge, _| {
        let cases = [
            (TLS, allowed()),
            (HTTP, Request::to("www.allowed.example").bytes()),
        ];
        for (client, (port, stream)) in cases.iter().enumerate() {
            let mut connection = established(judge, client, *port);
            let data = Piece {
                at: stream.len() as i64,
                bytes: vec![0x17, 3, 3, 0, 2, 1, 2],
            };
            for sent in [&whole(stream), &data] {
                assert!(matches!(connection.send(sent), Fate::Passed(_)));
            }
            for cut in [1, 9, stream.len() - 1] {
                for (from, to) in [(0, cut), (cut, stream.len())] {
                    let fate = connection.send(&piece(stream, from, to));
                    assert!(matches!(fate, Fate::Passed(_)), "{port} {cut}: {fate:?}");
                }
            }
            let mut other = whole(stream);
            other.bytes[7] ^= 1;
            let overlap = Fate::Dropped(Some(Reason::Overlap));
            assert_eq!(connection.send(&other), overlap, "{port}");
        }
    });
}

/// The server takes the urgent byte out of the stream, also of bytes that were seen without the pointer.
#[test]
fn bytes_sent_again_with_an_urgent_pointer_do_not_pass() {
    each(|judge, _| {
        let refused = Fate::Dropped(Some(Reason::BadFlags));
        let urgent: fn(Packet) -> Packet = |it| it.flags(flag::ACK | flag::URG).urgent(3);
        let hello = allowed();
        let other = b"\x17\x16\x03\x01".to_vec();
        for (client, first) in [whole(&hello), head(&hello), whole(&other)]
            .iter()
            .enumerate()
        {
            let mut connection = established(judge, client, TLS);
            assert!(matches!(connection.send(first), Fate::Passed(_)));
            assert_eq!(connection.send_bent(first, urgent), refused);
            let mut more = first.clone();
            more.bytes.extend([0x17; 9]);
            let fate = connection.send_bent(&more, urgent);
            assert!(matches!(fate, Fate::Dropped(_)), "{fate:?}");
        }
    });
}

#[test]
fn the_rest_of_a_blocked_request_in_mid_stream_does_not_pass_by_what_was_dropped() {
    each(|judge, _| {
        let request = Request::to("www.blocked.example").bytes();
        for (client, len) in [1, 7, 30].into_iter().enumerate() {
            let mut connection = Connection::joined(judge, client, HTTP, ISN);
            let pieces: Vec<Piece> = (0..request.len())
                .step_by(len)
                .map(|at| piece(&request, at, request.len().min(at + len)))
                .collect();
            connection.send_all(&pieces);
            assert!(connection.hits > 0, "pieces of {len}");
            assert!(
                connection.received.len() < request.len(),
                "pieces of {len} got through"
            );
        }
    });
}

#[test]
fn another_protocol_goes_on_in_both_directions() {
    each(|judge, _| {
        let mut connection = established(judge, 0, TLS);
        let mut theirs = 1;
        connection.answers(|it| {
            it.seq(SERVER_ISN + 1)
                .ack(ISN.wrapping_add(1))
                .payload(b"SSH-2.0-server\r\n".as_slice())
        });
        theirs += 16;
        let passed = Fate::Passed(Some(Reason::OtherProtocol));
        let mut at = 0;
        for line in ["SSH-2.0-client\r\n", "key exchange", "and more"] {
            let line = Piece {
                at,
                bytes: line.as_bytes().to_vec(),
            };
            let sent = connection.send_bent(&line, |it| it.shift_ack(theirs - 1));
            assert_eq!(sent, passed);
            // Again, as if the acknowledgement were late.
            let again = connection.send_bent(&line, |it| it.shift_ack(theirs - 1));
            assert!(matches!(again, Fate::Passed(_)));
            at += line.bytes.len() as i64;
            let acked = ISN.wrapping_add(1).wrapping_add(at as u32);
            connection.answers(|it| {
                it.seq(SERVER_ISN.wrapping_add(theirs as u32))
                    .ack(acked)
                    .payload(b"answer".as_slice())
            });
            theirs += 6;
        }
    });
}

#[test]
fn a_syn_forged_into_a_connection_that_was_open_before_stops_nothing_where_answers_are_seen() {
    each(|judge, sides| {
        let mut connection = Connection::joined(judge, 0, TLS, ISN);
        let data = Piece {
            at: 5_000,
            bytes: vec![0x17, 3, 3, 0, 1, 0],
        };
        assert!(matches!(connection.send(&data), Fate::Passed(_)));
        connection.syn(ISN.wrapping_add(777_777));
        let fate = connection.send(&data);
        match sides {
            Sides::Both => assert!(matches!(fate, Fate::Passed(_))),
            // Where nothing else is to be seen, what disagrees is dropped.
            Sides::One => assert!(matches!(fate, Fate::Dropped(_))),
        }
    });
}
