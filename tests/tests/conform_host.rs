//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row; a row that holds must leave its list.

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
    judge(&Scene::server(), KNOWN_AS_SERVER, KNOWN_AS_SERVER_LATE);
}

#[test]
fn no_trick_takes_a_blocked_name_through_a_router() {
    judge(&Scene::router(), KNOWN_AS_ROUTER, KNOWN_AS_ROUTER_LATE);
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

const REFUSED: &str = "a decoy that the host refuses is taken as part of the stream, and what is meant then contradicts it";
const URGENT: &str = "the urgent byte is taken as part of the stream, and the host takes it out";
const RESET: &str = "a reset that the host refuses ends the stream's state";
const OLD_ACK: &str = "a decoy with an old acknowledgement number, which the host takes only on its fast path, is taken as part of the stream; the next real segment then seems to acknowledge an answer";
const FRAGMENTS: &str = "first fragments towards an inspected port pass";

const KNOWN_AS_SERVER: &[Known] = &[
    Known::always("fake_old_ack_minus1, slow path (split)", Blocks, OLD_ACK),
    Known::sometimes("fake_bad_ack_minus66000 (split)", Blocks, OLD_ACK),
    Known::sometimes("fake_old_ack_minus1 (split)", Blocks, OLD_ACK),
    Known::always("fake_no_ACK_flag (split)", Serves, REFUSED),
    Known::always("fake_null_flags (split)", Serves, REFUSED),
    Known::always("fake_SYN_flag (split)", Serves, REFUSED),
    Known::always("fake_ack_beyond_sndnxt (split)", Serves, REFUSED),
    Known::always("fake_old_timestamp (split)", Serves, REFUSED),
    Known::always("fake_bad_checksum (split)", Serves, REFUSED),
    Known::always("fake_bad_checksum: partial sum (split)", Serves, REFUSED),
    Known::always("fake_md5_option (split)", Serves, REFUSED),
    Known::always("bad_ip_checksum_fake (split)", Serves, REFUSED),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("rst_bad_checksum_then_data", Blocks, RESET),
    Known::always("ip_fragments_24B", Blocks, FRAGMENTS),
    Known::always("ip_fragments_reverse", Blocks, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Blocks, FRAGMENTS),
    Known::always("v6_fragments", Blocks, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Blocks, FRAGMENTS),
];

/// The same, until each role has its own view of what the host accepts.
const KNOWN_AS_ROUTER: &[Known] = KNOWN_AS_SERVER;

const START_UNKNOWN: &str = "the start of a stream whose SYN was not seen is guessed by its looks, and data beyond a gap passes";

const KNOWN_AS_SERVER_LATE: &[Known] = &[
    Known::always("reverse_order", Blocks, START_UNKNOWN),
    Known::always("ooo_fake_tail_then_bigger_real_tail", Blocks, START_UNKNOWN),
    Known::always("disorder_seqovl", Blocks, START_UNKNOWN),
    Known::always("split_seqovl", Blocks, START_UNKNOWN),
    Known::always("beyond_window", Serves, START_UNKNOWN),
    Known::always("fake_old_ack_minus1, slow path (split)", Blocks, OLD_ACK),
    Known::sometimes("fake_bad_ack_minus66000 (split)", Blocks, OLD_ACK),
    Known::sometimes("fake_old_ack_minus1 (split)", Blocks, OLD_ACK),
    Known::always("fake_no_ACK_flag (split)", Serves, REFUSED),
    Known::always("fake_null_flags (split)", Serves, REFUSED),
    Known::always("fake_SYN_flag (split)", Serves, REFUSED),
    Known::always("fake_ack_beyond_sndnxt (split)", Serves, REFUSED),
    Known::always("fake_old_timestamp (split)", Serves, REFUSED),
    Known::always("fake_bad_checksum (split)", Serves, REFUSED),
    Known::always("fake_bad_checksum: partial sum (split)", Serves, REFUSED),
    Known::always("fake_md5_option (split)", Serves, REFUSED),
    Known::always("bad_ip_checksum_fake (split)", Serves, REFUSED),
    Known::always("urg_byte_in_middle", Blocks, URGENT),
    Known::always("urg_separate_segment", Blocks, URGENT),
    Known::always("rst_bad_checksum_then_data", Blocks, RESET),
    Known::always("ip_fragments_24B", Blocks, FRAGMENTS),
    Known::always("ip_fragments_reverse", Blocks, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Blocks, FRAGMENTS),
    Known::always("v6_fragments", Blocks, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Blocks, FRAGMENTS),
];

const KNOWN_AS_ROUTER_LATE: &[Known] = KNOWN_AS_SERVER_LATE;
