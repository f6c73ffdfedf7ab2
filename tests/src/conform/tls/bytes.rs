//! The hellos' bytes, well-formed or not.

use crate::packet::tls::{ClientHello, record};

/// Level and description of a warning: user_canceled (RFC 8446, 6.1).
pub(super) const WARNING: [u8; 2] = [1, 90];
/// A ClientHello of SSL 2 without a name, as it was sent for compatibility (RFC 5246, E.2).
pub(super) const SSLV2: [u8; 30] = [
    0x80, 0x1C, 1, 3, 3, 0, 3, 0, 0, 0, 16, 0, 0, 0x2F, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
    14, 15, 16,
];
/// Bytes of a handshake message that a record holds at most (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 16_384;
/// Where in a handshake message the legacy version is.
const LEGACY_VERSION: usize = 4;
/// Extension number of key_share (RFC 8446, 4.2.8).
const KEY_SHARE: u16 = 51;

/// A hello without a name that every stack answers.
pub(super) fn base() -> ClientHello {
    let mut share = vec![0, 36, 0, 0x1D, 0, 32];
    share.extend_from_slice(&[9; 32]);
    ClientHello::new().extension(KEY_SHARE, &share)
}

/// A hello that makes a TLS 1.3 server ask for another.
pub(super) fn without_key(name: &str) -> ClientHello {
    ClientHello::new().extension(KEY_SHARE, &[0, 0]).sni(name)
}

pub(super) fn hello(name: &str) -> ClientHello {
    base().sni(name).alpn(&["http/1.1"])
}

pub(super) fn one(hello: ClientHello) -> Vec<u8> {
    hello.record()
}

/// A hello with these bytes as its name, which need not be one.
pub(super) fn named(name: String) -> Vec<u8> {
    one(hello(&name))
}

/// This many labels of so many letters, each with its dot.
pub(super) fn labels(count: usize, letters: usize) -> String {
    ("a".repeat(letters) + ".").repeat(count)
}

/// A handshake message in as few records as it needs.
pub(super) fn large(hello: ClientHello) -> Vec<u8> {
    hello.records_of(RECORD_BYTES_MAX)
}

/// Where in the handshake message the middle of the name is.
pub(super) fn in_name(name: &str) -> usize {
    let message = hello(name).handshake();
    let found = message
        .windows(name.len())
        .position(|window| window == name.as_bytes());
    found.map_or(message.len() / 2, |at| at + name.len() / 2)
}

/// A hello in two records, split there, with something between them.
pub(super) fn split(name: &str, at: usize, between: &[u8]) -> Vec<u8> {
    let message = hello(name).handshake();
    let (head, tail) = message.split_at(at);
    [&record(22, head), between, &record(22, tail)].concat()
}

pub(super) fn with_version_of_second_record(name: &str) -> Vec<u8> {
    let message = hello(name).handshake();
    let (head, tail) = message.split_at(in_name(name));
    let mut second = record(22, tail);
    second[2] = 3;
    [record(22, head), second].concat()
}

pub(super) fn record_version(name: &str, version: u16) -> Vec<u8> {
    let mut hello = one(hello(name));
    hello[1..3].copy_from_slice(&version.to_be_bytes());
    hello
}

pub(super) fn legacy_version(name: &str, version: u16) -> Vec<u8> {
    let mut message = hello(name).handshake();
    message[LEGACY_VERSION..][..2].copy_from_slice(&version.to_be_bytes());
    record(22, &message)
}

/// A message that announces another length, and has so many bytes behind it.
pub(super) fn announced(name: &str, difference: i32, more: usize) -> Vec<u8> {
    let mut message = hello(name).handshake();
    let length = (message.len() as i32 - 4 + difference) as u32;
    message[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
    message.extend(vec![0; more]);
    record(22, &message)
}

/// A server name list with one name.
pub(super) fn list(name: &str) -> Vec<u8> {
    list_announcing(name, 0)
}

pub(super) fn list_announcing(name: &str, difference: i32) -> Vec<u8> {
    let length = (name.len() as i32 + 3 + difference) as u16;
    let mut list = length.to_be_bytes().to_vec();
    list.push(0);
    list.extend_from_slice(&(name.len() as u16).to_be_bytes());
    list.extend_from_slice(name.as_bytes());
    list
}

pub(super) fn list_length(name: &str, difference: i32) -> Vec<u8> {
    one(base().extension(0, &list_announcing(name, difference)))
}

/// So many unknown extensions of so many bytes.
pub(super) fn unknown(count: u16, bytes: usize) -> ClientHello {
    let body = vec![0; bytes];
    (0..count).fold(base(), |hello, i| hello.extension(0x4000 + i, &body))
}

pub(super) fn two_compressions(name: &str) -> Vec<u8> {
    let mut message = hello(name).handshake();
    let session = LEGACY_VERSION + 2 + 32;
    let ciphers = session + 1 + usize::from(message[session]);
    let length = usize::from(u16::from_be_bytes([message[ciphers], message[ciphers + 1]]));
    let compression = ciphers + 2 + length;
    message.splice(compression..compression + 2, [2, 1, 0]);
    let length = (message.len() - 4) as u32;
    message[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
    record(22, &message)
}
