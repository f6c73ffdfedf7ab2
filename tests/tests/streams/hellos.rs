//! What clients say first.

use std::{fs, path::Path};

use filter_tests::packet::{http::Request, tls::ClientHello};
use filter_user::replay::capture::Capture;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/captures");

/// What a client says first.
pub(crate) struct Hello {
    pub(crate) title: String,
    pub(crate) port: u16,
    pub(crate) bytes: Vec<u8>,
    /// Bytes with which a server can act on it.
    pub(crate) complete: usize,
}

/// A piece of a stream: where it starts, relative to the stream's start, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: i64,
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    pub(crate) fn of(hello: &Hello, from: usize, to: usize) -> Self {
        Self {
            at: from as i64,
            bytes: hello.bytes[from..to].to_vec(),
        }
    }
}

/// Some of [`hellos`] behind a PROXY protocol header of each version.
pub(crate) fn proxied() -> Vec<Hello> {
    let v1 = b"PROXY TCP4 198.51.100.9 203.0.113.9 40000 443\r\n".to_vec();
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[10; 12]].concat();
    let mut proxied = Vec::new();
    for hello in hellos().into_iter().filter(|hello| hello.bytes.len() < 600) {
        for header in [&v1, &v2] {
            proxied.push(Hello {
                title: format!("{} behind {} bytes", hello.title, header.len()),
                port: hello.port,
                complete: header.len() + hello.complete,
                bytes: [header, &hello.bytes[..]].concat(),
            });
        }
    }
    assert!(proxied.len() >= 10, "{} hellos", proxied.len());
    proxied
}

/// The hellos of our captures, made ones, and request heads; all of them blocked.
pub(crate) fn hellos() -> Vec<Hello> {
    let mut hellos = captured();
    assert!(hellos.len() > 10, "{} captured hellos", hellos.len());
    let named = ClientHello::named("www.blocked.example");
    for (title, bytes) in [
        ("one record", named.record()),
        ("records of one byte", named.records_of(1)),
        ("records of 50 bytes", named.records_of(50)),
        ("two records", named.records_split_at(3)),
        (
            "long",
            ClientHello::new()
                .padding(5_000)
                .sni("a.blocked.example")
                .record(),
        ),
    ] {
        hellos.push(Hello {
            title: title.to_owned(),
            port: 443,
            complete: bytes.len(),
            bytes,
        });
    }
    for (title, request) in [
        ("request", Request::to("www.blocked.example")),
        (
            "host last",
            Request::get()
                .header("Accept: */*")
                .header("Host: blocked.example"),
        ),
        (
            "absolute",
            Request::line("GET http://a.blocked.example/x HTTP/1.1").header("X: y"),
        ),
        (
            "connect",
            Request::line("CONNECT a.blocked.example:443 HTTP/1.1"),
        ),
        ("line feeds", Request::to("www.blocked.example").bare_lf()),
    ] {
        let bytes = request.bytes();
        hellos.push(Hello {
            title: title.to_owned(),
            port: 80,
            complete: bytes.len(),
            bytes,
        });
    }
    hellos
}

/// Requests for an allowed host, and behind them one for a blocked one.
pub(crate) fn later_requests() -> Vec<Hello> {
    let allowed = Request::to("www.allowed.example").bytes();
    let blocked = Request::to("www.blocked.example").bytes();
    // What begins a segment looks like a request, and is none.
    let body = [&blocked[..], &b"(".repeat(1_400)[..]].concat();
    let upload = |line| {
        let head = Request::line(line).header("Host: allowed.example");
        head.header(&format!("Content-Length: {}", body.len()))
            .bytes()
    };
    let post = upload("POST / HTTP/1.1");
    let streams = [
        ("pipelined", [&allowed[..], &allowed, &blocked].concat()),
        ("behind a body", [&post[..], &body, &blocked].concat()),
        (
            "behind two bodies",
            [&allowed[..], &post, &body, &post, &body, &blocked].concat(),
        ),
        (
            "behind an empty line",
            [&post[..], &body, b"\r\n", &blocked].concat(),
        ),
    ];
    let hello = |(title, bytes): (&str, Vec<u8>)| Hello {
        title: title.to_owned(),
        port: 80,
        complete: bytes.len(),
        bytes,
    };
    streams.map(hello).into()
}

/// Client streams of our captures from their first record to its end.
fn captured() -> Vec<Hello> {
    let mut paths: Vec<_> = fs::read_dir(CAPTURES)
        .unwrap_or_else(|e| panic!("{CAPTURES}: {e}"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pcap")
        })
        .collect();
    paths.sort();
    let hellos = paths.iter().filter_map(|path| first_hello(path));
    hellos.filter(|hello| names_us(&hello.bytes)).collect()
}

fn names_us(hello: &[u8]) -> bool {
    let name = b"test.example";
    hello
        .windows(name.len())
        .any(|window| window.eq_ignore_ascii_case(name))
}

/// The first stream that begins with a handshake record, up to that record's end.
fn first_hello(path: &Path) -> Option<Hello> {
    let mut capture = Capture::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut begun: Option<(Vec<u8>, u32, Vec<u8>)> = None;
    while let Ok(Some(frame)) = capture.next_frame() {
        let bytes = frame.framing.to_ethernet(frame.bytes);
        let Some((ports, seq, payload)) = segment(&bytes) else {
            continue;
        };
        match &mut begun {
            None if payload.starts_with(&[0x16, 3]) => {
                begun = Some((ports.to_vec(), seq, payload.to_vec()));
            }
            Some((of, start, stream))
                if of == ports && seq.wrapping_sub(*start) as usize == stream.len() =>
            {
                stream.extend_from_slice(payload);
            }
            _ => {}
        }
        if let Some((_, _, stream)) = &mut begun {
            let complete = 5 + usize::from(u16::from_be_bytes([stream[3], stream[4]]));
            if stream.len() >= complete {
                stream.truncate(complete);
                return Some(Hello {
                    title: path.file_name()?.to_string_lossy().into_owned(),
                    port: 443,
                    bytes: std::mem::take(stream),
                    complete,
                });
            }
        }
    }
    None
}

/// Ports, sequence number and payload of a TCP segment.
fn segment(frame: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let tcp = match frame.get(12..15)? {
        [0x08, 0x00, 0x45] if frame[23] == 6 => {
            let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            frame.get(34..end)?
        }
        [0x86, 0xDD, _] if frame[20] == 6 => frame.get(54..)?,
        _ => return None,
    };
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let payload = tcp.get(usize::from(tcp[12] >> 4) * 4..)?;
    (!payload.is_empty()).then_some((&tcp[..4], seq, payload))
}
