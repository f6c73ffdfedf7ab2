//! One `[[rule]]`: from its keys to a validated rule.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use filter_common::limits::PORT_RANGES_PER_RULE;
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    action::{Acting, take_action},
    diagnostics::{Finding, Findings, quoted},
    digest::Inputs,
    fields::{Fields, Scalar, Scalars},
    limits::{APPROVERS_MAX, ID_BYTES_MAX, LANGUAGES_MAX, TEXT_BYTES_MAX},
    model::{HostName, Lists, Rule, RuleText},
    ports::{PROTOCOLS_WITH_PORTS, TCP, UDP, parse_ports, parse_protocol},
    source::{Located, Span},
    times::take_time,
};

/// A rule whose names and prefixes still know where they were written.
#[derive(Debug)]
pub(super) struct Draft {
    /// The rule; its names and prefixes are in the fields below.
    pub(super) rule: Rule,
    /// Where to point for the rule as a whole: its id, if it has one.
    pub(super) span: Span,
    pub(super) hosts: Vec<Located<HostName>>,
    pub(super) domains: Vec<Located<HostName>>,
    pub(super) origins: Vec<Located<IpNet>>,
    pub(super) lists: Lists,
    /// Whether the lists above were read.
    pub(super) is_read: bool,
    /// Which warnings reading them brought.
    pub(super) warnings: Range<usize>,
}

/// What a rule lists, as written, before it is parsed.
pub(super) struct Listed {
    pub(super) hosts: Keys,
    pub(super) domains: Keys,
    pub(super) origins: Keys,
    pub(super) overrides: Overrides,
}

impl Listed {
    /// Whether names are listed.
    fn has_names(&self) -> bool {
        !self.hosts.is_empty() || !self.domains.is_empty()
    }

    /// The three lists.
    pub(super) fn kinds(&self) -> [&Keys; 3] {
        [&self.hosts, &self.domains, &self.origins]
    }

    /// What they are read from, before any of them is added.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs::new([self.overrides.wide, self.overrides.public_suffix])
    }
}

/// The values of one key and of its list file.
pub(super) struct Keys {
    pub(super) inline: Vec<Located<String>>,
    pub(super) file: Option<Located<PathBuf>>,
    /// Something was written that is not understood, and that was noted.
    is_faulty: bool,
}

impl Keys {
    /// What the rule itself lists.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.inline.iter().map(|entry| entry.value.as_str())
    }

    fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.file.is_none() && !self.is_faulty
    }
}

/// Guardrails that the rule itself switches off.
#[derive(Clone, Copy, Default)]
pub(super) struct Overrides {
    pub(super) wide: bool,
    pub(super) public_suffix: bool,
}

/// Takes a rule's fields apart. Mistakes are noted; what is returned is then good for finding more
/// of them, but not for use.
pub(super) fn parse_rule(
    mut fields: Fields<'_>,
    now: Timestamp,
    findings: &mut Findings,
) -> (Draft, Listed) {
    let id = take_id(&mut fields, findings);
    let span = id.as_ref().map_or(fields.span, |id| id.span);
    let listed = Listed {
        hosts: take_keys(&mut fields, "hosts", "hosts_file", findings),
        domains: take_keys(&mut fields, "domains", "domains_file", findings),
        origins: take_keys(&mut fields, "origins", "origins_file", findings),
        overrides: Overrides {
            wide: take_flag(&mut fields, "allow_wide", findings),
            public_suffix: take_flag(&mut fields, "allow_public_suffix", findings),
        },
    };
    let Acting {
        action,
        target,
        refuses_quic,
    } = take_action(&mut fields, span, listed.has_names(), findings);
    let ports: Option<Located<Scalars>> = fields.take("ports", findings);
    let protocol: Option<Located<Scalar>> = fields.take("protocol", findings);
    let ports_span = ports.as_ref().map(|ports| ports.span);
    let protocol_span = protocol.as_ref().map(|protocol| protocol.span);
    let mut rule = Rule {
        id: id.map(|id| id.value).unwrap_or_default(),
        action,
        target,
        refuses_quic,
        hosts: Vec::new(),
        domains: Vec::new(),
        origins: Vec::new(),
        ports: ports
            .map(|ports| parse_ports(ports, findings))
            .unwrap_or_default(),
        protocol: protocol.and_then(|protocol| parse_protocol(&protocol, findings)),
        title: take_text(&mut fields, "title", findings),
        reason: take_text(&mut fields, "reason", findings),
        text: take_translations(&mut fields, findings),
        statement: take_statement(&mut fields, findings),
        authority: take_text(&mut fields, "authority", findings),
        reference: take_text(&mut fields, "reference", findings),
        approved_by: take_approvers(&mut fields, findings),
        from: None,
        until: None,
        review_by: None,
    };
    if let Some(span) = ports_span {
        check_ports(&rule, span, findings);
    }
    if let Some(span) = protocol_span {
        check_protocol(&rule, &listed, span, findings);
    }
    take_times(&mut fields, &mut rule, now, findings);
    fields.finish(findings);
    check_explained(&rule, span, findings);
    check_listed(&rule, &listed, span, findings);
    let draft = Draft {
        rule,
        span,
        hosts: Vec::new(),
        domains: Vec::new(),
        origins: Vec::new(),
        lists: Lists::default(),
        is_read: false,
        warnings: 0..0,
    };
    (draft, listed)
}

fn take_id(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Located<String>> {
    const HELP: &str = "use 1 to 64 letters, digits, dots, underscores, colons or hyphens; \
                        the id is the rule's label in counters and logs";
    if !fields.has("id") {
        findings.error(Finding::at(fields.span, "this rule has no `id`").help(HELP));
    }
    let id: Located<String> = fields.take("id", findings)?;
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if id.value.is_empty() || id.value.len() > ID_BYTES_MAX || !id.value.bytes().all(is_label) {
        let message = format!("{} cannot be a rule's id", quoted(&id.value));
        findings.error(Finding::at(id.span, message).help(HELP));
        return None;
    }
    Some(id)
}

fn take_keys(
    fields: &mut Fields<'_>,
    inline: &'static str,
    file: &'static str,
    findings: &mut Findings,
) -> Keys {
    let (has_inline, has_file) = (fields.has(inline), fields.has(file));
    let inline = fields.take_list(inline, findings);
    let file = fields.take(file, findings);
    Keys {
        is_faulty: has_inline && inline.is_none() || has_file && file.is_none(),
        inline: inline.unwrap_or_default(),
        file,
    }
}

fn take_flag(fields: &mut Fields<'_>, key: &'static str, findings: &mut Findings) -> bool {
    fields.take(key, findings).is_some_and(|flag| flag.value)
}

fn take_text(
    fields: &mut Fields<'_>,
    key: &'static str,
    findings: &mut Findings,
) -> Option<String> {
    let text: Located<String> = fields.take(key, findings)?;
    check_text(key, &text, findings);
    Some(text.value)
}

pub(super) fn check_text(key: &'static str, text: &Located<String>, findings: &mut Findings) {
    if text.value.len() > TEXT_BYTES_MAX {
        let message = format!("`{key}` has more than {TEXT_BYTES_MAX} bytes");
        findings.error(
            Finding::at(text.span, message)
                .help("shorten it, and link to the rest with `statement`"),
        );
    }
    if text.value.trim().is_empty() {
        let message = format!("`{key}` is empty");
        findings.error(Finding::at(text.span, message).help("write a text, or remove the key"));
    }
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.value.contains(is_odd) {
        let message = format!("`{key}` contains control characters");
        findings.error(
            Finding::at(text.span, message).help("remove them; it is shown to people and in logs"),
        );
    }
}

/// Headline and reason by language.
fn take_translations(
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, RuleText> {
    let mut translations = BTreeMap::new();
    let Some(tables) = fields.take_table("text", findings) else {
        return translations;
    };
    for (language, mut fields) in tables.into_tables(findings) {
        check_language(&language, findings);
        let text = RuleText {
            title: take_text(&mut fields, "title", findings),
            reason: take_text(&mut fields, "reason", findings),
        };
        fields.finish(findings);
        if translations.len() == LANGUAGES_MAX {
            let message = format!("texts in more than {LANGUAGES_MAX} languages");
            findings.error(Finding::at(language.span, message).help("leave some out"));
            break;
        }
        translations.insert(language.value, text);
    }
    translations
}

/// Notes what is no language's tag (BCP 47, as far as it is used for pages).
pub(super) fn check_language(language: &Located<String>, findings: &mut Findings) {
    let mut parts = language.value.split('-');
    let is_language = parts.next().is_some_and(|part| {
        (2..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_lowercase())
    });
    let is_subtag = |part: &str| {
        (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !is_language || !parts.all(is_subtag) {
        let message = format!("{} is not the tag of a language", quoted(&language.value));
        findings.error(Finding::at(language.span, message).help("write `de`, `en` or `pt-BR`"));
    }
}

fn take_approvers(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<String> {
    let approvers = fields
        .take_list::<String>("approved_by", findings)
        .unwrap_or_default();
    if let Some(beyond) = approvers.get(APPROVERS_MAX) {
        let message = format!("more than {APPROVERS_MAX} people in `approved_by`");
        findings.error(Finding::at(beyond.span, message).help("name those who decided"));
    }
    for approver in &approvers {
        check_text("approved_by", approver, findings);
    }
    approvers
        .into_iter()
        .map(|approver| approver.value)
        .collect()
}

fn take_statement(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let statement: Located<String> = fields.take("statement", findings)?;
    check_text("statement", &statement, findings);
    if !is_web_address(&statement.value) {
        findings.error(
            Finding::at(statement.span, "`statement` is not a web address").help(
                "write the address of the public statement: `https://provider.example/statements/1`, \
                 other characters percent-encoded",
            ),
        );
    }
    Some(statement.value)
}

/// An http or https URL with a host, in the characters that RFC 3986 allows: it will be put in a
/// `Link` header.
fn is_web_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    !host.is_empty() && rest.bytes().all(is_allowed)
}

fn check_ports(rule: &Rule, span: Span, findings: &mut Findings) {
    if rule.ports.len() > PORT_RANGES_PER_RULE {
        let count = rule.ports.len();
        let message =
            format!("{count} separate port ranges, at most {PORT_RANGES_PER_RULE} fit in a rule");
        findings.error(
            Finding::at(span, message).help("join neighbouring ports to ranges, or split the rule"),
        );
    }
}

fn check_protocol(rule: &Rule, listed: &Listed, span: Span, findings: &mut Findings) {
    let Some(protocol) = rule.protocol else {
        return;
    };
    if !rule.ports.is_empty() && !PROTOCOLS_WITH_PORTS.contains(&protocol) {
        findings.error(
            Finding::at(
                span,
                "packets of this protocol have no ports, so the rule would never hit",
            )
            .help("remove `ports`, or use protocol \"tcp\" or \"udp\""),
        );
    }
    let has_names = listed.has_names();
    if !has_names || protocol == TCP {
        return;
    }
    if protocol == UDP {
        findings.warning(
            Finding::at(
                span,
                format!("names of rule {} never hit over UDP", quoted(&rule.id)),
            )
            .help("this version reads names from TLS and HTTP over TCP, not from QUIC"),
        );
        return;
    }
    findings.error(
        Finding::at(
            span,
            "names do not occur in packets of this protocol, so they would never hit",
        )
        .help("remove `protocol`, or put the names in a rule of their own"),
    );
}

fn take_times(fields: &mut Fields<'_>, rule: &mut Rule, now: Timestamp, findings: &mut Findings) {
    let from = take_time(fields, "from", findings);
    let until = take_time(fields, "until", findings);
    let review_by = take_time(fields, "review_by", findings);
    if let (Some(from), Some(until)) = (&from, &until)
        && until.value <= from.value
    {
        findings.error(
            Finding::at(
                until.span,
                "`until` is not after `from`, so the rule would never be in force",
            )
            .related(from.span, "`from`")
            .help("check both times"),
        );
    }
    if let Some(until) = &until
        && until.value <= now
    {
        let message = format!("rule {} is no longer in force", quoted(&rule.id));
        findings.warning(Finding::at(until.span, message).help("remove it, or move `until`"));
    }
    if let (Some(until), Some(review_by)) = (&until, &review_by)
        && review_by.value > until.value
    {
        let message = format!("rule {} ends before it is reviewed", quoted(&rule.id));
        findings
            .warning(Finding::at(review_by.span, message).help("set `review_by` before `until`"));
    }
    rule.from = from.map(|time| time.value);
    rule.until = until.map(|time| time.value);
    rule.review_by = review_by.map(|time| time.value);
}

/// A block that nobody can explain or that nobody looks at again is worth a warning.
fn check_explained(rule: &Rule, span: Span, findings: &mut Findings) {
    let id = quoted(&rule.id);
    let is_permanent = rule.until.is_none() && rule.review_by.is_none();
    let missing: Vec<_> = [
        ("reason", rule.reason.is_none()),
        ("statement", rule.statement.is_none()),
        ("review_by", rule.review_by.is_none() && !is_permanent),
    ]
    .into_iter()
    .filter_map(|(key, is_missing)| is_missing.then_some(format!("`{key}`")))
    .collect();
    if !missing.is_empty() {
        let message = format!("rule {id} has no {}", missing.join(", no "));
        findings.warning(
            Finding::at(span, message)
                .help("say why, where it can be read, and when it is looked at again"),
        );
    }
    if is_permanent {
        let message = format!("rule {id} has neither `until` nor `review_by`");
        findings.warning(
            Finding::at(span, message).help("it stays in force until somebody remembers it"),
        );
    }
}

fn check_listed(rule: &Rule, listed: &Listed, span: Span, findings: &mut Findings) {
    let has_names = listed.has_names();
    if !has_names && listed.origins.is_empty() {
        findings.error(
            Finding::at(span, "this rule lists nothing, so it would never hit")
                .help("add `hosts`, `domains` or `origins`, or remove the rule"),
        );
    }
    if has_names && !listed.origins.is_empty() {
        let message = format!("rule {} has names and origins", quoted(&rule.id));
        findings.warning(Finding::at(span, message).help(
            "any of them hits, they are not combined; two rules say so more clearly, and are counted apart",
        ));
    }
}
