//! Odd HTTP/1 requests: every line of `httptruth.json`, as bytes.

use super::{BLOCKED, NEUTRAL};

/// A request in an odd form.
#[derive(Clone, Copy, Debug)]
pub struct Trick {
    /// Key in `httptruth.json`, or the name of a row that goes beyond it.
    pub name: &'static str,
    /// What nginx 1.22 answers for the blocked name: status, virtual host.
    pub nginx: &'static str,
    /// What HAProxy 2.6 answers for the blocked name: status, Host.
    pub haproxy: &'static str,
    /// What the client sends in order to reach a name; each turn waits for the answer to the one
    /// before.
    pub turns: fn(&str) -> Vec<Vec<u8>>,
    /// The name stands where no server looks: naming a blocked one there is no reason to block.
    pub beside: bool,
}

const BLOCKED_NGINX: &str = "200 blocked.example";
const BLOCKED_HAPROXY: &str = "200 blocked.example";
const REFUSED: &str = "400 ";

/// Every row of the table.
pub fn tricks() -> Vec<Trick> {
    [host(), target(), lines(), connections()].concat()
}

macro_rules! row {
    ($name:literal, $nginx:expr, $haproxy:expr, |$host:ident| $request:expr) => {
        Trick {
            name: $name,
            nginx: $nginx,
            haproxy: $haproxy,
            turns: |$host| vec![$request.into()],
            beside: false,
        }
    };
}

/// A request with this header line.
fn with(line: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{line}\r\n\r\n").into_bytes()
}

/// A request with this first line.
fn line(line: &str, host: &str) -> Vec<u8> {
    format!("{line}\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn mixed_case(host: &str) -> String {
    let flip = |(index, letter): (usize, char)| {
        if index % 2 == 0 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    host.chars().enumerate().map(flip).collect()
}

fn host() -> Vec<Trick> {
    const NO: &str = REFUSED;
    const YES: &str = BLOCKED_HAPROXY;
    let beside = |trick| Trick {
        beside: true,
        ..trick
    };
    vec![
        row!("baseline", YES, YES, |h| with(&format!("Host: {h}"))),
        row!("host_lower", YES, YES, |h| with(&format!("host: {h}"))),
        row!("host_mixed", YES, YES, |h| with(&format!("hOsT: {h}"))),
        row!("host_no_space", YES, YES, |h| with(&format!("Host:{h}"))),
        row!(
            "host_no_space_trailing_tab (byedpi rmspace)",
            NO,
            YES,
            |h| with(&format!("Host:{h}\t"))
        ),
        row!("host_tab", NO, YES, |h| with(&format!("Host:\t{h}"))),
        row!("host_many_spaces", YES, YES, |h| with(&format!(
            "Host:      {h}"
        ))),
        row!("host_trailing_spaces", YES, YES, |h| with(&format!(
            "Host: {h}   "
        ))),
        row!("host_value_mixed_case", YES, YES, |h| with(&format!(
            "Host: {}",
            mixed_case(h)
        ))),
        row!("host_trailing_dot", YES, "200 blocked.example.", |h| with(
            &format!("Host: {h}.")
        )),
        row!("host_port", YES, "200 blocked.example:80", |h| with(
            &format!("Host: {h}:80")
        )),
        row!("host_port_weird", YES, "200 blocked.example:99999", |h| {
            with(&format!("Host: {h}:99999"))
        }),
        row!("host_dot_port", YES, "200 blocked.example.:80", |h| with(
            &format!("Host: {h}.:80")
        )),
        row!("host_space_before_colon", NO, NO, |h| with(&format!(
            "Host : {h}"
        ))),
        row!("host_obs_fold", NO, YES, |h| with(&format!(
            "Host:\r\n {h}"
        ))),
        row!("host_first_folded_line", NO, NO, |h| with(&format!(
            " Host: {h}"
        ))),
        row!("dup_host_allowed_blocked", NO, NO, |h| with(&format!(
            "Host: {NEUTRAL}\r\nHost: {h}"
        ))),
        row!("dup_host_blocked_allowed", NO, NO, |h| with(&format!(
            "Host: {h}\r\nHost: {NEUTRAL}"
        ))),
        row!("host_after_200_headers", YES, YES, |h| with(&format!(
            "{}Host: {h}",
            (0..200)
                .map(|i| format!("X-{i}: {i}\r\n"))
                .collect::<String>()
        ))),
        row!("host_after_6KB_header", YES, YES, |h| with(&format!(
            "X-Long: {}\r\nHost: {h}",
            "x".repeat(6_000)
        ))),
        beside(row!(
            "header_line_named_XHost",
            "200 decoyed.example",
            "200 decoyed.example",
            |h| with(&format!("X-Host: {h}\r\nHost: {NEUTRAL}"))
        )),
        row!("nul_in_value", NO, "200 blocked.example%00", |h| with(
            &format!("Host: {h}\0")
        )),
        row!(
            "comma_host",
            "200 default",
            "200 blocked.example",
            |h| with(&format!("Host: {NEUTRAL},{h}"))
        ),
        beside(row!(
            "underscore_host_header",
            "200 decoyed.example",
            "200 decoyed.example",
            |h| with(&format!("Ho_st: {h}\r\nHost: {NEUTRAL}"))
        )),
        row!("bare_cr_in_line", NO, NO, |h| with(&format!(
            "X-A: b\rHost: {h}\r\nHost: {NEUTRAL}"
        ))),
    ]
}

fn target() -> Vec<Trick> {
    const NO: &str = REFUSED;
    const YES: &str = BLOCKED_NGINX;
    vec![
        row!("absolute_uri_vs_host", YES, NO, |h| line(
            &format!("GET http://{h}/ HTTP/1.1"),
            NEUTRAL
        )),
        row!("absolute_uri_upper_scheme", YES, NO, |h| line(
            &format!("GET HTTP://{h}/ HTTP/1.1"),
            NEUTRAL
        )),
        row!("absolute_uri_userinfo", NO, NO, |h| line(
            &format!("GET http://user@{h}/ HTTP/1.1"),
            NEUTRAL
        )),
        row!("absolute_uri_no_host", YES, "200 ", |h| format!(
            "GET http://{h}/ HTTP/1.0\r\n\r\n"
        )),
        row!("host_after_long_uri_4KB", YES, YES, |h| line(
            &format!("GET /{} HTTP/1.1", "u".repeat(4_096)),
            h
        )),
        row!("connect_authority", NO, BLOCKED_HAPROXY, |h| line(
            &format!("CONNECT {h}:80 HTTP/1.1"),
            h
        )),
        row!("options_star", NO, BLOCKED_HAPROXY, |h| line(
            "OPTIONS * HTTP/1.1",
            h
        )),
    ]
}

fn lines() -> Vec<Trick> {
    const NO: &str = REFUSED;
    const YES: &str = BLOCKED_NGINX;
    vec![
        row!("lf_only", YES, YES, |h| format!(
            "GET / HTTP/1.1\nHost: {h}\n\n"
        )),
        row!("leading_crlf", YES, YES, |h| [
            b"\r\n".to_vec(),
            line("GET / HTTP/1.1", h)
        ]
        .concat()),
        row!("leading_lf (zapret methodeol)", YES, YES, |h| [
            b"\n".to_vec(),
            line("GET / HTTP/1.1", h)
        ]
        .concat()),
        row!("leading_5_crlf", YES, YES, |h| [
            b"\r\n".repeat(5),
            line("GET / HTTP/1.1", h)
        ]
        .concat()),
        row!("two_spaces_after_method", YES, YES, |h| line(
            "GET  / HTTP/1.1",
            h
        )),
        row!("tab_after_method", NO, YES, |h| line("GET\t/ HTTP/1.1", h)),
        row!("space_before_method", NO, NO, |h| line(
            " GET / HTTP/1.1",
            h
        )),
        row!("lowercase_method", NO, YES, |h| line("get / HTTP/1.1", h)),
        row!("unknown_method", YES, YES, |h| line("FOO / HTTP/1.1", h)),
        row!("http10_host", YES, YES, |h| line("GET / HTTP/1.0", h)),
        row!("http10_no_host", "200 default", "200 ", |_h| {
            b"GET / HTTP/1.0\r\n\r\n"
        }),
        row!("http09", " default", NO, |_h| b"GET /\r\n"),
        row!("http_2_0_version_token", "505 ", YES, |h| line(
            "GET / HTTP/2.0",
            h
        )),
        row!("http_1_2", YES, YES, |h| line("GET / HTTP/1.2", h)),
        row!("http_lower_version", NO, NO, |h| line("GET / http/1.1", h)),
    ]
}

fn connections() -> Vec<Trick> {
    const NO: &str = REFUSED;
    const TWO: &str = "200,200 decoyed.example,blocked.example";
    const THREE: &str = "200,200,200 decoyed.example,decoyed.example,blocked.example";
    const TEN: &str = "200,200,200,200,200,200,200,200,200,200 \
        decoyed.example,decoyed.example,decoyed.example,decoyed.example,decoyed.example,\
        decoyed.example,decoyed.example,decoyed.example,decoyed.example,blocked.example";
    vec![
        row!("pipelined_2nd_request", TWO, TWO, |h| {
            [line("GET / HTTP/1.1", NEUTRAL), line("GET / HTTP/1.1", h)].concat()
        }),
        row!("post_then_2nd_request", TWO, TWO, |h| {
            let post = with(&format!("Host: {NEUTRAL}\r\nContent-Length: 4"));
            [post, b"body".to_vec(), line("GET / HTTP/1.1", h)].concat()
        }),
        row!("post_then_2nd_request, 3 kB", TWO, TWO, |h| {
            [upload(3_000), line("GET / HTTP/1.1", h)].concat()
        }),
        row!("10 pipelined requests", TEN, TEN, |h| {
            [
                line("GET / HTTP/1.1", NEUTRAL).repeat(9),
                line("GET / HTTP/1.1", h),
            ]
            .concat()
        }),
        Trick {
            turns: |h| {
                let last = [upload(3_000), line("GET / HTTP/1.1", h)].concat();
                vec![line("GET / HTTP/1.1", NEUTRAL), last]
            },
            ..row!(
                "post_then_3rd_request after the first answer",
                THREE,
                THREE,
                |_h| b""
            )
        },
        row!("chunked_post_then_2nd_request", TWO, TWO, |h| {
            let chunks = b"4\r\nbody\r\n0\r\n\r\n".to_vec();
            let line = format!("Host: {NEUTRAL}\r\nTransfer-Encoding: chunked");
            let post = format!("POST / HTTP/1.1\r\n{line}\r\n\r\n").into_bytes();
            [post, chunks, self::line("GET / HTTP/1.1", h)].concat()
        }),
        Trick {
            turns: |h| vec![line("GET / HTTP/1.1", NEUTRAL), line("GET / HTTP/1.1", h)],
            ..row!("second request after the first answer", TWO, TWO, |_h| b"")
        },
        row!("h2c_prior_knowledge", NO, "h2 blocked.example", |h| h2c(h)),
        row!("proxy_protocol_v1", NO, NO, |h| {
            let proxy = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n".to_vec();
            [proxy, line("GET / HTTP/1.1", h)].concat()
        }),
    ]
}

/// A request with so many bytes of body.
fn upload(bytes: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: {NEUTRAL}\r\nContent-Length: {bytes}\r\n\r\n");
    [head.into_bytes(), b"(".repeat(bytes)].concat()
}

/// HTTP/2 with prior knowledge (RFC 9113, 3.3): preface, SETTINGS, and a request in literals.
fn h2c(host: &str) -> Vec<u8> {
    let mut headers = vec![0x82, 0x86, 0x84, 0x41, host.len() as u8];
    headers.extend_from_slice(host.as_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&headers);
    bytes
}

/// What the servers of the suite said: statuses, and the names that they took the requests for.
pub fn describe(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer).replace('\0', "%00");
    let values = |mark: &str, end: &[char]| -> Vec<String> {
        text.split(mark)
            .skip(1)
            .map(|rest| rest.split(end).next().unwrap_or_default().to_owned())
            .collect()
    };
    let statuses = values("HTTP/1.1 ", &[' ']).join(",");
    let names = values("served <", &['>']).join(",");
    if answer.starts_with(&[0, 0]) {
        return format!("h2 {names}");
    }
    format!("{statuses} {names}")
}

/// Whether a server took a request for the blocked name.
pub fn is_for_blocked(said: &str) -> bool {
    let names = said.split_once(' ').map_or("", |(_, names)| names);
    names.to_ascii_lowercase().contains(BLOCKED)
}
