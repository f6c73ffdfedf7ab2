//! What is answered, and what the answers are, with `etherparse` as a second opinion.

use std::vec::Vec;

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::{
    abi::{Protocol, Response, Taken, taken},
    flow::flags,
    limits::{ANSWER_GROWTH_BYTES_MAX, ICMP_QUOTE_BYTES_MAX, QUIC_DATAGRAM_BYTES_MIN, STAMP_AHEAD},
    reason::Reason,
    wire::{Address, Family, Fragment, TCP, UDP, mapped},
};

const CLIENT_V4: Address = mapped(0xc000_0207);
const SERVER_V4: Address = mapped(0xcb00_7102);
const CLIENT_V6: Address = [0x2001_0db8_0001_0000, 7];
const SERVER_V6: Address = [0x2001_0db8_0002_0000, 2];

/// A segment with payload and timestamps from the client to the server.
fn segment(family: Family) -> Request {
    let (src, dst, header_len) = match family {
        Family::V4 => (CLIENT_V4, SERVER_V4, 20),
        Family::V6 => (CLIENT_V6, SERVER_V6, 40),
    };
    Request {
        family,
        src,
        dst,
        protocol: TCP,
        is_sound: true,
        hops: 57,
        network: 14,
        packet_len: header_len + 32 + 300,
        src_port: 40_000,
        dst_port: 443,
        payload_len: 300,
        seq: 0xffff_ff00,
        ack: 7_000,
        flags: flags::ACK | flags::PSH,
        stamped: true,
        stamp: 0x0102_0304,
        echo: 0x0506_0708,
        ..Request::EMPTY
    }
}

fn datagram(family: Family, payload_len: u32) -> Request {
    let packet_len = payload_len + if family == Family::V4 { 28 } else { 48 };
    Request {
        protocol: UDP,
        packet_len,
        payload_len,
        stamped: false,
        flags: 0,
        ..segment(family)
    }
}

fn occasion(cause: Cause) -> Occasion {
    Occasion {
        cause,
        protocol: Protocol::Tls,
        is_verified: true,
        in_flight: false,
        negotiates: true,
        ack: 7_000,
        server_reset: false,
        was_reset: false,
    }
}

/// The IP packet of an answer; what is copied comes from `frame`.
fn packet(request: &Request, refusal: Refusal, frame: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut draft = Draft::EMPTY;
    draft.bytes = [0xa5; DRAFT_BYTES];
    let copy = |draft: &mut Draft, from: u32, len: u32, at: u32| {
        let Some(bytes) = frame.get(from as usize..(from + len) as usize) else {
            return false;
        };
        draft.bytes[at as usize..(at + len) as usize].copy_from_slice(bytes);
        true
    };
    let reply = compose(&mut draft, request, refusal, 77, copy)?;
    let bytes = &draft.bytes[reply.at as usize..(reply.at + reply.len) as usize];
    Some((bytes.to_vec(), reply.goes_back))
}

/// Checks lengths, checksums and addresses, as somebody else reads them.
fn check(request: &Request, packet: &[u8], goes_back: bool) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet that parses");
    let (src, dst) = if goes_back {
        (request.dst, request.src)
    } else {
        (request.src, request.dst)
    };
    let hops = if goes_back { 64 } else { request.hops };
    let transport = sliced.transport.as_ref().expect("a transport header");
    match sliced.net.as_ref().expect("a network header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.total_len()), packet.len());
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert_eq!(u32::from(header.source_addr()), src[1] as u32);
            assert_eq!(u32::from(header.destination_addr()), dst[1] as u32);
            assert_eq!((header.ttl(), header.identification()), (hops, 0));
            assert!(header.dont_fragment() && !header.more_fragments());
            let (src, dst) = (header.source(), header.destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp
                        .to_header()
                        .calc_checksum_ipv4_raw(src, dst, tcp.payload());
                    assert_eq!(sum, Ok(tcp.checksum()));
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv4_raw(src, dst, udp.payload());
                    assert_eq!(sum, Ok(udp.checksum()));
                }
                TransportSlice::Icmpv4(icmp) => {
                    let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                    assert_eq!(sum, icmp.checksum());
                }
                TransportSlice::Icmpv6(_) => panic!("ICMPv6 over IPv4"),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.payload_length()) + 40, packet.len());
            let words = |address: [u8; 16]| {
                let word = u128::from_be_bytes(address);
                [(word >> 64) as u64, word as u64]
            };
            assert_eq!(
                (words(header.source()), words(header.destination())),
                (src, dst)
            );
            assert_eq!(header.hop_limit(), hops);
            let (src, dst) = (header.source(), header.destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp
                        .to_header()
                        .calc_checksum_ipv6_raw(src, dst, tcp.payload());
                    assert_eq!(sum, Ok(tcp.checksum()));
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv6_raw(src, dst, udp.payload());
                    assert_eq!(sum, Ok(udp.checksum()));
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(icmp.is_checksum_valid(src, dst));
                }
                TransportSlice::Icmpv4(_) => panic!("ICMP over IPv6"),
            }
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    }
}

/// The segment of an answer, whose packet is in order.
fn tcp(request: &Request, refusal: Refusal) -> (etherparse::TcpHeader, Vec<u8>) {
    let (packet, goes_back) = packet(request, refusal, &[]).expect("an answer");
    check(request, &packet, goes_back);
    let sliced = SlicedPacket::from_ip(&packet).expect("a packet that parses");
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("no segment");
    };
    (tcp.to_header(), tcp.payload().to_vec())
}

#[test]
fn an_alert_takes_the_servers_place_and_ends_the_stream() {
    for family in [Family::V4, Family::V6] {
        let request = segment(family);
        let (header, payload) = tcp(&request, Refusal::Alert);
        assert_eq!(payload, ALERT);
        assert_eq!((header.source_port, header.destination_port), (443, 40_000));
        assert_eq!(header.sequence_number, 7_000);
        assert_eq!(
            header.acknowledgment_number,
            0xffff_ff00_u32.wrapping_add(300)
        );
        assert!(header.fin && header.ack && header.psh && !header.rst && !header.syn);
        let stamps: Vec<_> = header.options_iterator().collect();
        assert_eq!(
            stamps,
            [
                Ok(etherparse::TcpOptionElement::Noop),
                Ok(etherparse::TcpOptionElement::Noop),
                Ok(etherparse::TcpOptionElement::Timestamp(
                    0x0506_0708 + STAMP_AHEAD,
                    0x0102_0304
                )),
            ]
        );
    }
}

#[test]
fn a_client_without_timestamps_gets_none() {
    let request = Request {
        stamped: false,
        ..segment(Family::V4)
    };
    let (header, payload) = tcp(&request, Refusal::Unavailable);
    assert_eq!((payload, header.options.len()), (UNAVAILABLE.to_vec(), 0));
    assert!(header.fin);
}

#[test]
fn a_fin_of_the_client_is_acknowledged_with_its_segment() {
    let request = Request {
        flags: flags::ACK | flags::FIN,
        ..segment(Family::V4)
    };
    let (header, _) = tcp(&request, Refusal::Alert);
    assert_eq!(
        header.acknowledgment_number,
        0xffff_ff00_u32.wrapping_add(301)
    );
}

#[test]
fn resets_have_the_number_that_their_receiver_expects() {
    for family in [Family::V4, Family::V6] {
        let (header, payload) = tcp(&segment(family), Refusal::ResetClient);
        assert!(header.rst && !header.ack && !header.fin && payload.is_empty());
        assert_eq!((header.source_port, header.sequence_number), (443, 7_000));

        let (header, payload) = tcp(&segment(family), Refusal::ResetServer);
        assert!(header.rst && header.ack && payload.is_empty());
        assert_eq!((header.source_port, header.sequence_number), (40_000, 77));

        let (header, _) = tcp(&segment(family), Refusal::ResetOnward);
        assert!(header.rst && header.ack);
        assert_eq!(header.sequence_number, 0xffff_ff00);
        assert_eq!(
            (header.source_port, header.acknowledgment_number),
            (40_000, 7_000)
        );

        let syn = Request {
            flags: flags::SYN,
            payload_len: 0,
            seq: u32::MAX,
            ack: 0,
            ..segment(family)
        };
        let (header, _) = tcp(&syn, Refusal::RefuseSyn);
        assert!(header.rst && header.ack && !header.syn);
        assert_eq!(
            (header.sequence_number, header.acknowledgment_number),
            (0, 0)
        );
    }
}

#[test]
fn an_icmp_error_quotes_the_packet_up_to_a_bound() {
    for (family, kind, code) in [(Family::V4, 3, 13), (Family::V6, 1, 1)] {
        for payload_len in [0, 1, 60, 1_000] {
            let request = datagram(family, payload_len);
            let frame: Vec<u8> = (0..2_000_u32).map(|i| i as u8).collect();
            let (packet, goes_back) =
                packet(&request, Refusal::Prohibited, &frame).expect("an answer");
            check(&request, &packet, goes_back);
            let headers = if family == Family::V4 { 28 } else { 48 };
            assert_eq!(packet[headers - 8..headers - 6], [kind, code]);
            let quote = &packet[headers..];
            assert_eq!(quote, &frame[14..14 + quote.len()]);
            let least = request.packet_len.min(ICMP_QUOTE_BYTES_MAX) as usize - 3;
            assert!((least..=128).contains(&quote.len()), "{}", quote.len());
            assert!(packet.len() <= request.packet_len as usize + headers);
        }
    }
}

#[test]
fn a_packet_that_cannot_be_quoted_is_not_answered() {
    assert_eq!(
        packet(&datagram(Family::V4, 9), Refusal::Prohibited, &[0; 20]),
        None
    );
}

#[test]
fn version_negotiation_swaps_the_ids_and_lists_no_version_of_the_client() {
    let mut frame = std::vec![0; 14 + 28];
    frame.extend_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
    frame.extend_from_slice(b"destined\x05other");
    frame.resize(1_400, 0);
    for (version, listed) in [(1, 0x1a1a_1a1a), (0x1a1a_1a1a, 0x2a2a_2a2a_u32)] {
        let request = Request {
            quic: LongHeader {
                is_there: true,
                version,
                offset: 42,
                dst_id_len: 8,
                src_id_len: 5,
            },
            ..datagram(Family::V4, 1_200)
        };
        let (packet, goes_back) = packet(&request, Refusal::Negotiate, &frame).expect("an answer");
        check(&request, &packet, goes_back);
        let mut expected = b"\xc0\0\0\0\0\x05other\x08destined".to_vec();
        expected.extend_from_slice(&listed.to_be_bytes());
        assert_eq!(packet[28..], expected);
    }
}

#[test]
fn a_name_is_answered_only_on_a_verified_connection() {
    let request = segment(Family::V4);
    let by_name = |change: fn(&mut Occasion)| {
        let mut occasion = occasion(Cause::Name);
        change(&mut occasion);
        plan(&occasion, &request)
    };
    assert_eq!(by_name(|_| ()), Refusal::Alert);
    assert_eq!(
        by_name(|it| it.protocol = Protocol::Http),
        Refusal::Unavailable
    );
    let busy = |it: &mut Occasion| (it.protocol, it.in_flight) = (Protocol::Http, true);
    assert_eq!(by_name(busy), Refusal::ResetClient);
    assert_eq!(by_name(|it| it.is_verified = false), Refusal::Unverified);
    let unacknowledged = Request {
        flags: flags::PSH,
        ..request
    };
    assert_eq!(
        plan(&occasion(Cause::Name), &unacknowledged),
        Refusal::Unverified
    );
}

#[test]
fn a_refused_client_is_told_until_it_has_heard_then_the_server_then_the_client() {
    let told = occasion(Cause::Refused);
    let both = Occasion {
        server_reset: true,
        ..told
    };
    let hello = segment(Family::V4);
    let bare = Request {
        payload_len: 0,
        ..hello
    };
    let heard = Request { ack: 7_008, ..bare };
    let reset = Request {
        flags: flags::RST,
        ..bare
    };
    for (occasion, request, answer) in [
        (told, hello, Refusal::Alert),
        (told, bare, Refusal::Silent),
        (told, heard, Refusal::ResetServer),
        (told, reset, Refusal::ResetServer),
        (both, hello, Refusal::Alert),
        (both, heard, Refusal::ResetClient),
        (both, reset, Refusal::Silent),
    ] {
        assert_eq!(plan(&occasion, &request), answer, "{request:?}");
    }
    let was_reset = Occasion {
        protocol: Protocol::Http,
        was_reset: true,
        ..told
    };
    assert_eq!(plan(&was_reset, &hello), Refusal::ResetClient);
}

#[test]
fn a_client_of_a_page_that_is_gone_is_reset() {
    let gone = occasion(Cause::Lost);
    let hello = segment(Family::V4);
    assert_eq!(plan(&gone, &hello), Refusal::ResetClient);
    for bits in [flags::RST, flags::RST | flags::ACK, flags::SYN, flags::PSH] {
        let request = Request {
            flags: bits,
            ..hello
        };
        assert_eq!(plan(&gone, &request), Refusal::Silent);
    }
}

#[test]
fn what_the_deciding_program_wrote_says_what_the_occasion_is() {
    let by_reason = |reason: Reason| Response {
        reason: reason as u8,
        protocol: Protocol::Http as u8,
        flags: Response::VERIFIED | Response::CLEAN | Response::NAMED,
        ack: 7,
        ..Response::default()
    };
    for (reason, cause) in [
        (Reason::Hostname, Cause::Name),
        (Reason::BlockedFlow, Cause::Name),
        (Reason::OriginSource, Cause::Source),
        (Reason::OriginDestination, Cause::Destination),
        (Reason::QuicRefused, Cause::Quic),
    ] {
        let occasion = Occasion::of(&by_reason(reason), None);
        assert_eq!((occasion.cause, occasion.ack), (cause, 7));
        assert!(occasion.is_verified && !occasion.in_flight && !occasion.negotiates);
    }
    let not_clean = Response {
        flags: Response::VERIFIED,
        ..by_reason(Reason::Hostname)
    };
    assert!(Occasion::of(&not_clean, None).in_flight);
    let taken = Taken {
        state: taken::REFUSED,
        protocol: Protocol::Tls as u8,
        flags: taken::flag::SERVER_RESET,
        ack: 9,
        ..Taken::default()
    };
    let later = by_reason(Reason::Taken);
    let occasion = Occasion::of(&later, Some(&taken));
    assert_eq!(
        (occasion.cause, occasion.protocol),
        (Cause::Refused, Protocol::Tls)
    );
    assert!(occasion.server_reset && !occasion.was_reset && occasion.ack == 9);
    let page = Taken {
        state: taken::PAGE,
        ..taken
    };
    assert_eq!(Occasion::of(&later, Some(&page)).cause, Cause::Lost);
}

#[test]
fn blocked_origins_are_refused_by_what_they_or_others_send() {
    let with = |bits: u8| Request {
        flags: bits,
        ..segment(Family::V6)
    };
    let (syn, syn_ack) = (with(flags::SYN), with(flags::SYN | flags::ACK));
    let (data, reset) = (with(flags::ACK), with(flags::RST | flags::ACK));
    let source = occasion(Cause::Source);
    assert_eq!(plan(&source, &syn), Refusal::RefuseSyn);
    assert_eq!(plan(&source, &syn_ack), Refusal::ResetOnward);
    assert_eq!(plan(&source, &data), Refusal::ResetOnward);
    assert_eq!(plan(&source, &reset), Refusal::Silent);
    let unknown = Occasion {
        is_verified: false,
        ..occasion(Cause::Destination)
    };
    assert_eq!(plan(&unknown, &syn), Refusal::RefuseSyn);
    assert_eq!(plan(&unknown, &data), Refusal::Unverified);
    assert_eq!(plan(&unknown, &reset), Refusal::Silent);
    assert_eq!(
        plan(&occasion(Cause::Destination), &data),
        Refusal::ResetClient
    );
}

#[test]
fn icmp_answers_neither_errors_nor_groups_nor_nobody() {
    let by_destination = occasion(Cause::Destination);
    let ask = |request: Request| plan(&by_destination, &request);
    let echo = |protocol, icmp_type, family| {
        ask(Request {
            protocol,
            icmp_type,
            ..datagram(family, 8)
        })
    };
    assert_eq!(echo(ICMP, 8, Family::V4), Refusal::Prohibited);
    assert_eq!(echo(ICMPV6, 128, Family::V6), Refusal::Prohibited);
    for icmp_type in [0, 3, 4, 5, 11, 12] {
        assert_eq!(echo(ICMP, icmp_type, Family::V4), Refusal::Silent);
    }
    for icmp_type in [1, 2, 3, 4, 129, 137] {
        assert_eq!(echo(ICMPV6, icmp_type, Family::V6), Refusal::Silent);
    }
    let v4 = datagram(Family::V4, 8);
    for nobody in [0, 0x7f00_0001, 0xe000_0001, 0xffff_ffff, 0xf000_0000] {
        let src = mapped(nobody);
        assert_eq!(ask(Request { src, ..v4 }), Refusal::Silent, "{nobody:x}");
        let dst = mapped(nobody);
        assert_eq!(ask(Request { dst, ..v4 }), Refusal::Silent, "{nobody:x}");
    }
    let v6 = datagram(Family::V6, 8);
    for nobody in [[0, 0], [0, 1], [0xff02 << 48, 1]] {
        assert_eq!(ask(Request { src: nobody, ..v6 }), Refusal::Silent);
        assert_eq!(ask(Request { dst: nobody, ..v6 }), Refusal::Silent);
    }
    let to_group = Request {
        to_group: true,
        ..v4
    };
    assert_eq!(ask(to_group), Refusal::Silent);
    let odd = Request {
        is_sound: false,
        ..v4
    };
    assert_eq!(ask(odd), Refusal::Silent);
    let first = Request {
        fragment: Fragment::First,
        ..v4
    };
    assert_eq!(ask(first), Refusal::Prohibited);
    assert_eq!(
        ask(Request {
            protocol: TCP,
            ..first
        }),
        Refusal::Silent
    );
}

#[test]
fn quic_is_negotiated_away_only_where_it_opens_a_connection() {
    let initial = Request {
        quic: LongHeader {
            is_there: true,
            version: 1,
            ..LongHeader::NONE
        },
        ..datagram(Family::V4, QUIC_DATAGRAM_BYTES_MIN)
    };
    let by_destination = occasion(Cause::Destination);
    let any_quic = occasion(Cause::Quic);
    assert_eq!(plan(&by_destination, &initial), Refusal::Negotiate);
    assert_eq!(plan(&any_quic, &initial), Refusal::Negotiate);
    let left_alone = Occasion {
        negotiates: false,
        ..by_destination
    };
    assert_eq!(plan(&left_alone, &initial), Refusal::Prohibited);
    let short = Request {
        payload_len: QUIC_DATAGRAM_BYTES_MIN - 1,
        ..initial
    };
    let negotiation = Request {
        quic: LongHeader {
            version: 0,
            ..initial.quic
        },
        ..initial
    };
    for other in [short, negotiation] {
        assert_eq!(plan(&by_destination, &other), Refusal::Prohibited);
        assert_eq!(plan(&any_quic, &other), Refusal::Silent);
    }
}

#[test]
fn what_crosses_a_function_boundary_survives() {
    for goes_back in [false, true] {
        for (at, len) in [(0, 1), (20, 156), (0, 176)] {
            let reply = Some(Reply { at, len, goes_back });
            assert_eq!(Reply::unpack(Reply::pack(reply)), reply);
        }
    }
    assert_eq!(Reply::unpack(Reply::pack(None)), None);
    let refusals = (0..=u8::MAX).map(Refusal::from_u8);
    let mut known = 0;
    for (number, refusal) in refusals.enumerate() {
        if refusal as usize == number {
            known += 1;
        } else {
            assert_eq!(refusal, Refusal::Silent);
        }
    }
    assert_eq!(known, Refusal::Negotiate as usize + 1);
}

fn causes() -> impl Strategy<Value = Cause> {
    proptest::sample::select(
        &[
            Cause::Name,
            Cause::Source,
            Cause::Destination,
            Cause::Refused,
            Cause::Quic,
        ][..],
    )
}

fn protocols() -> impl Strategy<Value = Protocol> {
    proptest::sample::select(
        &[
            Protocol::None,
            Protocol::Tls,
            Protocol::Http,
            Protocol::Quic,
        ][..],
    )
}

prop_compose! {
    fn occasions()(
        cause in causes(),
        protocol in protocols(),
        bits: [bool; 5],
        ack: u32,
    ) -> Occasion {
        let [is_verified, in_flight, negotiates, server_reset, was_reset] = bits;
        Occasion {
            cause,
            protocol,
            is_verified,
            in_flight,
            negotiates,
            ack,
            server_reset,
            was_reset,
        }
    }
}

prop_compose! {
    fn segments()(
        is_v4: bool,
        src: [u64; 2],
        dst: [u64; 2],
        ports: [u16; 2],
        numbers: [u32; 2],
        stamps: Option<[u32; 2]>,
        flags: u8,
        hops: u8,
        payload_len in 0_u32..3_000,
    ) -> Request {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let address = |words: [u64; 2]| match family {
            Family::V4 => mapped(words[1] as u32),
            Family::V6 => words,
        };
        let headers = if is_v4 { 40 } else { 60 } + if stamps.is_some() { 12 } else { 0 };
        let [stamp, echo] = stamps.unwrap_or_default();
        Request {
            family,
            src: address(src),
            dst: address(dst),
            packet_len: headers + payload_len,
            src_port: ports[0],
            dst_port: ports[1],
            seq: numbers[0],
            ack: numbers[1],
            flags,
            hops,
            stamped: stamps.is_some(),
            stamp,
            echo,
            payload_len,
            ..segment(family)
        }
    }
}

proptest! {
    #[test]
    fn any_segment_gets_nothing_or_a_packet_that_is_right(
        occasion in occasions(),
        request in segments(),
    ) {
        let answer = plan(&occasion, &request);
        let reset = request.flags & flags::RST != 0;
        let Some((packet, goes_back)) = packet(&request, answer, &[]) else {
            prop_assert!(matches!(answer, Refusal::Silent | Refusal::Unverified));
            return Ok(());
        };
        check(&request, &packet, goes_back);
        prop_assert!(!(reset && goes_back), "{answer:?} answers a reset");
        let ipv4 = request.family == Family::V4;
        prop_assert_eq!(packet[if ipv4 { 9 } else { 6 }], IpNumber::TCP.0);
        let (sent, got) = (packet.len(), request.packet_len as usize);
        let may_grow = answer == Refusal::Unavailable;
        prop_assert!(sent <= got || may_grow && sent <= got + ANSWER_GROWTH_BYTES_MAX, "{sent} for {got}");
        let is_known = matches!(occasion.cause, Cause::Refused | Cause::Lost);
        if !occasion.is_verified && !is_known {
            let opens = request.flags & flags::SYN != 0;
            prop_assert!(!goes_back || opens, "{answer:?} without proof");
        }
    }
}
