//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row; a row that holds must leave its list.

use std::net::TcpListener;

use filter_tests::conform::{
    host_run::{Rows, run},
    report::{
        Known,
        Property::{Blocks, Serves},
        Table, conclude,
    },
    scene::Scene,
};

#[test]
fn no_trick_takes_a_blocked_name_to_the_host_itself() {
    let scene = Scene::server();
    judge(&scene, KNOWN_AS_SERVER, KNOWN_AS_SERVER_LATE);
}

/// The router serves on the same port itself, on every address: its listener is not the one that
/// connections which pass through are for.
#[test]
fn no_trick_takes_a_blocked_name_through_a_router() {
    let scene = Scene::router();
    let _own = scene
        .edge()
        .run(|| TcpListener::bind("[::]:443"))
        .expect("a listener on every address");
    judge(&scene, KNOWN_AS_ROUTER, KNOWN_AS_ROUTER_LATE);
}

#[test]
fn no_trick_takes_a_blocked_name_through_a_router_that_sees_one_direction() {
    let scene = Scene::one_sided();
    judge(&scene, KNOWN_AS_ONE_SIDED, KNOWN_AS_ROUTER_LATE);
}

fn judge(scene: &Scene, known: &[Known], known_late: &[Known]) {
    let Rows {
        opened_behind,
        opened_before,
    } = run(scene);
    let role = scene.role();
    let table = |name, rows, known| Table {
        name,
        rows,
        known,
        complete: true,
    };
    conclude(&[
        table(&format!("host-{role}"), &opened_behind, known),
        table(&format!("host-{role}-late"), &opened_before, known_late),
    ]);
}

const PARTIAL: &str = "a decoy with the sum that a sender on the same machine leaves is taken where \
     such senders are served, and what is meant then contradicts it";
const UNSEEN: &str = "without the server's answers a decoy with these numbers is taken as part of the \
     stream, and what is meant then contradicts it";
const URGENT: &str = "an urgent pointer is not let through before the verdict";
const FRAGMENTS: &str =
    "first fragments towards an inspected port are dropped, `fragments` can say `pass`";

const KNOWN_AS_SERVER: &[Known] = &[
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];

const KNOWN_AS_SERVER_LATE: &[Known] = KNOWN_AS_SERVER;

const KNOWN_AS_ROUTER: &[Known] = &[
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];

const KNOWN_AS_ONE_SIDED: &[Known] = &[
    Known::always("fake_ack_beyond_sndnxt (split)", Serves, UNSEEN),
    Known::always("fake_old_timestamp (split)", Serves, UNSEEN),
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];

const START_UNKNOWN: &str = "the start of a stream that was open before is guessed by its looks";

const KNOWN_AS_ROUTER_LATE: &[Known] = &[
    Known::always("reverse_order", Blocks, START_UNKNOWN),
    Known::always("ooo_fake_tail_then_bigger_real_tail", Blocks, START_UNKNOWN),
    Known::always("disorder_seqovl", Blocks, START_UNKNOWN),
    Known::always("split_seqovl", Blocks, START_UNKNOWN),
    Known::always("beyond_window", Serves, START_UNKNOWN),
    Known::always("fake_ack_beyond_sndnxt (split)", Serves, UNSEEN),
    Known::always("fake_old_timestamp (split)", Serves, UNSEEN),
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];
