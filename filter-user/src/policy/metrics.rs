//! `[metrics]`: where this host tells its numbers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    diagnostics::{Finding, Findings, quoted},
    fields::{Fields, Scalar},
    model::Metrics,
    source::Located,
};

/// Takes the table apart. Paths are relative to the configuration.
pub(super) fn take_metrics(
    mut fields: Fields<'_>,
    base_dir: &Path,
    findings: &mut Findings,
) -> Metrics {
    if !fields.has("listen") && !fields.has("file") {
        findings.error(
            Finding::at(fields.span, "`metrics` has neither `listen` nor `file`")
                .help("add `listen = \"127.0.0.1:9469\"`"),
        );
    }
    let listen = fields.take::<Scalar>("listen", findings);
    let listen = listen.and_then(|written| parse_listen(&written, findings));
    let file = fields.take::<PathBuf>("file", findings).map(|written| {
        if written.value.extension().is_none_or(|it| it != "prom") {
            findings.error(
                Finding::at(
                    written.span,
                    "node_exporter reads files whose names end in `.prom`",
                )
                .help("name it `edgefilter.prom`, in the directory of its textfile collector"),
            );
        }
        base_dir.join(written.value)
    });
    fields.finish(findings);
    Metrics { listen, file }
}

/// An address with its port, or a port of this host for itself.
fn parse_listen(written: &Located<Scalar>, findings: &mut Findings) -> Option<SocketAddr> {
    let parsed = match &written.value {
        Scalar::Integer(port) => u16::try_from(*port)
            .ok()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Scalar::Text(text) => text.parse().ok(),
    };
    let listen = parsed.filter(|address| address.port() != 0);
    if listen.is_none() {
        let what = quoted(&written.value.to_string());
        findings.error(
            Finding::at(written.span, format!("{what} is no address to listen on")).help(
                "write `\"127.0.0.1:9469\"`, `\"[::1]:9469\"`, or a port alone for 127.0.0.1",
            ),
        );
    }
    listen
}
