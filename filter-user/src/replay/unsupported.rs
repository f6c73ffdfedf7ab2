//! What the program does not read by design, recognised here so that a replay says
//! so instead of leaving the flow out: tunnels, frames cut short, and hellos behind
//! a plaintext dialogue.

use filter_common::reason::Reason;

/// Why a flow's hello, if it has one, is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// A frame ends before the IP packet that it carries.
    Truncated,
    /// A frame longer than the kernel takes in a test run.
    FrameTooLong,
    /// More VLAN tags than are looked behind, or with a type of before the standard.
    Vlan,
    /// MPLS labels.
    Mpls,
    /// PPPoE session.
    Pppoe,
    /// Provider backbone bridging (802.1ah).
    Pbb,
    /// 802.1AE encryption.
    Macsec,
    /// IPv4 in IP.
    Ipip,
    /// IPv6 in IP.
    SixInFour,
    /// Generic routing encapsulation, also over UDP.
    Gre,
    /// IPsec encapsulating security payload, also over UDP.
    Esp,
    /// IPsec authentication header.
    Ah,
    /// Ethernet in IP.
    EtherIp,
    /// Layer 2 tunnelling protocol.
    L2tp,
    /// MPLS in IP.
    MplsInIp,
    /// VXLAN.
    Vxlan,
    /// Geneve.
    Geneve,
    /// GPRS tunnelling protocol, user plane.
    Gtp,
    /// Teredo.
    Teredo,
    /// AYIYA.
    Ayiya,
    /// WireGuard.
    Wireguard,
    /// TLS over datagrams.
    Dtls,
    /// QUIC: its names are encrypted and not read yet.
    Quic,
    /// HTTP/2 without TLS.
    Http2,
    /// A TCP segment in IP fragments, which are not put together.
    Fragmented,
    /// TLS after STARTTLS in SMTP.
    SmtpStarttls,
    /// TLS after AUTH TLS in FTP.
    FtpAuthTls,
    /// TLS after STARTTLS in IMAP.
    ImapStarttls,
    /// TLS after STLS in POP3.
    Pop3Stls,
    /// TLS after STARTTLS in NNTP.
    NntpStarttls,
    /// TLS after the StartTLS operation in LDAP.
    LdapStarttls,
    /// TLS after an SSLRequest in PostgreSQL.
    PostgresqlSsl,
    /// TLS after an SSL request in MySQL.
    MysqlSsl,
    /// TLS after STARTTLS in XMPP.
    XmppStarttls,
    /// TLS after a connection request in RDP.
    RdpTls,
    /// A hello behind a SOCKS handshake.
    Socks,
    /// A hello behind HTTP CONNECT.
    HttpConnect,
    /// A hello behind an HTTP/1 Upgrade or other HTTP dialogue.
    HttpUpgrade,
    /// A hello behind a PROXY protocol header.
    ProxyProtocol,
    /// A hello behind bytes of another protocol.
    PlaintextDialogue,
}

impl Unsupported {
    /// The stable word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::FrameTooLong => "frame_too_long",
            Self::Vlan => "vlan",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::Pbb => "pbb",
            Self::Macsec => "macsec",
            Self::Ipip => "ipip",
            Self::SixInFour => "6in4",
            Self::Gre => "gre",
            Self::Esp => "esp",
            Self::Ah => "ah",
            Self::EtherIp => "etherip",
            Self::L2tp => "l2tp",
            Self::MplsInIp => "mpls_in_ip",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gtp => "gtp",
            Self::Teredo => "teredo",
            Self::Ayiya => "ayiya",
            Self::Wireguard => "wireguard",
            Self::Dtls => "dtls",
            Self::Quic => "quic_unread",
            Self::Http2 => "http2",
            Self::Fragmented => "fragmented",
            Self::SmtpStarttls => "smtp_starttls",
            Self::FtpAuthTls => "ftp_auth_tls",
            Self::ImapStarttls => "imap_starttls",
            Self::Pop3Stls => "pop3_stls",
            Self::NntpStarttls => "nntp_starttls",
            Self::LdapStarttls => "ldap_starttls",
            Self::PostgresqlSsl => "postgresql_ssl",
            Self::MysqlSsl => "mysql_ssl",
            Self::XmppStarttls => "xmpp_starttls",
            Self::RdpTls => "rdp_tls",
            Self::Socks => "socks",
            Self::HttpConnect => "http_connect",
            Self::HttpUpgrade => "http_upgrade",
            Self::ProxyProtocol => "proxy_protocol",
            Self::PlaintextDialogue => "plaintext_dialogue",
        }
    }
}

/// Encapsulations by EtherType.
pub(super) fn by_ether_type(ether_type: u16) -> Option<Unsupported> {
    match ether_type {
        0x8847 | 0x8848 => Some(Unsupported::Mpls),
        0x9100 | 0x9200 | 0x9300 => Some(Unsupported::Vlan),
        0x8864 => Some(Unsupported::Pppoe),
        0x88e5 => Some(Unsupported::Macsec),
        0x88e7 => Some(Unsupported::Pbb),
        _ => None,
    }
}

/// Tunnels by IP protocol number.
pub(super) fn by_protocol(protocol: u8) -> Option<Unsupported> {
    match protocol {
        4 | 94 => Some(Unsupported::Ipip),
        41 => Some(Unsupported::SixInFour),
        47 => Some(Unsupported::Gre),
        50 => Some(Unsupported::Esp),
        51 => Some(Unsupported::Ah),
        97 => Some(Unsupported::EtherIp),
        115 => Some(Unsupported::L2tp),
        137 => Some(Unsupported::MplsInIp),
        _ => None,
    }
}

/// Tunnels by well-known UDP port where the first bytes agree, and DTLS by its first bytes.
pub(super) fn by_datagram(
    src: Option<u16>,
    dst: Option<u16>,
    payload: &[u8],
) -> Option<Unsupported> {
    // Replies of most tunnels come from the well-known port, some go from and to it.
    [dst, src]
        .into_iter()
        .flatten()
        .find_map(|port| by_port(port, payload))
        .or_else(|| is_dtls_client_hello(payload).then_some(Unsupported::Dtls))
}

fn by_port(port: u16, payload: &[u8]) -> Option<Unsupported> {
    let (unsupported, plausible) = match port {
        // Flags with the VNI valid, reserved bytes.
        4789 | 8472 | 4790 => (
            Unsupported::Vxlan,
            matches!(payload, [flags, ..] if flags & 0x08 != 0) && payload.len() > 8,
        ),
        // Version 0.
        6081 => (
            Unsupported::Geneve,
            matches!(payload, [first, ..] if first >> 6 == 0) && payload.len() > 8,
        ),
        // Version 1, protocol type GTP, message type "G-PDU".
        2152 => (
            Unsupported::Gtp,
            matches!(payload, [flags, 0xff, ..] if flags & 0xf0 == 0x30),
        ),
        // IPv6, or the authentication and origin indications before it.
        3544 => (
            Unsupported::Teredo,
            matches!(payload, [first, ..] if first >> 4 == 6) || matches!(payload, [0, 0 | 1, ..]),
        ),
        // Version 0.
        4754 => (
            Unsupported::Gre,
            matches!(payload, [_, second, ..] if second & 0x07 == 0),
        ),
        1701 => (
            Unsupported::L2tp,
            matches!(payload, [_, version, ..] if matches!(version & 0x0f, 2 | 3)),
        ),
        // Neither the non-ESP marker of IKE nor a keep-alive.
        4500 => (
            Unsupported::Esp,
            payload.len() > 8 && !payload.starts_with(&[0; 4]),
        ),
        5072 => (Unsupported::Ayiya, payload.len() > 44),
        6635 => (Unsupported::MplsInIp, payload.len() > 4),
        51820 => (
            Unsupported::Wireguard,
            matches!(payload, [1..=4, 0, 0, 0, ..]),
        ),
        _ => return None,
    };
    plausible.then_some(unsupported)
}

/// Record type handshake, version 0xfe?? (DTLS), handshake type ClientHello.
fn is_dtls_client_hello(payload: &[u8]) -> bool {
    matches!(payload, [0x16, 0xfe, 0xff | 0xfd | 0xfc, ..]) && payload.get(13) == Some(&1)
}

/// By the reason that the program gives.
pub(super) fn by_reason(reason: Reason) -> Option<Unsupported> {
    match reason {
        Reason::QuicUnread => Some(Unsupported::Quic),
        Reason::Http2 => Some(Unsupported::Http2),
        Reason::FirstFragment => Some(Unsupported::Fragmented),
        Reason::VlanDepth => Some(Unsupported::Vlan),
        _ => None,
    }
}

/// A QUIC long header (RFC 8999, section 5.1) of a version that is or was in use. The program goes
/// by the first two bits, which a quarter of all other datagrams have as well.
pub(super) fn is_quic(payload: &[u8]) -> bool {
    let Some(&[first, v0, v1, v2, v3, connection_id_len]) = payload.first_chunk() else {
        return false;
    };
    let known = match [v0, v1, v2, v3] {
        // Version negotiation, version 1, version 2 (RFC 9369), drafts.
        [0, 0, 0, 0 | 1] | [0x6b, 0x33, 0x43, 0xcf] | [0xff, 0, 0, _] => true,
        // Google's and Facebook's own.
        [b'Q' | b'T', b'0', b'0'..=b'9', b'0'..=b'9'] | [0xfa, 0xce, 0xb0, _] => true,
        // Reserved to force a negotiation (RFC 9000, section 15).
        version => version.iter().all(|byte| byte & 0x0f == 0x0a),
    };
    first & 0x80 != 0 && known && (connection_id_len <= 20 || v0 == b'Q')
}
