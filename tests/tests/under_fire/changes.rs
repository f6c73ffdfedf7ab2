//! Rules that come and go under continuous requests: each is answered by the real server or by the page.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use filter_tests::{net::Direct, process::wait_for};

use crate::scene::{
    BLOCKED, CHANGE_MAX, LIMIT, NAMES, Scene, Way, by_both_families, is_page, policy, turn,
};

/// Clients at once; every other one asks over TLS.
const CLIENTS: usize = 4;
/// How long they ask what stands.
const SETTLE: Duration = Duration::from_millis(150);

#[test]
fn while_rules_come_and_go_every_visitor_gets_the_real_server_or_the_page() {
    by_both_families(every_visitor_gets_the_real_server_or_the_page);
}

fn every_visitor_gets_the_real_server_or_the_page(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "");
    let another = |names: &[&str]| {
        let first = policy(&[BLOCKED]);
        format!(
            "{first}[[rule]]\nid = \"another\"\nhosts = {names:?}\naction = \"redirect\"\nreason = \"danger\"\n"
        )
    };
    let many: Vec<String> = (0..5_000)
        .map(|number| format!("n{number}.example"))
        .collect();
    let many: Vec<&str> = many
        .iter()
        .map(String::as_str)
        .chain(["d.zone.example"])
        .collect();
    // A rule, a host, both gone, and enough names that the tables are made anew.
    let steps = [
        another(&["a.zone.example"]),
        another(&["a.zone.example", "b.zone.example"]),
        policy(&[BLOCKED, "c.zone.example"]),
        policy(&[BLOCKED]),
        another(&many),
        policy(&[BLOCKED]),
    ];
    let (done, blocked, served) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (scene, done, blocked, served) = (&scene, &done, &blocked, &served);
            scope.spawn(move || {
                for name in NAMES.iter().cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = match client % 2 {
                        0 => scene.ask(name, LIMIT),
                        _ => scene.ask_plain(name, LIMIT),
                    };
                    let answer = answer.unwrap_or_else(|e| {
                        let is_silence = e.kind() == ErrorKind::WouldBlock;
                        panic!(
                            "{name}, client {client}, silence {is_silence}: {e}; {}",
                            scene.edge.json("counters")
                        )
                    });
                    let is_page = is_page(&answer);
                    assert!(
                        is_page || answer.ends_with(&format!("served {name}\n")),
                        "{name}, client {client}: {answer}"
                    );
                    if is_page { blocked } else { served }.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for step in &steps {
            let before = scene.edge.json("status")["generation"].clone();
            scene.edge.replace_policy(step);
            wait_for("the change is in place", CHANGE_MAX, || {
                done.load(Ordering::Relaxed) || scene.edge.json("status")["generation"] != before
            });
            thread::sleep(SETTLE);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(scene.counted("misdirected"), 0);
    println!("{blocked:?} pages, {served:?} of the real server");
    assert!(blocked.into_inner() > NAMES.len() && served.into_inner() > NAMES.len());
}
