//! A stream in several segments comes to what it comes to in one.

use std::cell::RefCell;

use filter_common::reason::Reason;
use filter_tests::packet::{Packet, flag};
use filter_user::{
    compile::Role,
    host::HostRunner,
    replay::{Ran, Runner as _},
};

use crate::input::Input;

const START: u32 = 0xffff_ff00;
const VISITOR: &str = "192.0.2.7:40000";

thread_local! {
    static RUNNER: RefCell<HostRunner> =
        RefCell::new(super::runner(Role::Replay { checksums: false }));
}

/// Two places where a stream is cut, in 256ths of 256ths of it.
#[derive(Clone, Copy)]
pub(crate) struct Cuts([u16; 2]);

impl Cuts {
    pub(crate) fn choose(input: &mut Input<'_>) -> Self {
        let mut places = [input.word(), input.word()];
        places.sort_unstable();
        Self(places)
    }

    fn of(self, len: usize) -> [usize; 2] {
        self.0.map(|place| (len * usize::from(place)) >> 16)
    }
}

/// Sends `stream` cut in three, and for each piece all up to its end in one segment on another
/// connection: both must come to the same.
pub(crate) fn same_at_every_cut(port: u16, stream: &[u8], cuts: Cuts) {
    RUNNER.with_borrow_mut(|runner| {
        let [first, second] = cuts.of(stream.len());
        let ends = [first, second, stream.len()];
        let mut outcomes = Vec::new();
        runner.restart(0x5a);
        open(runner, port);
        let mut from = 0;
        for end in ends {
            if end > from {
                outcomes.push((end, send(runner, port, from, &stream[from..end])));
                from = end;
            }
        }
        for (end, pieces) in outcomes {
            runner.restart(0xa5);
            open(runner, port);
            let whole = send(runner, port, 0, &stream[..end]);
            assert_eq!(
                said(&pieces),
                said(&whole),
                "cut at {first} and {second} of {}, up to {end}",
                stream.len()
            );
            if reason(&whole) != Some(Reason::HelloIncomplete) {
                break;
            }
        }
    });
}

fn open(runner: &mut HostRunner, port: u16) {
    let syn = packet(port).seq(START.wrapping_sub(1)).flags(flag::SYN);
    run(runner, &syn.build());
}

fn send(runner: &mut HostRunner, port: u16, at: usize, bytes: &[u8]) -> Ran {
    let seq = START.wrapping_add(at as u32);
    run(runner, &packet(port).seq(seq).payload(bytes).build())
}

fn packet(port: u16) -> Packet {
    Packet::tcp(VISITOR, &format!("203.0.113.2:{port}"))
}

fn run(runner: &mut HostRunner, frame: &[u8]) -> Ran {
    runner.run(frame).unwrap_or_else(|error| panic!("{error}"))
}

fn reason(ran: &Ran) -> Option<Reason> {
    Reason::from_u8(ran.outcome.reason)
}

/// Action, reason, protocol and name.
fn said(ran: &Ran) -> (u32, Option<Reason>, u8, &[u8]) {
    let outcome = &ran.outcome;
    let name = &outcome.name[..usize::from(outcome.name_len).min(outcome.name.len())];
    (ran.action, reason(ran), outcome.protocol, name)
}
