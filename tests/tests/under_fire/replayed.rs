//! Hellos that somebody has seen and sends again, during the connection and after its end.

use std::{io::Write as _, thread, time::Duration};

use filter_common::respond::counted::Answer;
use filter_tests::{
    frames::FrameSocket,
    net::{Direct, mac_of},
    process::wait_for,
};

use crate::scene::{
    BLOCKED, CHANGE_MAX, LIMIT, Scene, Way, ask_over, by_both, greeted, is_page, own_port, turn,
};

/// How often each frame is sent again.
const TIMES: u32 = 200;
/// Answers to that many: what the kernel says to segments that do not fit is limited by itself.
const ANSWERS_MAX: u64 = 40;

/// The frame with other sequence numbers, its checksum adapted (RFC 1624).
fn moved(frame: &[u8], by: u16) -> Vec<u8> {
    const SEQ_HIGH: usize = 14 + 20 + 4;
    const CHECKSUM: usize = 14 + 20 + 16;
    let mut frame = frame.to_vec();
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (old, sum) = (word(&frame, SEQ_HIGH), word(&frame, CHECKSUM));
    let new = old.wrapping_add(by);
    let mut folded = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while folded > 0xFFFF {
        folded = (folded >> 16) + (folded & 0xFFFF);
    }
    frame[SEQ_HIGH..SEQ_HIGH + 2].copy_from_slice(&new.to_be_bytes());
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame
}

#[test]
fn a_hello_that_is_sent_again_makes_no_second_connection_and_ends_none() {
    by_both(hello_sent_again_makes_no_second_connection);
}

fn hello_sent_again_makes_no_second_connection(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "timeout_s = 30\n");
    // The captured frame is to have a finished checksum.
    filter_tests::net::set_offload(
        &net.visitor,
        Direct::VISITOR_IF,
        filter_tests::net::Offload::TransmitChecksum,
        false,
    );
    let probe = scene.probe();
    let wire = FrameSocket::open(&net.visitor, Direct::VISITOR_IF);
    let forger = FrameSocket::receiving(&net.visitor, Direct::VISITOR_IF);
    let own = own_port();
    let mut tls = greeted(
        scene.connect_from(own, 443, LIMIT).expect("a connection"),
        BLOCKED,
    );
    while tls.conn.is_handshaking() {
        tls.conn
            .complete_io(&mut tls.sock)
            .expect("a handshake with the page");
    }
    let edge_mac = mac_of(&net.edge, Direct::EDGE_IF);
    let hello = wire.receive(LIMIT, |frame| {
        frame.get(..6) == Some(&edge_mac[..])
            && frame.get(34..36) == Some(&own.to_be_bytes()[..])
            && frame.len() > 200
    });
    let hello = hello.expect("the hello on the wire");
    let page = scene.page();
    assert_eq!(scene.counted("connections"), 1);
    let assigned = scene.answered(Answer::SinkAssigned);
    let replies = || scene.answered(Answer::SinkReply);

    let replay = || {
        let before = (scene.answered(Answer::PageSegment), replies());
        for number in 0..TIMES {
            forger.send(&hello);
            forger.send(&moved(&hello, 1 + number as u16 * 7));
        }
        wait_for("they are judged", CHANGE_MAX, || {
            let dropped = scene.answered(Answer::SinkStray);
            scene.answered(Answer::PageSegment) + dropped >= before.0 + u64::from(2 * TIMES)
        });
        thread::sleep(Duration::from_millis(300));
        replies() - before.1
    };
    let answers = replay();
    println!("{answers} answers during the connection");
    assert!(answers <= u64::from(2 * TIMES), "{answers}");
    // Whoever the connection belongs to goes on.
    write!(tls, "HEAD / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n").expect("a request sent");
    let answer = ask_over(&mut tls, BLOCKED);
    assert!(
        answer
            .as_ref()
            .is_ok_and(|it| it.matches("HTTP/1.1 451 ").count() == 2),
        "{answer:?}"
    );
    assert_eq!(scene.counted("connections"), 1);
    drop(tls);
    wait_for("the connection is over", CHANGE_MAX, || {
        scene.counted("open") == 0
    });
    let sockets = page.sockets();

    let answers = replay();
    println!("{answers} answers after its end");
    assert_eq!(
        scene.counted("connections"),
        1,
        "a replayed hello opens nothing"
    );
    assert_eq!(scene.answered(Answer::SinkAssigned), assigned);
    assert!(answers <= ANSWERS_MAX, "{answers}");
    assert!(page.sockets() <= sockets);
    probe.finish();
    let answer = scene.ask(BLOCKED, LIMIT);
    assert!(answer.as_ref().is_ok_and(|it| is_page(it)), "{answer:?}");
}
