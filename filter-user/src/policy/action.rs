//! What a rule does, and where it leads to.

use std::net::IpAddr;

use filter_common::abi::Action;

use super::{
    diagnostics::{Finding, Findings, quoted},
    fields::{Fields, similar},
    host::{check_interface_name, take_word},
    model::Target,
    source::{Located, Span},
};

/// What a rule does.
pub(super) struct Acting {
    pub(super) action: Action,
    pub(super) target: Option<Target>,
    pub(super) refuses_quic: bool,
}

impl Acting {
    fn plain(action: Action) -> Self {
        Self {
            action,
            target: None,
            refuses_quic: false,
        }
    }
}

/// The action, where it leads to, and what it does to QUIC.
pub(super) fn take_action(
    fields: &mut Fields<'_>,
    rule: Span,
    has_names: bool,
    findings: &mut Findings,
) -> Acting {
    if !fields.has("action") {
        findings.error(Finding::at(rule, "this rule has no `action`").help(
            "write `action = \"drop\"`, or `action = \"observe\"` to see first what it would hit",
        ));
    }
    let action: Option<Located<String>> = fields.take("action", findings);
    let has_target = fields.has("redirect");
    let written = fields
        .take_table("redirect", findings)
        .map(|target| (target.span, take_target(target, findings)));
    let quic_span = fields.span_of("quic");
    let quic = take_word(
        fields,
        "quic",
        &[("refuse", true), ("icmp", false)],
        findings,
    );
    let Some(action) = action else {
        return Acting::plain(Action::Observe);
    };
    if has_target && written.is_none() {
        return Acting::plain(Action::Redirect);
    }
    let Some(meant) = parse_action(&action, findings) else {
        return Acting::plain(Action::Drop);
    };
    let target = match (meant, written) {
        (Action::Redirect, None) => Some(Target::Page),
        (Action::Redirect, Some((span, target))) => {
            check_names(span, has_names, findings);
            target
        }
        (Action::Observe | Action::Drop | Action::Refuse, Some((span, _))) => {
            findings.error(
                Finding::at(
                    span,
                    "`redirect` says where to, but the action is another one",
                )
                .related(action.span, "this action")
                .help("write `action = \"redirect\"`, or remove `redirect`"),
            );
            None
        }
        (Action::Observe | Action::Drop | Action::Refuse, None) => None,
    };
    let answers = meant == Action::Refuse || target == Some(Target::Page);
    if let (Some(span), false) = (quic_span, answers) {
        findings.error(
            Finding::at(span, "`quic` says how to refuse, but the rule does not")
                .related(action.span, "this action")
                .help("remove it, or write `action = \"refuse\"` or `action = \"redirect\"`"),
        );
    }
    Acting {
        action: meant,
        target,
        refuses_quic: answers && quic.unwrap_or(true),
    }
}

fn parse_action(action: &Located<String>, findings: &mut Findings) -> Option<Action> {
    let all = [
        Action::Observe,
        Action::Drop,
        Action::Refuse,
        Action::Redirect,
    ];
    let meant = all.into_iter().find(|known| known.as_str() == action.value);
    if meant.is_none() {
        let finding = Finding::at(action.span, "this is not an action");
        findings.error(match similar(&action.value, &all.map(Action::as_str)) {
            Some(similar) => finding.help(format!("did you mean `{similar}`?")),
            None => finding.help("use \"observe\", \"drop\", \"refuse\" or \"redirect\""),
        });
    }
    meant
}

/// An interface, or a next hop on one.
fn take_target(mut fields: Fields<'_>, findings: &mut Findings) -> Option<Target> {
    let span = fields.span;
    let (has_interface, has_hop) = (fields.has("interface"), fields.has("next_hop"));
    let interface: Option<Located<String>> = fields.take("interface", findings);
    let next_hop: Option<Located<String>> = fields.take("next_hop", findings);
    fields.finish(findings);
    if let Some(interface) = &interface {
        check_interface_name(interface, findings);
    }
    let interface = interface.map(|interface| interface.value);
    if let Some(hop) = next_hop {
        let address = parse_next_hop(&hop, findings)?;
        return Some(Target::NextHop { address, interface });
    }
    if !has_interface && !has_hop {
        findings.error(
            Finding::at(span, "`redirect` names neither an interface nor a next hop").help(
                "write `redirect = { interface = \"eth1\" }` or `redirect = { next_hop = \"192.0.2.1\" }`; \
                 without `redirect` the rule leads to the block page",
            ),
        );
    }
    interface.map(Target::Interface)
}

fn parse_next_hop(hop: &Located<String>, findings: &mut Findings) -> Option<IpAddr> {
    let address: Option<IpAddr> = hop.value.parse().ok();
    let is_one = |address: &IpAddr| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
    };
    let address = address.filter(is_one);
    if address.is_none() {
        let message = format!("{} cannot be a next hop", quoted(&hop.value));
        findings.error(
            Finding::at(hop.span, message)
                .help("write the IPv4 or IPv6 address of a host on one of this host's links"),
        );
    }
    address
}

/// A name is known only when the server has the connection, and nobody else can go on with it.
fn check_names(span: Span, has_names: bool, findings: &mut Findings) {
    if has_names {
        findings.error(
            Finding::at(
                span,
                "names lead to the block page only, origins also elsewhere",
            )
            .help("remove `redirect`, or put the names in a rule of their own"),
        );
    }
}
