//! The block page in `status`.

use std::io::Write;

use filter_page::stats::{CertificateInfo, Snapshot};
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use crate::{
    controller::CommandError,
    datapath::{Root, SinkMethod},
    sink::{
        process,
        report::{self, Uncovered},
        spec::Files,
    },
};

/// Days before its end in which a certificate is pointed at.
const EXPIRES_SOON_DAYS: i64 = 14;

/// The block page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageStatus {
    /// Whether what leads to it gets there; else it is refused.
    pub is_up: bool,
    /// How established connections are handed over.
    pub method: SinkMethod,
    /// The process that serves.
    pub pid: Option<u32>,
    /// What that counts, and its certificates with their end.
    pub served: Option<Snapshot>,
    /// Names without a certificate, by rule: over TLS their visitors are refused.
    pub uncovered: Vec<Uncovered>,
}

impl PageStatus {
    /// What there is of a root's page; names without a certificate are looked for unless they are known.
    pub(super) fn gather(
        root: &Root,
        uncovered: Option<Vec<Uncovered>>,
    ) -> Result<Self, CommandError> {
        let files = Files::of(root.run_dir());
        let way = root.sink_status();
        let pid = process::pid(&files);
        Ok(Self {
            is_up: way.is_some_and(|way| way.up) && pid.is_some(),
            method: way.map_or(SinkMethod::None, |way| way.method),
            pid,
            served: pid.and_then(|_| report::snapshot(&files)),
            uncovered: uncovered.unwrap_or_else(|| report::uncovered_now(&files)),
        })
    }

    /// In what it is not as wanted.
    pub(super) fn difference(&self) -> Option<String> {
        let why = match (self.is_up, self.pid) {
            (true, _) => return None,
            (false, None) => "its process is not there; `edgefilter run` starts it",
            (false, Some(_)) => "the way there is closed",
        };
        Some(format!(
            "the block page is not served, and what leads to it is refused: {why}"
        ))
    }
}

/// Prints it.
pub(super) fn write(out: &mut dyn Write, page: &PageStatus) -> std::io::Result<()> {
    match (page.is_up, page.pid) {
        (true, Some(pid)) => writeln!(
            out,
            "page       served by pid {pid}; {}",
            match page.method {
                SinkMethod::Kfunc => "connections are handed over by the kernel",
                SinkMethod::Repair => "connections are handed over by a process (TCP_REPAIR)",
                SinkMethod::None =>
                    "for blocked addresses only: no connections are handed over, names are refused",
            }
        )?,
        (_, _) => writeln!(out, "page       DOWN: what leads to it is refused")?,
    }
    for uncovered in &page.uncovered {
        writeln!(out, "page       {}", uncovered.warning())?;
    }
    let Some(served) = &page.served else {
        return Ok(());
    };
    let count = |name: &str| served.counters.get(name).copied().unwrap_or(0);
    writeln!(
        out,
        "page       {} pages, {} connections ({} open), {} without certificate, {} misdirected",
        count("pages"),
        count("connections"),
        served.open,
        count("handshake_no_certificate"),
        count("misdirected"),
    )?;
    let problems = served.decisions_problem.iter();
    for problem in problems.chain(&served.certificate_problems) {
        writeln!(out, "page       {problem}")?;
    }
    let now = Timestamp::now();
    served
        .certificates
        .iter()
        .try_for_each(|certificate| write_certificate(out, certificate, now))
}

fn write_certificate(
    out: &mut dyn Write,
    certificate: &CertificateInfo,
    now: Timestamp,
) -> std::io::Result<()> {
    let soon = now
        .checked_add((24 * EXPIRES_SOON_DAYS).hours())
        .unwrap_or(now);
    let mark = match certificate.not_after {
        at if at <= now => "EXPIRED",
        at if at <= soon => "expires SOON",
        _ => "valid",
    };
    writeln!(
        out,
        "page       certificate for {}: {mark}, until {}",
        certificate.names.join(", "),
        certificate.not_after
    )
}
