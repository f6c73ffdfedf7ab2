use std::fs;

use super::{HostRunner, parity, xdp};
use crate::replay::{
    RunError, Runner,
    testing::{DATA, Scripted, client_hello, fixtures, frames_of_file, names_only, tcp},
};

#[test]
fn the_host_build_judges_and_counts() {
    let mut runner = HostRunner::new(names_only(), 0);
    let hello = tcp(
        (1, 50_000),
        (9, 443),
        1,
        DATA,
        &client_hello("www.example.org"),
    );
    let ran = runner.run(&hello).expect("the host build does not fail");
    assert_eq!(ran.action, xdp::PASS);
    assert_eq!(
        &ran.outcome.name[..usize::from(ran.outcome.name_len)],
        b"www.example.org"
    );
    assert_eq!(runner.reason_counters().iter().sum::<u64>(), 1);
    // What was read of one frame is forgotten with the next.
    let bare = runner
        .run(&tcp((1, 50_000), (9, 443), 1, DATA, b""))
        .expect("as above");
    assert_eq!(bare.outcome.name_len, 0);
}

#[test]
fn a_runner_is_on_a_par_with_itself_over_real_captures_and_their_prefixes() {
    let (mut left, mut right) = (
        HostRunner::new(names_only(), 0),
        HostRunner::new(names_only(), 0),
    );
    let mut frames_seen = 0;
    for entry in fs::read_dir(fixtures().join("captures"))
        .expect("fixtures")
        .flatten()
    {
        if entry
            .path()
            .extension()
            .is_none_or(|extension| extension != "pcap")
        {
            continue;
        }
        for frame in frames_of_file(&entry.path()).0 {
            frames_seen += 1;
            for len in [frame.bytes.len(), frame.bytes.len() / 2, 14] {
                parity::check(&mut left, &mut right, &frame.bytes[..len])
                    .unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
    assert!(frames_seen > 100);
}

#[test]
fn a_difference_is_shown_field_by_field() {
    let frame = tcp(
        (1, 50_000),
        (9, 443),
        1,
        DATA,
        &client_hello("www.example.org"),
    );
    let mut left = HostRunner::new(names_only(), 0);
    let mut other = HostRunner::new(names_only(), 0);
    let mut right = Scripted::new(move |frame: &[u8]| -> Result<_, RunError> {
        let mut ran = other.run(frame)?;
        ran.outcome.name[0] = b'x';
        ran.action = xdp::DROP;
        Ok(ran)
    });
    let message = parity::check(&mut left, &mut right, &frame)
        .expect_err("they differ")
        .to_string();
    assert!(message.contains("! action   left 2"), "{message}");
    assert!(
        message.contains("! name     left www.example.org          right xww.example.org"),
        "{message}"
    );
    assert!(message.contains("  verdict  left pass"), "{message}");
    assert!(message.contains("0000  02 00 00 00"), "{message}");
}
