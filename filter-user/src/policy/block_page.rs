//! `[block_page]`: how this host serves the page that says why.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    diagnostics::{Finding, Findings, quoted},
    fields::{Fields, Scalar},
    host::take_word,
    inspected::take_inspected,
    limits::{LANGUAGES_MAX, PAGE_CONNECTIONS_MAX, PAGE_PORTS_MAX, PAGE_SECONDS_MAX},
    model::{BlockPage, InspectPorts, Takeover},
    rule::{check_language, check_text},
    source::{Located, SourceId},
};

/// Takes the table apart. Paths are relative to the configuration.
pub(super) fn take_block_page(
    mut fields: Fields<'_>,
    id: SourceId,
    base_dir: &Path,
    findings: &mut Findings,
) -> BlockPage {
    let mut page = BlockPage::default();
    for (key, path) in [
        ("certificates", &mut page.certificates),
        ("theme", &mut page.theme),
    ] {
        if let Some(written) = fields.take::<PathBuf>(key, findings) {
            let joined = base_dir.join(written.value);
            // The page's process has another working directory.
            *path = Some(std::path::absolute(&joined).unwrap_or(joined));
        }
    }
    take_ports(&mut fields, id, &mut page.ports, findings);
    if let Some(languages) = fields.take_list::<String>("languages", findings) {
        page.languages = parse_languages(languages, findings);
    }
    for (key, text) in [("contact", &mut page.contact), ("user", &mut page.user)] {
        if let Some(written) = fields.take::<String>(key, findings) {
            check_text(key, &written, findings);
            *text = Some(written.value);
        }
    }
    for (key, count) in [
        ("connections", &mut page.connections),
        ("connections_per_client", &mut page.connections_per_client),
    ] {
        let most = u64::from(PAGE_CONNECTIONS_MAX);
        if let Some(found) = take_count(&mut fields, key, most, findings) {
            *count = found as u32;
        }
    }
    for (key, time) in [
        ("timeout_s", &mut page.timeout),
        ("lifetime_s", &mut page.lifetime),
    ] {
        if let Some(seconds) = take_count(&mut fields, key, PAGE_SECONDS_MAX, findings) {
            *time = Duration::from_secs(seconds);
        }
    }
    let ways = [
        ("auto", Takeover::Auto),
        ("repair", Takeover::Repair),
        ("off", Takeover::Off),
    ];
    if let Some(takeover) = take_word(&mut fields, "takeover", &ways, findings) {
        page.takeover = takeover;
    }
    fields.finish(findings);
    page
}

fn take_ports(
    fields: &mut Fields<'_>,
    id: SourceId,
    ports: &mut Vec<u16>,
    findings: &mut Findings,
) {
    let Some(span) = fields.span_of("ports") else {
        return;
    };
    let Some(written) = take_inspected(fields, "ports", id, findings) else {
        return;
    };
    if let Some((_, span)) = written.proxied.first() {
        findings.error(
            Finding::at(*span, "the block page reads no PROXY protocol header")
                .help("remove `proxy_protocol` here"),
        );
    }
    match written.ports {
        InspectPorts::List(list) if list.len() <= PAGE_PORTS_MAX => *ports = list,
        InspectPorts::List(_) | InspectPorts::Any => {
            let message = format!("the block page listens on at most {PAGE_PORTS_MAX} ports");
            findings.error(
                Finding::at(span, message)
                    .help("list those that visitors use; on others they are refused"),
            );
        }
    }
}

fn parse_languages(written: Vec<Located<String>>, findings: &mut Findings) -> Vec<String> {
    if let Some(beyond) = written.get(LANGUAGES_MAX) {
        let message = format!("more than {LANGUAGES_MAX} languages");
        findings.error(Finding::at(beyond.span, message).help("leave some out"));
    }
    for language in &written {
        check_language(language, findings);
    }
    written.into_iter().map(|language| language.value).collect()
}

/// A number from 1 to `most`.
fn take_count(
    fields: &mut Fields<'_>,
    key: &'static str,
    most: u64,
    findings: &mut Findings,
) -> Option<u64> {
    let written: Located<Scalar> = fields.take(key, findings)?;
    let count = match written.value {
        Scalar::Integer(count) => u64::try_from(count).ok(),
        Scalar::Text(_) => None,
    };
    let count = count.filter(|count| (1..=most).contains(count));
    if count.is_none() {
        let message = format!("`{key}` cannot be {}", quoted(&written.value.to_string()));
        findings.error(Finding::at(written.span, message).help(format!("use 1 to {most}")));
    }
    count
}
