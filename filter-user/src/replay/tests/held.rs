use filter_common::{
    abi::{NO_SLOT, Protocol, Verdict},
    reason::Reason,
};

use super::{super::testing::*, pass};
use crate::replay::{Ran, held::HELD_FRAMES_PER_FLOW_MAX};

const CLIENT: End = (1, 51_514);
const SERVER: End = (9, 443);

/// A program that accepts one-byte segments in order of their sequence numbers, and finds a
/// name when byte `last` has come.
fn in_order(last: u32) -> impl FnMut(&[u8]) -> Result<Ran, crate::replay::RunError> {
    let mut next = 1;
    move |frame| {
        let seq = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
        if frame.len() == 54 {
            return Ok(pass());
        }
        if seq > next {
            return Ok(outcome(
                Verdict::Drop,
                Reason::HeldBack,
                NO_SLOT,
                Protocol::None,
                b"",
            ));
        }
        next = next.max(seq + 1);
        if seq != last {
            return Ok(outcome(
                Verdict::Pass,
                Reason::HelloIncomplete,
                NO_SLOT,
                Protocol::Tls,
                b"",
            ));
        }
        Ok(outcome(
            Verdict::Pass,
            Reason::NoMatch,
            NO_SLOT,
            Protocol::Tls,
            b"held.example",
        ))
    }
}

fn segments(order: &[u32]) -> Vec<crate::replay::capture::Frame> {
    order
        .iter()
        .map(|&seq| captured(tcp(CLIENT, SERVER, seq, DATA, b"x")))
        .collect()
}

#[test]
fn frames_beyond_a_gap_are_fed_again_when_it_fills() {
    for order in [
        [5, 4, 3, 2, 1],
        [1, 3, 2, 5, 4],
        [2, 3, 4, 5, 1],
        [1, 5, 4, 3, 2],
    ] {
        let mut runner = Scripted::new(in_order(5));
        let findings = replay(&mut runner, segments(&order));
        let tally = &findings.flows[0].tally;
        let name = tally.named.as_ref().map(|named| &*named.name);
        assert_eq!(name, Some(&b"held.example"[..]), "{order:?}");
        assert_eq!(tally.hit, None, "{order:?}: being held back is no verdict");
        assert_eq!(tally.frames, 5, "{order:?}");
        let summary = &findings.summary;
        assert!(summary.held > 0, "{order:?}");
        assert_eq!(
            (summary.held_dropped, summary.held_unresolved),
            (0, 0),
            "{order:?}"
        );
        assert_eq!(summary.reasons.get("held_back"), None, "{order:?}");
        assert_eq!(
            summary.reasons.values().sum::<u64>(),
            5,
            "{order:?}: one reason a frame"
        );
    }
}

#[test]
fn a_gap_that_never_fills_is_counted() {
    let mut runner = Scripted::new(in_order(9));
    let findings = replay(&mut runner, segments(&[1, 3, 4]));
    let summary = &findings.summary;
    assert_eq!(
        (summary.held, summary.held_dropped, summary.held_unresolved),
        (2, 0, 2)
    );
    assert_eq!((summary.unparsed, summary.reasons["held_back"]), (1, 2));
    assert_eq!(findings.flows[0].tally.hit, None);
}

#[test]
fn the_frames_kept_of_one_flow_are_bounded() {
    let beyond = HELD_FRAMES_PER_FLOW_MAX as u32 + 10;
    let order: Vec<u32> = (2..2 + beyond).collect();
    let mut runner = Scripted::new(in_order(9));
    let findings = replay(&mut runner, segments(&order));
    let summary = &findings.summary;
    assert_eq!(summary.held, u64::from(beyond));
    assert_eq!(summary.held_dropped, 10);
    assert_eq!(summary.held_unresolved, HELD_FRAMES_PER_FLOW_MAX as u64);
    assert_eq!(summary.reasons["held_back"], u64::from(beyond));
}

#[test]
fn acknowledgements_do_not_make_frames_be_fed_again() {
    let mut frames = segments(&[3, 4]);
    for _ in 0..10 {
        frames.push(captured(tcp(CLIENT, SERVER, 1, DATA, b"")));
    }
    let mut runner = Scripted::new(in_order(9));
    replay(&mut runner, frames);
    assert_eq!(runner.seen.len(), 12);
}

#[test]
fn a_hello_that_is_completed_is_not_unparsed() {
    let hello = client_hello("");
    let (first, second) = hello.split_at(20);
    let mut runner = crate::host::HostRunner::new(names_only(), 0);
    let one = captured(tcp(CLIENT, SERVER, 1, DATA, first));
    let other = captured(tcp(CLIENT, SERVER, 21, DATA, second));
    let unparsed = |findings: crate::replay::Findings| findings.summary.unparsed;
    assert_eq!(unparsed(replay(&mut runner, vec![one.clone()])), 1);
    let mut runner = crate::host::HostRunner::new(names_only(), 0);
    assert_eq!(unparsed(replay(&mut runner, vec![one, other])), 0);
    // The alert that ends a connection is no hello.
    let alert = [&[0x15, 3, 3, 0, 26][..], &[0x5a; 26]].concat();
    let mut runner = crate::host::HostRunner::new(names_only(), 0);
    let alert = captured(tcp(CLIENT, SERVER, 1, DATA, &alert));
    assert_eq!(unparsed(replay(&mut runner, vec![alert])), 0);
}
