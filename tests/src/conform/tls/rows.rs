//! The rows: names and truths as in `tlstruth.json`.

use super::{
    Trick, Turns,
    bytes::{
        SSLV2, WARNING, announced, base, hello, in_name, large, legacy_version, one,
        record_version, split, two_compressions, unknown, with_version_of_second_record,
        without_key,
    },
    names::names,
    row,
};
use crate::{
    conform::{NEUTRAL, cut::Cut},
    packet::tls::{ClientHello, record},
};

/// Every row of the table.
pub fn tricks() -> Vec<Trick> {
    [records(), hellos(), names(), second_hellos()].concat()
}

fn records() -> Vec<Trick> {
    vec![
        row!(
            "baseline",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(hello(n))
        ),
        row!(
            "rec_split_mid_sni",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| split(n, in_name(n), b"")
        ),
        row!(
            "rec_split_mid_sni_2_tcp_segments",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| split(n, in_name(n), b"")
        ),
        row!(
            "rec_1_byte_each",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| hello(n).records_of(1)
        ),
        row!(
            "rec_split_in_handshake_header",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| split(n, 2, b"")
        ),
        row!(
            "rec_zero_len_first",
            "blocked.example/SH",
            "blocked.example/SH",
            "-/none",
            |n| [record(22, b""), one(hello(n))].concat()
        ),
        row!(
            "rec_zero_len_between",
            "blocked.example/SH",
            "blocked.example/SH",
            "-/none",
            |n| split(n, in_name(n), &record(22, b""))
        ),
        row!(
            "rec_40_zero_len_between",
            "-/alert10",
            "blocked.example/SH",
            "-/none",
            |n| split(n, in_name(n), &record(22, b"").repeat(40))
        ),
        row!(
            "ccs_before_hello",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| [record(20, &[1]), one(hello(n))].concat()
        ),
        row!(
            "ccs_between_fragments",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| split(n, in_name(n), &record(20, &[1]))
        ),
        row!(
            "warning_alert_before_hello",
            "-/alert10",
            "blocked.example/SH",
            "-/none",
            |n| [record(21, &WARNING), one(hello(n))].concat()
        ),
        row!(
            "warning_alert_between_fragments",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| split(n, in_name(n), &record(21, &WARNING))
        ),
        row!(
            "appdata_empty_before_hello",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| [record(23, b""), one(hello(n))].concat()
        ),
        row!(
            "heartbeat_before_hello",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| [record(24, &[1, 0, 0]), one(hello(n))].concat()
        ),
        row!(
            "recver_0300",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x0300)
        ),
        row!(
            "recver_0302",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x0302)
        ),
        row!(
            "recver_0303",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x0303)
        ),
        row!(
            "recver_0304",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x0304)
        ),
        row!(
            "recver_0305",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x0305)
        ),
        row!(
            "recver_03ff",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0x03ff)
        ),
        row!(
            "recver_0200",
            "-/none",
            "blocked.example/SH",
            "-/none",
            |n| record_version(n, 0x0200)
        ),
        row!(
            "recver_0400",
            "-/none",
            "blocked.example/SH",
            "-/none",
            |n| record_version(n, 0x0400)
        ),
        row!(
            "recver_7f12",
            "-/none",
            "blocked.example/SH",
            "-/none",
            |n| record_version(n, 0x7f12)
        ),
        row!(
            "recver_fefd",
            "-/none",
            "blocked.example/SH",
            "blocked.example/none",
            |n| record_version(n, 0xfefd)
        ),
        row!(
            "recver_changes_between_fragments",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| with_version_of_second_record(n)
        ),
        row!(
            "hellorequest_before_hello",
            "-/alert10",
            "-/alert10",
            "-/none",
            |n| [record(22, &[0; 4]), one(hello(n))].concat()
        ),
        row!(
            "trailing_bytes_same_record",
            "-/alert10",
            "blocked.example/SH",
            "-/none",
            |n| record(22, &[hello(n).handshake(), vec![0; 7]].concat())
        ),
        row!("sslv2_hello", "/alert40", "-/alert40", "-/none", |_n| SSLV2
            .to_vec()),
        row!("leading_crlf", "-/none", "-/alert10", "-/none", |n| [
            b"\r\n".to_vec(),
            one(hello(n))
        ]
        .concat()),
        row!("proxy_v1_prefix", "-/none", "-/alert10", "-/none", |n| [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n".to_vec(),
            one(hello(n))
        ]
        .concat()),
        row!(
            "unfragmented_hello_record_len_17000",
            "-/alert22",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(base().padding(16_700).sni(n))
        ),
        Trick {
            cut: Some(Cut::Bytes),
            ..row!(
                "tcp_1_byte_segments",
                "blocked.example/SH",
                "blocked.example/SH",
                "blocked.example/none",
                |n| one(hello(n))
            )
        },
    ]
}

fn hellos() -> Vec<Trick> {
    vec![
        row!(
            "hello_legacy_version_0300",
            "-/alert40",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0300)
        ),
        row!(
            "hello_legacy_version_0301",
            "blocked.example/SH",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0301)
        ),
        row!(
            "hello_legacy_version_0302",
            "blocked.example/SH",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0302)
        ),
        row!(
            "hello_legacy_version_0304",
            "blocked.example/SH",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0304)
        ),
        row!(
            "hello_legacy_version_0305",
            "blocked.example/SH",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0305)
        ),
        row!(
            "hello_legacy_version_ffff",
            "blocked.example/SH",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0xffff)
        ),
        row!(
            "hello_legacy_version_0200",
            "-/alert70",
            "-/alert70",
            "blocked.example/none",
            |n| legacy_version(n, 0x0200)
        ),
        row!(
            "hs_len_too_short_by_1",
            "-/alert50",
            "-/alert50",
            "-/none",
            |n| announced(n, -1, 0)
        ),
        row!(
            "hs_len_too_long_by_4",
            "-/alert50",
            "blocked.example/SH",
            "-/none",
            |n| announced(n, 4, 4)
        ),
        row!(
            "ext_len_zero_trailing",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(hello(n).extension(0x1234, b""))
        ),
        row!(
            "no_extensions_block",
            "/alert40",
            "-/alert40",
            "-/none",
            |_n| one(ClientHello::new().without_extensions())
        ),
        row!(
            "200_unknown_ext_before_sni",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(unknown(200, 0).sni(n))
        ),
        row!(
            "3000_unknown_ext_before_sni",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(unknown(3_000, 0).sni(n))
        ),
        row!(
            "padding_12000_before_sni",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| large(base().padding(12_000).sni(n))
        ),
        row!(
            "padding_60000_before_sni",
            "blocked.example/SH",
            "-/alert10",
            "blocked.example/none",
            |n| large(base().padding(60_000).sni(n))
        ),
        row!(
            "unknown_ext_30000_before_sni",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| large(unknown(1, 30_000).sni(n))
        ),
        row!(
            "many_ciphers_20000B",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| large(hello(n).ciphers(10_000))
        ),
        row!(
            "session_id_33",
            "-/alert50",
            "-/alert47",
            "-/none",
            |n| one(hello(n).session_id(33))
        ),
        row!(
            "compression_2_methods",
            "blocked.example/alert47",
            "blocked.example/SH",
            "blocked.example/none",
            |n| two_compressions(n)
        ),
    ]
}

/// Rows beyond the truth's: a HelloRetryRequest is answered by a second hello.
fn second_hellos() -> Vec<Trick> {
    /// The dummy that a client may send before its second hello (RFC 8446, D.4).
    const DUMMY: [u8; 6] = [20, 3, 3, 0, 1, 1];
    let rows: [(&str, Turns); 2] = [
        ("second hello with another name", |n| {
            vec![one(without_key(NEUTRAL)), one(hello(n))]
        }),
        (
            "second hello with another name behind change_cipher_spec",
            |n| {
                vec![
                    one(without_key(NEUTRAL)),
                    [DUMMY.to_vec(), one(hello(n))].concat(),
                ]
            },
        ),
    ];
    rows.map(|(name, turns)| Trick {
        name,
        openssl: "*",
        java: "*",
        rustls: "*",
        turns,
        cut: None,
    })
    .to_vec()
}
