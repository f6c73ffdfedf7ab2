use filter_common::{
    abi::{NO_SLOT, Protocol, Verdict},
    reason::Reason,
};

use super::{super::testing::*, pass};
use crate::replay::Unsupported;

/// Plays a dialogue (`true`: the client speaks) on a server port, then a ClientHello; what is
/// reported.
fn reported(server_port: u16, dialogue: &[(bool, &[u8])]) -> Option<&'static str> {
    let (client, server) = ((1, 40_000), (9, server_port));
    let mut frames = vec![captured(tcp(client, server, 0, SYN, b""))];
    let (mut client_seq, mut server_seq) = (1, 1);
    for &(by_client, payload) in dialogue {
        let (src, dst, seq) = if by_client {
            (client, server, &mut client_seq)
        } else {
            (server, client, &mut server_seq)
        };
        frames.push(captured(tcp(src, dst, *seq, DATA, payload)));
        *seq += payload.len() as u32;
    }
    let hello = client_hello("hidden.example");
    frames.push(captured(tcp(client, server, client_seq, DATA, &hello)));
    let mut runner = Scripted::new(|_| Ok(pass()));
    let findings = replay(&mut runner, frames);
    findings.flows[0]
        .tally
        .unsupported()
        .map(Unsupported::as_str)
}

#[test]
fn hellos_behind_a_plaintext_dialogue_are_named_after_it() {
    const CLIENT: bool = true;
    const SERVER: bool = false;
    type Case = (u16, &'static [(bool, &'static [u8])], &'static str);
    let cases: &[Case] = &[
        (
            2525,
            &[
                (SERVER, b"220 mx ESMTP\r\n"),
                (CLIENT, b"EHLO x\r\n"),
                (CLIENT, b"STARTTLS\r\n"),
            ],
            "smtp_starttls",
        ),
        (
            25,
            &[(CLIENT, b"STARTTLS\r\n"), (SERVER, b"220 go ahead\r\n")],
            "smtp_starttls",
        ),
        (
            21,
            &[(SERVER, b"220 welcome\r\n"), (CLIENT, b"AUTH TLS\r\n")],
            "ftp_auth_tls",
        ),
        (
            2121,
            &[(SERVER, b"220 ProFTPD\r\n"), (CLIENT, b"AUTH TLS\r\n")],
            "ftp_auth_tls",
        ),
        (
            110,
            &[(SERVER, b"+OK ready\r\n"), (CLIENT, b"STLS\r\n")],
            "pop3_stls",
        ),
        (
            1430,
            &[(SERVER, b"* OK IMAP4\r\n"), (CLIENT, b"a1 STARTTLS\r\n")],
            "imap_starttls",
        ),
        (
            3890,
            &[(
                CLIENT,
                b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
            )],
            "ldap_starttls",
        ),
        (
            15_432,
            &[(CLIENT, b"\0\0\0\x08\x04\xd2\x16\x2f"), (SERVER, b"S")],
            "postgresql_ssl",
        ),
        (
            5222,
            &[
                (CLIENT, b"<?xml version='1.0'?><stream:stream to='x'>"),
                (CLIENT, b"<starttls/>"),
            ],
            "xmpp_starttls",
        ),
        (
            3389,
            &[(
                CLIENT,
                b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
            )],
            "rdp_tls",
        ),
        (
            1080,
            &[
                (CLIENT, b"\x05\x01\0"),
                (SERVER, b"\x05\0"),
                (CLIENT, b"\x05\x01\0\x01\x01\x02\x03\x04\x01\xbb"),
            ],
            "socks",
        ),
        (
            9050,
            &[(CLIENT, b"\x04\x01\x01\xbb\x01\x02\x03\x04\0")],
            "socks",
        ),
        (
            8080,
            &[
                (CLIENT, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"),
                (SERVER, b"HTTP/1.1 200 OK\r\n\r\n"),
            ],
            "http_connect",
        ),
        (
            443,
            &[(CLIENT, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 443\r\n")],
            "proxy_protocol",
        ),
        (7777, &[(CLIENT, b"\x01\x02hello\n")], "plaintext_dialogue"),
    ];
    for (port, dialogue, word) in cases {
        assert_eq!(reported(*port, dialogue), Some(*word));
    }
}

#[test]
fn a_hello_at_the_start_is_behind_nothing() {
    assert_eq!(reported(443, &[]), None);
    // Nor is the second hello after a HelloRetryRequest.
    let first = client_hello("first.example");
    assert_eq!(
        reported(
            443,
            &[(true, &first), (false, b"\x16\x03\x03\0\x04\x02\0\0\0")]
        ),
        None
    );
    // Nor one after the server has greeted with a record of its own.
    assert_eq!(
        reported(25, &[(false, b"\x15\x03\x01\0\x02\x02\x28")]),
        None
    );
}

#[test]
fn a_dialogue_without_a_hello_is_not_reported() {
    let (client, server) = ((1, 40_000), (9, 25));
    let frames = vec![
        captured(tcp(server, client, 1, DATA, b"220 mx ESMTP\r\n")),
        captured(tcp(client, server, 1, DATA, b"EHLO x\r\n")),
        captured(tcp(client, server, 9, DATA, b"MAIL FROM:<a@b.example>\r\n")),
    ];
    let mut runner = Scripted::new(|_| Ok(pass()));
    let findings = replay(&mut runner, frames);
    assert_eq!(findings.summary.unsupported, 0);
}

#[test]
fn a_request_behind_a_proxy_handshake_is_hidden_too() {
    let (client, server) = ((1, 40_000), (9, 1080));
    let request = b"GET / HTTP/1.1\r\nHost: hidden.example\r\n\r\n";
    let frames = vec![
        captured(tcp(client, server, 1, DATA, b"\x05\x01\0")),
        captured(tcp(
            client,
            server,
            4,
            DATA,
            b"\x05\x01\0\x01\x01\x02\x03\x04\0\x50",
        )),
        captured(tcp(client, server, 14, DATA, request)),
    ];
    let mut runner = Scripted::new(|_| Ok(pass()));
    let findings = replay(&mut runner, frames);
    assert_eq!(
        findings.flows[0].tally.unsupported(),
        Some(Unsupported::Socks)
    );
    // A PROXY header and the hello in one segment.
    let together = [
        &b"PROXY TCP4 1.2.3.4 5.6.7.8 1 443\r\n"[..],
        &client_hello("hidden.example"),
    ];
    let frames = vec![captured(tcp(client, (9, 443), 1, DATA, &together.concat()))];
    let mut runner = Scripted::new(|_| Ok(pass()));
    let findings = replay(&mut runner, frames);
    assert_eq!(
        findings.flows[0].tally.unsupported(),
        Some(Unsupported::ProxyProtocol)
    );
    // Where the program has read the name behind it, nothing is hidden.
    let frames = vec![captured(tcp(client, (9, 443), 1, DATA, &together.concat()))];
    let (name, reason) = (b"hidden.example", Reason::NoMatch);
    let mut runner =
        Scripted::new(|_| Ok(outcome(Verdict::Pass, reason, NO_SLOT, Protocol::Tls, name)));
    let findings = replay(&mut runner, frames);
    assert_eq!(findings.flows[0].tally.unsupported(), None);
}

/// A WebSocket client's binary frame.
fn websocket_frame(data: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![0x82, 0xfe];
    frame.extend_from_slice(&(data.len() as u16).to_be_bytes());
    frame.extend_from_slice(&MASK);
    let masked = data.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

#[test]
fn a_hello_inside_a_websocket_is_behind_an_upgrade() {
    let (client, server) = ((1, 40_000), (9, 80));
    let upgrade = b"GET /tunnel HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
    let reported = |data: &[u8]| {
        let frame = websocket_frame(data);
        let frames = vec![
            captured(tcp(client, server, 1, DATA, upgrade)),
            captured(tcp(client, server, 1 + upgrade.len() as u32, DATA, &frame)),
        ];
        let mut runner = Scripted::new(|_| Ok(pass()));
        replay(&mut runner, frames).flows[0].tally.unsupported()
    };
    let hello = client_hello("hidden.example");
    assert_eq!(reported(&hello), Some(Unsupported::HttpUpgrade));
    assert_eq!(
        reported(b"GET / HTTP/1.1\r\n"),
        Some(Unsupported::HttpUpgrade)
    );
    assert_eq!(reported(b"{\"chat\": \"GET well soon\"}"), None);
}

#[test]
fn quic_is_unsupported_and_other_datagrams_that_look_like_it_are_not() {
    use filter_common::abi::Protocol;
    use filter_common::reason::Reason;

    let reported = |payload: &[u8]| {
        let mut runner = crate::host::HostRunner::new(names_only(), 0);
        let frames = vec![captured(udp((1, 40_000), (9, 443), payload))];
        let findings = replay(&mut runner, frames);
        assert_eq!(findings.summary.reasons[Reason::QuicUnread.as_str()], 1);
        let tally = &findings.flows[0].tally;
        assert!(!tally.is_unparsed());
        (
            tally.unsupported().map(Unsupported::as_str),
            tally.protocol == Some(Protocol::Quic),
        )
    };
    let v1 = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 60]].concat();
    let v2 = [&[0xd3, 0x6b, 0x33, 0x43, 0xcf, 8][..], &[7; 60]].concat();
    let reserved = [&[0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 8][..], &[7; 60]].concat();
    for initial in [v1, v2, reserved] {
        assert_eq!(reported(&initial), (Some("quic_unread"), true));
    }
    // A DNS query whose identifier begins with the bits of a long header.
    let dns = b"\xc3\x12\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01";
    assert_eq!(reported(dns), (None, false));
}

#[test]
fn what_the_program_says_that_it_does_not_read_is_unsupported() {
    let (client, server) = ((1, 40_000), (9, 80));
    let reported = |frame: Vec<u8>| {
        let mut runner = crate::host::HostRunner::new(names_only(), 0);
        let findings = replay(&mut runner, vec![captured(frame)]);
        findings.flows[0]
            .tally
            .unsupported()
            .map(Unsupported::as_str)
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(
        reported(tcp(client, server, 1, DATA, preface)),
        Some("http2")
    );
    let hello = tcp(client, server, 1, DATA, &client_hello("hidden.example"));
    let mut fragment = hello.clone();
    fragment[20] = 0x20;
    assert_eq!(reported(fragment), Some("fragmented"));
    let tags = [0x81, 0, 0, 1].repeat(5);
    let tagged = [&hello[..12], &tags, &hello[12..]].concat();
    assert_eq!(reported(tagged), Some("vlan"));
    assert_eq!(reported(hello), None);
}
