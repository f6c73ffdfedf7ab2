use etherparse::PacketBuilder;
use filter_common::reason::Reason;

use super::{super::testing::*, pass};
use crate::{
    host::HostRunner,
    replay::{Findings, Flow, Unsupported, capture::Frame},
};

const CLIENT: End = (1, 51_514);
const SERVER: End = (9, 443);

fn judge(frames: Vec<Vec<u8>>) -> Findings {
    let mut runner = HostRunner::new(names_only(), 0);
    replay(&mut runner, frames.into_iter().map(captured).collect())
}

fn name(flow: &Flow) -> Option<&str> {
    let named = flow.tally.named.as_ref()?;
    Some(std::str::from_utf8(&named.name).expect("a test's name"))
}

fn source(flow: &Flow) -> String {
    format!(
        "{}:{}",
        flow.src().address,
        flow.src().port.unwrap_or_default()
    )
}

#[test]
fn a_connection_is_one_flow_from_its_initiator() {
    let findings = judge(vec![
        tcp(CLIENT, SERVER, 100, SYN, b""),
        tcp(SERVER, CLIENT, 500, syn_ack(101), b""),
        tcp(CLIENT, SERVER, 101, DATA, &client_hello("www.example.org")),
        tcp(
            SERVER,
            CLIENT,
            501,
            DATA,
            b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
        ),
    ]);
    let [flow] = &findings.flows[..] else {
        panic!("{} flows", findings.flows.len())
    };
    assert_eq!(
        (source(flow).as_str(), flow.tally.frames),
        ("192.0.2.1:51514", 4)
    );
    assert_eq!(name(flow), Some("www.example.org"));
    assert_eq!((findings.summary.frames, findings.summary.named), (4, 1));
}

#[test]
fn a_flow_seen_from_the_middle_is_turned_by_syn_ack_or_hello() {
    let syn_ack_first = judge(vec![
        tcp(SERVER, CLIENT, 500, syn_ack(101), b""),
        tcp(CLIENT, SERVER, 101, DATA, b""),
    ]);
    assert_eq!(source(&syn_ack_first.flows[0]), "192.0.2.1:51514");
    let hello_second = judge(vec![
        tcp(SERVER, CLIENT, 500, DATA, b""),
        tcp(CLIENT, SERVER, 101, DATA, &client_hello("a.example")),
    ]);
    assert_eq!(source(&hello_second.flows[0]), "192.0.2.1:51514");
    let nothing_known = judge(vec![
        tcp(SERVER, CLIENT, 500, DATA, b"x"),
        tcp(CLIENT, SERVER, 101, DATA, b"y"),
    ]);
    assert_eq!(source(&nothing_known.flows[0]), "192.0.2.9:443");
    // A SYN is believed before a hello from the other side.
    let hello_from_server = judge(vec![
        tcp(CLIENT, SERVER, 100, SYN, b""),
        tcp(SERVER, CLIENT, 500, DATA, &client_hello("a.example")),
    ]);
    assert_eq!(source(&hello_from_server.flows[0]), "192.0.2.1:51514");
}

#[test]
fn reused_ports_make_a_new_flow_after_the_old_one_is_closed() {
    for end in [FIN, RST] {
        let findings = judge(vec![
            tcp(CLIENT, SERVER, 100, SYN, b""),
            tcp(CLIENT, SERVER, 101, DATA, &client_hello("first.example")),
            tcp(CLIENT, SERVER, 400, end, b""),
            tcp(CLIENT, SERVER, 9000, SYN, b""),
            tcp(CLIENT, SERVER, 9001, DATA, &client_hello("second.example")),
        ]);
        let names: Vec<_> = findings.flows.iter().map(name).collect();
        assert_eq!(names, [Some("first.example"), Some("second.example")]);
        let frames: Vec<_> = findings
            .flows
            .iter()
            .map(|flow| flow.tally.frames)
            .collect();
        assert_eq!(frames, [3, 2]);
    }
}

#[test]
fn a_syn_on_an_open_connection_counts_when_it_is_answered_or_continued() {
    let open = [
        tcp(CLIENT, SERVER, 100, SYN, b""),
        tcp(CLIENT, SERVER, 101, DATA, &client_hello("first.example")),
        tcp(CLIENT, SERVER, 9000, SYN, b""),
        tcp(CLIENT, SERVER, 9000, SYN, b""),
    ];
    let with = |frame| judge([&open[..], &[frame]].concat());
    // A decoy: the connection goes on.
    let decoy = with(tcp(CLIENT, SERVER, 300, DATA, b"more"));
    assert_eq!(decoy.flows.len(), 1);
    assert_eq!(decoy.flows[0].tally.frames, 5);
    for frame in [
        tcp(SERVER, CLIENT, 7, syn_ack(9001), b""),
        tcp(CLIENT, SERVER, 9001, DATA, &client_hello("second.example")),
    ] {
        let reused = with(frame);
        let frames: Vec<_> = reused.flows.iter().map(|flow| flow.tally.frames).collect();
        assert_eq!(frames, [2, 3]);
        assert_eq!(source(&reused.flows[1]), "192.0.2.1:51514");
        assert_eq!(reused.flows[1].first_frame, 3);
    }
}

#[test]
fn a_repeated_syn_is_no_new_flow_and_a_new_try_is_one() {
    let syn = |seq| tcp(CLIENT, SERVER, seq, SYN, b"");
    assert_eq!(judge(vec![syn(100), syn(100), syn(100)]).flows.len(), 1);
    assert_eq!(judge(vec![syn(100), syn(200)]).flows.len(), 2);
}

#[test]
fn flows_are_reported_in_the_order_of_their_first_frames() {
    let other: End = (2, 1000);
    let findings = judge(vec![
        tcp(CLIENT, SERVER, 100, SYN, b""),
        tcp(other, SERVER, 100, SYN, b""),
        tcp(other, SERVER, 101, DATA, &client_hello("second.example")),
        tcp(CLIENT, SERVER, 101, DATA, &client_hello("first.example")),
    ]);
    let names: Vec<_> = findings.flows.iter().map(name).collect();
    assert_eq!(names, [Some("first.example"), Some("second.example")]);
}

#[test]
fn vlan_tags_make_no_difference() {
    let plain = tcp(CLIENT, SERVER, 1, DATA, &client_hello("vlan.example"));
    for tags in [&[0x81, 0, 0, 7][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]] {
        let tagged = [&plain[..12], tags, &plain[12..]].concat();
        let findings = judge(vec![plain.clone(), tagged]);
        assert_eq!(findings.flows.len(), 1);
        assert_eq!(findings.flows[0].tally.frames, 2);
        assert_eq!(findings.flows[0].tally.more_names.len(), 0);
    }
}

/// Cuts a frame's IPv4 payload into fragments of 8 bytes; the last takes the rest.
fn fragments(frame: &[u8], count: usize) -> Vec<Vec<u8>> {
    let (headers, payload) = frame.split_at(34);
    (0..count)
        .map(|index| {
            let more = index + 1 < count;
            let start = (index * 8).min(payload.len());
            let end = if more {
                (start + 8).min(payload.len())
            } else {
                payload.len()
            };
            let piece = &payload[start..end];
            let mut fragment = [headers, piece].concat();
            fragment[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            let offset = index as u16 | if more { 0x2000 } else { 0 };
            fragment[18..20].copy_from_slice(&7u16.to_be_bytes());
            fragment[20..22].copy_from_slice(&offset.to_be_bytes());
            fragment
        })
        .collect()
}

#[test]
fn later_fragments_belong_to_the_flow_of_the_first_in_any_order() {
    let datagram = udp((1, 5000), (9, 5001), &[b'x'; 40]);
    let whole = fragments(&datagram, 4);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let frames = order
            .iter()
            .map(|&index: &usize| captured(whole[index].clone()))
            .collect();
        let mut runner = Scripted::new(|_| Ok(pass()));
        let findings = replay(&mut runner, frames);
        let [flow] = &findings.flows[..] else {
            panic!("{order:?}: {}", findings.flows.len())
        };
        assert_eq!(flow.tally.frames, 4, "{order:?}");
        assert_eq!(
            (flow.first_frame, flow.dst().port),
            (1, Some(5001)),
            "{order:?}"
        );
    }
}

#[test]
fn fragments_without_their_first_are_a_flow_without_ports() {
    let whole = fragments(&udp((1, 5000), (9, 5001), &[b'x'; 40]), 3);
    let findings = judge(whole[1..].to_vec());
    let [flow] = &findings.flows[..] else {
        panic!("{}", findings.flows.len())
    };
    assert_eq!(
        (flow.tally.frames, flow.src().port, flow.dst().port),
        (2, None, None)
    );
}

#[test]
fn ipv6_fragments_and_extension_headers_are_understood() {
    let fragment = |offset: u16, more: bool, payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, (8 + 8 + payload.len()) as u8, 60, 64];
        packet.extend([0x20; 16]);
        packet.extend([0x21; 16]);
        packet.extend([44, 0, 1, 4, 0, 0, 0, 0]); // destination options, padding
        packet.extend([17, 0]);
        packet.extend((offset | u16::from(more)).to_be_bytes());
        packet.extend([0, 0, 0, 5]);
        packet.extend(payload);
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd]);
        frame.extend(packet);
        frame
    };
    let first = fragment(0, true, &[0x13, 0x88, 0x13, 0x89, 0, 24, 0, 0]);
    let later = fragment(8, false, &[b'x'; 16]);
    for frames in [vec![first.clone(), later.clone()], vec![later, first]] {
        let findings = judge(frames);
        let [flow] = &findings.flows[..] else {
            panic!("{}", findings.flows.len())
        };
        assert_eq!((flow.tally.frames, flow.src().port), (2, Some(5000)));
    }
}

#[test]
fn frames_cut_short_are_unsupported_for_their_flow() {
    let hello = tcp(CLIENT, SERVER, 101, DATA, &client_hello("cut.example"));
    for len in [54, 60, hello.len() - 1] {
        let mut frame = captured(hello.clone());
        frame.bytes.truncate(len);
        let mut runner = HostRunner::new(names_only(), 0);
        let findings = replay(&mut runner, vec![frame]);
        let [flow] = &findings.flows[..] else {
            panic!("{len}: {}", findings.flows.len())
        };
        assert_eq!(
            flow.tally.unsupported(),
            Some(Unsupported::Truncated),
            "{len}"
        );
        assert_eq!(name(flow), None, "{len}");
        assert_eq!(
            (findings.summary.truncated, findings.summary.unsupported),
            (1, 1),
            "{len}"
        );
    }
    // Without the IP header there is no flow to report; the frame is counted.
    for len in [0, 13, 20] {
        let mut frame = captured(hello.clone());
        frame.bytes.truncate(len);
        let mut runner = HostRunner::new(names_only(), 0);
        let findings = replay(&mut runner, vec![frame]);
        assert_eq!(
            (findings.flows.len(), findings.summary.truncated),
            (0, 1),
            "{len}"
        );
        assert_eq!(findings.summary.reasons.values().sum::<u64>(), 1, "{len}");
    }
}

#[test]
fn what_is_cut_off_after_the_hello_hides_nothing() {
    let mut snapped = captured(tcp(SERVER, CLIENT, 1, DATA, &[0x17; 900]));
    snapped.bytes.truncate(128);
    // Padding and check sequence behind the packet are no loss.
    let mut padded = captured(tcp(
        CLIENT,
        SERVER,
        101,
        DATA,
        &client_hello("whole.example"),
    ));
    padded.wire_len += 4;
    let mut runner = HostRunner::new(names_only(), 0);
    let findings = replay(&mut runner, vec![padded, snapped]);
    assert_eq!(name(&findings.flows[0]), Some("whole.example"));
    assert_eq!(findings.flows[0].tally.unsupported(), None);
    assert_eq!(
        (findings.summary.truncated, findings.summary.unsupported),
        (1, 0)
    );
}

#[test]
fn tunnels_are_unsupported_with_their_name() {
    let protocol = |number: u8| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .write(&mut frame, etherparse::IpNumber(number), &[0; 40])
            .expect("writing to memory");
        frame
    };
    let ether_type = |ether_type: [u8; 2]| [&[2; 12][..], &ether_type, &[0; 40]].concat();
    let cases = [
        (protocol(4), "ipip"),
        (protocol(41), "6in4"),
        (protocol(47), "gre"),
        (protocol(50), "esp"),
        (ether_type([0x88, 0x47]), "mpls"),
        (ether_type([0x91, 0x00]), "vlan"),
        (ether_type([0x88, 0x64]), "pppoe"),
        (
            udp((1, 40_000), (2, 4789), &[8, 0, 0, 0, 0, 0, 1, 0, 1, 2]),
            "vxlan",
        ),
        (
            udp(
                (1, 40_000),
                (2, 6081),
                &[0, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2],
            ),
            "geneve",
        ),
        (udp((1, 2152), (2, 2152), &[0x32, 0xff, 0, 4]), "gtp"),
        (udp((1, 40_000), (2, 3544), &[0x60, 0, 0, 0]), "teredo"),
    ];
    for (frame, word) in cases {
        let findings = judge(vec![frame]);
        let [flow] = &findings.flows[..] else {
            panic!("{word}: {}", findings.flows.len())
        };
        assert_eq!(
            flow.tally.unsupported().map(Unsupported::as_str),
            Some(word)
        );
        assert_eq!(findings.summary.unsupported, 1, "{word}");
    }
    // ARP is no tunnel and no flow.
    assert_eq!(judge(vec![ether_type([0x08, 0x06])]).flows.len(), 0);
    // Nor is another protocol on a tunnel's port.
    assert_eq!(
        judge(vec![udp((1, 40_000), (2, 4789), b"\0")])
            .summary
            .unsupported,
        0
    );
}

#[test]
fn a_frame_longer_than_the_kernel_takes_is_unsupported() {
    let mut runner = Scripted::new(|frame: &[u8]| match frame.len() {
        len @ 60_000.. => Err(crate::replay::RunError::TooLong { len }),
        _ => Ok(pass()),
    });
    let frame = captured(tcp(CLIENT, SERVER, 1, DATA, &[0; 61_000]));
    let findings = replay(&mut runner, vec![frame]);
    assert_eq!(
        findings.flows[0].tally.unsupported(),
        Some(Unsupported::FrameTooLong)
    );
    assert_eq!(findings.summary.reasons["frame_too_long"], 1);
}

#[test]
fn a_length_of_zero_in_an_offloaded_segment_is_filled_in() {
    let http = format!(
        "GET / HTTP/1.1\r\nHost: big.example\r\nCookie: {}\r\n\r\n",
        "x".repeat(4000)
    );
    let mut frame = tcp(CLIENT, SERVER, 1, DATA, http.as_bytes());
    let honest = frame.clone();
    frame[16..18].copy_from_slice(&[0, 0]);
    // The checksum that belongs to a length of zero.
    let length = u32::from(u16::from_be_bytes([honest[16], honest[17]]));
    let checksum = u32::from(!u16::from_be_bytes([honest[24], honest[25]]));
    let sum = checksum + u32::from(!(length as u16));
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut runner = Scripted::new(|_| Ok(pass()));
    replay(&mut runner, vec![captured(frame.clone())]);
    assert_eq!(runner.seen, [honest]);
    // A short frame with such a length is malformed and stays so.
    let mut short = tcp(CLIENT, SERVER, 1, DATA, b"GET");
    short[16..18].copy_from_slice(&[0, 0]);
    let mut runner = Scripted::new(|_| Ok(pass()));
    replay(&mut runner, vec![captured(short.clone())]);
    assert_eq!(runner.seen, [short]);
}

#[test]
fn a_frame_from_every_link_type_reaches_its_flow() {
    let ethernet = tcp(CLIENT, SERVER, 1, DATA, &client_hello("link.example"));
    let packet = &ethernet[14..];
    for (framing, header) in [
        (crate::replay::capture::Framing::Ip, vec![]),
        (
            crate::replay::capture::Framing::LinuxCooked,
            [&[0; 14][..], &[8, 0]].concat(),
        ),
        (
            crate::replay::capture::Framing::LinuxCooked2,
            [&[8, 0][..], &[0; 18]].concat(),
        ),
        (crate::replay::capture::Framing::Null, vec![2, 0, 0, 0]),
        (crate::replay::capture::Framing::Loop, vec![0, 0, 0, 2]),
    ] {
        let bytes = [&header, packet].concat();
        let frame = Frame {
            framing,
            wire_len: bytes.len() as u32,
            bytes,
        };
        let mut runner = HostRunner::new(names_only(), 0);
        let findings = replay(&mut runner, vec![frame]);
        assert_eq!(
            name(&findings.flows[0]),
            Some("link.example"),
            "{framing:?}"
        );
    }
}

#[test]
fn a_servers_greeting_is_no_request() {
    let server: End = (9, 21);
    for greeting in [
        &b"220 files.example\r\n"[..],
        b"220 (ftpd 3.0)\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ] {
        let findings = judge(vec![
            tcp(CLIENT, server, 100, SYN, b""),
            tcp(server, CLIENT, 500, DATA, greeting),
        ]);
        assert_eq!(findings.summary.named, 0, "{greeting:?}");
    }
}

#[test]
fn a_name_in_half_a_request_counts_until_the_whole_is_there() {
    let half = b"GET / HTTP/1.1\r\nHost: half.example\r\nCookie: ";
    let first = tcp(CLIENT, SERVER, 1, DATA, half);
    let findings = judge(vec![first.clone()]);
    let reported = findings.flows[0].tally.name().expect("a name");
    assert_eq!(&*reported.name, b"half.example");
    assert_eq!((findings.summary.named, findings.summary.unparsed), (1, 1));
    let rest = tcp(CLIENT, SERVER, 1 + half.len() as u32, DATA, b"x\r\n\r\n");
    let findings = judge(vec![first, rest]);
    let named = findings.flows[0].tally.named.as_ref().expect("a name");
    assert_eq!(named.reason, Reason::NoMatch);
    assert_eq!((findings.summary.named, findings.summary.unparsed), (1, 0));
}

#[test]
fn the_rest_of_a_long_hello_is_no_request() {
    let hello = client_hello("long.example");
    let findings = judge(vec![
        tcp(CLIENT, SERVER, 1, DATA, &hello[..30]),
        tcp(CLIENT, SERVER, 31, DATA, b"Get it done\n"),
    ]);
    assert_eq!(findings.summary.named, 0);
    assert_eq!(findings.summary.unparsed, 1);
}
