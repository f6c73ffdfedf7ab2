//! Connections over a bad [`Path`] to the edge, with the filter and without: which succeed, and
//! how long they take.

use std::{
    fmt::{self, Write as _},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::{
    conform::{ALLOWED, BLOCKED, report::write, scene::Scene},
    dialer::{Length, ask_http, ask_tls, open, tls_config},
    net::{Direct, Namespace, Routed},
    path::{Carried, Path, Weather},
    witness::{HTTP_PORT, TLS_PORT, Witness},
};

/// One in ten lost, one in four overtaken, 5 ms each way.
const WEATHER: Weather = Weather {
    seed: 0x0EDF_0000_2026_1123,
    lost_percent: 10,
    reordered_percent: 25,
    delay: Duration::from_millis(5),
    detour_max: Duration::from_millis(20),
};

/// Between the starts of two connections.
const PACE: Duration = Duration::from_millis(15);
/// The first client port; below those that the kernel gives out.
const FIRST_PORT: u16 = 20_000;

/// How many connections are made, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Connections of every kind: TLS or HTTP, short or long, allowed or blocked.
    pub of_each: u16,
    /// How long an allowed one may take.
    pub allowed_max: Duration,
    /// How long a blocked one goes on trying.
    pub blocked_max: Duration,
}

/// Which side of the filter a connection belongs on, and what its hello is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    tls: bool,
    length: Length,
    blocked: bool,
}

impl Kind {
    /// All of them; neighbours differ in whether they are blocked.
    fn all() -> Vec<Self> {
        let mut kinds = Vec::new();
        for tls in [true, false] {
            for length in [Length::Short, Length::Long] {
                for blocked in [false, true] {
                    kinds.push(Self {
                        tls,
                        length,
                        blocked,
                    });
                }
            }
        }
        kinds
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.tls { "TLS hello" } else { "HTTP head" };
        write!(f, "{what} of {} bytes or more", self.length.bytes_min())
    }
}

/// What became of one connection.
#[derive(Debug)]
struct Outcome {
    kind: Kind,
    name: String,
    answer: io::Result<String>,
    took: Duration,
}

impl Outcome {
    fn is_served(&self) -> bool {
        let served = format!("served {}\n", self.name);
        self.answer
            .as_ref()
            .is_ok_and(|answers| answers.matches(&served).count() == 2)
    }
}

/// What became of all, and of the frames on the path.
#[derive(Debug)]
struct Run {
    outcomes: Vec<Outcome>,
    witnessed: Vec<String>,
    carried: Carried,
    /// Segments that the filter held back.
    held_back: u64,
}

/// Where the bad path is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Between the visitor and an edge that serves.
    BeforeServer,
    /// Between the visitor and an edge that routes.
    BeforeRouter,
    /// Between an edge that routes and the origin: the edge sees what the server does not get.
    BehindRouter,
}

impl Place {
    /// In the names of reports.
    fn as_str(self) -> &'static str {
        match self {
            Self::BeforeServer => "before-server",
            Self::BeforeRouter => "before-router",
            Self::BehindRouter => "behind-router",
        }
    }
}

fn scene(place: Place) -> (Scene, Path) {
    let mut path = None;
    let mut link = |edge: &_, edge_interface: &_, other: &_, interface: &_| {
        path = Some(Path::between(
            edge,
            edge_interface,
            other,
            interface,
            WEATHER,
        ));
    };
    let scene = match place {
        Place::BeforeServer => Scene::server_in(Direct::linked(&mut link)),
        Place::BeforeRouter => Scene::router_in(Routed::linked(&mut link, Namespace::veth)),
        Place::BehindRouter => Scene::router_in(Routed::linked(Namespace::veth, &mut link)),
    };
    (scene, path.expect("a linked path"))
}

/// Makes all connections, in a scene of their own.
fn run(place: Place, filtered: bool, scale: Scale) -> Run {
    let (scene, path) = scene(place);
    let witness = Witness::start(scene.servers(), &[ALLOWED, BLOCKED]);
    let edge = filtered.then(|| scene.enforce(""));
    let configs = [Length::Short, Length::Long]
        .map(|length| (length, tls_config(witness.authority(), length)));
    let kinds = Kind::all();
    let connections = (0..scale.of_each * kinds.len() as u16).map(|number| Attempt {
        number,
        kind: kinds[usize::from(number) % kinds.len()],
        ipv6: usize::from(number) / kinds.len() % 2 == 1,
        scale,
    });
    // The namespace's threads inherit it.
    let outcomes = scene.visitor().run(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = connections
                .map(|attempt| {
                    thread::sleep(PACE);
                    let (scene, configs) = (&scene, &configs);
                    scope.spawn(move || attempt.make(scene, configs))
                })
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|outcome| outcome.expect("no panic")).collect()
        })
    });
    Run {
        outcomes,
        witnessed: witness.names(),
        carried: path.carried(),
        held_back: edge.map_or(0, |edge| edge.reason_packets("held_back")),
    }
}

struct Attempt {
    number: u16,
    kind: Kind,
    ipv6: bool,
    scale: Scale,
}

impl Attempt {
    fn make(&self, scene: &Scene, configs: &[(Length, Arc<ClientConfig>); 2]) -> Outcome {
        let Kind {
            tls,
            length,
            blocked,
        } = self.kind;
        let (domain, limit) = if blocked {
            (BLOCKED, self.scale.blocked_max)
        } else {
            (ALLOWED, self.scale.allowed_max)
        };
        let name = format!("n{}.{domain}", self.number);
        let at = |address: &str, port| {
            let address: IpAddr = address.parse().expect("an address");
            SocketAddr::new(address, port)
        };
        let (from, to) = if self.ipv6 {
            (Direct::VISITOR_V6, scene.v6())
        } else {
            (Direct::VISITOR_V4, scene.v4())
        };
        let from = at(from, FIRST_PORT + self.number);
        let to = at(to, if tls { TLS_PORT } else { HTTP_PORT });
        let start = Instant::now();
        let answer = open(from, to, limit).and_then(|stream| {
            if !tls {
                return ask_http(stream, &name, length);
            }
            let config = configs.iter().find(|(of, _)| *of == length);
            let (_, config) = config.expect("a configuration of every length");
            ask_tls(stream, &name, Arc::clone(config))
        });
        Outcome {
            kind: self.kind,
            name,
            answer,
            took: start.elapsed(),
        }
    }
}

/// Makes all connections without the filter and with it, and writes
/// `target/conformance/lossy-<place>.md`.
///
/// # Panics
/// With every connection whose outcome is wrong, and if the path was not as bad as it should be.
pub fn compare(place: Place, scale: Scale) {
    let [without, with] = [false, true].map(|filtered| run(place, filtered, scale));
    for run in [&without, &with] {
        run.assert_weather();
    }
    assert_eq!(without.wrong(false), NONE, "not served without the filter");
    let name = format!("lossy-{}", place.as_str());
    write(&name, &table(&without, &with, scale));
    assert_eq!(with.wrong(false), NONE, "not served with the filter");
    assert_eq!(with.wrong(true), NONE, "answered with the filter");
    let obtained: Vec<_> = with
        .witnessed
        .iter()
        .filter(|name| name.ends_with(BLOCKED))
        .collect();
    assert!(obtained.is_empty(), "the server obtained {obtained:?}");
    let held_back = with.held_back > 0 || matches!(place, Place::BehindRouter);
    assert!(held_back, "no segment beyond a gap was seen");
}

const NONE: Vec<String> = Vec::new();

impl Run {
    fn assert_weather(&self) {
        let Carried {
            frames,
            lost,
            reordered,
        } = self.carried;
        println!("{frames} frames, {lost} lost, {reordered} held back on the way");
        let is_near = |count: u64, percent: u64| (count * 100 / frames).abs_diff(percent) <= 4;
        assert!(is_near(lost, WEATHER.lost_percent), "{lost} of {frames}");
        assert!(
            is_near(reordered, WEATHER.reordered_percent),
            "{reordered} of {frames}"
        );
    }

    /// Connections that are blocked, or not, and did not fare so.
    fn wrong(&self, blocked: bool) -> Vec<String> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.kind.blocked == blocked)
            .filter(|outcome| {
                if blocked {
                    outcome.answer.is_ok()
                } else {
                    !outcome.is_served()
                }
            })
            .map(|outcome| format!("{outcome:?}"))
            .collect()
    }
}

fn table(without: &Run, with: &Run, scale: Scale) -> String {
    let Weather {
        lost_percent,
        reordered_percent,
        delay,
        ..
    } = WEATHER;
    let mut text = format!(
        "{lost_percent} % of the frames lost and {reordered_percent} % overtaken in both directions, {} ms each way; \
         {} connections of each kind, each with two requests.\n\n\
         | allowed connections | median, ms | with the filter | 99th percentile, ms | with the filter | served | blocked ones served |\n\
         |---|---|---|---|---|---|---|\n",
        delay.as_millis(),
        scale.of_each
    );
    for tls in [true, false] {
        for length in [Length::Short, Length::Long] {
            let shown = Kind {
                tls,
                length,
                blocked: false,
            };
            let is_shown = |kind: Kind| kind.tls == tls && kind.length == length;
            row(&mut text, &shown.to_string(), without, with, &is_shown);
        }
    }
    row(&mut text, "all", without, with, &|_| true);
    text
}

fn row(text: &mut String, title: &str, without: &Run, with: &Run, is_shown: &dyn Fn(Kind) -> bool) {
    let of = |run: &'_ Run, blocked: bool| -> (Vec<u128>, usize) {
        let shown = run
            .outcomes
            .iter()
            .filter(|outcome| outcome.kind.blocked == blocked && is_shown(outcome.kind));
        let mut all = 0;
        let served = shown.inspect(|_| all += 1).filter(|one| one.is_served());
        let mut took: Vec<_> = served.map(|one| one.took.as_millis()).collect();
        took.sort_unstable();
        (took, all)
    };
    let (before, _) = of(without, false);
    let (after, all) = of(with, false);
    let (blocked, all_blocked) = of(with, true);
    writeln!(
        text,
        "| {title} | {} | {} | {} | {} | {} of {all} | {} of {all_blocked} |",
        percentile(&before, 50),
        percentile(&after, 50),
        percentile(&before, 99),
        percentile(&after, 99),
        after.len(),
        blocked.len(),
    )
    .expect("a string");
}

/// Of sorted values: the least that so many percent do not exceed.
fn percentile(sorted: &[u128], percent: usize) -> u128 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
