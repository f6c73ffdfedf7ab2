//! Many more visitors than the page has room for, most of them with bad manners.

use std::{
    io::Write as _,
    net::TcpStream,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use filter_common::respond::counted::Answer;
use filter_tests::{edge::number_at, net::Direct, page::sweep, process::wait_for};
use nix::sys::socket::{setsockopt, sockopt};

use crate::scene::{
    BLOCKED, CHANGE_MAX, LIMIT, Scene, Way, by_both, end, greeted, is_page, own_port, turn,
    was_told,
};

/// What the page is given.
const SETTINGS: &str =
    "connections = 40\nconnections_per_client = 30\ntimeout_s = 2\nlifetime_s = 5\n";
const CONNECTIONS: usize = 40;
const LIFETIME: Duration = Duration::from_secs(5);

/// Connections of each kind of bad manners.
const EACH: usize = 40;

/// Memory of a connection at the very worst, see `docs/OPERATIONS.md`.
const CONNECTION_BYTES_MAX: u64 = 400 * 1_024;

/// A visitor with whom the page is busy has an answer or a reset within this.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Behind the lifetime: what the kernel does for clients that are gone.
const KERNEL_MAX: Duration = Duration::from_secs(20);

/// The connections of a flood.
struct Flood {
    /// Say no more than a hello, and read nothing.
    silent: Vec<TcpStream>,
    /// Add a byte to a request now and then.
    slow_writers: Vec<TcpStream>,
    /// Ask for many pages and take none.
    slow_readers: Vec<TcpStream>,
    /// Are gone without a word.
    vanished: Vec<TcpStream>,
}

impl Flood {
    /// Opens them, all from a visitor's second address but every third, which is from the first.
    fn open(scene: &Scene<'_>) -> Self {
        let all = |port: u16, speak: &dyn Fn(&mut TcpStream)| -> Vec<TcpStream> {
            (0..EACH)
                .map(|number| {
                    let from = match number % 3 {
                        0 => Direct::VISITOR_V4,
                        _ => Direct::OTHER_V4,
                    };
                    let mut stream = scene
                        .connect_as(end(from, own_port()), port, LIMIT)
                        .expect("a connection to the real server");
                    speak(&mut stream);
                    stream
                })
                .collect()
        };
        let greet = |stream: &mut TcpStream| {
            let mut tls = greeted(stream.try_clone().expect("a descriptor"), BLOCKED);
            tls.conn.write_tls(&mut tls.sock).expect("a hello sent");
        };
        let ask = |stream: &mut TcpStream, more: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n{more}");
            stream
                .write_all(request.as_bytes())
                .expect("a request sent");
        };
        Self {
            silent: all(443, &greet),
            slow_writers: all(80, &|stream| ask(stream, "X-More: ")),
            slow_readers: all(80, &|stream| {
                // Too many to be taken from here without reading.
                setsockopt(&stream.as_fd(), sockopt::RcvBuf, &2_048).expect("a small buffer");
                let request = format!("GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n");
                ask(stream, &format!("\r\n{}", request.repeat(90)));
            }),
            vanished: all(443, &greet),
        }
    }

    fn len(&self) -> usize {
        [
            &self.silent,
            &self.slow_writers,
            &self.slow_readers,
            &self.vanished,
        ]
        .iter()
        .map(|streams| streams.len())
        .sum()
    }

    /// The slow writers say a little more; some are reset by now.
    fn drip(&self) {
        for mut stream in &self.slow_writers {
            let _ = stream.write(b"x");
        }
    }
}

#[test]
fn a_flood_of_takeovers_is_bounded_others_are_answered_or_refused_and_it_is_over_when_it_is_over() {
    by_both(flood_of_takeovers_is_bounded);
}

fn flood_of_takeovers_is_bounded(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, SETTINGS);
    let probe = scene.probe();
    let page = scene.page();
    assert!(scene.ask(BLOCKED, LIMIT).is_ok_and(|it| is_page(&it)));
    wait_for("it is closed", CHANGE_MAX, || scene.counted("open") == 0);
    let (memory, sockets) = (page.memory(), page.sockets());
    let taken = scene.answered(Answer::PageTaken);
    let (done, pages, refused) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );

    let flood = Flood::open(&scene);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                match scene.ask(BLOCKED, ANSWER_MAX) {
                    Ok(answer) if is_page(&answer) => pages.fetch_add(1, Ordering::Relaxed),
                    Ok(answer) => panic!("{answer}"),
                    Err(e) if was_told(&e) => refused.fetch_add(1, Ordering::Relaxed),
                    Err(e) => panic!("after {:?}: {e}", begin.elapsed()),
                };
            }
        });
        // Nobody is at that address from now on: no answer, no reset.
        net.visitor.ip(&[
            "addr",
            "del",
            &format!("{}/24", Direct::OTHER_V4),
            "dev",
            Direct::VISITOR_IF,
        ]);
        let begin = Instant::now();
        while begin.elapsed() < LIFETIME + Duration::from_secs(1) {
            flood.drip();
            let open = number_at(&scene.edge.json("status")["page"]["served"], "open");
            assert!(
                open.is_some_and(|open| open <= CONNECTIONS as u64),
                "{open:?}"
            );
            let bound = sockets + 2 * CONNECTIONS as u64 + 16;
            assert!(
                page.sockets() <= bound,
                "{} of {bound} sockets",
                page.sockets()
            );
            let bound = memory + CONNECTIONS as u64 * CONNECTION_BYTES_MAX;
            assert!(page.memory() <= bound, "{} of {bound} bytes", page.memory());
            thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
    });
    probe.finish();
    println!("{pages:?} visitors got the page, {refused:?} were refused");
    assert!(scene.answered(Answer::PageTaken) >= taken + flood.len() as u64);
    let over = scene.counted("over_connections") + scene.counted("over_connections_per_client");
    assert!(
        over >= (flood.len() - CONNECTIONS) as u64,
        "{over} were reset"
    );

    wait_for("the page has closed them", CHANGE_MAX, || {
        scene.counted("open") == 0
    });
    let counted: Vec<u64> = ["handshake_timeout", "head_timeout", "write_timeout"]
        .map(|counter| scene.counted(counter))
        .to_vec();
    println!("handshakes, heads and answers out of time: {counted:?}");
    assert!(
        counted.iter().sum::<u64>() > 0,
        "{}",
        scene.edge.json("status")["page"]
    );
    drop(flood);
    let begin = Instant::now();
    wait_for("the kernel has closed them", KERNEL_MAX, || {
        page.sockets() <= sockets
    });
    println!("the kernel's sockets were gone {:?} later", begin.elapsed());
    // What the controller does after a longer time.
    wait_for("the filter has forgotten them", CHANGE_MAX, || {
        sweep(&net.edge).kept == 0
    });
    let answer = scene.ask(BLOCKED, LIMIT);
    assert!(answer.as_ref().is_ok_and(|it| is_page(it)), "{answer:?}");
    assert_eq!(scene.page(), page);
}

#[test]
fn each_kind_of_bad_manners_is_over_in_its_time_and_counted() {
    by_both(bad_manners_are_over_in_their_time);
}

fn bad_manners_are_over_in_their_time(way: Way) {
    let _turn = turn();
    let net = Direct::new();
    let scene = Scene::at_server_by(way, &net, "timeout_s = 1\nlifetime_s = 4\n");
    let flood = Flood::open(&scene);
    net.visitor.ip(&[
        "addr",
        "del",
        &format!("{}/24", Direct::OTHER_V4),
        "dev",
        Direct::VISITOR_IF,
    ]);
    let begin = Instant::now();
    wait_for("the page has closed them", CHANGE_MAX, || {
        flood.drip();
        scene.counted("connections") >= flood.len() as u64 && scene.counted("open") == 0
    });
    let took = begin.elapsed();
    println!("all were closed after {took:?}");
    for (counter, least) in [
        ("handshake_timeout", 2 * EACH),
        ("head_timeout", EACH),
        // Those who are there and take nothing; of those who are not the kernel may know sooner.
        ("write_timeout", EACH / 3),
    ] {
        assert!(
            scene.counted(counter) >= least as u64,
            "{counter}: {}",
            scene.edge.json("status")["page"]
        );
    }
}
