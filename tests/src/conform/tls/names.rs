//! The rows about server names.

use super::{
    Trick,
    bytes::{base, hello, labels, list, list_length, named, one},
    row,
};
use crate::conform::NEUTRAL;

pub(super) fn names() -> Vec<Trick> {
    vec![
        row!(
            "sni_upper",
            "BLOCKED.EXAMPLE/SH",
            "BLOCKED.EXAMPLE/SH",
            "blocked.example/none",
            |n| named(n.to_ascii_uppercase())
        ),
        row!(
            "sni_trailing_dot",
            "blocked.example./SH",
            "-/alert47",
            "blocked.example/none",
            |n| named(format!("{n}."))
        ),
        row!(
            "sni_two_dots",
            "blocked.example../SH",
            "-/alert47",
            "-/none",
            |n| named(format!("{n}.."))
        ),
        row!(
            "sni_leading_dot",
            ".blocked.example/SH",
            "-/alert47",
            "-/none",
            |n| named(format!(".{n}"))
        ),
        row!(
            "sni_port",
            "blocked.example:443/SH",
            "-/alert47",
            "-/none",
            |n| named(format!("{n}:443"))
        ),
        row!("sni_nul_suffix", "-/alert112", "-/alert47", "-/none", |n| {
            named(format!("{n}\0.{NEUTRAL}"))
        }),
        row!(
            "sni_leading_space",
            " blocked.example/SH",
            "-/alert47",
            "-/none",
            |n| named(format!(" {n}"))
        ),
        row!(
            "sni_trailing_space",
            "blocked.example /SH",
            "-/alert47",
            "-/none",
            |n| named(format!("{n} "))
        ),
        row!(
            "sni_tab",
            "blocked.example\t/SH",
            "-/alert47",
            "-/none",
            |n| named(format!("{n}\t"))
        ),
        row!("sni_empty", "/SH", "-/alert50", "-/none", |_n| named(
            String::new()
        )),
        row!(
            "sni_ip_literal",
            "192.0.2.1/SH",
            "192.0.2.1/SH",
            "/none",
            |_n| named("192.0.2.1".to_owned())
        ),
        row!(
            "sni_v6_literal",
            "[2001:db8::1]/SH",
            "-/alert47",
            "-/none",
            |_n| named("[2001:db8::1]".to_owned())
        ),
        row!(
            "sni_underscore",
            "a_b.blocked.example/SH",
            "-/alert47",
            "a_b.blocked.example/none",
            |n| named(format!("a_b.{n}"))
        ),
        row!("sni_255", "…/SH", "…/SH", "…/none", |n| named(
            format!("{}{n}", labels(4, 59))
        )),
        row!("sni_256plus", "-/alert112", "…/SH", "-/none", |n| named(
            format!("{}{n}", labels(5, 60))
        )),
        row!("sni_utf8", "-/alert80", "…/SH", "-/none", |n| named(
            n.replacen('o', "\u{f6}", 1)
        )),
        row!(
            "sni_wildcard",
            "*.example/SH",
            "-/alert47",
            "-/none",
            |_n| { named("*.example".to_owned()) }
        ),
        row!(
            "sni_slash",
            "blocked.example/x/SH",
            "-/alert47",
            "-/none",
            |n| named(format!("{n}/x"))
        ),
        row!(
            "sni_hyphen_first",
            "-blocked.example/SH",
            "-/alert47",
            "-/none",
            |n| named(format!("-{n}"))
        ),
        row!(
            "sni_two_hostnames_allowed_blocked",
            "-/alert50",
            "-/alert47",
            "-/none",
            |n| one(base().sni_list(&[(0, NEUTRAL.as_bytes()), (0, n.as_bytes())]))
        ),
        row!(
            "sni_two_hostnames_blocked_allowed",
            "-/alert50",
            "-/alert47",
            "-/none",
            |n| one(base().sni_list(&[(0, n.as_bytes()), (0, NEUTRAL.as_bytes())]))
        ),
        row!(
            "sni_unknown_type_then_host",
            "-/alert50",
            "blocked.example/SH",
            "-/none",
            |n| one(base().sni_list(&[(7, b"other"), (0, n.as_bytes())]))
        ),
        row!(
            "sni_host_then_unknown_type",
            "-/alert50",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(base().sni_list(&[(0, n.as_bytes()), (7, b"other")]))
        ),
        row!(
            "sni_only_unknown_type",
            "-/alert50",
            "-/alert112",
            "-/none",
            |n| one(base().sni_list(&[(7, n.as_bytes())]))
        ),
        row!(
            "sni_list_len_short",
            "-/alert50",
            "-/alert50",
            "-/none",
            |n| list_length(n, -1)
        ),
        row!(
            "sni_list_len_long",
            "-/alert50",
            "-/alert50",
            "-/none",
            |n| list_length(n, 1)
        ),
        row!(
            "sni_trailing_garbage_in_ext",
            "-/alert50",
            "-/alert50",
            "-/none",
            |n| one(base().extension(0, &[&list(n)[..], &[0; 5]].concat()))
        ),
        row!("sni_ext_empty", "-/alert50", "-/alert50", "-/none", |_n| {
            one(base().extension(0, b""))
        }),
        row!(
            "dup_sni_ext_allowed_blocked",
            "-/alert47",
            "blocked.example/SH",
            "-/none",
            |n| one(hello(NEUTRAL).sni(n))
        ),
        row!(
            "dup_sni_ext_blocked_allowed",
            "-/alert47",
            "decoyed.example/SH",
            "-/none",
            |n| one(hello(n).sni(NEUTRAL))
        ),
        row!("no_sni", "/SH", "-/SH", "/none", |_n| one(base())),
        row!(
            "sni_last",
            "blocked.example/SH",
            "blocked.example/SH",
            "blocked.example/none",
            |n| one(base().padding(40).sni(n))
        ),
    ]
}
