//! A ClientHello reads the same however it is cut, and rustls finds no name that the filter does not.

use std::cell::RefCell;

use filter_common::{abi::Protocol, hello::Progress, limits::STREAM_BYTES_MAX};
use filter_tests::packet::tls::record;
use filter_user::host::Reader;
use rustls::server::Acceptor;

use crate::{
    input::Input,
    tcp_flow::{Cuts, same_at_every_cut},
};

thread_local! {
    static READER: RefCell<Reader> = RefCell::default();
}

/// Input: how to take the bytes, how long records are, where segments are cut, and the bytes: a
/// stream, the body of a ClientHello, or its extensions.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let shape = input.byte();
    let record_len = usize::from(input.byte());
    let cuts = Cuts::choose(&mut input);
    let bytes = input.rest();
    let stream = match shape % 3 {
        0 => bytes.to_vec(),
        1 => records(&message(bytes), record_len),
        _ => records(&message(&body(bytes)), record_len),
    };
    if stream.len() > STREAM_BYTES_MAX {
        return;
    }
    let read = read(&stream);
    prefixes_agree(&stream, &read);
    if let Some(name) = rustls_name(&stream) {
        found_by_rustls(&read, &name);
    }
    if !shape.is_multiple_of(3) && (bytes.len() < 200 || record_len > 20) {
        let other = records(&message_of(shape, bytes), record_len / 2 + 1);
        if other.len() <= STREAM_BYTES_MAX {
            assert_eq!(self::read(&other), read, "records of another length");
        }
    }
    same_at_every_cut(443, &stream, cuts);
}

fn message_of(shape: u8, bytes: &[u8]) -> Vec<u8> {
    match shape % 3 {
        1 => message(bytes),
        _ => message(&body(bytes)),
    }
}

fn read(stream: &[u8]) -> (Progress, Vec<Vec<u8>>) {
    READER.with_borrow_mut(|reader| reader.read(Protocol::Tls, stream, true))
}

/// The body of a ClientHello with these extensions.
fn body(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[0x5a; 32]);
    body.extend_from_slice(&[0, 0, 4, 0x13, 0x01, 0xc0, 0x2f, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(extensions);
    body
}

/// The handshake message with this body.
fn message(body: &[u8]) -> Vec<u8> {
    let mut message = vec![1];
    message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend_from_slice(body);
    message
}

/// Records of a handshake message; a length of 0 means one for everything.
fn records(message: &[u8], len: usize) -> Vec<u8> {
    let len = if len == 0 { 16_384 } else { len };
    message
        .chunks(len)
        .flat_map(|part| record(22, part))
        .collect()
}

/// What is decided once stays so, whatever follows: a server acts on the same bytes.
fn prefixes_agree(stream: &[u8], whole: &(Progress, Vec<Vec<u8>>)) {
    for part in 1..8 {
        let prefix = read(&stream[..stream.len() * part / 8]);
        if prefix.0 != Progress::Incomplete {
            assert_eq!(&prefix, whole, "{part} eighths of the stream");
        }
    }
}

/// The name that a rustls server acts on.
fn rustls_name(stream: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    loop {
        if acceptor.read_tls(&mut rest).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
}

fn found_by_rustls((progress, names): &(Progress, Vec<Vec<u8>>), expected: &str) {
    // rustls takes a name type that it does not know for everything up to the end of the list, whatever
    // length it states: dropped, where the start of the stream is certain.
    if *progress == Progress::Malformed {
        return;
    }
    assert_eq!(*progress, Progress::Named, "rustls serves {expected:?}");
    // rustls takes a trailing dot off, as the filter does when it looks the name up.
    let plain = |name: &[u8]| {
        let name = name.to_ascii_lowercase();
        name.strip_suffix(b".").unwrap_or(&name).to_vec()
    };
    let expected = plain(expected.as_bytes());
    assert!(
        names.iter().any(|name| plain(name) == expected),
        "rustls serves {:?}, the filter sees {names:?}",
        String::from_utf8_lossy(&expected)
    );
}
