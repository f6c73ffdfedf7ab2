//! What becomes of visitors when the controller or the page's process ends or stops while they are served.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use filter_common::respond::counted::Answer;
use filter_tests::{edge::exit, net::Direct, page::status, process::wait_for};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{setsockopt, sockopt},
    },
    unistd::Pid,
};

use crate::scene::{
    BLOCKED, CHANGE_MAX, LIMIT, Page, Scene, Way, ask_over, by_both_families, greeted, is_page,
    turn, was_told,
};

/// Pages on one connection.
const PAGES: usize = 90;

/// Within this a process that does nothing is noticed, on a busy machine; `docs/LIMITS.md` says five seconds.
const NOTICED_MAX: Duration = Duration::from_secs(8);
/// Within this it is replaced; there: seventeen.
const REPLACED_MAX: Duration = Duration::from_secs(24);
/// Connections that wait for it: more than a listening socket keeps for it.
const WAITING: usize = 1_200;

fn signal(page: Page, signal: Signal) {
    kill(Pid::from_raw(page.pid as i32), signal).expect("the page's process");
}

fn pages(answers: &[u8]) -> usize {
    String::from_utf8_lossy(answers)
        .matches("HTTP/1.1 451 ")
        .count()
}

fn refused_or_page(scene: &Scene<'_>, limit: Duration) -> bool {
    match scene.ask(BLOCKED, limit) {
        Ok(answer) => {
            assert!(is_page(&answer), "{answer}");
            true
        }
        Err(error) => {
            assert!(was_told(&error), "{error}");
            false
        }
    }
}

#[test]
fn a_controller_killed_between_hello_and_page_or_during_a_slow_download_is_not_missed() {
    by_both_families(killed_controller_is_not_missed);
}

fn killed_controller_is_not_missed(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let mut scene = Scene::at_server_by(way, &net, "");
    let probe = scene.probe();
    let page = scene.page();
    let stream = scene.connect(443, LIMIT).expect("a connection");
    let mut greeted = greeted(stream, BLOCKED);
    greeted
        .conn
        .write_tls(&mut greeted.sock)
        .expect("a hello sent");
    let mut download = scene.connect(80, LIMIT).expect("a connection");
    setsockopt(&download.as_fd(), sockopt::RcvBuf, &32_768).expect("a small buffer");
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n");
    download
        .write_all(request.repeat(PAGES).as_bytes())
        .expect("requests sent");
    let mut seen = vec![0; 2_048];
    download.read_exact(&mut seen).expect("the first bytes");

    scene.edge.kill_controller();
    let answer = ask_over(&mut greeted, BLOCKED);
    assert!(answer.as_ref().is_ok_and(|it| is_page(it)), "{answer:?}");
    assert!(refused_or_page(&scene, LIMIT), "a new visitor");
    let read = |download: &mut TcpStream, seen: &mut Vec<u8>, upto: usize| {
        while pages(seen) < upto {
            let mut part = [0; 4_096];
            let read = download.read(&mut part).expect("more pages");
            assert!(read > 0, "after {} pages", pages(seen));
            seen.extend_from_slice(&part[..read]);
        }
    };
    read(&mut download, &mut seen, PAGES / 2);
    scene.edge.start();
    assert_eq!(scene.page(), page, "the next controller takes it over");
    read(&mut download, &mut seen, PAGES);
    wait_for("nothing differs", CHANGE_MAX, || {
        scene.edge.run(&["status"]).code == exit::OK
    });
    probe.finish();
}

#[test]
fn when_the_pages_process_is_killed_visitors_are_told_and_refused_until_it_is_back() {
    by_both_families(visitors_are_told_without_the_pages_process);
}

fn visitors_are_told_without_the_pages_process(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "");
    let probe = scene.probe();
    let page = scene.page();
    let stream = scene.connect(443, LIMIT).expect("a connection");
    let mut greeted = greeted(stream, BLOCKED);
    while greeted.conn.is_handshaking() {
        greeted
            .conn
            .complete_io(&mut greeted.sock)
            .expect("a handshake with the page");
    }
    signal(page, Signal::SIGKILL);
    let answer = ask_over(&mut greeted, BLOCKED);
    assert!(answer.as_ref().is_err_and(was_told), "{answer:?}");
    let begin = Instant::now();
    let (mut refused, mut has_said) = (0, false);
    // A hello that is on its way when the namespace goes is lost, and repeated by its client.
    while !refused_or_page(&scene, LIMIT) {
        refused += 1;
        has_said = has_said || scene.edge.run(&["status"]).stdout.contains("is not served");
        assert!(begin.elapsed() < CHANGE_MAX, "{refused} refused");
    }
    println!("{refused} were refused in {:?}", begin.elapsed());
    assert!(refused > 0 && has_said);
    assert!(scene.answered(Answer::PageDown) > 0);
    assert_ne!(scene.page(), page);
    wait_for("nothing differs", CHANGE_MAX, || {
        scene.edge.run(&["status"]).code == exit::OK
    });
    probe.finish();
}

#[test]
fn a_process_that_cannot_keep_up_is_noticed_visitors_are_refused_and_the_neighbour_is_served() {
    by_both_families(process_that_cannot_keep_up_is_noticed);
}

fn process_that_cannot_keep_up_is_noticed(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "connections_per_client = 4_000\n");
    let probe = scene.probe();
    let page = scene.page();
    let sockets = page.sockets();
    signal(page, Signal::SIGSTOP);
    let stopped_at = Instant::now();
    thread::scope(|scope| {
        let early = scope.spawn(|| scene.ask(BLOCKED, REPLACED_MAX));
        for _ in 0..WAITING {
            let mut stream = scene
                .connect(80, LIMIT)
                .expect("a connection to the real server");
            write!(stream, "GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n").expect("a request sent");
            setsockopt(&stream.as_fd(), sockopt::TcpRepair, &1).expect("it leaves without a word");
        }
        let most = page.sockets();
        println!("{most} sockets wait for a process that is stopped");
        assert!(most <= sockets + 1_100, "{most}");
        wait_for("it is noticed", NOTICED_MAX, || !status(&net.edge).up);
        println!("noticed after {:?}", stopped_at.elapsed());
        let said = scene.edge.run(&["status"]);
        assert_eq!(said.code, exit::DIFFERS);
        assert!(said.stdout.contains("does not answer"), "{said:?}");
        let down = scene.answered(Answer::PageDown);
        let begin = Instant::now();
        assert!(!refused_or_page(&scene, LIMIT), "nobody answers");
        println!("refused after {:?}", begin.elapsed());
        assert!(scene.answered(Answer::PageDown) > down);

        signal(page, Signal::SIGCONT);
        let early = early.join().expect("a visitor");
        assert!(early.as_ref().is_ok_and(|it| is_page(it)), "{early:?}");
    });
    wait_for("it is served again", CHANGE_MAX, || {
        scene.is_served() && scene.edge.run(&["status"]).code == exit::OK
    });
    assert_eq!(scene.page(), page);
    wait_for("the page is shown again", CHANGE_MAX, || {
        refused_or_page(&scene, LIMIT)
    });

    // And one that does not come back is replaced.
    signal(page, Signal::SIGSTOP);
    let begin = Instant::now();
    let waits = scene.ask(BLOCKED, REPLACED_MAX);
    assert!(waits.as_ref().is_err_and(was_told), "{waits:?}");
    println!("who waited for it was told after {:?}", begin.elapsed());
    wait_for("another one serves", CHANGE_MAX, || {
        scene.is_served() && scene.page() != page
    });
    assert!(refused_or_page(&scene, LIMIT));
    probe.finish();
}
