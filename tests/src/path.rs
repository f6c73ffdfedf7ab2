//! A bad path between two interfaces: frames of TCP are delayed, lost and reordered.
//!
//! What becomes of a frame depends on the seed, its ports and how many frames of that connection
//! went the same way before it, not on what other connections do: with the same seed and ports a
//! connection meets the same path again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    foreign::ForeignProgram,
    frames::FrameSocket,
    mutate::Random,
    net::{Namespace, Offload, report, set_offload},
};

/// Interfaces in the middle.
const LEFT: &str = "left";
const RIGHT: &str = "right";

/// Longest wait before a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// How bad a path is, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Chooses what becomes of which frame.
    pub seed: u64,
    /// Frames lost, of a hundred.
    pub lost_percent: u64,
    /// Frames held back so that later ones overtake them, of a hundred.
    pub reordered_percent: u64,
    /// How long every frame takes.
    pub delay: Duration,
    /// How much longer a frame takes that is held back, at most.
    pub detour_max: Duration,
}

/// What became of the frames of TCP so far, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// All of them.
    pub frames: u64,
    /// Those lost.
    pub lost: u64,
    /// Those held back.
    pub reordered: u64,
}

/// A running path. Dropping it removes it.
#[derive(Debug)]
pub struct Path {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    receives: Vec<ForeignProgram>,
    between: Namespace,
}

#[derive(Debug, Default)]
struct Tally {
    frames: AtomicU64,
    lost: AtomicU64,
    reordered: AtomicU64,
}

impl Path {
    /// Joins an interface of one namespace to one of another, both made here, over the path.
    /// Their offloads are off: frames go over the path as they would over a cable.
    pub fn between(
        near: &Namespace,
        near_interface: &str,
        far: &Namespace,
        far_interface: &str,
        weather: Weather,
    ) -> Self {
        let between = Namespace::new("path");
        between.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        for (namespace, interface, end) in
            [(near, near_interface, LEFT), (far, far_interface, RIGHT)]
        {
            namespace.veth(interface, &between, end);
            for offload in [Offload::TransmitChecksum, Offload::Segmentation] {
                set_offload(namespace, interface, offload, false);
            }
        }
        let [left, right] =
            [LEFT, RIGHT].map(|end| Arc::new(FrameSocket::receiving(&between, end)));
        let tally = Arc::<Tally>::default();
        let stop = Arc::<AtomicBool>::default();
        let threads = [(&left, &right), (&right, &left)]
            .into_iter()
            .map(|(from, to)| {
                let mut lane = Lane {
                    from: Arc::clone(from),
                    to: Arc::clone(to),
                    weather,
                    tally: Arc::clone(&tally),
                    turns: HashMap::new(),
                };
                let stop = Arc::clone(&stop);
                thread::spawn(move || lane.carry(&stop))
            })
            .collect();
        Self {
            tally,
            stop,
            threads,
            receives: Vec::new(),
            between,
        }
    }

    /// Has the path take what a program on an interface sends back, too: on a veth that arrives only if the other
    /// end has a program as well.
    pub fn takes_answers(&mut self) {
        self.receives = [LEFT, RIGHT]
            .map(|end| ForeignProgram::attach(&self.between, end))
            .into();
    }

    /// What became of the frames so far.
    pub fn carried(&self) -> Carried {
        Carried {
            frames: self.tally.frames.load(Ordering::Relaxed),
            lost: self.tally.lost.load(Ordering::Relaxed),
            reordered: self.tally.reordered.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                errors.push("a thread panicked".to_owned());
            }
        }
        report("path", &errors);
    }
}

/// One direction.
struct Lane {
    from: Arc<FrameSocket>,
    to: Arc<FrameSocket>,
    weather: Weather,
    tally: Arc<Tally>,
    /// Frames so far, by connection.
    turns: HashMap<(u16, u16), u64>,
}

impl Lane {
    fn carry(&mut self, stop: &AtomicBool) {
        let mut under_way = BinaryHeap::new();
        let mut serial = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let wait = self.deliver(&mut under_way);
            let Some(mut frame) = self.from.receive(wait, |_| true) else {
                continue;
            };
            frame.shrink_to_fit();
            if let Some(detour) = self.fate(&frame) {
                let due = Instant::now() + self.weather.delay + detour;
                under_way.push(Reverse((due, serial, frame)));
                serial += 1;
            }
        }
    }

    /// Sends what is due; until when the next frame is.
    fn deliver(&self, under_way: &mut BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>) -> Duration {
        loop {
            let Some(Reverse((due, _, _))) = under_way.peek() else {
                return LOOK;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return wait.min(LOOK);
            }
            if let Some(Reverse((_, _, frame))) = under_way.pop() {
                self.to.send(&frame);
            }
        }
    }

    /// By how much a frame is late; `None` if it is lost.
    fn fate(&mut self, frame: &[u8]) -> Option<Duration> {
        let Some(ports) = tcp_ports(frame) else {
            return Some(Duration::ZERO);
        };
        let turn = self.turns.entry(ports).or_default();
        *turn += 1;
        let numbers = [u64::from(ports.0), u64::from(ports.1), *turn];
        let mut random = Random::new(numbers.into_iter().fold(self.weather.seed, scrambled));
        let percent = random.number() % 100;
        let Weather {
            lost_percent,
            reordered_percent,
            detour_max,
            ..
        } = self.weather;
        self.tally.frames.fetch_add(1, Ordering::Relaxed);
        if percent < lost_percent {
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if percent >= lost_percent + reordered_percent {
            return Some(Duration::ZERO);
        }
        self.tally.reordered.fetch_add(1, Ordering::Relaxed);
        // Never so little that nothing can overtake.
        let least = detour_max / 4;
        Some(least + (detour_max - least).mul_f64((random.number() % 1_000) as f64 / 1_000.0))
    }
}

/// `splitmix64` of both (Steele, Lea, Flood 2014): neighbouring numbers become unlike ones.
fn scrambled(state: u64, number: u64) -> u64 {
    let mut mixed = (state ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Source and destination port, if the frame is TCP behind a plain IP header.
fn tcp_ports(frame: &[u8]) -> Option<(u16, u16)> {
    let (protocol, tcp) = match frame.get(12..14)? {
        [0x08, 0x00] => (frame.get(23)?, 14 + usize::from(frame.get(14)? & 0x0F) * 4),
        [0x86, 0xDD] => (frame.get(20)?, 54),
        _ => return None,
    };
    if i32::from(*protocol) != libc::IPPROTO_TCP {
        return None;
    }
    let ports = frame.get(tcp..tcp + 4)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some((port(0), port(2)))
}
