//! Tables that take nothing new: what cannot be remembered does not pass, and passes once there is room.

use filter_common::reason::Reason;
use filter_tests::{
    adapter::{InKernel, OnHost},
    packet::{flag, http::Request, tls::ClientHello},
    runner::Judge,
};
use filter_user::host::StreamTable;

use crate::{
    ISN, PASS,
    at_host::AtHost,
    connection::{Connection, Fate},
    hellos::Piece,
    policy, policy_at_host, upload,
};

const TLS: u16 = 443;
const HTTP: u16 = 80;
/// Where a hello is cut in two.
const CUT: usize = 135;

const NOT_KEPT: Fate = Fate::Dropped(Some(Reason::StateLost));
const HELD_BACK: Fate = Fate::Dropped(Some(Reason::HeldBack));
const BLOCKED: Fate = Fate::Dropped(Some(Reason::Hostname));
const INCOMPLETE: Fate = Fate::Passed(Some(Reason::HelloIncomplete));
const ALLOWED: Fate = Fate::Passed(Some(Reason::NoMatch));

/// Runs a case through both builds, with these tables full.
fn each(full: &[StreamTable], case: fn(&mut dyn Judge)) {
    let compiled = policy();
    let mut host = OnHost::load(&compiled);
    for table in full {
        host.set_full(*table, true);
    }
    case(&mut host);
    case(&mut InKernel::load_full(&compiled, full));
}

fn piece(of: &[u8], from: usize, to: usize) -> Piece {
    Piece {
        at: from as i64,
        bytes: of[from..to].to_vec(),
    }
}

fn halves(of: &[u8]) -> (Piece, Piece) {
    (piece(of, 0, CUT), piece(of, CUT, of.len()))
}

fn whole(of: &[u8]) -> Piece {
    piece(of, 0, of.len())
}

fn blocked() -> Vec<u8> {
    ClientHello::named("www.blocked.example").record()
}

fn allowed() -> Vec<u8> {
    ClientHello::named("www.allowed.example").record()
}

fn established(judge: &mut dyn Judge, client: usize) -> Connection<'_> {
    let mut connection = Connection::open(judge, client, TLS, ISN);
    connection.answer(ISN);
    connection
}

#[test]
fn a_connection_whose_start_is_not_kept_is_not_opened() {
    each(&[StreamTable::Flows], |judge| {
        let mut connection = Connection::joined(judge, 0, TLS, ISN);
        let syn = connection.packet(ISN).flags(flag::SYN).build();
        let seen = connection.judge.judge(&syn);
        assert_ne!(seen.action, PASS);
        assert_eq!(seen.reason, Some(Reason::StateLost));
        let fate = connection.send_with_syn(&whole(&allowed()));
        assert_eq!(fate, NOT_KEPT);
    });
}

#[test]
fn half_a_hello_that_is_not_kept_does_not_pass_in_mid_stream() {
    for table in [StreamTable::Flows, StreamTable::Hellos] {
        each(&[table], |judge| {
            let mut connection = Connection::joined(judge, 0, TLS, ISN);
            let (head, _) = halves(&blocked());
            assert_eq!(connection.send(&head), NOT_KEPT);
            assert_eq!(connection.send(&head), NOT_KEPT);
            assert_eq!(connection.send(&whole(&blocked())), BLOCKED);
        });
    }
}

#[test]
fn half_a_hello_whose_bytes_are_not_kept_leaves_the_start_as_it_is() {
    each(&[StreamTable::Hellos], |judge| {
        let mut connection = established(judge, 0);
        let (head, tail) = halves(&blocked());
        assert_eq!(connection.send(&head), NOT_KEPT);
        assert_eq!(connection.send(&tail), HELD_BACK);
        assert_eq!(connection.send(&whole(&blocked())), BLOCKED);

        let mut connection = established(judge, 1);
        assert_eq!(connection.send(&halves(&allowed()).0), NOT_KEPT);
        assert_eq!(connection.send(&whole(&allowed())), ALLOWED);
    });
}

#[test]
fn what_was_kept_of_a_hello_stays_if_its_rest_is_not_kept() {
    const SEGMENT: usize = 1_200;
    each(&[StreamTable::LongHellos], |judge| {
        let hello = ClientHello::new().padding(4_000).sni("www.blocked.example");
        let hello = hello.record();
        let segments: Vec<Piece> = (0..hello.len())
            .step_by(SEGMENT)
            .map(|at| piece(&hello, at, hello.len().min(at + SEGMENT)))
            .collect();
        let mut connection = established(judge, 0);
        for _ in 0..2 {
            assert_eq!(connection.send(&segments[0]), INCOMPLETE);
            assert_eq!(connection.send(&segments[1]), INCOMPLETE);
            assert_eq!(connection.send(&segments[2]), NOT_KEPT);
            assert_eq!(connection.send(&segments[3]), HELD_BACK);
        }
        let mut other = segments[0].clone();
        other.bytes[CUT] ^= 1;
        let fate = connection.send(&other);
        assert_eq!(fate, Fate::Dropped(Some(Reason::Overlap)));
    });
}

#[test]
fn a_block_that_is_not_kept_holds_all_the_same() {
    each(&[StreamTable::Blocked], |judge| {
        let (head, tail) = halves(&blocked());
        let mut connection = established(judge, 0);
        for _ in 0..2 {
            assert_eq!(connection.send(&tail), HELD_BACK);
            assert_eq!(connection.send(&whole(&blocked())), BLOCKED);
        }
        assert_eq!(connection.send(&head), INCOMPLETE);
        for _ in 0..2 {
            assert_eq!(connection.send(&tail), BLOCKED);
            let beyond = Piece {
                at: blocked().len() as i64,
                bytes: vec![0x17; 60],
            };
            assert_eq!(connection.send(&beyond), HELD_BACK);
        }
        assert_eq!(connection.received.len(), CUT);
    });
}

#[test]
fn on_the_host_itself_what_is_not_kept_passes_once_there_is_room() {
    for table in [StreamTable::Flows, StreamTable::Hellos] {
        let mut judge = AtHost::new(OnHost::load(&policy_at_host()));
        let (head, tail) = halves(&blocked());
        judge.set_full(table, true);
        let mut connection = Connection::open(&mut judge, 0, TLS, ISN);
        assert_eq!(connection.send(&head), NOT_KEPT);
        assert_eq!(connection.send(&tail), HELD_BACK);
        assert_eq!(connection.send(&whole(&blocked())), BLOCKED);
        judge.set_full(table, false);
        let mut connection = Connection::joined(&mut judge, 0, TLS, ISN);
        assert_eq!(
            connection.send(&tail),
            Fate::Dropped(Some(Reason::BlockedFlow))
        );

        judge.set_full(table, true);
        let (head, tail) = halves(&allowed());
        let mut connection = Connection::open(&mut judge, 1, TLS, ISN);
        assert_eq!(connection.send(&head), NOT_KEPT);
        judge.set_full(table, false);
        let mut connection = Connection::joined(&mut judge, 1, TLS, ISN);
        assert_eq!(connection.send(&head), INCOMPLETE);
        assert_eq!(connection.send(&tail), ALLOWED);
    }
}

#[test]
fn a_request_behind_which_the_next_could_not_be_told_does_not_pass() {
    let mut judge = AtHost::new(OnHost::load(&policy_at_host()));
    let upload = upload("www.allowed.example");
    let stream = [upload.clone(), Request::to("www.blocked.example").bytes()].concat();
    let cut = upload.len() - 5;
    judge.set_full(StreamTable::Flows, true);
    let mut connection = Connection::open(&mut judge, 0, HTTP, ISN);
    assert_eq!(connection.send(&piece(&stream, 0, cut)), NOT_KEPT);
    judge.set_full(StreamTable::Flows, false);
    let mut connection = Connection::joined(&mut judge, 0, HTTP, ISN);
    assert_eq!(connection.send(&piece(&stream, 0, cut)), ALLOWED);
    // The entry is there: what is read takes its place.
    judge.set_full(StreamTable::Flows, true);
    let mut connection = Connection::joined(&mut judge, 0, HTTP, ISN);
    let next = upload.len() + 9;
    assert_eq!(connection.send(&piece(&stream, cut, next)), INCOMPLETE);
    let rest = piece(&stream, next, stream.len());
    assert_eq!(connection.send(&rest), BLOCKED);
}
