//! A generation replaces another between two packets: under continuous, numbered traffic no
//! packet of an always-blocked sender passes, none of an always-allowed one is lost, and a sender
//! that only one policy blocks is cut exactly when the policy says so.

use std::{collections::HashSet, time::Duration};

use filter_tests::{
    edge::{Edge, exit},
    net::Direct,
    probe::{Collector, Stream},
    process::wait_for,
};

const RELOADS: usize = 200;
const EVERY: Duration = Duration::from_micros(500);
const ALLOWED: &str = Direct::VISITOR_V4;
const BLOCKED: &str = Direct::OTHER_V4;
const SOMETIMES: &str = "198.51.100.4";
const TO: &str = "198.51.100.1:4000";

/// How long a reload may take on a machine that does much else.
const IN_FORCE_MAX: Duration = Duration::from_secs(10);
/// Packets that a sender has sent in vain before it counts as cut.
const IN_VAIN: u64 = 20;

/// Policy A blocks the sometimes-blocked sender as well. The two also differ in their tables'
/// sizes and in prefix lengths, so that a mixture of both would show.
fn policy(is_a: bool) -> String {
    let more = if is_a {
        format!("[[rule]]\nid = \"sometimes\"\norigins = [\"{SOMETIMES}\"]\naction = \"drop\"\n")
    } else {
        "[[rule]]\nid = \"elsewhere\"\norigins = [\"192.0.2.0/24\"]\naction = \"drop\"\n".to_owned()
    };
    format!(
        "version = 1\n[[rule]]\nid = \"always\"\norigins = [\"{BLOCKED}\"]\naction = \"drop\"\n{more}"
    )
}

/// Whether the third sender is cut. The receiver's queue is in order: once a later packet of the
/// first sender has arrived, nothing of the third is still on its way.
fn is_cut(collector: &Collector, [allowed, _, sometimes]: &[Stream; 3]) -> bool {
    let until = |what: &str, ready: &mut dyn FnMut() -> bool| {
        wait_for(what, Duration::from_secs(5), ready);
    };
    let (arrived, sent) = (collector.count(SOMETIMES), sometimes.sent());
    until("the sender goes on", &mut || {
        sometimes.sent() > sent + IN_VAIN
    });
    let later = allowed.sent() + 1;
    until("traffic goes on", &mut || {
        collector.count(ALLOWED) as u64 > later
    });
    collector.count(SOMETIMES) == arrived
}

#[test]
fn two_hundred_reloads_under_traffic_give_every_packet_the_verdict_of_one_policy() {
    let net = Direct::new();
    net.visitor
        .address(Direct::VISITOR_IF, &format!("{SOMETIMES}/24"));
    let edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], &policy(true));
    let collector = Collector::start(&net.edge, TO);
    let start = |from| Stream::start(&net.visitor, from, TO, EVERY);
    let streams = [start(ALLOWED), start(BLOCKED), start(SOMETIMES)];
    wait_for("traffic", Duration::from_secs(5), || {
        collector.count(ALLOWED) > 0
    });

    for reload in 1..=RELOADS {
        let is_a = reload % 2 == 0;
        edge.replace_policy(&policy(is_a));
        if is_a {
            wait_for("policy A", IN_FORCE_MAX, || is_cut(&collector, &streams));
        } else {
            let before = collector.count(SOMETIMES);
            wait_for("policy B", IN_FORCE_MAX, || {
                collector.count(SOMETIMES) > before + 20
            });
        }
    }
    assert_eq!(edge.run(&["status"]).code, exit::OK);
    let [allowed_sent, blocked_sent, sometimes_sent] = streams.map(Stream::finish);
    let received = collector.finish();
    let numbers = |from: &str| {
        let address = from.parse().expect("an address");
        received.get(&address).cloned().unwrap_or_default()
    };

    assert!(blocked_sent > 1_000, "{blocked_sent} packets are no proof");
    let passed = numbers(BLOCKED);
    assert!(
        passed.is_empty(),
        "{passed:?} of {blocked_sent} always-blocked packets"
    );
    let arrived: HashSet<u64> = numbers(ALLOWED).into_iter().collect();
    let lost: Vec<u64> = (0..allowed_sent)
        .filter(|number| !arrived.contains(number))
        .collect();
    assert!(
        lost.is_empty(),
        "{lost:?} of {allowed_sent} always-allowed packets"
    );

    // Each pair of reloads opens one window for the third sender and closes it again: what
    // arrived is one unbroken run of numbers for each.
    let sometimes = numbers(SOMETIMES);
    let runs = 1 + sometimes
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .count();
    assert_eq!(
        runs,
        RELOADS / 2,
        "of {} among {sometimes_sent} packets",
        sometimes.len()
    );
}
