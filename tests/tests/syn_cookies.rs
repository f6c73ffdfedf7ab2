//! SYN cookies and floods of SYNs in server role: the host has no socket for a connection until a
//! right cookie comes, and the filter takes no other segment for the start of one.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use filter_common::{abi::feature, reason::Reason};
use filter_tests::{
    adapter::{InKernel, compiled},
    client::{Answer, curl, curl_with},
    conform::{
        ALLOWED, BLOCKED, POLICY, all, connection::Connection, each, known::Checksums,
        scene::Scene, station::Station,
    },
    edge::Edge,
    fixtures::Host,
    frames::FrameSocket,
    mutate::Random,
    net::{Direct, Namespace, mac_of},
    packet::{Packet, flag, tls::ClientHello},
    process::wait_for,
    runner::Judge as _,
    site::Site,
};
use filter_user::{compile::Role, datapath::kernel_fields};

const SEED: u64 = 0x0EDF_0000_2026_0303;
const PASS: u32 = 2;
const DROP: u32 = 1;

/// `net.ipv4.tcp_syncookies`: only when the queue is full, and always.
const WHEN_FULL: &str = "1";
const ALWAYS: &str = "2";

/// Most SYNs of a flood, in the short and in the long tests: it ends with the clients.
const FLOOD_SYNS: [usize; 2] = [100_000, 200_000];
/// Clients of each name and protocol during a flood.
const CLIENTS: [usize; 2] = [4, 20];

/// SYNs of a flood that are sent together, and the pause behind them.
const BURST: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// The program in the kernel, asked in the edge's namespace about frames that its stack does not
/// get: what arrives in one batch before the stack has looked at any of it.
struct Batch {
    scene: Scene,
    station: Station,
    _listener: TcpListener,
}

impl Batch {
    fn new(syncookies: &str) -> Self {
        let scene = Scene::server(Checksums::Partial);
        scene
            .servers()
            .sysctl("net/ipv4/tcp_syncookies", syncookies);
        let listener = scene
            .servers()
            .run(|| TcpListener::bind("[::]:443").expect("a free port"));
        Self {
            station: scene.station(),
            scene,
            _listener: listener,
        }
    }

    /// Asks about each of these segments of one connection; `v6`: over IPv6. The SYN alone has
    /// reached the host.
    fn judge(
        &self,
        v6: bool,
        segments: impl Fn(&Connection) -> Vec<Packet> + Sync,
    ) -> Vec<(u32, Option<Reason>)> {
        let address = if v6 { self.scene.v6() } else { self.scene.v4() };
        let server = SocketAddr::new(address.parse().expect("an address"), 443);
        let edge = self.scene.servers();
        let connection = Connection::open(&self.station, server, &[], false).expect("a SYN-ACK");
        let host = Host {
            own: vec![self.scene.v4(), self.scene.v6()],
            serves: vec![self.scene.v4(), self.scene.v6()],
            http: vec![443],
            ..Host::default()
        };
        let mut live = compiled(POLICY, &host, Role::Live);
        live.config.features |= feature::SOCKETS;
        live.config.sockets = kernel_fields::socket_offsets().expect("type information");
        let segments = segments(&connection);
        edge.run(|| {
            let mut program = InKernel::load(&live);
            segments
                .iter()
                .map(|segment| {
                    let seen = program.judge(&segment.build());
                    (seen.action, seen.reason)
                })
                .collect()
        })
    }
}

fn hello(name: &str) -> Vec<u8> {
    ClientHello::new().sni(name).record()
}

/// Two halves of a hello, cut before its name.
fn halves(connection: &Connection) -> [Packet; 2] {
    let hello = hello(BLOCKED);
    let (head, tail) = hello.split_at(60);
    [
        connection.segment(0, head),
        connection.segment(head.len(), tail),
    ]
}

const INCOMPLETE: (u32, Option<Reason>) = (PASS, Some(Reason::HelloIncomplete));
const BLOCKS: (u32, Option<Reason>) = (DROP, Some(Reason::Hostname));
const REFUSED: (u32, Option<Reason>) = (DROP, Some(Reason::BadSequence));

#[test]
fn a_hello_behind_a_right_cookie_is_read_over_several_segments() {
    let batch = Batch::new(ALWAYS);
    for v6 in [false, true] {
        let seen = batch.judge(v6, |connection| halves(connection).to_vec());
        assert_eq!(seen, [INCOMPLETE, BLOCKS], "IPv6: {v6}");
        let seen = batch.judge(v6, |connection| {
            let decoy = connection.segment(0, &hello(ALLOWED));
            vec![
                decoy.shift_ack(-100_000),
                connection.segment(0, &hello(BLOCKED)),
            ]
        });
        assert_eq!(seen, [REFUSED, BLOCKS], "IPv6: {v6}");
    }
}

#[test]
fn what_comes_before_the_cookie_waits() {
    let batch = Batch::new(ALWAYS);
    let seen = batch.judge(false, |connection| {
        let [head, tail] = halves(connection);
        vec![tail.clone(), head, tail]
    });
    assert_eq!(seen, [REFUSED, INCOMPLETE, BLOCKS]);
}

#[test]
fn numbers_that_a_cookie_does_not_tell_apart_do_not_start_another_stream() {
    let batch = Batch::new(ALWAYS);
    for len in 1..=3 {
        let seen = batch.judge(false, |connection| {
            let hello = hello(BLOCKED);
            let (head, tail) = hello.split_at(len);
            vec![connection.segment(0, head), connection.segment(len, tail)]
        });
        assert_eq!(seen, [INCOMPLETE, BLOCKS], "{len}");
    }
}

#[test]
fn a_decoy_that_acknowledges_what_was_not_sent_is_no_part_of_the_hello() {
    let batch = Batch::new(ALWAYS);
    let seen = batch.judge(false, |connection| {
        let [head, tail] = halves(connection);
        let decoy = connection.segment(60, &[0; 40]).shift_ack(10);
        vec![head, decoy, tail]
    });
    assert_eq!(seen, [INCOMPLETE, REFUSED, BLOCKS]);
}

#[test]
fn a_request_behind_a_body_of_which_a_part_is_missing_waits() {
    // The host would take other bytes in its place, if they came with the missing part.
    let batch = Batch::new(ALWAYS);
    let seen = batch.judge(false, |connection| {
        let head = "POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 9\r\n\r\n";
        let other = b"y(ET / HTTP/1.1\r\n\r\n";
        vec![
            connection.segment(0, head.as_bytes()),
            connection.segment(head.len() + 8, other),
        ]
    });
    let served = (PASS, Some(Reason::NoMatch));
    assert_eq!(seen, [served, (DROP, Some(Reason::HeldBack))]);
}

#[test]
fn a_listener_without_cookies_refuses_by_itself() {
    // The rest of a connection that the host has forgotten: the client is to get its reset.
    let batch = Batch::new(WHEN_FULL);
    let seen = batch.judge(false, |_| {
        let of_another = Packet::tcp("198.51.100.77:9", "198.51.100.1:443");
        vec![of_another.payload(b"\x17\x03\x03\0\x01x")]
    });
    assert_eq!(seen, [(PASS, Some(Reason::OtherProtocol))]);
}

#[test]
fn a_flood_of_syns_hides_no_client_when_the_queue_is_full() {
    flood(WHEN_FULL);
}

#[test]
fn a_flood_of_syns_hides_no_client_under_cookies_for_all() {
    flood(ALWAYS);
}

fn flood(syncookies: &str) {
    let net = Direct::new();
    net.edge.sysctl("net/ipv4/tcp_syncookies", syncookies);
    net.edge.sysctl("net/core/somaxconn", "64");
    // Answers to forged addresses leave the edge and end at the visitor.
    net.edge.default_route(Direct::VISITOR_V4);
    let _site = Site::start(&net.edge, &[BLOCKED, ALLOWED]);
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let long = usize::from(all());
    let flood = Flood::new(&net);
    let (blocked, allowed) = thread::scope(|scope| {
        scope.spawn(|| flood.run(FLOOD_SYNS[long]));
        flood.wait_until_under_way();
        let answers = clients(&net.visitor, CLIENTS[long]);
        flood.stop.store(true, Ordering::Relaxed);
        answers
    });
    let syns = flood.sent.load(Ordering::Relaxed);
    assert!(
        syns < FLOOD_SYNS[long],
        "the flood ended before the clients"
    );
    let served = |answers: &[Answer], name: &str| {
        let served = answers.iter().filter(|answer| answer.is_served(name));
        served.count()
    };
    assert_eq!(served(&blocked, BLOCKED), 0);
    assert_eq!(served(&allowed, ALLOWED), allowed.len(), "{allowed:?}");
    assert!(edge.rule_packets("blocked") >= blocked.len() as u64);
    let sent = net.edge.tcp_counter("SyncookiesSent");
    assert!(sent > 0, "the host sent no cookie");
    println!(
        "{syns} SYNs, {sent} cookies, {} clients",
        blocked.len() + allowed.len()
    );
}

/// Clients of the blocked and of the allowed name, many at a time.
fn clients(visitor: &Namespace, count: usize) -> (Vec<Answer>, Vec<Answer>) {
    let mut urls = Vec::new();
    for _ in 0..count {
        for name in [BLOCKED, ALLOWED] {
            urls.extend(["https", "http"].map(|scheme| (name, format!("{scheme}://{name}/"))));
        }
    }
    let answers = each(&urls, |(name, url)| {
        // A SYN or its answer may get lost in the flood: a client that is served tries longer.
        if *name == ALLOWED {
            curl_with(visitor, url, Direct::EDGE_V4, &["--max-time", "20"])
        } else {
            curl(visitor, url, Direct::EDGE_V4)
        }
    });
    let of = |wanted| {
        let named = urls
            .iter()
            .zip(&answers)
            .filter(|((name, _), _)| *name == wanted);
        named.map(|(_, answer)| answer.clone()).collect()
    };
    (of(BLOCKED), of(ALLOWED))
}

/// SYNs from forged addresses to the ports of HTTP and TLS.
struct Flood {
    socket: FrameSocket,
    macs: ([u8; 6], [u8; 6]),
    sent: AtomicUsize,
    stop: AtomicBool,
}

impl Flood {
    fn new(net: &Direct) -> Self {
        Self {
            socket: FrameSocket::open(&net.visitor, Direct::VISITOR_IF),
            macs: (
                mac_of(&net.visitor, Direct::VISITOR_IF),
                mac_of(&net.edge, Direct::EDGE_IF),
            ),
            sent: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends until it is stopped, at most `count`.
    fn run(&self, count: usize) {
        let mut random = Random::new(SEED);
        while self.sent.load(Ordering::Relaxed) < count && !self.stop.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                self.socket.send(&self.syn(random.number()));
            }
            self.sent.fetch_add(BURST, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }

    /// Waits until the queue must be full.
    fn wait_until_under_way(&self) {
        wait_for("the flood is under way", Duration::from_secs(20), || {
            self.sent.load(Ordering::Relaxed) >= 50 * BURST
        });
    }

    fn syn(&self, random: u64) -> Vec<u8> {
        let [a, b, c, high, low, ..] = random.to_be_bytes();
        let port = u16::from_be_bytes([high, low]) | 1_024;
        let server_port = if random.is_multiple_of(2) { 443 } else { 80 };
        let from = format!("10.{a}.{b}.{c}:{port}");
        Packet::tcp(&from, &format!("{}:{server_port}", Direct::EDGE_V4))
            .macs(self.macs.0, self.macs.1)
            .flags(flag::SYN)
            .seq(random as u32)
            .ack(0)
            .build()
    }
}
