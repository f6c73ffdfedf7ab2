//! What the filter costs a TCP transfer as fast as it goes, through an edge that routes.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use filter_tests::net::Routed;

use crate::{
    harness::Harness,
    loads,
    report::{Row, Unit},
};

/// The case's name.
pub(crate) const CASE: &str = "bulk_tcp";

/// Not an inspected port: nothing but addresses is looked at.
const PORT: u16 = 8022;

/// Interfaces of the edge.
const EDGE: [&str; 2] = [Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE];

const BUFFER_BYTES: usize = 1 << 17;

/// Time for the window to open, which does not count.
const SLOW_START: Duration = Duration::from_millis(100);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Transfers of each contender; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    pub(crate) transfer: Duration,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        transfer: Duration::from_millis(200),
    };
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        transfer: Duration::from_millis(700),
    };
}

/// A row for an edge with nothing, with an empty program, and with the filter, on all its
/// interfaces. The policy has so many entries.
pub(crate) fn measure(
    binary: &Path,
    object: &Path,
    policy: &Path,
    entries: usize,
    effort: Effort,
) -> Result<Vec<Row>> {
    let mut harness = Harness::load(object)?;
    let mut field = Vec::new();
    for (contender, entries) in [("nothing", 0), ("xdp-pass", 0), ("edgefilter", entries)] {
        let net = Routed::new();
        match contender {
            "xdp-pass" => net.edge.run(|| {
                let mut attach = |interface| harness.attach("empty", interface);
                EDGE.into_iter().try_for_each(&mut attach)
            })?,
            "edgefilter" => {
                loads::apply(&net.edge, binary, &EDGE, policy)?;
            }
            _ => {}
        }
        field.push((contender, entries, net, Vec::new()));
    }
    for _ in 0..effort.rounds {
        for (contender, _, net, samples) in &mut field {
            let figure =
                transfer(net, effort.transfer).with_context(|| format!("{CASE} of {contender}"))?;
            samples.push(figure);
        }
    }
    let rows = field.iter().map(|(contender, entries, _, samples)| {
        Row::new(CASE, contender, *entries, Unit::GibPerSecond, samples)
    });
    Ok(rows.collect())
}

/// 2^30 bytes per second from visitor to origin.
fn transfer(net: &Routed, length: Duration) -> Result<f64> {
    let address = (Routed::NEIGHBOUR_V4, PORT);
    let listener = net.origin.run(|| TcpListener::bind(address))?;
    let sender = net.visitor.run(|| TcpStream::connect(address))?;
    let (mut receiver, _) = listener.accept()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || send(sender, SLOW_START + length));
        let mut buffer = vec![0; BUFFER_BYTES];
        let connected = Instant::now();
        let mut begin = None;
        let (mut bytes, mut end) = (0_u64, connected);
        loop {
            let read = receiver.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            end = Instant::now();
            if begin.is_some() {
                bytes += read as u64;
            } else if end - connected > SLOW_START {
                begin = Some(end);
            }
        }
        sending
            .join()
            .map_err(|_| anyhow!("the sender panicked"))??;
        let begin = begin.context("the transfer ended before its window was open")?;
        Ok(bytes as f64 / (end - begin).as_secs_f64() / f64::from(1 << 30))
    })
}

fn send(mut stream: TcpStream, length: Duration) -> Result<()> {
    let buffer = vec![0x5A; BUFFER_BYTES];
    let begin = Instant::now();
    while begin.elapsed() < length {
        stream.write_all(&buffer)?;
    }
    Ok(())
}
