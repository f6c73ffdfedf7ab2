use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{
    ByteOrder::{Big, Little},
    CaptureError, Framing, LinkType,
    testing::{Pcap, Pcapng, frames_of},
};

const IPV4: &[u8] = &[0x45, 0, 0, 20, 1, 2, 3, 4, 64, 6];
const IPV6: &[u8] = &[0x60, 0, 0, 0, 0, 0, 59, 64];

fn bytes_of(capture: Vec<u8>) -> Vec<Vec<u8>> {
    let (frames, error) = frames_of(capture);
    assert!(error.is_none(), "{error:?}");
    frames.into_iter().map(|frame| frame.bytes).collect()
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_all_variants() {
    for order in [Little, Big] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34] {
            let capture = Pcap::with(order, magic, 1)
                .frame(b"first")
                .frame(b"")
                .snapped(b"third", 99);
            let (frames, error) = frames_of(capture.bytes);
            assert!(error.is_none(), "{order:?} {magic:x}: {error:?}");
            let read: Vec<_> = frames
                .iter()
                .map(|frame| (&frame.bytes[..], frame.wire_len))
                .collect();
            assert_eq!(
                read,
                [(&b"first"[..], 5), (b"", 0), (b"third", 99)],
                "{order:?} {magic:x}"
            );
        }
    }
}

#[test]
fn the_upper_bits_of_a_pcap_link_type_say_something_else() {
    let capture = Pcap::new(0x5400_0001).frame(b"frame");
    assert_eq!(frames_of(capture.bytes).0[0].framing, Framing::Ethernet);
}

#[test]
fn a_capture_cut_short_yields_what_is_complete() {
    let whole = Pcap::new(1).frame(b"first").frame(b"second");
    let end_of_first = 24 + 16 + 5;
    for len in end_of_first + 1..whole.bytes.len() {
        let (frames, error) = frames_of(whole.bytes[..len].to_vec());
        assert_eq!(frames.len(), 1);
        assert!(
            matches!(error, Some(CaptureError::CutShort { offset }) if offset == end_of_first as u64),
            "{len}: {error:?}"
        );
    }
    let whole = Pcapng::new(Little).interface(1, 0).enhanced(0, b"first", 5);
    let end_of_first = whole.bytes.len();
    let whole = whole.enhanced(0, b"second", 6);
    for len in end_of_first + 1..whole.bytes.len() {
        let (frames, error) = frames_of(whole.bytes[..len].to_vec());
        // The block's repeated length may be missing: the frame is not trusted then.
        assert_eq!(frames.len(), 1);
        assert!(
            matches!(error, Some(CaptureError::CutShort { .. })),
            "{len}: {error:?}"
        );
    }
}

#[test]
fn an_absurd_record_length_is_damage_and_not_an_allocation() {
    let mut capture = Pcap::new(1).frame(b"first");
    capture.bytes.extend([0; 8]);
    capture.bytes.extend([0xff; 8]);
    let (frames, error) = frames_of(capture.bytes);
    assert_eq!(frames.len(), 1);
    let message = error.expect("an error").to_string();
    assert!(message.contains("damaged at byte 45"), "{message}");
}

#[test]
fn pcapng_sections_interfaces_and_packet_blocks_are_read() {
    for (first, second) in [(Little, Big), (Big, Little)] {
        let capture = Pcapng::new(first)
            .interface(1, 0)
            .block(5, &[0; 20]) // interface statistics
            .enhanced(0, b"one", 3)
            .interface(101, 4)
            .block(0x0bad, b"custom b") // unknown to everybody
            .enhanced(1, IPV4, 100)
            .block(4, &[0; 4]) // name resolution
            .obsolete(0, b"three")
            .section(second)
            .interface(113, 6)
            .simple(b"snapped!", 8)
            .enhanced(0, b"last", 4);
        let (frames, error) = frames_of(capture.bytes);
        assert!(error.is_none(), "{error:?}");
        let read: Vec<_> = frames
            .iter()
            .map(|frame| (frame.framing, &frame.bytes[..], frame.wire_len))
            .collect();
        assert_eq!(
            read,
            [
                (Framing::Ethernet, &b"one"[..], 3),
                (Framing::Ip, IPV4, 100),
                (Framing::Ethernet, b"three", 5),
                (Framing::LinuxCooked, b"snappe", 8),
                (Framing::LinuxCooked, b"last", 4),
            ]
        );
    }
}

#[test]
fn damaged_pcapng_blocks_are_told_apart() {
    let base = || Pcapng::new(Little).interface(1, 0);
    let message = |capture: Pcapng| frames_of(capture.bytes).1.expect("an error").to_string();
    assert!(
        message(base().enhanced(7, b"x", 1)).contains("interface 7, but the section describes 1")
    );
    assert!(message(base().block(6, &[0; 8])).contains("too short for its type"));
    let mut odd_length = base();
    odd_length.bytes.extend([6, 0, 0, 0, 13, 0, 0, 0]);
    assert!(message(odd_length).contains("a length of 13"));
    let mut other_end = base().enhanced(0, b"four", 4);
    let last = other_end.bytes.len() - 4;
    other_end.bytes[last] ^= 1;
    assert!(message(other_end).contains("at its end"));
    let mut body = vec![0; 20];
    body[12] = 9; // nine bytes announced, none there
    assert!(
        message(base().block(6, &body)).contains("a packet of 9 bytes in a block with room for 0")
    );
}

#[test]
fn unsupported_link_types_are_named() {
    let (_, error) = frames_of(Pcap::new(9).bytes);
    let message = error.expect("an error").to_string();
    assert!(
        message.contains("link type 9 (PPP) is not supported"),
        "{message}"
    );
    let (_, error) = frames_of(Pcap::new(12_345).frame(b"x").bytes);
    assert!(
        error
            .expect("an error")
            .to_string()
            .contains("link type 12345 is")
    );
    // In pcapng an interface counts only when it has frames.
    let capture = Pcapng::new(Big)
        .interface(127, 0)
        .interface(1, 0)
        .enhanced(1, b"fine", 4);
    let frames = frames_of(capture.bytes.clone());
    assert!(frames.1.is_none() && frames.0.len() == 1);
    let (frames, error) = frames_of(capture.enhanced(0, b"radio", 5).bytes);
    assert_eq!(frames.len(), 1);
    assert!(
        error
            .expect("an error")
            .to_string()
            .contains("127 (IEEE802_11_RADIOTAP)")
    );
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for bytes in [&b""[..], b"\x0a", b"#!/bin/sh\n", &[0; 64]] {
        let (_, error) = frames_of(bytes.to_vec());
        assert!(
            matches!(error, Some(CaptureError::NotACapture { .. })),
            "{bytes:?}: {error:?}"
        );
    }
}

#[test]
fn gzip_is_unpacked_and_a_cut_one_yields_what_is_complete() {
    let plain = Pcap::new(1).frame(b"first").frame(&[7; 5000]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(&plain.bytes).expect("writing to memory");
    let packed = encoder.finish().expect("writing to memory");
    assert_eq!(bytes_of(packed.clone()).len(), 2);
    let (frames, error) = frames_of(packed[..2000].to_vec());
    assert_eq!(frames.len(), 1);
    assert!(
        matches!(error, Some(CaptureError::CutShort { .. })),
        "{error:?}"
    );
}

#[test]
fn every_link_type_becomes_ethernet() {
    let sll = |protocol: [u8; 2], payload: &[u8]| [&[0; 14][..], &protocol, payload].concat();
    let sll2 = |protocol: [u8; 2], payload: &[u8]| [&protocol[..], &[0; 18], payload].concat();
    let family = |family: [u8; 4], payload: &[u8]| [&family[..], payload].concat();
    let cases = [
        (12, IPV4.to_vec(), [0x08, 0x00], IPV4),
        (14, IPV6.to_vec(), [0x86, 0xdd], IPV6),
        (101, IPV6.to_vec(), [0x86, 0xdd], IPV6),
        (228, IPV4.to_vec(), [0x08, 0x00], IPV4),
        (229, IPV6.to_vec(), [0x86, 0xdd], IPV6),
        (113, sll([0x08, 0x00], IPV4), [0x08, 0x00], IPV4),
        (276, sll2([0x86, 0xdd], IPV6), [0x86, 0xdd], IPV6),
        (
            113,
            sll([0x81, 0x00], &[0, 5, 8, 0]),
            [0x81, 0x00],
            &[0, 5, 8, 0],
        ),
        (0, family([2, 0, 0, 0], IPV4), [0x08, 0x00], IPV4),
        (0, family([0, 0, 0, 30], IPV6), [0x86, 0xdd], IPV6),
        (108, family([0, 0, 0, 24], IPV6), [0x86, 0xdd], IPV6),
        (108, family([0, 0, 0, 2], IPV4), [0x08, 0x00], IPV4),
        (0, family([7, 0, 0, 0], &[0xff]), [0x88, 0xb5], &[0xff]),
        (101, Vec::new(), [0x88, 0xb5], &[]),
        (113, vec![0; 15], [0x88, 0xb5], &[]),
    ];
    for (link, frame, ether_type, payload) in cases {
        let ethernet = LinkType(link)
            .framing()
            .expect("supported")
            .to_ethernet(frame);
        assert_eq!(ethernet[12..14], ether_type, "link type {link}");
        assert_eq!(&ethernet[14..], payload, "link type {link}");
    }
    let frame = vec![1, 2, 3];
    assert_eq!(Framing::Ethernet.to_ethernet(frame.clone()), frame);
}
