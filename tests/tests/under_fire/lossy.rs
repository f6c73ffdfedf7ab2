//! Refusing over a path that loses one frame in ten, both ways, and reorders one in four.

use std::{io, thread, time::Duration};

use filter_common::respond::counted::Answer;
use filter_tests::{
    net::Direct,
    path::{Path, Weather},
};

use crate::scene::{BLOCKED, NEIGHBOUR, Scene, policy, turn, was_told};

const WEATHER: Weather = Weather {
    seed: 0xf12e,
    lost_percent: 10,
    reordered_percent: 25,
    delay: Duration::from_millis(2),
    detour_max: Duration::from_millis(20),
};

/// Connections of each kind.
const EACH: usize = 12;

/// Several segments in a row may be lost, and TCP doubles its time-out each time.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn over_a_bad_path_every_connection_to_a_refused_name_is_told_and_its_neighbour_served() {
    let _turn = turn();
    let mut path = None;
    let net = Direct::linked(|edge, interface, visitor, visitor_interface| {
        path = Some(Path::between(
            edge,
            interface,
            visitor,
            visitor_interface,
            WEATHER,
        ));
    });
    let mut path = path.expect("a path");
    path.takes_answers();
    let refusing = policy(&[BLOCKED]).replace("redirect", "refuse");
    let scene = Scene::at_server_with(&net, &refusing);
    let is_told = |answer: io::Result<String>| match answer {
        // Without TLS it is told by a status without a page.
        Ok(answer) => assert!(answer.starts_with("HTTP/1.1 451 "), "{answer:?}"),
        Err(error) => assert!(was_told(&error), "{error}: {}", scene.edge.json("counters")),
    };
    thread::scope(|scope| {
        for _ in 0..EACH {
            scope.spawn(|| is_told(scene.ask(BLOCKED, LIMIT)));
            scope.spawn(|| is_told(scene.ask_plain(BLOCKED, LIMIT)));
            scope.spawn(|| {
                let answer = scene.ask(NEIGHBOUR, LIMIT);
                assert!(
                    answer.as_ref().is_ok_and(|it| it.contains("served")),
                    "{answer:?}"
                );
            });
        }
    });
    assert!(scene.answered(Answer::TlsAlert) >= EACH as u64);
    assert!(scene.answered(Answer::HttpStatus) >= EACH as u64);
    let carried = path.carried();
    assert!(carried.lost > 0 && carried.reordered > 0, "{carried:?}");
}
