//! Client ports that are used again at once, for the blocked name and for its neighbour.

use std::{
    io,
    net::TcpStream,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use filter_tests::net::Direct;
use nix::sys::socket::{setsockopt, sockopt};

use crate::scene::{
    BLOCKED, LIMIT, NEIGHBOUR, Scene, Way, ask_over, by_both_families, greeted, is_page, own_port,
    turn, was_told,
};

/// How long a client may wait where the page still has its last connection: until it repeats its hello once or
/// twice.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// How a client leaves a connection behind.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// With a reset.
    Reset,
    /// Without a word.
    Silently,
}

fn leave(stream: &TcpStream, how: Leaves) {
    match how {
        Leaves::Reset => {
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream.as_fd(), sockopt::Linger, &linger).expect("lingers no more");
        }
        // In repair a socket is closed without a segment.
        Leaves::Silently => {
            setsockopt(&stream.as_fd(), sockopt::TcpRepair, &1).expect("in repair");
        }
    }
}

/// A connection to the page from this port that is left in the middle.
fn take_over_and_leave(scene: &Scene<'_>, own: u16, how: Leaves) {
    let stream = scene.connect_from(own, 443, LIMIT).expect("a connection");
    let mut tls = greeted(stream, BLOCKED);
    while tls.conn.is_handshaking() {
        tls.conn
            .complete_io(&mut tls.sock)
            .expect("a handshake with the page");
    }
    leave(&tls.sock, how);
}

fn again(scene: &Scene<'_>, own: u16, name: &str) -> (io::Result<String>, Duration) {
    let begin = Instant::now();
    let stream = scene.connect_from(own, 443, 2 * AGAIN_MAX);
    let answer = stream.and_then(|stream| ask_over(greeted(stream, name), name));
    (answer, begin.elapsed())
}

#[test]
fn ports_used_again_at_once_belong_to_the_next_connection_however_the_last_one_ended() {
    by_both_families(ports_used_again_belong_to_the_next_connection);
}

fn ports_used_again_belong_to_the_next_connection(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "");
    let probe = scene.probe();
    for how in [Leaves::Reset, Leaves::Silently] {
        let own = own_port();
        take_over_and_leave(&scene, own, how);
        let (answer, took) = again(&scene, own, NEIGHBOUR);
        assert!(
            answer
                .as_ref()
                .is_ok_and(|it| it.ends_with("served neighbour.zone.example\n")),
            "{how:?}: {answer:?} after {took:?}"
        );

        let own = own_port();
        take_over_and_leave(&scene, own, how);
        let (answer, took) = again(&scene, own, BLOCKED);
        println!(
            "{how:?}: {:?} after {took:?}",
            answer.as_ref().map(String::len)
        );
        match how {
            Leaves::Reset => {
                assert!(answer.as_ref().is_ok_and(|it| is_page(it)), "{answer:?}");
            }
            // The page still has the last connection: the client is refused at once instead.
            Leaves::Silently => {
                let is_told = match &answer {
                    Ok(answer) => is_page(answer),
                    Err(error) => was_told(error),
                };
                assert!(is_told && took < AGAIN_MAX, "{answer:?} after {took:?}");
            }
        }
    }
    probe.finish();
}
