//! An edge with a blocked name and its neighbour on one address, visitors, and who asks the neighbour all the
//! while.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use filter_common::respond::counted::Answer;
use filter_tests::{
    certificate::Wildcard,
    conform,
    dialer::open,
    edge::{Edge, number_at},
    foreign::ForeignProgram,
    net::{Direct, Namespace, Routed},
    page::answered,
    site::Site,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName},
};

pub(crate) const BLOCKED: &str = "blocked.zone.example";
pub(crate) const NEIGHBOUR: &str = "neighbour.zone.example";

/// What the servers serve; some tests block more of them.
pub(crate) const NAMES: [&str; 6] = [
    BLOCKED,
    NEIGHBOUR,
    "a.zone.example",
    "b.zone.example",
    "c.zone.example",
    "d.zone.example",
];

/// How long an exchange may take that nothing holds up, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// How long something may take that the controller has to notice and do.
pub(crate) const CHANGE_MAX: Duration = Duration::from_secs(10);
/// Between two questions to the neighbour.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// Questions on one connection: fewer than the server takes.
const KEPT_REQUESTS_MAX: usize = 500;

/// One test at a time: each of them is a load, and has bounds of time.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for the other tests of this program to be done.
pub(crate) fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A policy with a rule for these names that leads to the page.
pub(crate) fn policy(names: &[&str]) -> String {
    format!(
        "version = 1\n[[rule]]\nid = \"page\"\nhosts = {names:?}\naction = \"redirect\"\nreason = \"danger\"\n"
    )
}

/// How connections are handed over, and which addresses the visitor and the server have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    takeover: &'static str,
    ends: (&'static str, &'static str),
}

impl Way {
    const V4: (&'static str, &'static str) = (Direct::VISITOR_V4, Direct::EDGE_V4);
    const V6: (&'static str, &'static str) = (Direct::VISITOR_V6, Direct::EDGE_V6);
    /// What the kernel has for it, over IPv4.
    const USUAL: Self = Self {
        takeover: "auto",
        ends: Self::V4,
    };
}

/// As usual, and with `test --all` by a process that makes the sockets as well.
pub(crate) fn by_both(test: fn(Way)) {
    in_ways(test, Way::V4);
}

/// As [`by_both`], the other way over IPv6.
pub(crate) fn by_both_families(test: fn(Way)) {
    in_ways(test, Way::V6);
}

fn in_ways(test: fn(Way), ends: (&'static str, &'static str)) {
    test(Way::USUAL);
    if conform::all() {
        test(Way {
            takeover: "repair",
            ends,
        });
    }
}

/// Servers and the filter before them.
pub(crate) struct Scene<'n> {
    pub(crate) edge: Edge<'n>,
    pub(crate) namespace: &'n Namespace,
    visitor: &'n Namespace,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    _receives: ForeignProgram,
    _site: Site,
}

impl<'n> Scene<'n> {
    /// In server role.
    pub(crate) fn at_server(net: &'n Direct) -> Self {
        Self::at_server_by(Way::USUAL, net, "")
    }

    /// In server role, with more settings of the page.
    pub(crate) fn at_server_by(way: Way, net: &'n Direct, more: &str) -> Self {
        let more = format!("takeover = {:?}\n{more}", way.takeover);
        Self::in_server_role(net, way.ends, &more, &policy(&[BLOCKED]))
    }

    /// In server role, with another policy.
    pub(crate) fn at_server_with(net: &'n Direct, policy: &str) -> Self {
        Self::in_server_role(net, Way::USUAL.ends, "", policy)
    }

    fn in_server_role(
        net: &'n Direct,
        ends: (&'static str, &'static str),
        more: &str,
        policy: &str,
    ) -> Self {
        Self::new(
            (&net.visitor, &net.edge, &net.edge),
            &[Direct::EDGE_IF],
            ends,
            ("", more),
            policy,
        )
    }

    /// In router role.
    pub(crate) fn at_router(net: &'n Routed, policy: &str) -> Self {
        Self::new(
            (&net.visitor, &net.edge, &net.origin),
            &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE],
            (Routed::VISITOR_V4, Routed::NEIGHBOUR_V4),
            (
                "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n",
                "",
            ),
            policy,
        )
    }

    fn new(
        (visitor, namespace, servers): (&'n Namespace, &'n Namespace, &'n Namespace),
        interfaces: &[&str],
        (from, to): (&'static str, &'static str),
        (inspect, more): (&str, &str),
        policy: &str,
    ) -> Self {
        // What the program sends back arrives at the other end of a veth only if that has a program, too.
        let receives = ForeignProgram::attach(visitor, "eth0");
        let site = Site::start_with(servers, &NAMES, certificate());
        let mut edge = Edge::new(namespace, interfaces, policy);
        let directory = certificate().directory();
        edge.configure(
            interfaces,
            &format!("{inspect}[block_page]\ncertificates = {directory:?}\n{more}"),
        );
        edge.start();
        Self {
            edge,
            namespace,
            visitor,
            from,
            to,
            _receives: receives,
            _site: site,
        }
    }

    /// How many frames were answered in this way.
    pub(crate) fn answered(&self, answer: Answer) -> u64 {
        answered(self.namespace, answer)
    }

    /// What `status` says of the page's process.
    pub(crate) fn page(&self) -> Page {
        let status = self.edge.json("status");
        let pid = status["page"]["pid"].as_u64();
        Page {
            pid: pid.unwrap_or_else(|| panic!("no page: {status}")) as u32,
        }
    }

    /// A count of the page's process.
    pub(crate) fn counted(&self, counter: &str) -> u64 {
        number_at(&self.edge.json("status")["page"]["served"], counter).unwrap_or(0)
    }

    /// Whether `status` says that the page is served.
    pub(crate) fn is_served(&self) -> bool {
        self.edge.json("status")["page"]["is_up"] == true
    }

    /// A connection from a port of its own; reads and writes end after `limit`.
    pub(crate) fn connect(&self, port: u16, limit: Duration) -> io::Result<TcpStream> {
        self.connect_from(0, port, limit)
    }

    /// A connection from this port.
    pub(crate) fn connect_from(
        &self,
        own: u16,
        port: u16,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        self.connect_as(end(self.from, own), port, limit)
    }

    /// A connection from this address and port.
    pub(crate) fn connect_as(
        &self,
        from: SocketAddr,
        port: u16,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let to = end(self.to, port);
        self.visitor.run(|| open(from, to, limit))
    }

    /// Asks for a page over TLS on a connection of its own, which takes `limit` at most.
    pub(crate) fn ask(&self, name: &str, limit: Duration) -> io::Result<String> {
        ask_over(greeted(self.connect(443, limit)?, name), name)
    }

    /// As [`Scene::ask`], without TLS.
    pub(crate) fn ask_plain(&self, name: &str, limit: Duration) -> io::Result<String> {
        ask_over(self.connect(80, limit)?, name)
    }

    /// Asks the neighbour from now on.
    pub(crate) fn probe(&self) -> Prober {
        Prober::start(self.visitor, self.from, self.to)
    }
}

/// The page's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) pid: u32,
}

impl Page {
    fn file(self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Bytes of memory that it has.
    pub(crate) fn memory(self) -> u64 {
        let status = self.file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("kibibytes") * 1_024
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// The kernel's TCP sockets in its namespace, listening ones included.
    pub(crate) fn sockets(self) -> u64 {
        let count = |file: &str, line: &str, word: &str| {
            let text = self.file(file);
            let line = text
                .lines()
                .find_map(|it| it.strip_prefix(line).map(str::to_owned));
            let mut words = line.iter().flat_map(|line| line.split_whitespace());
            words.find(|it| *it == word)?;
            words.next()?.parse::<u64>().ok()
        };
        let v4 = count("net/sockstat", "TCP:", "inuse").expect("a count");
        v4 + count("net/sockstat6", "TCP6:", "inuse").unwrap_or(0)
    }
}

/// Asks the neighbour, over TLS on a connection each time, until it is told to finish; kept connections are asked
/// as well.
pub(crate) struct Prober {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Prober {
    fn start(visitor: &Namespace, from: &'static str, to: &'static str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let thread = visitor.spawn(move || {
            let open = || open(end(from, 0), end(to, 443), LIMIT);
            let mut kept = greeted(open().expect("the neighbour's server"), NEIGHBOUR);
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let answer =
                    open().and_then(|stream| ask_over(greeted(stream, NEIGHBOUR), NEIGHBOUR));
                let answer = answer.unwrap_or_else(|e| panic!("the neighbour after {took:?}: {e}"));
                assert!(
                    answer.ends_with("served neighbour.zone.example\n"),
                    "{answer}"
                );
                took.push(begin.elapsed());
                if took.len() % KEPT_REQUESTS_MAX == 0 {
                    kept = greeted(open().expect("the neighbour's server"), NEIGHBOUR);
                }
                write!(kept, "GET / HTTP/1.1\r\nHost: {NEIGHBOUR}\r\n\r\n").expect("a request");
                let mut answer = Vec::new();
                while !answer.ends_with(b"served neighbour.zone.example\n") {
                    let mut part = [0; 1_024];
                    let read = kept
                        .read(&mut part)
                        .expect("the neighbour on a kept connection");
                    assert!(read > 0, "the neighbour closed");
                    answer.extend_from_slice(&part[..read]);
                }
                thread::sleep(PROBE_EVERY);
            }
            took
        });
        Self { done, thread }
    }

    /// Ends it; fails if the neighbour was not there once.
    pub(crate) fn finish(self) {
        self.done.store(true, Ordering::Relaxed);
        let mut took = self
            .thread
            .join()
            .expect("the neighbour is served all the while");
        took.sort_unstable();
        let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) else {
            panic!("nobody was asked");
        };
        println!(
            "the neighbour: {} times, median {median:?}, longest {longest:?}",
            took.len()
        );
    }
}

/// TLS on a connection, for this name, with the certificate verified.
pub(crate) fn greeted(stream: TcpStream, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(config(), server).expect("a hello");
    StreamOwned::new(connection, stream)
}

/// One request and the whole answer.
pub(crate) fn ask_over(mut stream: impl io::Read + Write, name: &str) -> io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof || answer.is_empty() => Err(e),
        _ => Ok(answer),
    }
}

/// Whether it is the block page, whole.
pub(crate) fn is_page(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 451 ") && answer.contains("danger") && answer.contains("</html>")
}

/// Whether a connection ended since somebody said so, and not since nothing came.
pub(crate) fn was_told(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Address and port.
pub(crate) fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// Another port each time, outside those that the kernel gives.
pub(crate) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn certificate() -> &'static Wildcard {
    static CERTIFICATE: OnceLock<Wildcard> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Wildcard::new("zone.example"))
}

fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from(certificate().issuer().der.clone());
        roots.add(authority).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    });
    Arc::clone(config)
}
