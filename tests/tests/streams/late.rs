//! Late copies of segments.

use filter_tests::{
    adapter::{InKernel, OnHost},
    packet::tls::ClientHello,
    runner::Judge,
};

use crate::{
    ISN,
    connection::{Connection, Fate},
    hellos::{Hello, Piece},
    policy,
};

/// A segment that the server has already comes by again: the client's next bytes pass all the same,
/// since nobody will send again what lies between.
fn late_copies(judge: &mut dyn Judge) {
    let allowed = ClientHello::new().padding(1_500).sni("neighbour.example");
    let mut bytes = allowed.record();
    let complete = bytes.len();
    // A TLS 1.2 client's next record, a key exchange.
    bytes.extend_from_slice(&[0x16, 3, 3, 0, 4, 16, 0, 0, 0]);
    let hello = Hello {
        title: "neighbour".to_owned(),
        port: 443,
        complete,
        bytes,
    };
    let (start, second, next) = (
        Piece::of(&hello, 0, 1_400),
        Piece::of(&hello, 1_400, complete),
        Piece::of(&hello, complete, hello.bytes.len()),
    );

    // Before the answer: the copy that went first was lost behind the filter.
    let mut connection = Connection::open(judge, 0, 443, ISN);
    for piece in [&start, &second, &start, &second, &start] {
        let fate = connection.send(piece);
        assert!(matches!(fate, Fate::Passed(_)), "{fate:?}");
    }
    connection.ack += 90;
    assert!(matches!(connection.send(&next), Fate::Passed(_)));

    // Overtaken by what the client sent after the answer.
    for client in [1, 2] {
        let mut connection = match client {
            1 => Connection::open(judge, client, 443, ISN),
            _ => Connection::joined(judge, client, 443, ISN),
        };
        connection.send(&start);
        connection.send(&second);
        connection.ack += 90;
        assert!(matches!(connection.send(&next), Fate::Passed(_)));
        connection.ack -= 90;
        assert!(matches!(connection.send(&start), Fate::Passed(_)));
        connection.ack += 180;
        let later = Piece {
            at: hello.bytes.len() as i64,
            bytes: vec![0x17, 3, 3, 0, 1, 7],
        };
        let fate = connection.send(&later);
        assert!(matches!(fate, Fate::Passed(_)), "{client}: {fate:?}");
    }

    // The second hello after a HelloRetryRequest, behind a dummy change_cipher_spec record.
    let one = |name: &str| ClientHello::named(name).record();
    let first = one("neighbour.example");
    let again = |name: &str| Piece {
        at: first.len() as i64,
        bytes: [&[0x14, 3, 3, 0, 1, 1][..], &one(name)].concat(),
    };
    for client in [3, 4] {
        let mut connection = match client {
            3 => Connection::open(judge, client, 443, ISN),
            _ => Connection::joined(judge, client, 443, ISN),
        };
        let first = Piece {
            at: 0,
            bytes: first.clone(),
        };
        for _ in 0..2 {
            assert!(matches!(connection.send(&first), Fate::Passed(_)));
        }
        connection.ack += 90;
        for _ in 0..3 {
            let fate = connection.send(&again("neighbour.example"));
            assert!(matches!(fate, Fate::Passed(_)), "{client}: {fate:?}");
        }
        let fate = connection.send(&again("other.blocked.example"));
        assert!(matches!(fate, Fate::Dropped(_)), "{client}: {fate:?}");
    }

    // Other bytes in the place of allowed ones are read, or dropped.
    let other = ClientHello::new()
        .padding(1_500)
        .sni("other.blocked.example");
    let other = other.record();
    let mut connection = Connection::open(judge, 5, 443, ISN);
    connection.send(&start);
    connection.send(&second);
    let half = Piece {
        at: 0,
        bytes: other[..1_450].to_vec(),
    };
    let rest = Piece {
        at: 1_450,
        bytes: other[1_450..].to_vec(),
    };
    connection.send(&half);
    assert!(matches!(connection.send(&rest), Fate::Dropped(_)));
}

#[test]
fn late_copies_of_an_allowed_hello_hold_nothing_up() {
    late_copies(&mut OnHost::load(&policy()));
    late_copies(&mut InKernel::load(&policy()));
}
