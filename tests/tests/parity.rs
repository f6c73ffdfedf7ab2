//! The host build and the program in the kernel say the same about any frame: everything in the
//! fixture table, every captured frame, and random mutations of both.

use std::{fs, ops::Range, path::Path};

use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures::{self, Host},
    mutate::{Random, mutate},
    runner::Judge,
};
use filter_user::{
    compile::{Compiled, Role},
    replay::capture::Capture,
};

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/captures");
const MUTATIONS: usize = 20_000;
const MUTATIONS_ALL: usize = 1_000_000;
/// Then both begin anew: their tables of streams fill up, and make room in another order.
const MUTATIONS_PER_LOAD: usize = 200_000;
const SEED: u64 = 0x0EDF_0000_2026_0001;
/// Differences shown before giving up.
const SHOWN_MAX: usize = 10;
/// Shortest frame that the kernel's test run takes.
const FRAME_BYTES_MIN: usize = 14;

/// Hits much of what fixtures and captures contain, in every way that the tables know.
const POLICY: &str = r#"
version = 1
[[rule]]
id = "drop-name"
hosts = ["blocked.example"]
domains = ["whole.example"]
action = "drop"
[[rule]]
id = "see-captures"
domains = ["test.example"]
action = "observe"
[[rule]]
id = "drop-capture"
hosts = ["go124.test.example"]
domains = ["firefox153.test.example"]
action = "drop"
[[rule]]
id = "origins"
origins = ["198.51.100.0/24", "198.18.0.0/16", "2001:db8:bad::/48"]
action = "drop"
[[rule]]
id = "one-port"
origins = ["198.51.100.9/32", "2001:db8:bad::9/128"]
ports = [443]
protocol = "tcp"
action = "drop"
"#;

#[test]
fn fixtures_captures_and_mutations_get_one_answer_on_a_live_interface() {
    let host = Host {
        serves: vec!["203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"],
        ..Host::default()
    };
    compare(&host, Role::Live, SEED);
}

#[test]
fn fixtures_captures_and_mutations_get_one_answer_in_replay() {
    compare(
        &Host::default(),
        Role::Replay { checksums: false },
        SEED + 2,
    );
}

#[test]
fn fixtures_captures_and_mutations_get_one_answer_when_checksums_are_judged() {
    compare(&Host::default(), Role::Replay { checksums: true }, SEED + 4);
}

fn compare(host: &Host, role: Role, seed: u64) {
    let compiled = compiled(POLICY, host, role);
    let seeds = frames();
    let mut random = Random::new(seed);
    let count = if std::env::var_os("EDGEFILTER_TEST_ALL").is_some_and(|v| v == "1") {
        MUTATIONS_ALL
    } else {
        MUTATIONS
    };
    for first in (0..count).step_by(MUTATIONS_PER_LOAD) {
        let rounds = first..count.min(first + MUTATIONS_PER_LOAD);
        compare_some(&compiled, &seeds, rounds, &mut random);
    }
    println!("{} frames, {count} mutations", seeds.len());
}

/// Compares all frames, then mutations of them, of which these are the numbers.
fn compare_some(
    compiled: &Compiled,
    seeds: &[(String, Vec<u8>)],
    rounds: Range<usize>,
    random: &mut Random,
) {
    let (mut kernel, mut host) = (InKernel::load(compiled), OnHost::load(compiled));
    let mut wrong = Vec::new();
    let mut judge = |frame: &[u8], what: &dyn Fn() -> String| {
        let (in_kernel, on_host) = (kernel.judge(frame), host.judge(frame));
        if in_kernel != on_host {
            wrong.push(format!(
                "{}\n  kernel {in_kernel:?}\n  host   {on_host:?}\n  {}",
                what(),
                hex(frame)
            ));
            assert!(wrong.len() < SHOWN_MAX, "{}", wrong.join("\n"));
        }
    };
    for (what, frame) in seeds {
        judge(frame, &|| what.clone());
    }
    for round in rounds {
        let (what, frame) = &seeds[random.below(seeds.len())];
        let (_, other) = &seeds[random.below(seeds.len())];
        let bent = mutate(frame, other, random);
        judge(&bent, &|| format!("mutation {round} of {what}"));
    }
    assert_eq!(kernel.counters(), host.counters());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every frame of the fixture table and of the captures, each with a name for messages.
fn frames() -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for group in fixtures::all() {
        frames.extend(group.rows.into_iter().map(|row| (row.title, row.frame)));
    }
    let fixture_count = frames.len();
    let directory = fs::read_dir(CAPTURES).unwrap_or_else(|e| panic!("{CAPTURES}: {e}"));
    let mut paths: Vec<_> = directory
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        let is_capture = path
            .extension()
            .is_some_and(|ext| ext == "pcap" || ext == "pcapng");
        if is_capture {
            frames.extend(read(&path));
        }
    }
    assert!(frames.len() > fixture_count, "no captures in {CAPTURES}");
    frames
}

fn read(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut capture = Capture::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut frames = Vec::new();
    while let Some(frame) = capture
        .next_frame()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    {
        let bytes = frame.framing.to_ethernet(frame.bytes);
        if bytes.len() >= FRAME_BYTES_MIN {
            frames.push((
                format!("{} frame {}", path.display(), frames.len() + 1),
                bytes,
            ));
        }
    }
    frames
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
