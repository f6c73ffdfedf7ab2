//! Where fuzzing starts: the fixture table, our captures, and policies.

use std::{fs, path::Path};

use filter_tests::{
    fixtures,
    packet::{http::Request, tls::ClientHello},
};
use filter_user::replay::capture::Capture;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/captures");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// Inputs of `target` that show what it is about.
///
/// # Panics
/// If the repository's own files cannot be read.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "client_hello" => hellos(),
        "http_head" => heads(),
        "frame" => frames(),
        "tcp_flow" => flows(),
        "replay" => captures(),
        "policy" => policies(),
        _ => Vec::new(),
    }
}

/// Every frame of the fixture table and of the captures.
fn frames() -> Vec<Vec<u8>> {
    let rows = fixtures::all().into_iter().flat_map(|group| group.rows);
    let mut frames: Vec<_> = rows.map(|row| row.frame).collect();
    for file in captures() {
        let mut capture = Capture::new(Box::new(std::io::Cursor::new(file)))
            .unwrap_or_else(|error| panic!("{error}"));
        while let Ok(Some(frame)) = capture.next_frame() {
            frames.push(frame.framing.to_ethernet(frame.bytes));
        }
    }
    frames.sort();
    frames.dedup();
    frames
}

/// Payloads of the frames that go to this port.
fn payloads(port: u16) -> Vec<Vec<u8>> {
    let payload = |frame: &Vec<u8>| {
        let packet = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
        match packet.transport? {
            etherparse::TransportSlice::Tcp(tcp) if tcp.destination_port() == port => {
                Some(tcp.payload().to_vec())
            }
            _ => None,
        }
    };
    frames().iter().filter_map(payload).collect()
}

/// Streams, bodies and extensions, behind the bytes that say so and where to cut.
fn hellos() -> Vec<Vec<u8>> {
    let behind = |choices: [u8; 6], bytes: &[u8]| [&choices[..], bytes].concat();
    let mut seeds: Vec<_> = payloads(443)
        .iter()
        .filter(|payload| payload.len() < 3_000)
        .map(|payload| behind([0, 0, 0, 40, 0, 90], payload))
        .collect();
    for name in ["a.example", "www.blocked.example", "A.B.Example."] {
        let message = ClientHello::named(name).grease().handshake();
        // Behind the header of the message; behind that of the extensions.
        seeds.push(behind([1, 0, 0, 50, 0, 99], &message[4..]));
        seeds.push(behind([1, 33, 0, 50, 0, 99], &message[4..]));
        let plain = ClientHello::named(name).handshake();
        let extensions_at = 4 + 2 + 32 + 33 + 2 + 8 + 2 + 2;
        seeds.push(behind([2, 0, 0, 50, 0, 99], &plain[extensions_at..]));
        seeds.push(behind([2, 7, 0, 50, 0, 99], &plain[extensions_at..]));
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

fn heads() -> Vec<Vec<u8>> {
    let mut heads = payloads(80);
    heads.push(Request::to("a.example").bytes());
    let mut seeds: Vec<_> = heads
        .iter()
        .map(|head| [&[0, 9, 0, 30], &head[..]].concat())
        .collect();
    seeds.sort();
    seeds.dedup();
    seeds
}

/// Scripts: both ends' choices, then steps; see `tcp_flow`.
fn flows() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setup in 0..=255u8 {
        let mut seed = vec![setup, 3, 17, 41];
        for step in 0..6u8 {
            seed.extend_from_slice(&[step, setup.wrapping_mul(7), 60 * (step % 4), 0, 80, step]);
        }
        seeds.push(seed);
    }
    seeds
}

fn captures() -> Vec<Vec<u8>> {
    files(Path::new(CAPTURES), &["pcap", "pcapng"])
}

fn policies() -> Vec<Vec<u8>> {
    let groups = fixtures::all();
    let mut seeds: Vec<_> = groups
        .iter()
        .map(|group| [&[0], group.policy.as_bytes()].concat())
        .collect();
    for file in files(Path::new(EXAMPLES), &["toml"]) {
        seeds.push([&[0], &file[..]].concat());
        seeds.push([&[1], &file[..]].concat());
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

/// Contents of a folder's files with one of these extensions, by name.
fn files(folder: &Path, extensions: &[&str]) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extensions.iter().any(|one| extension == *one))
        })
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}
