//! The block page beside the real server: how long a visitor waits for its first byte, and how many
//! connections a second one processor takes over, greets and answers.
//!
//! One nginx with TLS stands behind the filter, with a blocked name and a neighbour. The client asks for
//! both in turns, with the same certificate, so that whatever else the machine does hits both alike.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use filter_tests::{
    certificate::Wildcard,
    dialer::{Length, http1_config, open},
    edge::Edge,
    net::{Direct, Offload, set_offload},
    site::Site,
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::{
    deny_lists::reset_on_close,
    harness::{Harness, all_processors, pin, pin_process},
    report::{Row, Unit},
};

/// From the last byte of a hello, or of a request, to the first byte of what answers it.
const HELLO: [&str; 2] = ["server_hello", "server_hello_long"];
const ANSWER: [&str; 2] = ["tls_answer", "tls_answer_long"];
const HTTP: &str = "http_answer";
/// From a hello to the alert that refuses it.
const ALERT: &str = "refusal";
/// Full handshakes, each with one answer, per second of the server's processor time.
const HANDSHAKES: [&str; 2] = ["handshakes", "handshakes_long"];
/// The same per second of one processor, on which the client and the kernel's part are as well.
const TOGETHER: &str = "handshakes_together";

const ZONE: &str = "zone.example";
const BLOCKED: &str = "blocked.zone.example";
const NEIGHBOUR: &str = "neighbour.zone.example";
const REFUSED: &str = "refused.zone.example";
const POLICY: &str = "version = 1\n\
     [[rule]]\nid = \"page\"\nhosts = [\"blocked.zone.example\"]\naction = \"redirect\"\n\
     [[rule]]\nid = \"refused\"\nhosts = [\"refused.zone.example\"]\naction = \"refuse\"\n";

/// What the block page may take longer than the real server, at the median.
const OVER_SERVER_US_MAX: f64 = 1_000.0;
/// What one processor must do.
const HANDSHAKES_MIN: f64 = 2_000.0;

/// Longer than any connection takes.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// Clients that keep a server busy.
const CLIENTS: usize = 4;

/// Connections of one client in one sample that may fail.
const FAILED_MAX: usize = 1;

/// Where the server is alone, as far as the clients are concerned; with one processor they share it.
const SERVER_CPU: usize = 1;

/// A fatal alert (RFC 8446, 6): its record type.
const ALERT_RECORD: u8 = 0x15;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Connections of each kind for the times.
    pub(crate) connections: usize,
    /// Samples of each rate; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    pub(crate) sample: Duration,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        connections: 101,
        rounds: 3,
        sample: Duration::from_millis(200),
    };
    pub(crate) const FULL: Self = Self {
        connections: 501,
        rounds: 5,
        sample: Duration::from_millis(600),
    };
}

/// All cases.
pub(crate) fn cases() -> impl Iterator<Item = &'static str> {
    HELLO
        .into_iter()
        .chain(ANSWER)
        .chain(HANDSHAKES)
        .chain([HTTP, ALERT, TOGETHER])
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The neighbour's server.
    Nginx,
    /// The block page.
    Page,
}

impl By {
    const ALL: [Self; 2] = [Self::Nginx, Self::Page];

    const fn contender(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Page => "edgefilter",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => NEIGHBOUR,
            Self::Page => BLOCKED,
        }
    }

    /// What its answers begin with.
    const fn status(self) -> &'static [u8] {
        match self {
            Self::Nginx => b"HTTP/1.1 200 ",
            Self::Page => b"HTTP/1.1 451 ",
        }
    }
}

/// Rows of the block page and of the server that it stands in for.
pub(crate) fn measure(binary: &Path, object: &Path, effort: Effort) -> Result<Vec<Row>> {
    let net = Direct::new();
    // Hellos in segments as they are on a wire.
    set_offload(
        &net.visitor,
        Direct::VISITOR_IF,
        Offload::Segmentation,
        false,
    );
    let certificate = Wildcard::new(ZONE);
    let names = [BLOCKED, NEIGHBOUR, REFUSED];
    let site = Site::start_with(&net.edge, &names, &certificate);
    let mut edge = Edge::of(binary.to_owned(), &net.edge, &[Direct::EDGE_IF], POLICY);
    let page = format!(
        "[block_page]\ncertificates = {:?}\n",
        certificate.directory()
    );
    edge.configure(&[Direct::EDGE_IF], &page);
    edge.start();
    let pid = edge.json("status")["page"]["pid"].as_i64();
    let page = pid.and_then(|pid| libc::pid_t::try_from(pid).ok());
    let servers = Servers {
        nginx: site.pid().as_raw(),
        page: page.context("the block page is not served")?,
    };

    let configs =
        [Length::Short, Length::Long].map(|length| http1_config(certificate.issuer(), length));
    let mut rows = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let [hellos, answers] = net.visitor.run(|| waiting(config, effort.connections))?;
        rows.extend(compared(HELLO[index], hellos));
        rows.extend(compared(ANSWER[index], answers));
    }
    let times = net.visitor.run(|| plain(effort.connections))?;
    rows.extend(compared(HTTP, times));
    for (index, config) in configs.iter().enumerate() {
        rows.extend(rates(&net, HANDSHAKES[index], config, &servers, effort)?);
    }
    rows.extend(together(&net, &configs[0], &servers, effort)?);
    let mut harness = Harness::load(object)?;
    let times = net.visitor.run(|| {
        // Without a program there nobody takes a frame that XDP sends back.
        harness.attach("empty", Direct::VISITOR_IF)?;
        refusals(&configs[0], effort.connections)
    })?;
    rows.push(Row::new(ALERT, By::Page.contender(), 1, Unit::Us, &times));
    Ok(rows)
}

/// Processes that answer.
struct Servers {
    nginx: libc::pid_t,
    page: libc::pid_t,
}

impl Servers {
    const fn of(&self, by: By) -> libc::pid_t {
        match by {
            By::Nginx => self.nginx,
            By::Page => self.page,
        }
    }
}

/// Rows of one case: the page's against the server's median.
fn compared(case: &'static str, times: [Vec<f64>; 2]) -> Vec<Row> {
    let [server, page] = times;
    let server = Row::new(case, By::Nginx.contender(), 0, Unit::Us, &server);
    let mut page = Row::new(case, By::Page.contender(), 1, Unit::Us, &page);
    let over = page.median - server.median;
    page.over_server_us = Some(over);
    page.judge(over, Some(OVER_SERVER_US_MAX));
    vec![server, page]
}

/// Microseconds to the first byte that the server says, and to that of its answer, of each who answers.
fn waiting(config: &Arc<ClientConfig>, connections: usize) -> Result<[[Vec<f64>; 2]; 2]> {
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    let mut failed = 0;
    for number in 0..=connections {
        for (index, by) in By::ALL.into_iter().enumerate() {
            let (hello, answer) = match greet(by, config) {
                Ok(times) => times,
                Err(error) => {
                    failed += 1;
                    say_failed(failed, number, &error);
                    if failed > FAILED_MAX {
                        return Err(error);
                    }
                    continue;
                }
            };
            // The first connection finds everything cold.
            if number > 0 {
                times[0][index].push(hello);
                times[1][index].push(answer);
            }
        }
    }
    Ok(times)
}

/// One connection over TLS with a full handshake, to the end of the answer: microseconds to the first byte
/// that came, and to the first of the answer.
fn greet(by: By, config: &Arc<ClientConfig>) -> Result<(f64, f64)> {
    let what = || format!("a connection that {} is to answer", by.contender());
    let mut stream = dial(443).with_context(what)?;
    let mut connection = client(by.name(), config)?;
    let begin = say_hello(&mut stream, &mut connection)?;
    stream
        .peek(&mut [0; 1])
        .with_context(|| format!("{}: no word of a server", what()))?;
    let hello = microseconds(begin);
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    tls.write_all(request(by.name()).as_bytes())
        .with_context(what)?;
    let mut answer = vec![0; by.status().len()];
    tls.read_exact(&mut answer).with_context(what)?;
    let first = microseconds(begin);
    match tls.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    if answer != by.status() {
        bail!("{} was answered by somebody else", what());
    }
    if connection.handshake_kind() != Some(rustls::HandshakeKind::Full) {
        bail!("{}: no full handshake", what());
    }
    Ok((hello, first))
}

/// Microseconds from a request without TLS to the first byte of its answer.
fn plain(connections: usize) -> Result<[Vec<f64>; 2]> {
    let mut times: [Vec<f64>; 2] = Default::default();
    for number in 0..=connections {
        for (by, times) in By::ALL.into_iter().zip(&mut times) {
            let mut stream = dial(80)?;
            let begin = Instant::now();
            stream.write_all(request(by.name()).as_bytes())?;
            let mut answer = vec![0; by.status().len()];
            stream.read_exact(&mut answer[..1])?;
            let time = microseconds(begin);
            stream.read_exact(&mut answer[1..])?;
            if answer != by.status() {
                bail!("{} did not answer for {}", by.contender(), by.name());
            }
            if number > 0 {
                times.push(time);
            }
        }
    }
    Ok(times)
}

/// Microseconds from a hello to the alert.
fn refusals(config: &Arc<ClientConfig>, connections: usize) -> Result<Vec<f64>> {
    let refusal = || {
        let mut stream = dial(443)?;
        let begin = say_hello(&mut stream, &mut client(REFUSED, config)?)?;
        let mut first = [0; 1];
        stream.read_exact(&mut first).context("no alert")?;
        if first != [ALERT_RECORD] {
            bail!("a refused name was answered by {first:?}");
        }
        Ok(microseconds(begin))
    };
    (0..connections).map(|_| refusal()).collect()
}

/// Handshakes per second of the processor time of who answers.
fn rates(
    net: &Direct,
    case: &'static str,
    config: &Arc<ClientConfig>,
    servers: &Servers,
    effort: Effort,
) -> Result<Vec<Row>> {
    let cpu = SERVER_CPU.min(all_processors()?.len() - 1);
    let mut samples: [Vec<f64>; 2] = Default::default();
    for _ in 0..effort.rounds {
        for (by, samples) in By::ALL.into_iter().zip(&mut samples) {
            let pid = servers.of(by);
            for thread in threads(pid)? {
                pin_process(thread, cpu)?;
            }
            let before = processor_time(pid)?;
            let (count, _) = crowd(net, by, config, effort.sample, None)?;
            let spent = processor_time(pid)? - before;
            samples.push(count as f64 / spent.as_secs_f64());
        }
    }
    Ok(judged(case, &samples))
}

/// Handshakes per second of one processor that does everything.
fn together(
    net: &Direct,
    config: &Arc<ClientConfig>,
    servers: &Servers,
    effort: Effort,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for by in By::ALL {
        for thread in threads(servers.of(by))? {
            pin_process(thread, 0)?;
        }
        let samples = (0..effort.rounds).map(|_| {
            let (count, took) = crowd(net, by, config, effort.sample, Some(0))?;
            Ok(count as f64 / took.as_secs_f64())
        });
        let samples = samples.collect::<Result<Vec<_>>>()?;
        let entries = usize::from(by == By::Page);
        rows.push(Row::new(
            TOGETHER,
            by.contender(),
            entries,
            Unit::PerSecond,
            &samples,
        ));
    }
    Ok(rows)
}

fn judged(case: &'static str, samples: &[Vec<f64>; 2]) -> Vec<Row> {
    let [server, page] = samples;
    vec![
        Row::new(case, By::Nginx.contender(), 0, Unit::PerSecond, server),
        Row::new(case, By::Page.contender(), 1, Unit::PerSecond, page).within(HANDSHAKES_MIN),
    ]
}

/// Connections by several clients at once, one after the other each; how many were answered, and how long it
/// took. A few that are not are said, more are an error.
fn crowd(
    net: &Direct,
    by: By,
    config: &Arc<ClientConfig>,
    length: Duration,
    cpu: Option<usize>,
) -> Result<(usize, Duration)> {
    let begin = Instant::now();
    let visit = || -> Result<usize> {
        if let Some(cpu) = cpu {
            pin(cpu)?;
        }
        let (mut count, mut failed) = (0, 0);
        while begin.elapsed() < length {
            match greet(by, config) {
                Ok(_) => count += 1,
                Err(error) => {
                    failed += 1;
                    say_failed(failed, count, &error);
                    if failed > FAILED_MAX {
                        return Err(error);
                    }
                }
            }
        }
        Ok(count)
    };
    let counts: Result<Vec<usize>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| net.visitor.run(visit)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect()
    });
    Ok((counts?.into_iter().sum(), begin.elapsed()))
}

fn say_failed(failed: usize, answered: usize, error: &anyhow::Error) {
    eprintln!("not answered, {failed} beside {answered}: {error:#}");
}

fn dial(port: u16) -> Result<TcpStream> {
    let address = |text: &str| text.parse::<IpAddr>().context("an address");
    let from = SocketAddr::new(address(Direct::VISITOR_V4)?, 0);
    let to = SocketAddr::new(address(Direct::EDGE_V4)?, port);
    let stream = open(from, to, CONNECTION_MAX)?;
    reset_on_close(&stream)?;
    Ok(stream)
}

fn client(name: &'static str, config: &Arc<ClientConfig>) -> Result<ClientConnection> {
    let name = ServerName::try_from(name).context("a name")?;
    Ok(ClientConnection::new(Arc::clone(config), name)?)
}

/// Sends the hello; when it began to be sent, since on this link the answer may be there before the call
/// returns.
fn say_hello(stream: &mut TcpStream, connection: &mut ClientConnection) -> Result<Instant> {
    let mut hello = Vec::new();
    connection.write_tls(&mut hello)?;
    let begin = Instant::now();
    stream.write_all(&hello)?;
    Ok(begin)
}

fn request(name: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {name}\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
}

fn microseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

fn threads(pid: libc::pid_t) -> Result<Vec<libc::pid_t>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("no such server")?;
    tasks
        .map(|task| {
            let name = task?.file_name();
            Ok(name.to_string_lossy().parse()?)
        })
        .collect()
}

/// Time that all threads of a process were on a processor (Documentation/scheduler/sched-stats.rst).
fn processor_time(pid: libc::pid_t) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in threads(pid)? {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"))?;
        let nanoseconds = text.split(' ').next().context("no figures of a thread")?;
        sum += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(sum)
}
