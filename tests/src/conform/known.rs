//! What the tables of this suite come to where they do not hold, and why: the suites compare
//! themselves with it, and `docs/LIMITS.md` prints it.

use std::fmt::Write as _;

use super::{
    host, http,
    report::{
        Known,
        Property::{self, Blocks, Serves},
    },
    tls,
};

/// How a table is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// `inspect.checksum = "partial"`.
    Partial,
    /// `inspect.checksum = "strict"`, and no unfinished checksums on the way.
    Strict,
}

impl Checksums {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Partial, Self::Strict];

    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Strict => "strict",
        }
    }
}

/// What is known of one table.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its name: what, against what, role, checksums.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
    /// What does not hold.
    pub known: Vec<Known>,
}

/// What is known of the table with this name.
///
/// # Panics
/// If there is none.
pub fn of(name: &str) -> Expected {
    let found = tables().into_iter().find(|table| table.name == name);
    found.unwrap_or_else(|| panic!("no table {name}"))
}

/// Every table, as the long tests play it.
pub fn tables() -> Vec<Expected> {
    let mut tables = Vec::new();
    for (table, rows, known) in kinds() {
        for checksums in Checksums::ALL {
            tables.push(Expected {
                name: format!("{table}-{}", checksums.word()),
                rows,
                known: under(checksums, &known),
            });
        }
    }
    tables
}

/// The tables without their checksums: name, rows, what does not hold.
fn kinds() -> Vec<(String, usize, Vec<Known>)> {
    let host = host::tricks();
    let early = host.iter().filter(|trick| trick.opens_plainly()).count();
    let host = host.len();
    let tls = tls::tricks().len();
    let http = http::tricks().len();
    let router_late = [KNOWN_AS_ONE_SIDED, KNOWN_AS_ROUTER_LATE].concat();
    let mut kinds = vec![
        ("host-server".to_owned(), host, KNOWN_AS_SERVER.to_vec()),
        (
            "host-server-late".to_owned(),
            early,
            KNOWN_AS_SERVER.to_vec(),
        ),
        (
            "host-server-cookies".to_owned(),
            host,
            KNOWN_UNDER_COOKIES.to_vec(),
        ),
        ("host-router".to_owned(), host, KNOWN_AS_ROUTER.to_vec()),
        ("host-router-late".to_owned(), early, router_late.clone()),
        (
            "host-one-sided".to_owned(),
            host,
            KNOWN_AS_ONE_SIDED.to_vec(),
        ),
        ("host-one-sided-late".to_owned(), early, router_late),
    ];
    for role in ["server", "router"] {
        for (server, rows, known) in [
            ("tls-openssl", tls, KNOWN_ON_OPENSSL),
            ("tls-rustls", tls, KNOWN_ON_RUSTLS),
            ("tls-java", tls, KNOWN_ON_JAVA),
            ("http-nginx", http, KNOWN_ON_NGINX),
            ("http-haproxy", http, KNOWN_ON_HAPROXY),
        ] {
            let of_role = match (role, server) {
                ("router", "http-nginx" | "http-haproxy") => KNOWN_HTTP_AS_ROUTER,
                _ => &[],
            };
            kinds.push((format!("{server}-{role}"), rows, [known, of_role].concat()));
        }
    }
    kinds
}

/// The table of all tables for `docs/LIMITS.md`, reasons below it. Tables that come to the same with
/// both ways to judge checksums are one line.
pub fn markdown() -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let mut text = String::from(
        "| table | checksums | rows | blocked name obtained | allowed name not served |\n\
         |---|---|---|---|---|\n",
    );
    for (name, rows, known) in kinds() {
        let mut line = |checksums: &str, known: &[Known]| {
            let mut cell = |property| differing(known, property, &mut reasons);
            let (obtained, withheld) = (cell(Blocks), cell(Serves));
            writeln!(
                text,
                "| {name} | {checksums} | {rows} | {obtained} | {withheld} |"
            )
            .expect("a string");
        };
        let strict = under(Checksums::Strict, &known);
        if strict.len() == known.len() {
            line("both", &known);
        } else {
            line("partial", &known);
            line("strict", &strict);
        }
    }
    text.push('\n');
    for (index, why) in reasons.iter().enumerate() {
        writeln!(text, "{}. {why}", index + 1).expect("a string");
    }
    text
}

/// How many rows do not hold, and which, with the numbers of their reasons.
fn differing(known: &[Known], property: Property, reasons: &mut Vec<&'static str>) -> String {
    let of = known.iter().filter(|known| known.property == property);
    let names: Vec<String> = of
        .map(|known| {
            let number = number(reasons, known.why);
            let sometimes = if known.sometimes { ", at times" } else { "" };
            format!("{} ({number}{sometimes})", known.row)
        })
        .collect();
    match names.len() {
        0 => "0".to_owned(),
        count => format!("{count}: {}", names.join("; ")),
    }
}

/// What does not hold with these checksums.
fn under(checksums: Checksums, known: &[Known]) -> Vec<Known> {
    let partial = checksums == Checksums::Partial;
    let of = known.iter().filter(|known| partial || known.why != PARTIAL);
    of.copied().collect()
}

/// The number of a reason, from 1 on.
fn number(reasons: &mut Vec<&'static str>, why: &'static str) -> usize {
    match reasons.iter().position(|reason| *reason == why) {
        Some(index) => index + 1,
        None => {
            reasons.push(why);
            reasons.len()
        }
    }
}

const PARTIAL: &str = "a decoy with the sum that a sender on the same machine leaves is taken where \
     such senders are served, and what is meant then contradicts it";
const UNSEEN: &str = "without the server's answers a decoy with these numbers is taken as part of the \
     stream, and what is meant then contradicts it";
const URGENT: &str = "an urgent pointer is not let through before the verdict";
const FRAGMENTS: &str =
    "first fragments towards an inspected port are dropped, `fragments` can say `pass`";
const START_UNKNOWN: &str = "the start of a stream that was open before is guessed by its looks";
const TOO_LONG: &str =
    "by design: a hello of more than 16 KiB is dropped, `unparsed` can say `pass`";
const MALFORMED: &str =
    "by design: a hello that breaks its lengths is dropped, `unparsed` can say `pass`";
const CHUNKED: &str = "a request behind a body in chunks is read only if it begins a segment";
const NOT_FOLLOWED: &str = "in a connection that passes through, a request that does not begin a segment, or is \
     sent in pieces before the answer to the one before it, is not read";
const HTTP2: &str = "by design: HTTP/2 with prior knowledge is not read, but counted";

const KNOWN_AS_SERVER: &[Known] = &[
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];

const KNOWN_UNDER_COOKIES: &[Known] = KNOWN_AS_SERVER;

const KNOWN_AS_ROUTER: &[Known] = KNOWN_AS_SERVER;

const KNOWN_AS_ONE_SIDED: &[Known] = &[
    Known::always("fake_ack_beyond_sndnxt (split)", Serves, UNSEEN),
    Known::always("fake_old_timestamp (split)", Serves, UNSEEN),
    Known::always("fake_bad_checksum: partial sum (split)", Serves, PARTIAL),
    Known::always("urg_byte_in_middle", Serves, URGENT),
    Known::always("urg_separate_segment", Serves, URGENT),
    Known::always("ip_fragments_24B", Serves, FRAGMENTS),
    Known::always("ip_fragments_reverse", Serves, FRAGMENTS),
    Known::always("ip_fragment_8B_tiny", Serves, FRAGMENTS),
    Known::always("v6_fragments", Serves, FRAGMENTS),
    Known::always("v6_dstopts_then_fragments", Serves, FRAGMENTS),
];

/// Besides [`KNOWN_AS_ONE_SIDED`], on connections that were opened before.
const KNOWN_AS_ROUTER_LATE: &[Known] = &[
    Known::always("reverse_order", Blocks, START_UNKNOWN),
    Known::always("ooo_fake_tail_then_bigger_real_tail", Blocks, START_UNKNOWN),
    Known::always("disorder_seqovl", Blocks, START_UNKNOWN),
    Known::always("split_seqovl", Blocks, START_UNKNOWN),
    Known::always("beyond_window", Serves, START_UNKNOWN),
];

const KNOWN_ON_OPENSSL: &[Known] = &[
    Known::always("padding_60000_before_sni", Serves, TOO_LONG),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];

const KNOWN_ON_RUSTLS: &[Known] = &[
    Known::always("unfragmented_hello_record_len_17000", Serves, TOO_LONG),
    Known::always("padding_60000_before_sni", Serves, TOO_LONG),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];

const KNOWN_ON_JAVA: &[Known] = &[
    Known::always("unfragmented_hello_record_len_17000", Serves, TOO_LONG),
    Known::always("hs_len_too_long_by_4", Serves, MALFORMED),
    Known::always("unknown_ext_30000_before_sni", Serves, TOO_LONG),
    Known::always("many_ciphers_20000B", Serves, TOO_LONG),
];

const KNOWN_ON_NGINX: &[Known] = &[Known::always(
    "chunked_post_then_2nd_request",
    Blocks,
    CHUNKED,
)];

const KNOWN_ON_HAPROXY: &[Known] = &[
    Known::always("chunked_post_then_2nd_request", Blocks, CHUNKED),
    Known::always("h2c_prior_knowledge", Blocks, HTTP2),
];

/// Besides what is known of the server, in connections that pass through.
const KNOWN_HTTP_AS_ROUTER: &[Known] = &[
    Known::sometimes("pipelined_2nd_request", Blocks, NOT_FOLLOWED),
    Known::sometimes("post_then_2nd_request", Blocks, NOT_FOLLOWED),
    Known::always("post_then_2nd_request, 3 kB", Blocks, NOT_FOLLOWED),
    Known::sometimes("10 pipelined requests", Blocks, NOT_FOLLOWED),
    Known::always(
        "post_then_3rd_request after the first answer",
        Blocks,
        NOT_FOLLOWED,
    ),
];
