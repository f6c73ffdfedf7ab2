//! Packets per second through a veth pair, dropped and passed, beside other filters.
//!
//! Sender and receiver share one processor: frames come out of the kernel's live-frames mode, the
//! other end's receive path runs between two batches, and what is counted is what it took. Every
//! contender has a namespace of its own, and all of one size run in turns.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use filter_tests::{
    net::{Namespace, Offload, mac_of, set_offload},
    packet::Packet,
};

use crate::{
    harness::{Harness, pin},
    lists::{Lists, unicast},
    loads,
    peers::Peer,
    report::{Row, Unit},
    sources::{Family, Prefixes, Random, Source, among},
    xdp_filter::{self, XdpFilter},
};

/// Millions of packets per second that the largest list must allow.
const DROP_RANDOM_MIN: f64 = 2.5;
const DROP_HOT_MIN: f64 = 4.8;

/// Where frames are sent from, and where they arrive.
const SENDER: &str = xdp_filter::PEER;
const RECEIVER: &str = xdp_filter::INTERFACE;
const RECEIVER_ADDRESS: &str = "198.51.100.1";

/// What passes ends in a socket that nobody reads: the whole way up, and nothing sent back.
const PORT: u16 = 5353;

/// Frames per system call: setting one up takes some hundred microseconds.
const CHUNK: u32 = 1 << 15;

/// The largest list beside which xdp-filter is measured: it holds no more of a larger one.
const XDP_FILTER_BESIDE_MAX: usize = 100_000;

/// Share of packets that may take the wrong way: the neighbours' own, such as neighbour discovery,
/// and those whose address the other lists have.
const WRONG_MAX: f64 = 0.01;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples of each contender and case; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    pub(crate) sample: Duration,
    /// Entries of the lists, ascending.
    pub(crate) sizes: &'static [usize],
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        sample: Duration::from_millis(50),
        sizes: &[1_000, 100_000],
    };
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        sample: Duration::from_millis(250),
        sizes: &[1_000, 100_000, 1_000_000],
    };
}

/// One kind of flood.
struct Case {
    name: &'static str,
    /// Whether the sources are blocked.
    blocked: bool,
    /// One source instead of 2^20.
    hot: bool,
    budget: Option<f64>,
}

const ALL: [Case; 4] = [
    Case {
        name: "flood_drop_random",
        blocked: true,
        hot: false,
        budget: Some(DROP_RANDOM_MIN),
    },
    Case {
        name: "flood_drop_hot",
        blocked: true,
        hot: true,
        budget: Some(DROP_HOT_MIN),
    },
    Case {
        name: "flood_pass_random",
        blocked: false,
        hot: false,
        budget: None,
    },
    Case {
        name: "flood_pass_hot",
        blocked: false,
        hot: true,
        budget: None,
    },
];

/// The names of all.
pub(crate) fn cases() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|case| case.name)
}

/// The samples of one contender on one case.
struct Series {
    case: &'static Case,
    contender: &'static str,
    entries: usize,
    samples: Vec<f64>,
}

/// The rows of all floods, and of loading the peers. `folder` is for files that nobody needs later.
pub(crate) fn measure(
    binary: &Path,
    object: &Path,
    folder: &Path,
    effort: Effort,
    random: &mut Random,
) -> Result<Vec<Row>> {
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for &size in effort.sizes {
        let lists = Lists::new(size, folder, random)?;
        let mut field = Field::new(binary, object, folder, &lists, &mut rows)?;
        field.measure(&lists.v4, effort, random, &mut all)?;
    }
    let largest = effort.sizes.last().copied().unwrap_or_default();
    for case in &ALL {
        let series = all.iter().filter(|series| series.case.name == case.name);
        rows.extend(series.map(|series| series.row(largest)));
    }
    Ok(rows)
}

impl Series {
    /// The budget is the filter's own, with the largest list.
    fn row(&self, largest: usize) -> Row {
        let (case, contender) = (self.case, self.contender);
        let row = Row::new(
            case.name,
            contender,
            self.entries,
            Unit::Mpps,
            &self.samples,
        );
        match case.budget {
            Some(budget) if contender == "edgefilter" && self.entries == largest => {
                row.within(budget)
            }
            Some(_) | None => row,
        }
    }
}

/// What a contender does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    PassAll,
    DropAll,
    Filter,
}

/// A contender on the receiving end of a veth pair.
struct Rig {
    contender: &'static str,
    entries: usize,
    does: Does,
    place: Place,
    /// Keeps the port open.
    _sink: UdpSocket,
    sender_index: u32,
    frame: Vec<u8>,
    /// The only addresses that it blocks, if they are not those of all.
    blocks: Option<Vec<Ipv4Addr>>,
}

/// The namespace with both ends of the pair.
enum Place {
    Own(Namespace),
    XdpFilter(Box<XdpFilter>),
}

impl Place {
    fn namespace(&self) -> &Namespace {
        match self {
            Self::Own(namespace) => namespace,
            Self::XdpFilter(filter) => filter.namespace(),
        }
    }
}

impl Rig {
    fn new(contender: &'static str, entries: usize, does: Does) -> Result<Self> {
        let namespace = Namespace::new("flood");
        namespace.veth(RECEIVER, &namespace, SENDER);
        Self::on(Place::Own(namespace), contender, entries, does)
    }

    fn on(place: Place, contender: &'static str, entries: usize, does: Does) -> Result<Self> {
        let namespace = place.namespace();
        namespace.address(RECEIVER, &format!("{RECEIVER_ADDRESS}/24"));
        // Sources are from everywhere.
        namespace.ip(&["route", "add", "default", "dev", RECEIVER]);
        for interface in ["all", RECEIVER] {
            namespace.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        }
        set_offload(namespace, RECEIVER, Offload::ReceiveAggregation, true);
        let (sink, sender_index) = namespace.run(|| {
            let sink = UdpSocket::bind((RECEIVER_ADDRESS, PORT)).context("cannot open a socket")?;
            anyhow::Ok((sink, index_of(SENDER)?))
        })?;
        let frame = Packet::udp("192.0.2.7:51514", &format!("{RECEIVER_ADDRESS}:{PORT}"))
            .macs(mac_of(namespace, SENDER), mac_of(namespace, RECEIVER))
            .payload([0x5A; 64])
            .build();
        Ok(Self {
            contender,
            entries,
            does,
            _sink: sink,
            sender_index,
            frame,
            place,
            blocks: None,
        })
    }

    fn namespace(&self) -> &Namespace {
        self.place.namespace()
    }

    /// Millions of packets per second that the receiver took.
    fn sample(&self, harness: &mut Harness, blocked: bool, length: Duration) -> Result<f64> {
        let (seen, spent) = self.namespace().run(|| {
            pin(0)?;
            harness.set_egress(self.sender_index)?;
            // Fills the socket's buffer, and brings back what was pushed out of the caches.
            harness.send(&self.frame, CHUNK)?;
            let before = Seen::now()?;
            let begin = Instant::now();
            while begin.elapsed() < length {
                harness.send(&self.frame, CHUNK)?;
            }
            let spent = begin.elapsed();
            anyhow::Ok((Seen::now()?.since(&before), spent))
        })?;
        let drops = self.does == Does::DropAll || self.does == Does::Filter && blocked;
        let right = if drops {
            seen.received.saturating_sub(seen.passed)
        } else {
            seen.passed
        };
        let (received, right) = (seen.received as f64, right as f64);
        if right < received * (1.0 - WRONG_MAX) || received == 0.0 {
            // The speed of wrong verdicts means nothing.
            bail!(
                "{} of {} entries passed {} of {} packets",
                self.contender,
                self.entries,
                seen.passed,
                seen.received
            );
        }
        Ok(received / spent.as_secs_f64() / 1e6)
    }
}

/// All contenders with lists of one size.
struct Field {
    harness: Harness,
    rigs: Vec<Rig>,
}

impl Field {
    /// Loads them all; what that took goes to `rows`.
    fn new(
        binary: &Path,
        object: &Path,
        folder: &Path,
        lists: &Lists,
        rows: &mut Vec<Row>,
    ) -> Result<Self> {
        let mut harness = Harness::load(object)?;
        let nothing_v6 = Prefixes::new(Family::V6, 0, &mut Random(0));
        harness.fill_tries(&lists.v4, &nothing_v6)?;
        let mut rigs = vec![Rig::new("nothing", 0, Does::PassAll)?];
        for (contender, program, entries, does) in [
            ("xdp-pass", "empty", 0, Does::PassAll),
            ("xdp-drop", "drop_all", 0, Does::DropAll),
            ("lpm-trie", "lpm", lists.entries, Does::Filter),
        ] {
            let rig = Rig::new(contender, entries, does)?;
            rig.namespace().run(|| harness.attach(program, RECEIVER))?;
            rigs.push(rig);
        }
        let rig = Rig::new("edgefilter", lists.entries, Does::Filter)?;
        loads::apply(rig.namespace(), binary, &[RECEIVER], &lists.policy)?;
        rigs.push(rig);
        for peer in Peer::ALL {
            let rig = Rig::new(peer.name(), lists.entries, Does::Filter)?;
            let ran = peer.load(rig.namespace(), RECEIVER, lists, folder)?;
            let row =
                |case, unit, figure| Row::new(case, peer.name(), lists.entries, unit, &[figure]);
            let (seconds, megabytes) = (ran.wall.as_secs_f64(), ran.peak_megabytes());
            rows.push(row("policy_to_enforced", Unit::Seconds, seconds));
            rows.push(row("controller_peak", Unit::Megabytes, megabytes));
            rigs.push(rig);
        }
        if lists.entries <= XDP_FILTER_BESIDE_MAX {
            let addresses = lists.v4.all.iter();
            let hosts: Vec<_> = addresses
                .map(|(address, _)| Ipv4Addr::from_bits((address >> 96) as u32))
                .take(xdp_filter::ENTRIES_MAX)
                .collect();
            let place = Place::XdpFilter(Box::new(XdpFilter::load(&hosts)?));
            let mut rig = Rig::on(place, "xdp-filter", hosts.len(), Does::Filter)?;
            rig.blocks = Some(hosts);
            rigs.push(rig);
        }
        Ok(Self { harness, rigs })
    }

    fn measure(
        &mut self,
        prefixes: &Prefixes,
        effort: Effort,
        random: &mut Random,
        all: &mut Vec<Series>,
    ) -> Result<()> {
        let [inside, outside] = [prefixes.inside(random), prefixes.outside(random)].map(unicast);
        for case in &ALL {
            let shared = if case.blocked { &inside } else { &outside };
            let shared = of_case(case, shared);
            let mut turns = Vec::new();
            for rig in &self.rigs {
                let own = rig.blocks.as_deref().filter(|_| case.blocked);
                let own = own.map(|hosts| unicast(among(hosts, random)));
                let at = match (rig.does, case.blocked) {
                    (Does::PassAll, true) | (Does::DropAll, false) => continue,
                    (Does::PassAll, false) | (Does::DropAll, true) | (Does::Filter, _) => {
                        series(all, case, rig)
                    }
                };
                turns.push((rig, own, at));
            }
            for _ in 0..effort.rounds {
                for (rig, own, at) in &turns {
                    let own = own.as_deref().map(|own| of_case(case, own));
                    self.harness.set_sources(own.unwrap_or(shared))?;
                    let mpps = rig
                        .sample(&mut self.harness, case.blocked, effort.sample)
                        .with_context(|| format!("{} of {}", case.name, rig.contender))?;
                    all[*at].samples.push(mpps);
                }
            }
        }
        Ok(())
    }
}

fn of_case<'a>(case: &Case, sources: &'a [Source]) -> &'a [Source] {
    if case.hot { &sources[..1] } else { sources }
}

/// Where the samples of a contender on a case are; those without a list have one place for all sizes.
fn series(all: &mut Vec<Series>, case: &'static Case, rig: &Rig) -> usize {
    let is_it = |series: &Series| {
        (series.case.name, series.contender, series.entries)
            == (case.name, rig.contender, rig.entries)
    };
    all.iter().position(is_it).unwrap_or_else(|| {
        all.push(Series {
            case,
            contender: rig.contender,
            entries: rig.entries,
            samples: Vec::new(),
        });
        all.len() - 1
    })
}

/// What the receiver has counted.
struct Seen {
    /// Packets that its interface took, whatever became of them.
    received: u64,
    /// Those that came as far as the full socket.
    passed: u64,
}

impl Seen {
    /// In the thread's namespace.
    fn now() -> Result<Self> {
        // Not below /proc/net, which is that of the process's first thread.
        let read = |name| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Ok(Self {
            received: packets(&read("dev")?, RECEIVER).context("no counter of the interface")?,
            passed: refused_datagrams(&read("snmp")?).context("no counter of datagrams")?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            received: self.received.saturating_sub(before.received),
            passed: self.passed.saturating_sub(before.passed),
        }
    }
}

/// Received packets of an interface, in the format of /proc/net/dev.
fn packets(text: &str, interface: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, figures) = lines.find(|(name, _)| name.trim() == interface)?;
    figures.split_whitespace().nth(1)?.parse().ok()
}

/// Datagrams that a socket did not take, in the format of /proc/net/snmp.
fn refused_datagrams(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, figures) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "InErrors")?;
    figures.split(' ').nth(at)?.parse().ok()
}

fn index_of(interface: &str) -> Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        bail!("no interface {interface}");
    }
    Ok(index)
}
