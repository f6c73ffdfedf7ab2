//! The table of [`super::host`] played against a recorder, without the filter and with it.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    ALLOWED, BLOCKED, NEUTRAL,
    connection::{BURST, Connection},
    each,
    host::{Place, Text, Trick, tricks},
    recorder::Recorder,
    report::Row,
    scene::Scene,
    station::Station,
};
use crate::packet::tls::ClientHello;

/// The first bytes of the client's random in a record.
const CLIENT_RANDOM: Range<usize> = 11..19;

/// Port of the recorder.
const PORT: u16 = 443;

/// Where the hello is cut: before, inside or behind its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Before,
    Inside,
    Behind,
}

const CUTS: [Cut; 3] = [Cut::Inside, Cut::Before, Cut::Behind];

/// What is sent: the name that is meant and that of the decoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    real: &'static str,
    fake: &'static str,
}

/// A hello with the name in the middle. Those of two names have the same length and differ before
/// the name, in it and behind it.
fn hello(name: &str) -> Vec<u8> {
    let mut hello = ClientHello::new()
        .padding(40)
        .sni(name)
        .alpn(&[name])
        .record();
    hello[CLIENT_RANDOM].copy_from_slice(&name.as_bytes()[..8]);
    hello
}

fn name_at(hello: &[u8], name: &str) -> usize {
    hello
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .expect("the hello has its name")
}

#[derive(Clone, Copy)]
struct Attempt<'t> {
    trick: &'t Trick,
    names: Names,
    cut: Cut,
}

struct Outcome {
    /// The client's address; none if no server answered.
    from: Option<SocketAddr>,
    cut: usize,
}

/// A recorder on [`PORT`] and the way there.
#[derive(Debug)]
struct Stage<'a> {
    scene: &'a Scene,
    station: Station,
    recorder: Recorder,
}

impl Stage<'_> {
    fn open(&self, attempt: &Attempt) -> Option<Connection<'_>> {
        let Attempt { trick, names, .. } = attempt;
        let address = if trick.v6 {
            self.scene.v6()
        } else {
            self.scene.v4()
        };
        let remote = SocketAddr::new(address.parse().expect("an address"), PORT);
        let fake = hello(names.fake);
        let syn_payload = if trick.syn_payload { &fake[..] } else { &[] };
        Connection::open(&self.station, remote, syn_payload, !trick.late_confirm)
    }

    fn play(&self, attempt: &Attempt, connection: Option<Connection>, persist: bool) -> Outcome {
        let Attempt { trick, names, cut } = attempt;
        let (real, fake) = (hello(names.real), hello(names.fake));
        let name = name_at(&real, names.real);
        let cut = match cut {
            Cut::Before => name - 3,
            Cut::Inside => name + 4,
            Cut::Behind => name + names.real.len() + 1,
        };
        let Some(mut connection) = connection else {
            return Outcome { from: None, cut };
        };
        for step in trick.steps {
            let pieces = trick.pieces(step, &real, &fake, cut);
            for (index, (at, bytes)) in pieces.into_iter().enumerate() {
                if index % BURST == BURST - 1 {
                    connection.listen(Duration::from_millis(1));
                }
                let place = Place {
                    at: at.max(0) as usize,
                    len: bytes.len(),
                    cut,
                };
                let mut packet = connection.segment(0, &bytes).shift_seq(at);
                if step.text == Text::Real {
                    packet = (trick.manner)(packet, place);
                }
                packet = (step.bend)(packet, place);
                let frames = match step.text {
                    Text::Real => (trick.wrap)(packet),
                    Text::Fake => vec![packet.build()],
                };
                connection.send(&frames);
            }
        }
        if persist {
            let again = |packet, at, len| {
                let place = Place { at, len, cut };
                (trick.again)((trick.manner)(packet, place), place)
            };
            connection.persist(&trick.stream(&real, cut), again, trick.wrap);
        }
        connection.listen(Duration::from_millis(60));
        Outcome {
            from: Some(connection.local()),
            cut,
        }
    }

    /// Plays on connections that are opened now.
    fn play_all(&self, attempts: &[Attempt], persist: bool) -> Vec<(Outcome, Vec<u8>)> {
        let outcomes = each(attempts, |attempt| {
            self.play(attempt, self.open(attempt), persist)
        });
        self.with_received(outcomes)
    }

    /// Plays on connections that were opened before.
    fn play_late(&self, opened: &[Opened]) -> Vec<(Outcome, Vec<u8>)> {
        let outcomes = each(opened, |(attempt, connection)| {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            self.play(attempt, connection.take(), true)
        });
        self.with_received(outcomes)
    }

    fn with_received(&self, outcomes: Vec<Outcome>) -> Vec<(Outcome, Vec<u8>)> {
        // What is received at last need not be written down yet.
        thread::sleep(Duration::from_millis(150));
        let received = |outcome: &Outcome| match outcome.from {
            Some(from) => self.recorder.received(from),
            None => Vec::new(),
        };
        outcomes
            .into_iter()
            .map(|outcome| {
                let received = received(&outcome);
                (outcome, received)
            })
            .collect()
    }

    /// Connections for every trick that has nothing to do with how they are opened.
    fn open_early<'s, 't>(&'s self, tricks: &'t [Trick], names: Names) -> Vec<Opened<'s, 't>> {
        let attempts: Vec<_> = attempts(tricks, names)
            .into_iter()
            .filter(|it| it.cut == Cut::Inside && it.trick.opens_plainly())
            .collect();
        each(&attempts, |attempt| {
            (*attempt, Mutex::new(self.open(attempt)))
        })
    }
}

/// A connection that waits for its trick.
type Opened<'s, 't> = (Attempt<'t>, Mutex<Option<Connection<'s>>>);

/// Whether a server could answer this: all hellos here have the same length.
fn is_complete(received: &[u8]) -> bool {
    received.len() >= hello(ALLOWED).len()
}

/// Whether these bytes begin with a complete hello of this name.
fn is_hello_of(name: &str, received: &[u8]) -> bool {
    let hello = hello(name);
    let at = name_at(&hello, name);
    received.len() >= hello.len() && received.get(at..at + name.len()) == Some(name.as_bytes())
}

fn attempts(tricks: &[Trick], names: Names) -> Vec<Attempt<'_>> {
    tricks
        .iter()
        .flat_map(|trick| CUTS.map(|cut| Attempt { trick, names, cut }))
        .collect()
}

const ONLY_ALLOWED: Names = Names {
    real: ALLOWED,
    fake: NEUTRAL,
};
const BLOCKED_BEHIND_DECOY: Names = Names {
    real: BLOCKED,
    fake: ALLOWED,
};
const BLOCKED_AS_DECOY: Names = Names {
    real: ALLOWED,
    fake: BLOCKED,
};

/// What became of every row.
#[derive(Debug)]
pub struct Rows {
    /// On connections that were opened with the filter in place.
    pub opened_behind: Vec<Row>,
    /// On connections that had been opened, and been silent, when the filter started.
    pub opened_before: Vec<Row>,
}

/// Runs the whole table without the filter, then with it. Under SYN cookies nothing but the data
/// itself brings the host its cookie.
///
/// # Panics
/// If a connection cannot be opened, or without the filter the host itself receives something else
/// than was measured; a router in between may change that.
pub fn run(scene: &Scene) -> Rows {
    let start = Instant::now();
    let stage = &Stage {
        scene,
        station: scene.station(),
        recorder: Recorder::start(scene.servers(), PORT),
    };
    let mut tricks = tricks();
    for trick in &mut tricks {
        trick.late_confirm |= scene.uses_cookies();
    }
    let allowed = attempts(&tricks, ONLY_ALLOWED);
    let truths = truths(stage, &allowed, scene.is_as_measured());
    let without = stage.play_all(&allowed, true);
    println!("without the filter: {:?}", start.elapsed());

    // Twice what may pass by the loss of a decoy.
    let late: Vec<_> = [
        ONLY_ALLOWED,
        ONLY_ALLOWED,
        BLOCKED_BEHIND_DECOY,
        BLOCKED_BEHIND_DECOY,
        BLOCKED_AS_DECOY,
    ]
    .map(|names| stage.open_early(&tricks, names))
    .into_iter()
    .flatten()
    .collect();
    let _edge = scene.enforce("");
    let late = late_rows(&late, stage.play_late(&late));
    let mut rows: Vec<Row> = tricks
        .iter()
        .zip(truths.chunks(CUTS.len()))
        .map(|(trick, truths)| Row::new(trick.name, &truths[0]))
        .collect();
    // Twice: a busy machine may take longer than the client persists.
    let mut expected: Vec<usize> = (0..allowed.len())
        .filter(|index| is_complete(&without[*index].1))
        .collect();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let attempts: Vec<Attempt> = expected.iter().map(|index| allowed[*index]).collect();
        seen = stage.play_all(&attempts, true);
        let served: Vec<bool> = seen.iter().map(|(_, got)| is_complete(got)).collect();
        keep_unless(&mut expected, &served);
        keep_unless(&mut seen, &served);
    }
    for (index, (outcome, received)) in expected.iter().zip(&seen) {
        let (cut, len) = (allowed[*index].cut, received.len());
        let what = if outcome.from.is_some() {
            format!("{cut:?}: {len} bytes")
        } else {
            format!("{cut:?}: no connection")
        };
        rows[index / CUTS.len()].withheld.push(what);
    }
    for names in [BLOCKED_BEHIND_DECOY, BLOCKED_AS_DECOY] {
        let attempts = attempts(&tricks, names);
        for (index, (_, received)) in stage.play_all(&attempts, true).iter().enumerate() {
            if is_hello_of(BLOCKED, received) {
                let cut = attempts[index].cut;
                let what = format!("{cut:?} of {}, decoy {}", names.real, names.fake);
                rows[index / CUTS.len()].obtained.push(what);
            }
        }
    }
    println!("everything: {:?}", start.elapsed());
    Rows {
        opened_behind: rows,
        opened_before: late,
    }
}

/// Rows of connections that were opened early.
fn late_rows(opened: &[Opened], seen: Vec<(Outcome, Vec<u8>)>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for ((attempt, _), (_, received)) in opened.iter().zip(seen) {
        let Attempt { trick, names, .. } = attempt;
        let row = match rows.iter_mut().find(|row| row.name == trick.name) {
            Some(row) => row,
            None => {
                rows.push(Row::new(trick.name, trick.truth));
                rows.last_mut().expect("the row just pushed")
            }
        };
        let blocked = is_hello_of(BLOCKED, &received);
        if blocked {
            let what = format!("{}, decoy {}", names.real, names.fake);
            row.obtained.push(what);
        }
        if *names == ONLY_ALLOWED && !trick.truth.is_empty() && !is_complete(&received) {
            row.withheld.push(format!("{} bytes", received.len()));
        }
    }
    rows
}

/// What the application receives of each attempt without the filter and without retransmission.
/// Tried again where it is not what was measured: on a busy machine a frame may get lost.
fn truths(stage: &Stage, attempts: &[Attempt], check: bool) -> Vec<String> {
    const TRIES: usize = 3;
    let mut truths = vec![String::new(); attempts.len()];
    let mut open: Vec<usize> = (0..attempts.len()).collect();
    for _ in 0..TRIES {
        let again: Vec<Attempt> = open.iter().map(|index| attempts[*index]).collect();
        let mut holds = Vec::new();
        for (index, (outcome, received)) in open.iter().zip(stage.play_all(&again, false)) {
            let Trick { name, truth, .. } = attempts[*index].trick;
            assert!(outcome.from.is_some(), "{name}: no connection");
            let (real, fake) = (hello(ALLOWED), hello(NEUTRAL));
            let seen = Trick::describe(&real, &fake, outcome.cut, &received);
            holds.push(!check || truth.split(" or ").any(|truth| truth == seen));
            truths[*index] = seen;
        }
        keep_unless(&mut open, &holds);
    }
    let wrong: Vec<String> = open
        .iter()
        .map(|index| {
            let Attempt { trick, cut, .. } = &attempts[*index];
            let seen = &truths[*index];
            format!("{} ({cut:?}): {seen:?}, not {:?}", trick.name, trick.truth)
        })
        .collect();
    assert!(wrong.is_empty(), "not what was measured: {wrong:#?}");
    truths
}

fn keep_unless<T>(items: &mut Vec<T>, dropped: &[bool]) {
    let mut dropped = dropped.iter();
    items.retain(|_| !dropped.next().is_some_and(|dropped| *dropped));
}
