//! What a replay prints: JSON lines, or a table for people.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
};

use filter_common::abi::{Protocol, Verdict};
use serde::Serialize;

use super::{
    flows::Flow,
    session::{Findings, Summary},
    tally::Hit,
};
use crate::compile::Meta;

/// Word of the reason of flows that pass only because they are not read.
const UNSUPPORTED: &str = "unsupported";

/// One flow's line.
#[derive(Serialize)]
struct FlowLine<'a> {
    src: String,
    src_port: Option<u16>,
    dst: String,
    dst_port: Option<u16>,
    proto: String,
    protocol: Option<&'static str>,
    name: Option<String>,
    verdict: &'static str,
    rule: Option<&'a str>,
    reason: &'static str,
    frames: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    names_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsupported: Option<&'static str>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: &'a Summary,
}

/// Ids of rules by slot.
struct RuleIds<'a>(HashMap<u16, &'a str>);

impl<'a> RuleIds<'a> {
    fn new(meta: &'a Meta) -> Self {
        Self(
            meta.rules
                .iter()
                .map(|rule| (rule.slot, rule.id.as_str()))
                .collect(),
        )
    }

    fn of(&self, hit: Option<Hit>) -> Option<&'a str> {
        let hit = hit.filter(|hit| hit.has_rule())?;
        self.0.get(&hit.slot).copied()
    }
}

impl<'a> FlowLine<'a> {
    fn new(flow: &Flow, rules: &RuleIds<'a>) -> Self {
        let (src, dst, tally) = (flow.src(), flow.dst(), &flow.tally);
        let named = tally.name();
        let unsupported = tally.unsupported();
        let protocol = named.map(|named| named.protocol).or(tally.protocol);
        let reason = match (tally.hit, named, unsupported) {
            (Some(hit), _, _) => hit.reason.as_str(),
            (None, Some(named), _) => named.reason.as_str(),
            (None, None, Some(_)) => UNSUPPORTED,
            (None, None, None) => tally.last_reason.map_or("", |reason| reason.as_str()),
        };
        let mut names = Vec::new();
        if let Some(named) = named.filter(|_| !tally.more_names.is_empty()) {
            names.push(escape_name(&named.name));
            names.extend(tally.more_names.iter().map(|name| escape_name(name)));
        }
        Self {
            src: src.address.to_string(),
            src_port: src.port,
            dst: dst.address.to_string(),
            dst_port: dst.port,
            proto: flow.transport.to_string(),
            protocol: protocol.and_then(Protocol::as_str),
            name: named.map(|named| escape_name(&named.name)),
            verdict: tally.hit.map_or(Verdict::Pass, |hit| hit.verdict).as_str(),
            rule: rules.of(tally.hit),
            reason,
            frames: tally.frames,
            names,
            names_omitted: tally.names_omitted,
            unsupported: unsupported.map(|unsupported| unsupported.as_str()),
        }
    }
}

fn lines<'a>(findings: &'a Findings, rules: &'a RuleIds<'a>) -> impl Iterator<Item = FlowLine<'a>> {
    findings
        .flows
        .iter()
        .filter(|flow| flow.tally.is_reported())
        .map(|flow| FlowLine::new(flow, rules))
}

/// Writes one JSON object per flow and a last one with the summary. `meta` names the rules.
///
/// # Errors
///
/// What writing says.
pub fn json_lines(out: &mut dyn Write, findings: &Findings, meta: &Meta) -> io::Result<()> {
    let rules = RuleIds::new(meta);
    for line in lines(findings, &rules) {
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    serde_json::to_writer(
        &mut *out,
        &SummaryLine {
            summary: &findings.summary,
        },
    )?;
    out.write_all(b"\n")
}

/// Writes the same for people: aligned columns, then the summary. `meta` names the rules.
///
/// # Errors
///
/// What writing says.
pub fn table(out: &mut dyn Write, findings: &Findings, meta: &Meta) -> io::Result<()> {
    const HEAD: [&str; 9] = [
        "SOURCE",
        "DESTINATION",
        "PROTO",
        "PROTOCOL",
        "VERDICT",
        "RULE",
        "REASON",
        "FRAMES",
        "NAME",
    ];
    let rules = RuleIds::new(meta);
    let mut widths = HEAD.map(str::len);
    for line in lines(findings, &rules) {
        for (width, cell) in widths.iter_mut().zip(cells(&line)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut rows = 0;
    for line in lines(findings, &rules) {
        if rows == 0 {
            write_row(out, &HEAD.map(str::to_owned), &widths)?;
        }
        write_row(out, &cells(&line), &widths)?;
        rows += 1;
    }
    if rows > 0 {
        writeln!(out)?;
    }
    write_summary(out, &findings.summary)
}

fn cells(line: &FlowLine<'_>) -> [String; 9] {
    let dash = |word: Option<&str>| word.unwrap_or("-").to_owned();
    let end = |address: &str, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    let reason = match line.unsupported {
        Some(word) if line.reason == UNSUPPORTED => format!("{UNSUPPORTED}: {word}"),
        Some(word) => format!("{} ({UNSUPPORTED}: {word})", line.reason),
        None => line.reason.to_owned(),
    };
    let mut names = if line.names.is_empty() {
        dash(line.name.as_deref())
    } else {
        line.names.join(", ")
    };
    if line.names_omitted > 0 {
        let _ = write!(names, ", and {} more", line.names_omitted);
    }
    [
        end(&line.src, line.src_port),
        end(&line.dst, line.dst_port),
        line.proto.clone(),
        dash(line.protocol),
        line.verdict.to_owned(),
        dash(line.rule),
        reason,
        line.frames.to_string(),
        names,
    ]
}

/// Columns two blanks apart; the last is not padded.
fn write_row(out: &mut dyn Write, cells: &[String; 9], widths: &[usize; 9]) -> io::Result<()> {
    let [columns @ .., name] = cells;
    for (cell, width) in columns.iter().zip(widths) {
        write!(out, "{cell:<width$}  ")?;
    }
    writeln!(out, "{name}")
}

fn write_summary(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let Summary {
        frames,
        flows,
        named,
        hit,
        unparsed,
        unsupported,
        held,
        held_dropped,
        held_unresolved,
        truncated,
        untracked,
        reasons,
    } = summary;
    writeln!(
        out,
        "{frames} frames, {flows} flows: {named} with a name, {hit} hit by a rule, {unparsed} unparsed, {unsupported} unsupported"
    )?;
    let exceptions = [
        (*truncated, "frames cut short"),
        (*held, "frames held back at first because of a gap"),
        (*held_dropped, "of them not kept, because of a limit"),
        (
            *held_unresolved,
            "of them with a gap that the capture never fills",
        ),
        (*untracked, "frames of flows beyond the number that is kept"),
    ];
    for (count, what) in exceptions {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    if !reasons.is_empty() {
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        writeln!(out, "frames by reason: {}", reasons.join(", "))?;
    }
    Ok(())
}

/// A name as text, reversibly: printable UTF-8 as it is, every other byte and the backslash
/// as `\xNN`.
pub fn escape_name(name: &[u8]) -> String {
    let mut escaped = String::with_capacity(name.len());
    let push_byte = |escaped: &mut String, byte: u8| {
        let _ = write!(escaped, "\\x{byte:02x}");
    };
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character != '\\' && !is_invisible(character) {
                escaped.push(character);
                continue;
            }
            let mut buffer = [0; 4];
            for &byte in character.encode_utf8(&mut buffer).as_bytes() {
                push_byte(&mut escaped, byte);
            }
        }
        for &byte in chunk.invalid() {
            push_byte(&mut escaped, byte);
        }
    }
    escaped
}

/// Control characters, and the marks that change the direction of text: what a terminal
/// would act on instead of showing.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
