//! The builders against an independent parser.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::{
    Checksum, Extension, Packet, TPID_8021AD, TPID_8021Q, http::Request, tls::ClientHello,
};

const V4: (&str, &str) = ("192.0.2.7:40000", "203.0.113.2:443");
const V6: (&str, &str) = ("[2001:db8::7]:40000", "[2001:db8:2::2]:443");

fn tcp_payload(frame: &[u8]) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a well-formed frame");
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.payload().to_vec(),
        other => panic!("no TCP in {other:?}"),
    }
}

fn tcp_checksum_is_right(frame: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a well-formed frame");
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("no TCP")
    };
    let expected = match sliced.net {
        Some(NetSlice::Ipv4(v4)) => {
            tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination())
        }
        Some(NetSlice::Ipv6(v6)) => {
            tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination())
        }
        other => panic!("no IP in {other:?}"),
    };
    expected.expect("a checksum") == tcp.checksum()
}

#[test]
fn tcp_over_both_families_parses_back_with_right_checksums() {
    for (src, dst) in [V4, V6] {
        for payload in [&b""[..], b"x", b"hello"] {
            let frame = Packet::tcp(src, dst)
                .tcp_options(&[1; 8])
                .payload(payload)
                .build();
            assert_eq!(tcp_payload(&frame), payload);
            assert!(tcp_checksum_is_right(&frame), "{src} {payload:?}");
        }
    }
}

#[test]
fn wrong_and_partial_checksums_are_wrong() {
    for checksum in [Checksum::Wrong, Checksum::Partial, Checksum::Zero] {
        let frame = Packet::tcp(V4.0, V4.1)
            .payload("hello")
            .checksum(checksum)
            .build();
        assert!(!tcp_checksum_is_right(&frame), "{checksum:?}");
    }
}

#[test]
fn ipv4_header_checksum_is_right_with_and_without_options() {
    for options in [&[][..], &[1; 4], &[1; 40]] {
        let frame = Packet::udp(V4.0, V4.1)
            .ipv4_options(options)
            .payload("x")
            .build();
        let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
        let Some(NetSlice::Ipv4(v4)) = sliced.net else {
            panic!("no IPv4")
        };
        let header = v4.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        assert_eq!(v4.header().options(), options);
    }
}

#[test]
fn tags_and_extension_headers_are_skipped_by_a_parser() {
    let frame = Packet::tcp(V6.0, V6.1)
        .vlan(TPID_8021AD, 7)
        .vlan(TPID_8021Q, 8)
        .extension(Extension::HopByHop(1))
        .extension(Extension::Routing(4))
        .extension(Extension::Destination(3))
        .payload("hello")
        .build();
    assert_eq!(tcp_payload(&frame), b"hello");
    assert!(tcp_checksum_is_right(&frame));
}

#[test]
fn fragments_cover_the_transport_bytes() {
    for (src, dst) in [V4, V6] {
        let packet = Packet::udp(src, dst).payload("0123456789abcdef");
        assert_eq!(packet.transport_len(), 24);
        for (piece, more, offset) in [(0..8, true, 0), (8..24, false, 1)] {
            let frame = packet.clone().fragment(piece).build();
            let sliced = SlicedPacket::from_ethernet(&frame).expect("a well-formed frame");
            let (seen_more, seen_offset) = match sliced.net {
                Some(NetSlice::Ipv4(v4)) => (
                    v4.header().more_fragments(),
                    v4.header().fragments_offset().value(),
                ),
                Some(NetSlice::Ipv6(v6)) => {
                    let extensions = v6.extensions().clone();
                    let fragment = extensions
                        .into_iter()
                        .find_map(|extension| match extension {
                            etherparse::Ipv6ExtensionSlice::Fragment(header) => Some(header),
                            _ => None,
                        })
                        .expect("a fragment header");
                    // etherparse 0.19 reads M from the wrong bit; RFC 8200, 4.5.
                    let word = u16::from_be_bytes([fragment.slice()[2], fragment.slice()[3]]);
                    (word & 1 == 1, word >> 3)
                }
                other => panic!("no IP in {other:?}"),
            };
            assert_eq!((seen_more, seen_offset), (more, offset), "{src}");
        }
    }
}

#[test]
fn a_hello_has_the_lengths_it_announces() {
    let hello = ClientHello::new()
        .grease()
        .padding(100)
        .alpn(&["h2"])
        .sni("blocked.example");
    let message = hello.handshake();
    let announced = u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize;
    assert_eq!(announced + 4, message.len());
    assert!(message.ends_with(b"blocked.example"));
    assert_eq!(hello.record().len(), message.len() + 5);
    assert_eq!(hello.records_of(1).len(), message.len() * 6);
    assert_eq!(hello.records_split_at(3).len(), message.len() + 10);
}

#[test]
fn a_request_ends_with_an_empty_line() {
    let request = Request::to("blocked.example").body(b"x").bytes();
    assert!(request.starts_with(b"GET / HTTP/1.1\r\nHost: blocked.example\r\n"));
    assert!(request.ends_with(b"\r\n\r\nx"));
}
