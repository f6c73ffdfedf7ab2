//! `edgefilter.toml`: what this host is.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

use super::{
    block_page::take_block_page,
    diagnostics::{ConfigError, Finding, Findings, quoted},
    fields::{Fields, Scalar, similar},
    inspected::take_inspected,
    limits::{
        CONFIG_FILE_BYTES_MAX, EVENTS_PER_WINDOW_MAX, INTERFACE_NAME_BYTES_MAX, INTERFACES_MAX,
    },
    load::directory_of,
    metrics::take_metrics,
    model::{
        AttachMode, ChecksumMode, HostConfig, HostName, InspectPorts, InterfaceConfig, Outcome,
    },
    name::NameError,
    prefix::{PrefixError, parse_prefix},
    source::{Located, ReadError, SourceId, Sources},
};

/// Reads `edgefilter.toml`.
///
/// # Errors
///
/// Everything that is wrong with it, with file, line and column.
pub fn load_host_config(path: &Path) -> Result<HostConfig, ConfigError> {
    let mut sources = Sources::default();
    let read = sources.read(path, CONFIG_FILE_BYTES_MAX);
    parse(&sources, read, path, directory_of(path))
}

/// Parses a configuration that is not in a file of its own. `name` stands for it in messages; the
/// policy's path is relative to `base_dir`.
///
/// # Errors
///
/// As [`load_host_config`].
pub fn parse_host_config(
    text: &str,
    name: &Path,
    base_dir: &Path,
) -> Result<HostConfig, ConfigError> {
    let mut sources = Sources::default();
    let read = sources.add(name, text.into(), CONFIG_FILE_BYTES_MAX);
    parse(&sources, read, name, base_dir)
}

fn parse(
    sources: &Sources,
    read: Result<SourceId, ReadError>,
    path: &Path,
    base_dir: &Path,
) -> Result<HostConfig, ConfigError> {
    let mut findings = Findings::default();
    let config = match read {
        Ok(id) => Fields::parse(&sources.source(id).text, id, &mut findings)
            .map(|fields| take_config(fields, id, base_dir, &mut findings)),
        Err(error) => {
            findings.error(Finding::unreadable(path, &error));
            None
        }
    };
    match config {
        Some(config) if !findings.has_errors() => Ok(config),
        Some(_) | None => Err(ConfigError {
            report: findings.report(sources),
        }),
    }
}

fn take_config(
    mut fields: Fields<'_>,
    id: SourceId,
    base_dir: &Path,
    findings: &mut Findings,
) -> HostConfig {
    let mut config = HostConfig::default();
    if let Some(items) = fields.take_array("interfaces", findings) {
        config.interfaces = parse_interfaces(items, id, findings);
    }
    if let Some(policy) = fields.take::<PathBuf>("policy", findings) {
        config.policy = Some(base_dir.join(policy.value));
    }
    if let Some(debug) = fields.take("debug", findings) {
        config.debug = debug.value;
    }
    if let Some(inspect) = fields.take_table("inspect", findings) {
        take_inspect(inspect, id, &mut config, findings);
    }
    if let Some(page) = fields.take_table("block_page", findings) {
        config.block_page = take_block_page(page, id, base_dir, findings);
    }
    if let Some(protect) = fields.take_table("protect", findings) {
        take_protect(protect, &mut config, findings);
    }
    if let Some(events) = fields.take_table("events", findings) {
        take_events(events, &mut config, findings);
    }
    if let Some(proxies) = fields.take_table("local_proxies", findings) {
        take_local_proxies(proxies, base_dir, &mut config, findings);
    }
    if let Some(metrics) = fields.take_table("metrics", findings) {
        config.metrics = take_metrics(metrics, base_dir, findings);
    }
    fields.finish(findings);
    config
}

/// Each interface is its name alone, or a table with `name` and `mode`.
fn parse_interfaces(
    items: Vec<Spanned<DeValue<'_>>>,
    id: SourceId,
    findings: &mut Findings,
) -> Vec<InterfaceConfig> {
    let mut interfaces: Vec<InterfaceConfig> = Vec::new();
    for item in items {
        let span = id.span(item.span());
        if interfaces.len() == INTERFACES_MAX {
            let message = format!("more than {INTERFACES_MAX} interfaces");
            findings.error(Finding::at(span, message).help("leave some out"));
            break;
        }
        let Some((name, mode)) = parse_interface(item, id, findings) else {
            continue;
        };
        if !check_interface_name(&name, findings) {
            continue;
        }
        if interfaces.iter().any(|earlier| earlier.name == name.value) {
            let message = format!("the interface {} is listed twice", quoted(&name.value));
            findings.error(Finding::at(name.span, message).help("remove one of them"));
            continue;
        }
        interfaces.push(InterfaceConfig {
            name: name.value,
            mode,
        });
    }
    interfaces
}

fn parse_interface(
    item: Spanned<DeValue<'_>>,
    id: SourceId,
    findings: &mut Findings,
) -> Option<(Located<String>, AttachMode)> {
    let span = id.span(item.span());
    if item.get_ref().is_str() {
        let value = String::deserialize(ValueDeserializer::from(item)).ok()?;
        return Some((Located { value, span }, AttachMode::Auto));
    }
    if !item.get_ref().is_table() {
        findings.error(
            Finding::at(span, "this is not an interface")
                .help("write `\"eth0\"` or `{ name = \"eth0\", mode = \"native\" }`"),
        );
        return None;
    }
    let mut fields = Fields::of(item, id, findings)?;
    if !fields.has("name") {
        let finding = Finding::at(fields.span, "this interface has no `name`");
        findings.error(finding.help("add `name = \"eth0\"`"));
    }
    let name = fields.take("name", findings);
    let mode = match fields.take::<String>("mode", findings) {
        Some(mode) => parse_mode(&mode, findings),
        None => AttachMode::Auto,
    };
    fields.finish(findings);
    Some((name?, mode))
}

fn parse_mode(mode: &Located<String>, findings: &mut Findings) -> AttachMode {
    match mode.value.as_str() {
        "auto" => AttachMode::Auto,
        "native" => AttachMode::Native,
        "generic" => AttachMode::Generic,
        other => {
            let finding = Finding::at(mode.span, "this is not a mode of attaching");
            findings.error(match similar(other, &["auto", "native", "generic"]) {
                Some(meant) => finding.help(format!("did you mean `{meant}`?")),
                None => finding.help("use \"auto\", \"native\" or \"generic\""),
            });
            AttachMode::Auto
        }
    }
}

/// Whether Linux could have an interface of this name (`dev_valid_name` in net/core/dev.c); if not,
/// that is noted.
pub(super) fn check_interface_name(name: &Located<String>, findings: &mut Findings) -> bool {
    let text = name.value.as_str();
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    let fits = !text.is_empty() && text.len() <= INTERFACE_NAME_BYTES_MAX;
    if fits && !matches!(text, "." | "..") && !text.contains(is_odd) {
        return true;
    }
    let message = format!("{} cannot be the name of an interface", quoted(text));
    findings.error(
        Finding::at(name.span, message)
            .help("see `ip link` for the names; they have at most 15 bytes"),
    );
    false
}

fn take_inspect(
    mut fields: Fields<'_>,
    id: SourceId,
    config: &mut HostConfig,
    findings: &mut Findings,
) {
    if let Some(serves) = fields.take_list("serves", findings) {
        if serves.is_empty() {
            findings.error(
                Finding::at(fields.span, "`serves` is an empty list, so no name would be read")
                    .help("list the addresses whose visitors are meant, or remove the key for the host's own"),
            );
        }
        config.serves = Some(parse_prefixes(serves, findings));
    }
    let mut proxied = Vec::new();
    for (key, ports, over_tcp) in [
        ("tls", &mut config.tls, true),
        ("http", &mut config.http, true),
        ("quic", &mut config.quic, false),
    ] {
        if let Some(written) = take_inspected(&mut fields, key, id, findings) {
            *ports = written.ports;
            match written.proxied.first() {
                Some((_, span)) if !over_tcp => findings.error(
                    Finding::at(*span, "the PROXY protocol is read over TCP only")
                        .help(format!("remove `proxy_protocol` from the ports of `{key}`")),
                ),
                Some(_) | None => proxied.extend(written.proxied.iter().map(|(port, _)| *port)),
            }
        }
    }
    proxied.sort_unstable();
    proxied.dedup();
    config.proxy_protocol = InspectPorts::List(proxied);
    for (key, outcome) in [
        ("unparsed", &mut config.unparsed),
        ("no_sni", &mut config.no_sni),
        ("http2", &mut config.http2),
        ("fragments", &mut config.fragments),
    ] {
        let words = [("pass", Outcome::Pass), ("drop", Outcome::Drop)];
        if let Some(found) = take_word(&mut fields, key, &words, findings) {
            *outcome = found;
        }
    }
    let modes = [
        ("auto", ChecksumMode::Auto),
        ("strict", ChecksumMode::Strict),
        ("partial", ChecksumMode::Partial),
    ];
    if let Some(mode) = take_word(&mut fields, "checksum", &modes, findings) {
        config.checksum = mode;
    }
    if let Some(refuse) = fields.take("quic_refuse", findings) {
        config.quic_refuse = refuse.value;
    }
    fields.finish(findings);
}

/// The meaning of one of a few words.
pub(super) fn take_word<T: Copy>(
    fields: &mut Fields<'_>,
    key: &'static str,
    words: &[(&str, T)],
    findings: &mut Findings,
) -> Option<T> {
    let written: Located<String> = fields.take(key, findings)?;
    let meaning = words
        .iter()
        .find(|(word, _)| *word == written.value)
        .map(|(_, meaning)| *meaning);
    if meaning.is_none() {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("`{key}` cannot be {}", quoted(&written.value));
        let help = format!("use one of {}", known.join(", "));
        findings.error(Finding::at(written.span, message).help(help));
    }
    meaning
}

fn take_protect(mut fields: Fields<'_>, config: &mut HostConfig, findings: &mut Findings) {
    if let Some(prefixes) = fields.take_list("prefixes", findings) {
        config.protect_prefixes = parse_prefixes(prefixes, findings);
    }
    if let Some(names) = fields.take_list("names", findings) {
        config.protect_names = parse_names(names, findings);
    }
    if let Some(domains) = fields.take_list("domains", findings) {
        config.protect_domains = parse_names(domains, findings);
    }
    if let Some(protect_self) = fields.take("self", findings) {
        config.protect_self = protect_self.value;
    }
    fields.finish(findings);
}

fn parse_prefixes(written: Vec<Located<String>>, findings: &mut Findings) -> Vec<IpNet> {
    let parse = |text: &str| parse_prefix(text).map_err(|e: PrefixError| (e.to_string(), e.help()));
    parse_each(written, parse, findings)
}

fn parse_names(written: Vec<Located<String>>, findings: &mut Findings) -> Vec<HostName> {
    let parse =
        |text: &str| HostName::parse(text).map_err(|e: NameError| (e.to_string(), e.help()));
    parse_each(written, parse, findings)
}

/// Parses every entry; `parse` gives a message and a next step for what it refuses.
fn parse_each<T: Ord>(
    written: Vec<Located<String>>,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
    findings: &mut Findings,
) -> Vec<T> {
    let mut parsed = Vec::with_capacity(written.len());
    for Located { value, span } in written {
        match parse(&value) {
            Ok(value) => parsed.push(value),
            Err((message, help)) => findings.error_with(|| {
                Finding::at(span, format!("{}: {message}", quoted(&value))).help(help)
            }),
        }
    }
    parsed.sort_unstable();
    parsed.dedup();
    parsed
}

fn take_events(mut fields: Fields<'_>, config: &mut HostConfig, findings: &mut Findings) {
    if let Some(per_window) = fields.take::<Scalar>("per_window", findings) {
        let count = match per_window.value {
            Scalar::Integer(count) => u32::try_from(count).ok(),
            Scalar::Text(_) => None,
        };
        match count.filter(|&count| count <= EVENTS_PER_WINDOW_MAX) {
            Some(count) => config.events_per_window = count,
            None => findings.error(
                Finding::at(per_window.span, "this is not a possible number of events")
                    .help(format!("use 0 for none, up to {EVENTS_PER_WINDOW_MAX}")),
            ),
        }
    }
    fields.finish(findings);
}

fn take_local_proxies(
    mut fields: Fields<'_>,
    base_dir: &Path,
    config: &mut HostConfig,
    findings: &mut Findings,
) {
    if !fields.has("cgroup") {
        findings.error(
            Finding::at(fields.span, "`local_proxies` has no `cgroup`")
                .help("add the control group of the proxies, such as `cgroup = \"/sys/fs/cgroup/system.slice\"`"),
        );
    }
    if let Some(cgroup) = fields.take::<PathBuf>("cgroup", findings) {
        config.local_proxies = Some(base_dir.join(cgroup.value));
    }
    if let Some(action) = fields.take::<String>("action", findings) {
        match action.value.as_str() {
            "refuse" => config.local_page = false,
            "page" => config.local_page = true,
            other => {
                let finding = Finding::at(action.span, "this is nothing that can be done");
                findings.error(match similar(other, &["refuse", "page"]) {
                    Some(meant) => finding.help(format!("did you mean `{meant}`?")),
                    None => finding.help("use \"refuse\" or \"page\""),
                });
            }
        }
    }
    fields.finish(findings);
}
