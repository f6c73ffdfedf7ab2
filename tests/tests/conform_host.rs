//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use filter_tests::conform::{
    host_run::run,
    report::{Known, Property, Table, conclude},
    scene::Scene,
};

#[test]
fn no_trick_takes_a_blocked_name_to_the_host_itself() {
    conclude(&[Table {
        name: "host-server",
        rows: &run(&Scene::server()),
        known: KNOWN_AS_SERVER,
        complete: true,
    }]);
}

#[test]
fn no_trick_takes_a_blocked_name_through_a_router() {
    conclude(&[Table {
        name: "host-router",
        rows: &run(&Scene::router()),
        known: KNOWN_AS_ROUTER,
        complete: true,
    }]);
}

const PARTIAL: &str = "a decoy with the sum that a sender on the same machine leaves is taken where \
     such senders are served, and what is meant then contradicts it";
const UNSEEN: &str = "without the host's socket a decoy with these numbers is taken as part of the \
     stream, and what is meant then contradicts it";
const URGENT: &str = "an urgent pointer is not let through before the verdict";
const FRAGMENTS: &str =
    "first fragments towards an inspected port are dropped, `fragments` can say `pass`";

const fn known(row: &'static str, property: Property, why: &'static str) -> Known {
    Known { row, property, why }
}

const KNOWN_AS_SERVER: &[Known] = &[
    known(
        "fake_bad_checksum: partial sum (split)",
        Property::Serves,
        PARTIAL,
    ),
    known("urg_byte_in_middle", Property::Serves, URGENT),
    known("urg_separate_segment", Property::Serves, URGENT),
    known("ip_fragments_24B", Property::Serves, FRAGMENTS),
    known("ip_fragments_reverse", Property::Serves, FRAGMENTS),
    known("ip_fragment_8B_tiny", Property::Serves, FRAGMENTS),
    known("v6_fragments", Property::Serves, FRAGMENTS),
    known("v6_dstopts_then_fragments", Property::Serves, FRAGMENTS),
];

const KNOWN_AS_ROUTER: &[Known] = &[
    known("fake_ack_beyond_sndnxt (split)", Property::Serves, UNSEEN),
    known("fake_old_timestamp (split)", Property::Serves, UNSEEN),
    known(
        "fake_bad_checksum: partial sum (split)",
        Property::Serves,
        PARTIAL,
    ),
    known("urg_byte_in_middle", Property::Serves, URGENT),
    known("urg_separate_segment", Property::Serves, URGENT),
    known("ip_fragments_24B", Property::Serves, FRAGMENTS),
    known("ip_fragments_reverse", Property::Serves, FRAGMENTS),
    known("ip_fragment_8B_tiny", Property::Serves, FRAGMENTS),
    known("v6_fragments", Property::Serves, FRAGMENTS),
    known("v6_dstopts_then_fragments", Property::Serves, FRAGMENTS),
];
