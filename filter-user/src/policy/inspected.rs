//! The ports that are inspected for one protocol, as `edgefilter.toml` writes them.

use filter_common::abi::PortRange;
use serde::Deserialize as _;
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

use super::{
    diagnostics::{Finding, Findings},
    fields::{Fields, Scalar, Scalars},
    model::InspectPorts,
    ports::parse_ports,
    source::{Located, SourceId, Span},
};

/// What is written about one protocol.
pub(super) struct Inspected {
    /// Where it is looked for.
    pub(super) ports: InspectPorts,
    /// Ports on which a PROXY protocol header may come first, and where that is written.
    pub(super) proxied: Vec<(u16, Span)>,
}

/// `"any"`, a port, a range, or a list of ports, ranges and tables `{ port = 443, proxy_protocol = true }`;
/// an empty list turns the protocol off. Mistakes are noted.
pub(super) fn take_inspected(
    fields: &mut Fields<'_>,
    key: &'static str,
    id: SourceId,
    findings: &mut Findings,
) -> Option<Inspected> {
    if !fields.is_list(key) {
        let written: Located<Scalars> = fields.take(key, findings)?;
        let any = matches!(&written.value, Scalars::One(Scalar::Text(word)) if word == "any");
        let ports = match any {
            true => InspectPorts::Any,
            false => InspectPorts::List(each(parse_ports(written, findings))),
        };
        return Some(Inspected {
            ports,
            proxied: Vec::new(),
        });
    }
    let mut ports = Vec::new();
    let mut proxied = Vec::new();
    for item in fields.take_array(key, findings)? {
        let span = id.span(item.span());
        let Some((written, behind_proxy)) = entry(item, key, id, findings) else {
            continue;
        };
        let written = each(parse_ports(written, findings));
        if behind_proxy {
            proxied.extend(written.iter().map(|port| (*port, span)));
        }
        ports.extend(written);
    }
    ports.sort_unstable();
    ports.dedup();
    Some(Inspected {
        ports: InspectPorts::List(ports),
        proxied,
    })
}

/// One element of the list: its ports, and whether a PROXY protocol header may come first on them.
fn entry(
    item: Spanned<DeValue<'_>>,
    key: &'static str,
    id: SourceId,
    findings: &mut Findings,
) -> Option<(Located<Scalars>, bool)> {
    let span = id.span(item.span());
    if !item.get_ref().is_table() {
        return match Scalar::deserialize(ValueDeserializer::from(item)) {
            Ok(scalar) => {
                let value = Scalars::One(scalar);
                Some((Located { value, span }, false))
            }
            Err(_) => {
                findings.error(
                    Finding::at(
                        span,
                        format!("`{key}`: this is no port and no range of ports"),
                    )
                    .help(
                        "write `443`, `\"8000-8010\"` or `{ port = 443, proxy_protocol = true }`",
                    ),
                );
                None
            }
        };
    }
    let mut fields = Fields::of(item, id, findings)?;
    if !fields.has("port") {
        let finding = Finding::at(fields.span, "this entry has no `port`");
        findings.error(finding.help("add `port = 443`"));
    }
    let ports = fields.take("port", findings);
    let behind_proxy = fields.take::<bool>("proxy_protocol", findings);
    fields.finish(findings);
    Some((ports?, behind_proxy.is_some_and(|written| written.value)))
}

fn each(ranges: Vec<PortRange>) -> Vec<u16> {
    ranges
        .into_iter()
        .flat_map(|PortRange { first, last }| first..=last)
        .collect()
}
