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

const REFUSED: &str = "a decoy that the host refuses is taken as part of the stream, and what is meant then contradicts it";
const URGENT: &str = "the urgent byte is taken as part of the stream, and the host takes it out";
const RESET: &str = "a reset that the host refuses ends the stream's state";
const FRAGMENTS: &str = "first fragments towards an inspected port pass";

const fn known(row: &'static str, property: Property, why: &'static str) -> Known {
    Known { row, property, why }
}

const KNOWN_AS_SERVER: &[Known] = &[
    known("fake_no_ACK_flag (split)", Property::Serves, REFUSED),
    known("fake_null_flags (split)", Property::Serves, REFUSED),
    known("fake_SYN_flag (split)", Property::Serves, REFUSED),
    known("fake_ack_beyond_sndnxt (split)", Property::Serves, REFUSED),
    known("fake_old_timestamp (split)", Property::Serves, REFUSED),
    known("fake_bad_checksum (split)", Property::Serves, REFUSED),
    known(
        "fake_bad_checksum: partial sum (split)",
        Property::Serves,
        REFUSED,
    ),
    known("fake_md5_option (split)", Property::Serves, REFUSED),
    known("bad_ip_checksum_fake (split)", Property::Serves, REFUSED),
    known("urg_byte_in_middle", Property::Serves, URGENT),
    known("urg_separate_segment", Property::Serves, URGENT),
    known("rst_bad_checksum_then_data", Property::Blocks, RESET),
    known("ip_fragments_24B", Property::Blocks, FRAGMENTS),
    known("ip_fragments_reverse", Property::Blocks, FRAGMENTS),
    known("ip_fragment_8B_tiny", Property::Blocks, FRAGMENTS),
    known("v6_fragments", Property::Blocks, FRAGMENTS),
    known("v6_dstopts_then_fragments", Property::Blocks, FRAGMENTS),
];

/// The same, until each role has its own view of what the host accepts.
const KNOWN_AS_ROUTER: &[Known] = KNOWN_AS_SERVER;
