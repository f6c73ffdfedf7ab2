//! A request head reads the same however it is cut, and httparse, which hyper's servers use, finds
//! no host that the filter does not.

use std::cell::RefCell;

use filter_common::{
    abi::Protocol,
    hello::Progress,
    limits::{NAMES_PER_HELLO_MAX, STREAM_BYTES_MAX},
};
use filter_user::host::Reader;

use crate::{
    input::Input,
    tcp_flow::{Cuts, same_at_every_cut},
};

/// Fields that a request has at most, as in hyper.
const FIELDS_MAX: usize = 100;

/// Longest method that is read in mid-stream.
const METHOD_LEN_MAX: usize = 32;

thread_local! {
    static READER: RefCell<Reader> = RefCell::default();
}

/// Input: where segments are cut, and the stream.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = Cuts::choose(&mut input);
    let stream = input.rest();
    if stream.len() > STREAM_BYTES_MAX {
        return;
    }
    // Where the stream starts here it is dropped then; in mid-stream what was found before counts.
    let overfull = read(stream, true).0 == Progress::Malformed;
    for certain in [true, false] {
        let whole = read(stream, certain);
        prefixes_agree(stream, &whole, certain, overfull);
        // In mid-stream, what has a method that nobody uses is taken for the rest of something else.
        let hosts = httparse_hosts(stream, if certain { usize::MAX } else { METHOD_LEN_MAX });
        for host in hosts {
            found_by_httparse(&whole, &host);
        }
    }
    same_at_every_cut(80, stream, cuts);
}

fn read(stream: &[u8], certain: bool) -> (Progress, Vec<Vec<u8>>) {
    READER.with_borrow_mut(|reader| reader.read(Protocol::Http, stream, certain))
}

/// What is decided once stays so; a later, pipelined head may add names, and may itself be incomplete or
/// have too many (`overfull`), which may be those of a body that is read both ways.
fn prefixes_agree(stream: &[u8], whole: &(Progress, Vec<Vec<u8>>), certain: bool, overfull: bool) {
    for part in 1..8 {
        let (progress, names) = read(&stream[..stream.len() * part / 8], certain);
        match progress {
            Progress::Incomplete => {}
            Progress::Named | Progress::NoName => {
                assert!(
                    !matches!(
                        whole.0,
                        Progress::Other | Progress::TooLong | Progress::Http2
                    ),
                    "{part} eighths are {progress:?}, the whole is {:?}",
                    whole.0
                );
                assert!(
                    overfull || is_part_of(&names, &whole.1),
                    "{part} eighths have {names:?}, the whole has {:?}",
                    whole.1
                );
            }
            Progress::Other | Progress::Malformed | Progress::TooLong | Progress::Http2 => {
                assert_eq!(progress, whole.0, "{part} eighths of the stream");
            }
        }
    }
}

/// Whether all of these names are among those, in this order. Where a body may or may not be one, heads behind
/// it are read both ways, one after the other, so that what comes later adds names to both.
fn is_part_of(names: &[Vec<u8>], whole: &[Vec<u8>]) -> bool {
    let mut rest = whole.iter();
    names.iter().all(|name| rest.any(|other| other == name))
}

/// The hosts that a server built on httparse is asked for, by a method of at most so many bytes.
fn httparse_hosts(stream: &[u8], method_len_max: usize) -> Vec<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(stream), Ok(httparse::Status::Complete(_))) {
        return Vec::new();
    }
    if request
        .method
        .is_some_and(|method| method.len() > method_len_max)
    {
        return Vec::new();
    }
    let mut hosts: Vec<Vec<u8>> = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"))
        // A list of hosts is read as several.
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .map(|host| host.trim_ascii().to_vec())
        .collect();
    hosts.extend(request.path.and_then(authority));
    hosts.retain(|host| !host.is_empty());
    hosts
}

/// The authority of an absolute target, without user information.
fn authority(target: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(host.as_bytes().to_vec())
}

fn found_by_httparse((progress, names): &(Progress, Vec<Vec<u8>>), expected: &[u8]) {
    if *progress == Progress::Malformed && names.len() == NAMES_PER_HELLO_MAX {
        return;
    }
    let shown = String::from_utf8_lossy(expected);
    // Incomplete if another head begins behind this one: names are looked up all the same. Malformed, and
    // dropped, if another in what may be its body has a body in its turn.
    assert!(
        matches!(
            progress,
            Progress::Named | Progress::Incomplete | Progress::Malformed
        ),
        "httparse is asked for {shown:?}, the filter says {progress:?}"
    );
    assert!(
        names.iter().any(|name| name.trim_ascii() == expected),
        "httparse is asked for {shown:?}, the filter sees {names:?}"
    );
}
