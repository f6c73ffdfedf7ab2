//! A crowd at the block page: every connection is taken over and answered, and the neighbour on
//! the same address and port does not notice.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use filter_tests::{
    certificate::Wildcard,
    conform::all,
    dialer::open,
    edge::{Edge, number_at},
    net::Direct,
    site::Site,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName},
};

const ZONE: &str = "zone.example";
const BLOCKED: &str = "blocked.zone.example";
const NEIGHBOUR: &str = "neighbour.zone.example";
const POLICY: &str = "version = 1\n[[rule]]\nid = \"page\"\nhosts = [\"blocked.zone.example\"]\naction = \"redirect\"\n";

/// Connections, and how many of them at a time.
const TAKEOVERS: usize = 100;
const TAKEOVERS_ALL: usize = 1_000;
const TOGETHER: usize = 50;

/// How long one connection may take, from its SYN to the end of the answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often the neighbour is asked at least while the crowd is there.
const NEIGHBOUR_MIN: usize = 5;

#[test]
fn every_one_of_a_crowd_is_answered_and_the_neighbour_is_served_all_the_while() {
    let count = if all() { TAKEOVERS_ALL } else { TAKEOVERS };
    let net = Direct::new();
    let certificate = Wildcard::new(ZONE);
    let _site = Site::start_with(&net.edge, &[BLOCKED, NEIGHBOUR], &certificate);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let page = format!(
        "[block_page]\ncertificates = {:?}\n",
        certificate.directory()
    );
    edge.configure(&[Direct::EDGE_IF], &page);
    edge.start();

    let config = config(&certificate);
    let ask = |name: &'static str| {
        let start = Instant::now();
        let answer = fetch(name, Arc::clone(&config));
        (answer, start.elapsed())
    };
    let (left, done) = (AtomicUsize::new(count), AtomicBool::new(false));
    let start = Instant::now();
    let (pages, neighbours) = thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            net.visitor.run(|| {
                let mut took = Vec::new();
                while !done.load(Ordering::Relaxed) || took.len() < NEIGHBOUR_MIN {
                    let (answer, time) = ask(NEIGHBOUR);
                    let answer = answer.unwrap_or_else(|e| panic!("the neighbour: {e}"));
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    assert!(
                        answer.ends_with(&format!("served {NEIGHBOUR}\n")),
                        "{answer}"
                    );
                    took.push(time);
                }
                took
            })
        });
        let crowd: Vec<_> = (0..TOGETHER)
            .map(|_| {
                scope.spawn(|| {
                    net.visitor.run(|| {
                        let mut seen = Vec::new();
                        while taken(&left) {
                            seen.push(ask(BLOCKED));
                        }
                        seen
                    })
                })
            })
            .collect();
        let pages: Vec<_> = crowd
            .into_iter()
            .flat_map(|thread| thread.join().expect("a visitor"))
            .collect();
        done.store(true, Ordering::Relaxed);
        (pages, neighbour.join().expect("the neighbour's visitor"))
    });
    let took = start.elapsed();

    let wrong: Vec<_> = pages
        .iter()
        .filter(|(answer, _)| !answer.as_ref().is_ok_and(|text| is_page(text)))
        .collect();
    assert!(
        wrong.is_empty() && pages.len() == count,
        "{} of {} without the page, the first {:?}; {}",
        wrong.len(),
        pages.len(),
        wrong.first(),
        edge.json("counters")
    );
    let status = edge.json("status");
    let counted = number_at(&status["page"], "pages");
    let mut times: Vec<_> = pages.into_iter().map(|(_, time)| time).collect();
    times.sort_unstable();
    let mut neighbours = neighbours;
    neighbours.sort_unstable();
    println!(
        "{count} takeovers, {TOGETHER} at a time, all answered in {took:?}: median {:?}, longest \
         {:?}; the neighbour meanwhile {} times: median {:?}, longest {:?}; counted {counted:?}",
        times[times.len() / 2],
        times[times.len() - 1],
        neighbours.len(),
        neighbours[neighbours.len() / 2],
        neighbours[neighbours.len() - 1],
    );
}

/// Whether there was one left.
fn taken(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

fn is_page(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 451 ") && answer.contains(BLOCKED) && answer.contains("</html>")
}

/// One request on a connection of its own, certificate verified; the whole answer.
fn fetch(name: &'static str, config: Arc<ClientConfig>) -> io::Result<String> {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let from = SocketAddr::new(address(Direct::VISITOR_V4), 0);
    let to = SocketAddr::new(address(Direct::EDGE_V4), 443);
    let mut stream = open(from, to, ANSWER_MAX)?;
    let server = ServerName::try_from(name).expect("a name");
    let mut connection = ClientConnection::new(config, server).expect("a hello");
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    write!(
        tls,
        "GET / HTTP/1.1\r\nHost: {name}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    match tls.read_to_string(&mut answer) {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => Err(e),
        _ => Ok(answer),
    }
}

fn config(certificate: &Wildcard) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(certificate.issuer().der.clone()))
        .expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
