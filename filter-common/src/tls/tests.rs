use std::{string::String, vec, vec::Vec};

use proptest::prelude::*;

use crate::{hello::Progress, limits, testing::read_tls};

/// An extension.
fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn server_name(names: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.push(0);
        list.extend((name.len() as u16).to_be_bytes());
        list.extend(name.as_bytes());
    }
    let mut body = (list.len() as u16).to_be_bytes().to_vec();
    body.extend(list);
    extension(0, &body)
}

/// A ClientHello message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = extensions.concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([8; 32]);
    body.extend([0, 4, 0x13, 0x01, 0x13, 0x02, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![0x16, 3, 1];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// The message cut at `cuts` (reduced to its length) into records.
fn records(message: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % message.len()).collect();
    cuts.extend([0, message.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .flat_map(|cut| record(&message[cut[0]..cut[1]]))
        .collect()
}

fn named(names: &[&str]) -> (Progress, Vec<String>) {
    (
        Progress::Named,
        names.iter().map(|name| String::from(*name)).collect(),
    )
}

#[test]
fn names_first_last_several_and_twice() {
    let other = extension(10, &[1; 40]);
    for extensions in [
        vec![server_name(&["a.example"])],
        vec![other.clone(), server_name(&["a.example"])],
        vec![server_name(&["a.example"]), other.clone(), other.clone()],
    ] {
        assert_eq!(
            read_tls(&record(&message(&extensions))),
            named(&["a.example"])
        );
    }
    let both = named(&["a.example", "b.example"]);
    assert_eq!(
        read_tls(&record(&message(&[server_name(&[
            "a.example",
            "b.example"
        ])]))),
        both
    );
    let twice = [
        server_name(&["a.example"]),
        other,
        server_name(&["b.example"]),
    ];
    assert_eq!(read_tls(&record(&message(&twice))), both);
}

#[test]
fn without_a_name() {
    assert_eq!(read_tls(&record(&message(&[]))).0, Progress::NoName);
    assert_eq!(
        read_tls(&record(&message(&[extension(10, &[0, 0])]))).0,
        Progress::NoName
    );
}

#[test]
fn one_byte_records_empty_records_and_alerts_between() {
    let message = message(&[server_name(&["a.example"])]);
    let single: Vec<u8> = message.iter().flat_map(|byte| record(&[*byte])).collect();
    assert_eq!(read_tls(&single), named(&["a.example"]));
    let mut odd = record(&[]);
    odd.extend([0x15, 3, 1, 0, 2, 1, 90]);
    odd.extend(record(&message[..3]));
    odd.extend(record(&[]));
    odd.extend(record(&message[3..]));
    assert_eq!(read_tls(&odd), named(&["a.example"]));
    let mut noise: Vec<u8> = (0..=limits::EMPTY_RECORDS_MAX)
        .flat_map(|_| record(&[]))
        .collect();
    noise.extend(record(&message));
    assert_eq!(read_tls(&noise).0, Progress::Malformed);
}

#[test]
fn every_prefix_of_a_stream_is_incomplete() {
    let message = message(&[extension(10, &[0; 9]), server_name(&["a.example"])]);
    for stream in [record(&message), records(&message, &[1, 5, 70, 100])] {
        for end in 0..stream.len() {
            assert_eq!(read_tls(&stream[..end]).0, Progress::Incomplete, "{end}");
        }
        assert_eq!(read_tls(&stream), named(&["a.example"]));
        let mut more = stream.clone();
        more.extend([0x17, 3, 3, 0, 1, 0]);
        assert_eq!(read_tls(&more), named(&["a.example"]));
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let good = record(&message(&[server_name(&["a.example"])]));
    // session id, cipher suites, compression methods, extensions, extension, list, name
    for at in [43, 76, 82, 85, 89, 91, 94] {
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(1);
        let (progress, _) = read_tls(&bad);
        assert_eq!(progress, Progress::Malformed, "byte {at}");
    }
}

#[test]
fn other_protocols_and_other_messages_are_told_apart() {
    assert_eq!(read_tls(b"GET / HTTP/1.1\r\n\r\n").0, Progress::Other);
    assert_eq!(read_tls(&[0x17, 3, 3, 0, 1, 0]).0, Progress::Other);
    assert_eq!(
        read_tls(&[0x16, 3, 3, 0, 4, 16, 0, 0, 0]).0,
        Progress::Other
    );
    assert_eq!(read_tls(&record(&[2, 0, 0, 1, 0])).0, Progress::Other);
    assert_eq!(
        read_tls(&record(&[1, 0xff, 0xff, 0xff, 0])).0,
        Progress::TooLong
    );
}

#[test]
fn a_hello_of_sixteen_kilobytes_is_read() {
    let message = message(&[extension(21, &[0; 16_200]), server_name(&["a.example"])]);
    assert_eq!(read_tls(&record(&message)), named(&["a.example"]));
    assert_eq!(
        read_tls(&records(&message, &[9_000])),
        named(&["a.example"])
    );
}

#[test]
fn a_hello_in_one_byte_records_is_read_as_long_as_its_stream_is_kept() {
    let empty = message(&[server_name(&["a.example"]), extension(21, &[])]).len();
    let padding = vec![0; limits::STREAM_BYTES_MAX / 6 - empty];
    let message = message(&[server_name(&["a.example"]), extension(21, &padding)]);
    let stream: Vec<u8> = message.iter().flat_map(|byte| record(&[*byte])).collect();
    assert!((limits::STREAM_BYTES_MAX - 6..=limits::STREAM_BYTES_MAX).contains(&stream.len()));
    assert_eq!(read_tls(&stream), named(&["a.example"]));
}

#[test]
fn a_record_too_long_for_any_server_is_malformed_from_its_header_on() {
    let hello = records(&message(&[server_name(&["a.example"])]), &[]);
    let mut stream = hello;
    stream[3] = 0x49;
    for end in 5..stream.len() {
        assert_eq!(read_tls(&stream[..end]).0, Progress::Malformed, "{end}");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_some_progress(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut stream = vec![0x16, 3, 1];
        stream.extend(&bytes);
        let _ = read_tls(&bytes);
        let _ = read_tls(&stream);
    }

    #[test]
    fn any_cut_into_records_gives_the_same_name(
        before in proptest::collection::vec((1u16..=99, proptest::collection::vec(any::<u8>(), 0..200)), 0..12),
        after in proptest::collection::vec((1u16..=99, proptest::collection::vec(any::<u8>(), 0..200)), 0..12),
        name in "[a-z0-9-]{1,60}(\\.[a-z0-9]{1,20}){0,4}",
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
    ) {
        let mut extensions: Vec<Vec<u8>> =
            before.iter().map(|(kind, body)| extension(*kind, body)).collect();
        extensions.push(server_name(&[&name]));
        extensions.extend(after.iter().map(|(kind, body)| extension(*kind, body)));
        let stream = records(&message(&extensions), &cuts);
        prop_assert_eq!(read_tls(&stream), named(&[&name]));
    }
}
