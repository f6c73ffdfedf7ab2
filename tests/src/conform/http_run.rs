//! The table of [`super::http`] against one server, without the filter and with it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    ALLOWED, BLOCKED,
    connection::Connection,
    cut::Cut,
    each,
    http::{Trick, describe, is_for_blocked, tricks},
    report::Row,
    station::Station,
};

/// How long a server may take to answer, and how long it is silent when it has.
const ANSWER_MAX: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(60);

/// A server, the way there, and what it is to answer.
#[derive(Debug)]
pub struct HttpStage<'a> {
    /// The client.
    pub station: &'a Station,
    /// The server's address and port.
    pub server: SocketAddr,
    /// Its column of the truth.
    pub truth: fn(&Trick) -> &'static str,
    /// Whether every cut is tried.
    pub all: bool,
}

/// What the server said without the filter: for each trick and cut, asked for the allowed name and
/// for the blocked one.
#[derive(Debug)]
pub struct Unfiltered {
    allowed: Vec<String>,
    blocked: Vec<String>,
}

impl HttpStage<'_> {
    fn attempts(&self) -> Vec<(Trick, Cut)> {
        let cuts = Cut::set(self.all);
        let all_cuts = |trick: Trick| cuts.iter().map(move |cut| (trick, *cut));
        tricks().into_iter().flat_map(all_cuts).collect()
    }

    fn ask(&self, attempts: &[(Trick, Cut)], name: &str) -> Vec<String> {
        each(attempts, |(trick, cut)| {
            let opened = Connection::open(self.station, self.server, &[], true);
            let Some(mut connection) = opened else {
                return "no connection".to_owned();
            };
            let mut stream = Vec::new();
            for turn in (trick.turns)(name) {
                connection.say(&mut stream, &cut.pieces(&turn, name));
                connection.settle(QUIET, ANSWER_MAX);
            }
            describe(connection.answer())
        })
    }

    /// Asks without the filter.
    ///
    /// # Panics
    /// If the server does not answer as was measured.
    pub fn unfiltered(&self) -> Unfiltered {
        let attempts = self.attempts();
        let blocked = self.ask(&attempts, BLOCKED);
        let mut wrong = Vec::new();
        for ((trick, cut), said) in attempts.iter().zip(&blocked) {
            let truth = (self.truth)(trick);
            // HAProxy's log of the measurements is in lower case.
            // What arrives in pieces HAProxy may refuse at an early one.
            if *cut == Cut::Whole && !said.eq_ignore_ascii_case(truth) {
                wrong.push(format!("{} ({cut:?}): {said:?}, not {truth:?}", trick.name));
            }
        }
        assert!(wrong.is_empty(), "not what was measured: {wrong:#?}");
        Unfiltered {
            allowed: self.ask(&attempts, ALLOWED),
            blocked,
        }
    }

    /// Asks with the filter in place and compares.
    pub fn filtered(&self, unfiltered: &Unfiltered) -> Vec<Row> {
        let start = Instant::now();
        let attempts = self.attempts();
        let mut allowed = self.ask(&attempts, ALLOWED);
        let blocked = self.ask(&attempts, BLOCKED);
        // Once more: a busy machine may take longer than the client persists.
        let missing: Vec<usize> = (0..attempts.len())
            .filter(|index| allowed[*index] != unfiltered.allowed[*index])
            .collect();
        let again: Vec<_> = missing.iter().map(|index| attempts[*index]).collect();
        for (index, said) in missing.iter().zip(self.ask(&again, ALLOWED)) {
            allowed[*index] = said;
        }
        let cuts = Cut::set(self.all).len();
        let rows = attempts.chunks(cuts).enumerate().map(|(row, attempts)| {
            let trick = &attempts[0].0;
            let mut obtained = Vec::new();
            let mut withheld = Vec::new();
            for (offset, (_, cut)) in attempts.iter().enumerate() {
                let index = row * cuts + offset;
                if is_for_blocked(&blocked[index]) {
                    obtained.push(format!("{cut:?}: {}", blocked[index]));
                }
                let answered = unfiltered.allowed[index].starts_with(['2', ' ', 'h']);
                if answered && allowed[index] != unfiltered.allowed[index] {
                    withheld.push(format!("{cut:?}: {}", allowed[index]));
                }
                if trick.beside && blocked[index] != unfiltered.blocked[index] {
                    withheld.push(format!("{cut:?}, name beside: {}", blocked[index]));
                }
            }
            Row {
                name: trick.name.to_owned(),
                truth: (self.truth)(trick).to_owned(),
                obtained,
                withheld,
            }
        });
        let rows = rows.collect();
        println!("with the filter: {:?}", start.elapsed());
        rows
    }
}
