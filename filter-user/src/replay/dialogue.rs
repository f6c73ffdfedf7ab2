//! Hellos behind a plaintext dialogue: a connection that begins in another protocol
//! and in which a ClientHello (or, behind a proxy's handshake, a request) follows.
//!
//! The program reads a stream from its start and gives up on the first bytes of
//! another protocol. Here the first bytes of either side are remembered, so that a
//! later hello can be reported with the name of the dialogue before it.

use super::unsupported::Unsupported;

/// What one side sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// TLS records: whatever comes later, no hello is behind a dialogue.
    Tls,
    /// An HTTP/1 request other than CONNECT.
    Http,
    /// The start of a dialogue that may lead to a hello.
    Dialogue(Unsupported),
    /// Anything else.
    Unknown,
}

/// The dialogue of one TCP connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialogue {
    openings: [Option<Opening>; 2],
}

impl Dialogue {
    /// Whether what `side` sends began with a TLS record.
    pub fn is_tls(&self, side: usize) -> bool {
        self.openings.get(side) == Some(&Some(Opening::Tls))
    }

    /// Takes in a segment's payload, sent by side 0 or 1 from `port` to `peer_port`.
    /// Returns the dialogue if the payload is a hello behind one.
    pub fn segment(
        &mut self,
        side: usize,
        port: u16,
        peer_port: u16,
        payload: &[u8],
    ) -> Option<Unsupported> {
        if payload.is_empty() {
            return None;
        }
        let (mine, peer) = match side {
            0 => (self.openings[0], self.openings[1]),
            _ => (self.openings[1], self.openings[0]),
        };
        let Some(mine) = mine else {
            let opening = Opening::of(payload, port, peer_port);
            self.openings[usize::from(side != 0)] = Some(opening);
            return behind_proxy_header(payload);
        };
        let hello = is_client_hello(payload);
        match mine {
            Opening::Tls => None,
            Opening::Http if hello || is_websocket_hello(payload) => Some(Unsupported::HttpUpgrade),
            Opening::Http => None,
            Opening::Dialogue(
                proxy
                @ (Unsupported::Socks | Unsupported::ProxyProtocol | Unsupported::HttpConnect),
            ) => (hello || (is_request(payload) && !payload.starts_with(b"CONNECT ")))
                .then_some(proxy),
            Opening::Dialogue(dialogue) => hello.then_some(dialogue),
            Opening::Unknown if !hello => None,
            Opening::Unknown => match peer {
                Some(Opening::Dialogue(dialogue)) => Some(dialogue),
                Some(Opening::Tls | Opening::Http | Opening::Unknown) | None => {
                    Some(Unsupported::PlaintextDialogue)
                }
            },
        }
    }
}

impl Opening {
    fn of(payload: &[u8], port: u16, peer_port: u16) -> Self {
        match payload {
            [0x14..=0x17, 0x03, 0x00..=0x04, ..] => Self::Tls,
            // TLS over a length of SSLv2: high bit, ClientHello.
            [0x80..=0xff, _, 0x01, 0x00 | 0x03, ..] => Self::Tls,
            [0x05, methods, ..]
                if *methods > 0
                    && payload.len() >= 2 + usize::from(*methods)
                    && payload.len() < 260 =>
            {
                Self::Dialogue(Unsupported::Socks)
            }
            [0x04, 0x01 | 0x02, ..] if payload.len() >= 9 => Self::Dialogue(Unsupported::Socks),
            // Length 8, request code 1234.5679.
            [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, ..] => Self::Dialogue(Unsupported::PostgresqlSsl),
            // TPKT, X.224 connection request.
            [0x03, 0x00, _, _, _, 0xe0, ..] => Self::Dialogue(Unsupported::RdpTls),
            // Handshake packet 0 of protocol version 10.
            [_, _, 0, 0, 0x0a, b'0'..=b'9', ..] => Self::Dialogue(Unsupported::MysqlSsl),
            // An LDAPMessage with a small message id; extended and other requests.
            [0x30, ..] if is_ldap(payload) => Self::Dialogue(Unsupported::LdapStarttls),
            _ if payload.starts_with(b"PROXY ") || payload.starts_with(PROXY_V2) => {
                Self::Dialogue(Unsupported::ProxyProtocol)
            }
            _ if payload.starts_with(b"CONNECT ") => Self::Dialogue(Unsupported::HttpConnect),
            _ if is_request(payload) => Self::Http,
            _ if payload.starts_with(b"+OK") => Self::Dialogue(Unsupported::Pop3Stls),
            _ if payload.starts_with(b"* OK") || payload.starts_with(b"* PREAUTH") => {
                Self::Dialogue(Unsupported::ImapStarttls)
            }
            _ if payload.starts_with(b"<?xml") || payload.starts_with(b"<stream:stream") => {
                Self::Dialogue(Unsupported::XmppStarttls)
            }
            _ if payload.starts_with(b"220") => Self::Dialogue(greeting(payload, port)),
            _ if payload.starts_with(b"200 ") || payload.starts_with(b"201 ") => {
                Self::Dialogue(Unsupported::NntpStarttls)
            }
            _ => Self::command(payload, peer_port),
        }
    }

    /// The first words of a client whose server's greeting is not in the capture.
    fn command(payload: &[u8], peer_port: u16) -> Self {
        let starts = |word: &[u8]| {
            payload
                .get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        if starts(b"AUTH TLS") || starts(b"AUTH SSL") {
            return Self::Dialogue(Unsupported::FtpAuthTls);
        }
        if starts(b"STLS") || starts(b"CAPA\r\n") {
            return Self::Dialogue(Unsupported::Pop3Stls);
        }
        let by_port = match peer_port {
            21 => Some(Unsupported::FtpAuthTls),
            25 | 587 | 2525 => Some(Unsupported::SmtpStarttls),
            110 => Some(Unsupported::Pop3Stls),
            119 => Some(Unsupported::NntpStarttls),
            143 => Some(Unsupported::ImapStarttls),
            389 | 3268 => Some(Unsupported::LdapStarttls),
            1080 => Some(Unsupported::Socks),
            3306 => Some(Unsupported::MysqlSsl),
            3389 => Some(Unsupported::RdpTls),
            5222 | 5269 => Some(Unsupported::XmppStarttls),
            5432 => Some(Unsupported::PostgresqlSsl),
            _ => None,
        };
        if let Some(dialogue) = by_port {
            return Self::Dialogue(dialogue);
        }
        // Nothing is concluded from the words of SMTP alone where the server's greeting,
        // which says more, may still be looked at.
        Self::Unknown
    }
}

/// Signature of a version 2 PROXY header.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A PROXY header with the hello in the same segment.
fn behind_proxy_header(payload: &[u8]) -> Option<Unsupported> {
    let behind = if payload.starts_with(b"PROXY ") {
        let end = payload.windows(2).position(|two| two == b"\r\n")?;
        payload.get(end + 2..)?
    } else if payload.starts_with(PROXY_V2) {
        let length = payload.get(14..)?.first_chunk()?;
        payload.get(16 + usize::from(u16::from_be_bytes(*length))..)?
    } else {
        return None;
    };
    (is_client_hello(behind) || is_request(behind)).then_some(Unsupported::ProxyProtocol)
}

/// SMTP and FTP greet alike.
fn greeting(payload: &[u8], port: u16) -> Unsupported {
    let has = |word: &[u8]| {
        payload
            .windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    };
    let ftp = port == 21 || (!matches!(port, 25 | 587 | 2525) && has(b"ftp") && !has(b"smtp"));
    if ftp {
        Unsupported::FtpAuthTls
    } else {
        Unsupported::SmtpStarttls
    }
}

/// SEQUENCE, length in short or long form, INTEGER message id.
fn is_ldap(payload: &[u8]) -> bool {
    let behind_length = match payload.get(1) {
        Some(length @ 0x81..=0x84) => 2 + usize::from(length & 0x0f),
        Some(0x00..=0x7f) => 2,
        _ => return false,
    };
    matches!(payload.get(behind_length..), Some([0x02, 0x01..=0x04, ..]))
}

/// A record that begins with a ClientHello: types, versions and lengths agree.
pub(super) fn is_client_hello(payload: &[u8]) -> bool {
    let Some(
        &[
            0x16,
            0x03,
            0x00..=0x04,
            r0,
            r1,
            0x01,
            h0,
            h1,
            h2,
            0x03,
            0x00..=0x04,
        ],
    ) = payload.first_chunk()
    else {
        return false;
    };
    let record = u16::from_be_bytes([r0, r1]);
    let handshake = u32::from_be_bytes([0, h0, h1, h2]);
    // Version, random, session id length, one suite, compression.
    record >= 6 && (41..=0x1_0000).contains(&handshake)
}

/// A WebSocket client's data frame (RFC 6455, section 5.2) with a hello or request in it.
fn is_websocket_hello(payload: &[u8]) -> bool {
    const MASK: usize = 4;
    // No extension bits; continuation, text or binary; masked, as all that clients send.
    let length_len = match payload {
        [0x00..=0x02 | 0x80..=0x82, 0x80..=0xfd, ..] => 0,
        [0x00..=0x02 | 0x80..=0x82, 0xfe, ..] => 2,
        [0x00..=0x02 | 0x80..=0x82, 0xff, ..] => 8,
        _ => return false,
    };
    let Some((mask, data)) = payload
        .get(2 + length_len..)
        .and_then(|rest| rest.split_first_chunk::<MASK>())
    else {
        return false;
    };
    let start: Vec<u8> = data
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .take(HELLO_START)
        .collect();
    is_client_hello(&start) || is_request(&start)
}

/// Bytes that tell a hello or a request.
const HELLO_START: usize = 16;

/// An HTTP/1 request line's first word, of those that are in use.
fn is_request(payload: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"TRACE ",
        b"CONNECT ",
    ];
    METHODS.iter().any(|method| payload.starts_with(method))
}
