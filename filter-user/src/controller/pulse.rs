//! Whether the page's process still does its work: it tells its counts to whoever asks.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::sink::{report::ask, spec::Files};

/// A question to the page's process, until it is answered.
#[derive(Debug)]
pub(super) struct Pulse {
    asked_at: Instant,
    /// `None` if not even the question was taken.
    question: Option<UnixStream>,
}

impl Pulse {
    /// Asks, and waits for nothing.
    pub(super) fn ask(files: &Files) -> Self {
        Self {
            asked_at: Instant::now(),
            question: ask(files).ok(),
        }
    }

    /// How long it has not answered; `None` once it has.
    pub(super) fn silence(&mut self) -> Option<Duration> {
        let mut byte = [0];
        let answered = match &mut self.question {
            // An end without an answer is one that the process has made: it is at work.
            Some(question) => match question.read(&mut byte) {
                Ok(_) => true,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            },
            None => false,
        };
        (!answered).then(|| self.asked_at.elapsed())
    }

    /// Asks again if the question was not even taken; since when it waits stays.
    pub(super) fn insist(&mut self, files: &Files) {
        if self.question.is_none() {
            self.question = ask(files).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn an_answer_ends_the_silence_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(directory.path());
        fs::create_dir(files.directory()).unwrap();
        let mut pulse = Pulse::ask(&files);
        assert!(pulse.silence().is_some(), "nobody listens");
        let listener = UnixListener::bind(files.stats()).unwrap();
        assert!(pulse.silence().is_some(), "nobody was asked");
        pulse.insist(&files);
        assert!(pulse.silence().is_some(), "nobody has answered");
        let (mut asked, _) = listener.accept().unwrap();
        assert!(pulse.silence().is_some());
        asked.write_all(b"{}").unwrap();
        assert_eq!(pulse.silence(), None);
    }

    #[test]
    fn asking_does_not_wait_for_a_process_that_accepts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(directory.path());
        fs::create_dir(files.directory()).unwrap();
        let _listener = UnixListener::bind(files.stats()).unwrap();
        let mut asked: Vec<Pulse> = Vec::new();
        while asked.iter().all(|pulse| pulse.question.is_some()) {
            assert!(asked.len() < 100_000, "a listener's queue has an end");
            asked.push(Pulse::ask(&files));
        }
        assert!(asked.iter_mut().all(|pulse| pulse.silence().is_some()));
    }
}
