//! The table of [`super::tls`] against one server, without the filter and with it.

use std::{
    fmt,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use super::{
    ALLOWED, BLOCKED,
    connection::Connection,
    cut::Cut,
    each,
    report::Row,
    station::Station,
    tls::{Trick, agrees, describe, is_blocked, tricks},
};

/// How long a server is silent when it has answered.
const QUIET: Duration = Duration::from_millis(40);
/// Rounds and connections of each round before anything is measured.
const WARM_UPS: usize = 3;
const TOGETHER_WARM: usize = 4;
/// Until what a server process printed can be read.
const LOG_DELAY: Duration = Duration::from_millis(300);

/// A server and the way there.
pub struct TlsStage<'a> {
    /// The client.
    pub station: &'a Station,
    /// The server's address and port.
    pub server: SocketAddr,
    /// The names that it saw from a client port.
    pub names_from: &'a (dyn Fn(u16) -> Vec<String> + Sync),
    /// Its column of the truth.
    pub truth: fn(&Trick) -> &'static str,
    /// Whether the reply is part of it.
    pub replies: bool,
    /// How long the server may take to answer.
    pub answer_max: Duration,
    /// Whether every cut is tried.
    pub all: bool,
}

impl fmt::Debug for TlsStage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStage")
            .field("server", &self.server)
            .finish()
    }
}

/// What a server did.
#[derive(Clone, Debug)]
struct Said {
    names: Vec<String>,
    text: String,
}

/// What the server did without the filter, for each trick and cut.
#[derive(Debug)]
pub struct Unfiltered {
    allowed: Vec<Said>,
}

impl TlsStage<'_> {
    fn attempts(&self) -> Vec<(Trick, Cut)> {
        let cuts = Cut::set(self.all);
        let all_cuts = |trick: Trick| cuts.iter().map(move |cut| (trick, *cut));
        tricks().into_iter().flat_map(all_cuts).collect()
    }

    fn ask(&self, attempts: &[(Trick, Cut)], name: &str) -> Vec<Said> {
        let answers = each(attempts, |(trick, cut)| {
            let opened = Connection::open(self.station, self.server, &[], true);
            let Some(mut connection) = opened else {
                return (0, Vec::new());
            };
            let mut stream = Vec::new();
            for turn in (trick.turns)(name) {
                let cut = trick.cut.unwrap_or(*cut);
                connection.say(&mut stream, &cut.pieces(&turn, name));
                connection.settle(QUIET, self.answer_max);
            }
            (connection.local().port(), connection.answer().to_vec())
        });
        thread::sleep(LOG_DELAY);
        let said = answers.into_iter().map(|(port, answer)| {
            let names = (self.names_from)(port);
            let text = describe(&names, &answer);
            Said { names, text }
        });
        said.collect()
    }

    /// Asks without the filter.
    ///
    /// # Panics
    /// If the server does not answer as was measured.
    pub fn unfiltered(&self) -> Unfiltered {
        let attempts = self.attempts();
        // A server's first connections find its code cold.
        for _ in 0..WARM_UPS {
            self.ask(&attempts[..TOGETHER_WARM], BLOCKED);
        }
        let mut wrong = Vec::new();
        for ((trick, cut), said) in attempts.iter().zip(self.ask(&attempts, BLOCKED)) {
            let truth = (self.truth)(trick);
            let holds = if self.replies {
                agrees(&said.text, truth)
            } else {
                let name = truth.split('/').next().unwrap_or_default();
                matches!(name, "…" | "*") || describe(&said.names, b"") == format!("{name}/none")
            };
            if !holds {
                wrong.push(format!(
                    "{} ({cut:?}): {}, not {truth}",
                    trick.name, said.text
                ));
            }
        }
        assert!(wrong.is_empty(), "not what was measured: {wrong:#?}");
        Unfiltered {
            allowed: self.ask(&attempts, ALLOWED),
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
            .filter(|index| allowed[*index].text != unfiltered.allowed[*index].text)
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
                if is_blocked(&blocked[index].names) {
                    obtained.push(format!("{cut:?}: {}", blocked[index].text));
                }
                let (before, now) = (&unfiltered.allowed[index].text, &allowed[index].text);
                if before.ends_with("/SH") && now != before {
                    withheld.push(format!("{cut:?}: {now}"));
                }
            }
            Row {
                name: trick.name.to_owned(),
                truth: unfiltered.allowed[row * cuts].text.clone(),
                obtained,
                withheld,
            }
        });
        let rows = rows.collect();
        println!("with the filter: {:?}", start.elapsed());
        rows
    }
}
