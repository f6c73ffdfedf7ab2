//! Rules for other names drop nothing of what the captures show: whole captures, captures joined in
//! the middle, and with every frame twice or overtaken by the next, as networks do.

use std::collections::{HashMap, HashSet};

use etherparse::{LaxSlicedPacket, TransportSlice};
use filter_common::reason::Reason;
use filter_tests::{
    adapter::compiled,
    captures::{captures, read},
    fixtures::Host,
};
use filter_user::{
    compile::{Compiled, Role},
    host::HostRunner,
    replay::{
        Ran, RunError, Runner, Session,
        capture::{Frame, Framing},
    },
};

const DROP: u32 = 1;

/// Frames that a capture is joined behind: all that a handshake and a hello take.
const JOINED_BEHIND_MAX: usize = 12;

/// Frames that come before the second copy of one.
const LATE_BY_MAX: usize = 12;

/// What is held back behind a late copy: an upload goes on without an answer while a late copy of the
/// first segment of its head is taken for the beginning of another request.
const KNOWN_LATE: &[(&str, Reason)] = &[("zeek/http/multipart-form-data.pcap", Reason::HeldBack)];

const POLICY: &str = r#"
version = 1
[[rule]]
id = "others"
hosts = ["nobody.asked.invalid"]
domains = ["others.invalid"]
action = "drop"
"#;

/// Remembers what is dropped and does not pass when it comes again.
struct Watching {
    host: HostRunner,
    dropped: HashMap<Vec<u8>, Reason>,
    passed: HashSet<Vec<u8>>,
    /// Data that has passed, see [`data`].
    delivered: HashSet<(Vec<u8>, Vec<u8>)>,
    copies: Copies,
}

/// What a second copy of a frame that has passed is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// Needed: the first one was lost behind the filter.
    Needed,
    /// Superfluous: the server has it, and has answered.
    Late,
    /// There is none but what the client itself sent again, which is superfluous.
    None,
}

/// Ports, sequence number and payload of a TCP segment: what a receiver that has it ignores when it
/// comes again, whatever its timestamp.
fn data(frame: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return None;
    };
    Some((tcp.slice()[..8].to_vec(), tcp.payload().to_vec()))
}

/// Whether a frame opens a connection. A late copy of it opens another one on the same ports for
/// whoever sees one direction only, as `replay` does of many captures (docs/LIMITS.md).
fn is_syn(frame: &Frame) -> bool {
    let packet = match frame.framing {
        Framing::Ethernet => LaxSlicedPacket::from_ethernet(&frame.bytes).ok(),
        _ => LaxSlicedPacket::from_ip(&frame.bytes).ok(),
    };
    packet.is_some_and(|it| matches!(&it.transport, Some(TransportSlice::Tcp(tcp)) if tcp.syn()))
}

impl Runner for Watching {
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError> {
        let ran = self.host.run(frame)?;
        let data = data(frame);
        let superfluous = match self.copies {
            Copies::Late => self.passed.contains(frame),
            Copies::Needed => false,
            Copies::None => data.as_ref().is_some_and(|it| self.delivered.contains(it)),
        };
        if ran.action == DROP && !superfluous {
            let reason = Reason::from_u8(ran.outcome.reason).expect("a known reason");
            self.dropped.insert(frame.to_vec(), reason);
        } else if ran.action != DROP {
            self.dropped.remove(frame);
            self.passed.insert(frame.to_vec());
            self.delivered.extend(data);
        }
        Ok(ran)
    }
}

/// Reasons of the frames that are dropped for good; and how many names were read.
fn dropped(compiled: &Compiled, frames: Vec<Frame>, copies: Copies) -> (Vec<Reason>, u64) {
    let mut runner = Watching {
        host: HostRunner::new(compiled.clone(), 0),
        dropped: HashMap::new(),
        passed: HashSet::new(),
        delivered: HashSet::new(),
        copies,
    };
    let mut session = Session::new(&mut runner, false);
    for frame in frames {
        session.frame(frame).expect("a frame that can be judged");
    }
    let named = session.finish().summary.named;
    (runner.dropped.into_values().collect(), named)
}

/// Everything inspected on every port of every address.
fn inspecting_any() -> Compiled {
    let mut compiled = compiled(POLICY, &Host::default(), Role::Replay { checksums: false });
    let inspected = compiled.ports[443] | compiled.ports[80];
    compiled.ports.fill(inspected);
    compiled
}

/// Judges every capture in the ways that `vary` makes of it; how many names were read in all.
fn nothing_is_dropped(copies: Copies, vary: impl Fn(&[Frame]) -> Vec<Vec<Frame>>) -> u64 {
    let compiled = inspecting_any();
    let mut wrong = Vec::new();
    let mut names = 0;
    for path in captures() {
        let frames = read(&path);
        for (number, varied) in vary(&frames).into_iter().enumerate() {
            let (mut reasons, named) = dropped(&compiled, varied, copies);
            names += named;
            reasons.retain(|reason| {
                let is_known =
                    |(end, known): &(&str, Reason)| path.ends_with(end) && known == reason;
                copies != Copies::Late || !KNOWN_LATE.iter().any(is_known)
            });
            if !reasons.is_empty() {
                wrong.push(format!("{} {number}: {reasons:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    names
}

#[test]
fn rules_for_other_names_drop_nothing() {
    let names = nothing_is_dropped(Copies::Needed, |frames| vec![frames.to_vec()]);
    assert!(names >= 20, "only {names} names were read");
}

#[test]
fn nor_where_the_filter_begins_in_mid_connection() {
    nothing_is_dropped(Copies::Needed, |frames| {
        let ends = 1..=JOINED_BEHIND_MAX.min(frames.len());
        ends.map(|from| frames[from..].to_vec()).collect()
    });
}

#[test]
fn nor_where_every_frame_comes_twice() {
    let names = nothing_is_dropped(Copies::Needed, |frames| {
        let twice = frames
            .iter()
            .flat_map(|frame| [frame.clone(), frame.clone()]);
        vec![twice.collect()]
    });
    assert!(names >= 20, "only {names} names were read");
}

#[test]
fn nor_behind_late_copies() {
    nothing_is_dropped(Copies::Late, |frames| {
        let late_by = |distance: usize| {
            let mut late = Vec::with_capacity(frames.len() * 2);
            for (at, frame) in frames.iter().enumerate() {
                late.push(frame.clone());
                late.extend(
                    at.checked_sub(distance)
                        .map(|before| frames[before].clone())
                        .filter(|frame| !is_syn(frame)),
                );
            }
            late
        };
        (1..=LATE_BY_MAX).map(late_by).collect()
    });
}

#[test]
fn nor_where_frames_overtake_each_other() {
    nothing_is_dropped(Copies::None, |frames| {
        let swapped = |from: usize| {
            let mut frames = frames.to_vec();
            if let Some(behind) = frames.get_mut(from..) {
                behind.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            frames
        };
        vec![swapped(0), swapped(1)]
    });
}
