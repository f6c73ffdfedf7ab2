//! Any frame gets one verdict, with one reason, that depends on nothing but the frame; and addresses
//! that another parser sees in it are judged.

use std::{cell::RefCell, net::IpAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use filter_common::{
    abi::{Outcome, Verdict},
    reason::Reason,
};
use filter_user::{
    compile::Role,
    host::{HostRunner, xdp},
    replay::{Ran, Runner as _},
};

use crate::tcp_flow::runner;

/// Length of the MAC addresses, behind which tags are.
const TAGS_AT: usize = 12;
const TAG_LEN: usize = 4;
/// Tags that the filter looks behind.
const TAGS_MAX: usize = filter_common::limits::VLAN_TAGS_MAX;

thread_local! {
    static RUNNER: RefCell<HostRunner> = RefCell::new(runner(Role::Live));
}

/// Input: a frame.
pub(crate) fn check(frame: &[u8]) {
    RUNNER.with_borrow_mut(|runner| {
        let ran = judge(runner, frame, 0);
        consistent(runner, &ran);
        assert_eq!(
            ran,
            judge(runner, frame, 0xff),
            "what was there before counts"
        );
        if frame.len() > TAGS_AT && tags(frame) < TAGS_MAX {
            let mut tagged = frame.to_vec();
            tagged.splice(TAGS_AT..TAGS_AT, [0x81, 0x00, 0x00, 0x07]);
            assert_eq!(
                but_len(judge(runner, &tagged, 0)),
                but_len(ran),
                "with a tag"
            );
        }
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
            return;
        };
        let ip = matches!(packet.net, Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)));
        if !ip || has_foreign_tag(frame) {
            return;
        }
        if hits_an_origin(&packet) {
            assert_eq!(
                ran.action,
                xdp::DROP,
                "a blocked origin: {:?}",
                reason(&ran)
            );
        }
        let padded = [frame, &[0; 7]].concat();
        assert_eq!(
            but_len(judge(runner, &padded, 0)),
            but_len(ran),
            "with padding"
        );
        if let Some(TransportSlice::Tcp(tcp)) = &packet.transport {
            let headers = tcp.payload().as_ptr() as usize - frame.as_ptr() as usize;
            runner.set_linear(headers);
            let split = judge(runner, frame, 0);
            runner.set_linear(usize::MAX);
            assert_eq!(split, ran, "with only the headers in the first buffer");
        }
    });
}

fn judge(runner: &mut HostRunner, frame: &[u8], stale: u8) -> Ran {
    runner.restart(stale);
    runner.run(frame).unwrap_or_else(|error| panic!("{error}"))
}

fn reason(ran: &Ran) -> Option<Reason> {
    Reason::from_u8(ran.outcome.reason)
}

/// A known verdict and reason, counted once; a verdict other than pass has a rule, or a reason that
/// drops by itself.
fn consistent(runner: &HostRunner, ran: &Ran) {
    let reason = reason(ran).expect("a known reason");
    let verdict = Verdict::from_u8(ran.outcome.verdict).expect("a known verdict");
    assert_eq!(runner.reason_counters()[reason as usize], 1);
    assert_eq!(runner.reason_counters().iter().sum::<u64>(), 1);
    let dropped = ran.action == xdp::DROP;
    assert_eq!(
        dropped,
        matches!(verdict, Verdict::Drop | Verdict::Refuse | Verdict::Redirect)
    );
    assert!(usize::from(ran.outcome.name_len) <= ran.outcome.name.len());
    let by_rule = runner.rule_counters().iter().any(|rule| rule.packets == 1);
    let by_hit = matches!(
        reason,
        Reason::OriginSource | Reason::OriginDestination | Reason::Hostname | Reason::BlockedFlow
    );
    assert_eq!(by_rule, by_hit, "{reason:?}");
}

fn tags(frame: &[u8]) -> usize {
    frame[TAGS_AT..]
        .chunks(TAG_LEN)
        .take_while(|tag| tag.starts_with(&[0x81, 0x00]) || tag.starts_with(&[0x88, 0xa8]))
        .count()
}

/// Whether there is a tag of a kind that Linux has no devices for.
fn has_foreign_tag(frame: &[u8]) -> bool {
    let behind = TAGS_AT + tags(frame) * TAG_LEN;
    frame[behind..].starts_with(&[0x91, 0x00])
}

fn but_len(mut ran: Ran) -> Ran {
    let Outcome { frame_len, .. } = &mut ran.outcome;
    *frame_len = 0;
    ran
}

/// Whether an address is one of those that [`runner`]'s policy drops whatever the port.
fn hits_an_origin(packet: &SlicedPacket<'_>) -> bool {
    let (src, dst): (IpAddr, IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        Some(NetSlice::Arp(_)) | None => return false,
    };
    [src, dst].iter().any(|address| match address {
        IpAddr::V4(v4) => v4.octets().starts_with(&[198, 51, 100]),
        IpAddr::V6(v6) => v6
            .octets()
            .starts_with(&[0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad]),
    })
}
