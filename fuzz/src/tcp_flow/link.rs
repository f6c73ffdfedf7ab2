//! A filter and a host behind it, and what the host's application makes of a stream.

use std::{cell::RefCell, env, sync::LazyLock};

use filter_common::{abi::Protocol, abi::feature, hello::Progress, reason::Reason};
use filter_user::{
    host::{HostRunner, Reader, xdp},
    replay::Runner as _,
};

use super::{
    Setup,
    host::LinuxHost,
    runner_of_host,
    segment::{Reply, Segment},
};

/// Whether to print what happens.
static TRACE: LazyLock<bool> = LazyLock::new(|| env::var_os("EDGEFILTER_FUZZ_TRACE").is_some());

thread_local! {
    /// By [`Setup::partial`], [`Setup::fast_open`], [`Setup::server`] and [`Setup::one_sided`].
    static RUNNERS: [RefCell<HostRunner>; 16] = std::array::from_fn(|index| {
        let bit = |number: usize| index >> number & 1 != 0;
        let mut features = if bit(2) {
            feature::SOCKETS
        } else {
            feature::ANSWERS | feature::ANSWERS_ANYWHERE
        };
        for (number, extra) in [
            (0, feature::CHECKSUM_PARTIAL),
            (1, feature::FAST_OPEN),
            (3, feature::ONE_SIDED),
        ] {
            if bit(number) {
                features |= extra;
            }
        }
        RefCell::new(runner_of_host(features))
    });

    static READER: RefCell<Reader> = RefCell::default();
}

/// Runs `with` on a link whose filter has seen nothing yet.
pub(super) fn with_link(setup: Setup, with: impl FnOnce(&mut Link<'_>)) {
    let index = usize::from(setup.partial)
        | usize::from(setup.fast_open) << 1
        | usize::from(setup.server) << 2
        | usize::from(setup.one_sided) << 3;
    RUNNERS.with(|runners| {
        let runner = &mut *runners[index].borrow_mut();
        runner.restart(0);
        if *TRACE {
            eprintln!("{setup:?}");
        }
        with(&mut Link {
            setup,
            runner,
            host: LinuxHost::new(setup),
            waiting: Vec::new(),
            answered: false,
        });
    });
}

/// What becomes of a segment behind the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The host gets it at once.
    Arrives,
    /// The host gets it with the next that arrives, as in one batch of an interface.
    Waits,
    /// It does not come that far, or the host refuses it for a reason that the filter does not know.
    Lost,
}

/// A filter and a host.
pub(super) struct Link<'r> {
    pub(super) setup: Setup,
    runner: &'r mut HostRunner,
    pub(super) host: LinuxHost,
    waiting: Vec<Segment>,
    /// Whether the host has answered the hello.
    answered: bool,
}

impl Link<'_> {
    /// Sends a segment; why it was dropped, if it was.
    pub(super) fn send(&mut self, segment: &Segment, fate: Fate) -> Result<(), Option<Reason>> {
        if self.setup.server {
            self.runner.set_peer(self.host.peer(segment));
        } else {
            self.runner.set_peer(Default::default());
        }
        let (action, reason) = self.judge(&segment.frame(self.setup.port()));
        if *TRACE {
            eprintln!("{fate:?}, action {action} {reason:?}: {segment}");
        }
        if action != xdp::PASS {
            return Err(reason);
        }
        match fate {
            Fate::Lost => {}
            Fate::Waits => self.waiting.push(segment.clone()),
            Fate::Arrives => {
                self.settle();
                self.deliver(segment);
            }
        }
        Ok(())
    }

    /// Whether the host has answered the hello, and so the client has that answer.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// The host gets what waits.
    pub(super) fn settle(&mut self) {
        for segment in std::mem::take(&mut self.waiting) {
            self.deliver(&segment);
        }
    }

    /// The host gets a segment that did not come by the filter.
    pub(super) fn deliver(&mut self, segment: &Segment) {
        if let Some(reply) = self.host.receive(segment) {
            self.reply(&reply);
        }
        if *TRACE {
            eprintln!(
                "    the host has {} bytes, expects {:x}",
                self.host.received(),
                self.host.rcv_nxt()
            );
        }
        if !self.answered && hello(self.setup, &self.host.delivered()).is_some() {
            self.answered = true;
            let answer = self.host.answer();
            self.reply(&answer);
        }
    }

    fn reply(&mut self, reply: &Reply) {
        if !self.setup.server && !self.setup.one_sided {
            self.runner.set_peer(Default::default());
            let (action, reason) = self.judge(&reply.frame(self.setup.port()));
            assert_eq!(action, xdp::PASS, "an answer is dropped: {reason:?}");
        }
    }

    fn judge(&mut self, frame: &[u8]) -> (u32, Option<Reason>) {
        let ran = self
            .runner
            .run(frame)
            .unwrap_or_else(|error| panic!("{error}"));
        (ran.action, Reason::from_u8(ran.outcome.reason))
    }
}

/// The names of the first hello in a stream, if it is complete: a server acts on it. Later ones are another
/// matter.
pub(super) fn hello(setup: Setup, stream: &[u8]) -> Option<Vec<Vec<u8>>> {
    let protocol = if setup.http {
        Protocol::Http
    } else {
        Protocol::Tls
    };
    let read =
        |len: usize| READER.with_borrow_mut(|reader| reader.read(protocol, &stream[..len], true));
    let complete = |progress| matches!(progress, Progress::Named | Progress::NoName);
    let (progress, names) = if setup.http {
        // Ends with a line, behind which another may begin.
        let lines = stream
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n');
        let mut read = lines.map(|(at, _)| read(at + 1));
        read.find(|(progress, _)| *progress != Progress::Incomplete)?
    } else {
        // What is decided once stays decided.
        let (mut incomplete, mut decided) = (0, stream.len());
        while decided - incomplete > 1 {
            let middle = usize::midpoint(incomplete, decided);
            if read(middle).0 == Progress::Incomplete {
                incomplete = middle;
            } else {
                decided = middle;
            }
        }
        read(decided)
    };
    complete(progress).then_some(names)
}

/// Whether a server would serve a blocked name.
pub(super) fn is_blocked(names: &[Vec<u8>]) -> bool {
    names.iter().any(|name| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let host = name.trim().split(':').next().unwrap_or_default();
        let host = host.trim_end_matches('.');
        host == "blocked.example" || host.ends_with(".blocked.example")
    })
}
