//! The host build and the program in the kernel say the same about whole captures: everything
//! that either keeps of streams counts, frame after frame, and so the report of a replay is one.
//! Captures as they are, and with frames bent, dropped, repeated, reordered and cut short.

use filter_tests::{
    adapter::compiled,
    captures::{captures, read},
    fixtures::Host,
    mutate::{Random, mutate},
};
use filter_user::{
    compile::{Compiled, Role},
    host::{HostRunner, parity},
    replay::{
        KernelRunner, Ran, RunError, Runner, Session,
        capture::{Frame, Framing},
    },
};

const MUTATED: usize = 200;
const MUTATED_ALL: usize = 5_000;
const SEED: u64 = 0x0EDF_0000_2026_0101;
/// Captures that one pair of runners judges: their streams meet, and none is evicted, which the two
/// builds do in different orders.
const CAPTURES_PER_PAIR: usize = 25;
/// Frames of one mutated capture at most.
const FRAMES_MAX: usize = 120;

/// Hits part of what the captures contain, in every way.
const POLICY: &str = r#"
version = 1
[[rule]]
id = "names"
hosts = ["go124.test.example", "localhost", "vk.com"]
domains = ["firefox153.test.example", "google.com", "mozilla.org"]
action = "drop"
[[rule]]
id = "seen-names"
domains = ["test.example", "bro.org"]
action = "observe"
[[rule]]
id = "one-port"
hosts = ["java25.test.example"]
ports = [8443]
action = "drop"
[[rule]]
id = "origins"
origins = ["198.18.0.0/16", "2001:db8:bad::/48"]
action = "observe"
"#;

/// Both builds as one runner, which fails where they differ.
struct Both {
    kernel: KernelRunner,
    host: HostRunner,
}

impl Both {
    fn load(compiled: &Compiled) -> Self {
        Self {
            kernel: KernelRunner::load(compiled).unwrap_or_else(|e| panic!("{e}")),
            host: HostRunner::new(compiled.clone(), 0),
        }
    }
}

impl Runner for Both {
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError> {
        parity::check(&mut self.kernel, &mut self.host, frame).map_err(|error| match error {
            parity::ParityError::Run {
                source: too_long @ RunError::TooLong { .. },
                ..
            } => too_long,
            error => RunError::Failed(Box::new(error)),
        })
    }
}

#[test]
fn captures_get_one_report() {
    let compiled = inspecting_any(Role::Replay { checksums: false });
    let captures = captures();
    let mut frames = 0;
    for some in captures.chunks(CAPTURES_PER_PAIR) {
        let mut both = Both::load(&compiled);
        for path in some {
            frames += judged(&mut both, false, read(path), &path.display().to_string());
        }
    }
    println!("{} captures, {frames} frames", captures.len());
}

#[test]
fn bent_captures_get_one_report() {
    bent(false, SEED);
}

#[test]
fn bent_captures_get_one_report_when_checksums_are_judged() {
    bent(true, SEED + 2);
}

fn bent(checksums: bool, seed: u64) {
    let compiled = inspecting_any(Role::Replay { checksums });
    let captures: Vec<_> = captures()
        .iter()
        .map(|path| (path.clone(), read(path)))
        .filter(|(_, frames)| !frames.is_empty())
        .collect();
    let all = std::env::var_os("EDGEFILTER_TEST_ALL").is_some_and(|value| value == "1");
    let count = if all { MUTATED_ALL } else { MUTATED };
    let mut random = Random::new(seed);
    let mut both = Both::load(&compiled);
    let mut frames = 0;
    for round in 0..count {
        if round % CAPTURES_PER_PAIR == CAPTURES_PER_PAIR - 1 {
            both = Both::load(&compiled);
        }
        let (path, capture) = &captures[random.below(captures.len())];
        let start = random.below(capture.len().saturating_sub(FRAMES_MAX) + 1);
        let end = (start + FRAMES_MAX).min(capture.len());
        let bent = bend(&capture[start..end], &mut random);
        let what = format!("mutation {round} (seed {seed:#x}) of {}", path.display());
        frames += judged(&mut both, checksums, bent, &what);
    }
    println!("{count} mutated captures, {frames} frames");
}

/// Replays frames through both; how many there were.
fn judged(both: &mut Both, checksums: bool, frames: Vec<Frame>, what: &str) -> usize {
    let count = frames.len();
    let mut session = Session::new(both, checksums);
    for (at, frame) in frames.into_iter().enumerate() {
        session
            .frame(frame)
            .unwrap_or_else(|error| panic!("{what}, frame {}: {error}", at + 1));
    }
    let summary = session.finish().summary;
    assert_eq!(summary.frames, count as u64);
    count
}

/// A capture with some of its frames bent, dropped, repeated, moved or cut short.
fn bend(capture: &[Frame], random: &mut Random) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(capture.len() * 2);
    for frame in capture {
        match random.below(24) {
            0 => {}
            1 => frames.extend([frame.clone(), frame.clone()]),
            2 | 3 => {
                let other = &capture[random.below(capture.len())];
                frames.push(Frame {
                    bytes: mutate(&frame.bytes, &other.bytes, random),
                    ..frame.clone()
                });
            }
            4 => {
                let mut short = frame.clone();
                short.bytes.truncate(random.below(frame.bytes.len() + 1));
                frames.push(short);
            }
            5 => {
                let again = &capture[random.below(capture.len())];
                frames.extend([frame.clone(), again.clone()]);
            }
            6 | 7 => {
                let at = frames.len() - random.below(frames.len().min(4) + 1);
                frames.insert(at, frame.clone());
            }
            8 | 9 => frames.extend(resegmented(frame, random)),
            _ => frames.push(frame.clone()),
        }
    }
    frames
}

/// A TCP segment over IPv4 in two, now and then overlapping; any other frame as it is.
fn resegmented(frame: &Frame, random: &mut Random) -> Vec<Frame> {
    const IP: usize = 14;
    const TCP: usize = IP + 20;
    let bytes = &frame.bytes;
    let plain = frame.framing == Framing::Ethernet
        && bytes.len() > TCP + 20
        && bytes[12..15] == [0x08, 0x00, 0x45]
        && bytes[IP + 9] == 6;
    let payload = TCP + bytes.get(TCP + 12).map_or(0, |byte| usize::from(byte >> 4)) * 4;
    if !plain || payload + 2 > bytes.len() {
        return vec![frame.clone()];
    }
    let len = bytes.len() - payload;
    let cut = 1 + random.below(len - 1);
    let again = random.below(4).min(cut) * random.below(2);
    let piece = |from: usize, to: usize| {
        let mut piece = bytes[..payload].to_vec();
        piece.extend_from_slice(&bytes[payload + from..payload + to]);
        let total = (piece.len() - IP) as u16;
        piece[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        let seq = u32::from_be_bytes([
            bytes[TCP + 4],
            bytes[TCP + 5],
            bytes[TCP + 6],
            bytes[TCP + 7],
        ]);
        let seq = seq.wrapping_add(from as u32);
        piece[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
        Frame {
            wire_len: piece.len() as u32,
            bytes: piece,
            ..frame.clone()
        }
    };
    vec![piece(0, cut), piece(cut - again, len)]
}

/// The policy above, everything inspected on every port.
fn inspecting_any(role: Role) -> Compiled {
    let mut compiled = compiled(POLICY, &Host::default(), role);
    let inspected = compiled.ports[443] | compiled.ports[80];
    compiled.ports.fill(inspected);
    compiled
}
