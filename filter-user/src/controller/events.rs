//! Sampled events as text, and handing them to whoever listens.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use filter_common::{
    abi::{Event, NO_SLOT, Protocol, Verdict},
    reason::Reason,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::broadcast,
};

use super::facts;
use crate::{
    compile::Meta,
    datapath::{DatapathError, EventLosses, Root},
};

/// Lines kept for a listener that is slow; beyond them it is told how many it missed.
const BACKLOG_LINES: usize = 4_096;
const WAIT: Duration = Duration::from_millis(250);
const LOSSES_EVERY: Duration = Duration::from_secs(1);

/// One line of `edgefilter events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// A packet.
    Packet(Box<PacketLine>),
    /// Events that were not emitted since the maps were made.
    Losses {
        /// Not emitted because of the rate limit.
        suppressed: u64,
        /// Not emitted because the ring was full.
        lost: u64,
    },
    /// Lines that this listener was too slow for.
    Missed {
        /// How many.
        missed: u64,
    },
}

/// A packet that a rule hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketLine {
    /// When.
    pub time: Timestamp,
    /// Generation that decided.
    pub generation: u64,
    /// Ingress interface index.
    pub ifindex: u32,
    /// Source address.
    pub src: IpAddr,
    /// Source port; 0 without ports.
    pub src_port: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port; 0 without ports.
    pub dst_port: u16,
    /// IP protocol number.
    pub ip_protocol: u8,
    /// `tls`, `http`, `quic` or null.
    pub protocol: Option<String>,
    /// The name that was hit, as sent.
    pub name: Option<String>,
    /// Word of the verdict.
    pub verdict: String,
    /// Id of the rule.
    pub rule: Option<String>,
    /// Word of the reason.
    pub reason: String,
    /// Frame length.
    pub bytes: u32,
}

impl PacketLine {
    fn new(event: &Event, meta: &Meta, tai_offset_s: i64) -> Self {
        let utc_ns = i128::from(event.tai_ns) - i128::from(tai_offset_s) * 1_000_000_000;
        let name = &event.name[..usize::from(event.name_len).min(event.name.len())];
        let rule = meta
            .rules
            .iter()
            .find(|rule| rule.slot == event.slot && rule.slot_version == event.slot_version);
        Self {
            time: Timestamp::from_nanosecond(utc_ns).unwrap_or(Timestamp::UNIX_EPOCH),
            generation: event.generation,
            ifindex: event.ifindex,
            src: event.flow.src_addr().to_canonical(),
            src_port: event.flow.src_port,
            dst: event.flow.dst_addr().to_canonical(),
            dst_port: event.flow.dst_port,
            ip_protocol: event.flow.protocol,
            protocol: Protocol::from_u8(event.protocol)
                .and_then(Protocol::as_str)
                .map(str::to_owned),
            name: (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()),
            verdict: Verdict::from_u8(event.verdict).map_or_else(
                || "unknown".to_owned(),
                |verdict| verdict.as_str().to_owned(),
            ),
            rule: match (rule, event.slot) {
                (Some(rule), _) => Some(rule.id.clone()),
                (None, NO_SLOT) => None,
                (None, slot) => Some(format!("slot {slot}")),
            },
            reason: Reason::from_u8(event.reason)
                .map_or_else(|| "unknown".to_owned(), |reason| reason.as_str().to_owned()),
            bytes: event.frame_len,
        }
    }
}

/// Reads the ring and gives each line to `line` until that returns `false`, or `timeout` has passed
/// without an end. Begins with the losses so far if there are any.
///
/// # Errors
///
/// [`DatapathError::NothingEnforced`] if there is no ring.
pub fn read_ring(
    root: &Root,
    deadline: Option<Instant>,
    mut line: impl FnMut(EventLine) -> bool,
) -> Result<(), DatapathError> {
    let mut ring = root.event_ring()?;
    let mut meta = root.meta()?.unwrap_or_default();
    let mut losses = EventLosses::default();
    let mut losses_read: Option<Instant> = None;
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(());
        }
        if losses_read.is_none_or(|at| at.elapsed() >= LOSSES_EVERY) {
            losses_read = Some(Instant::now());
            let now = root.event_losses()?;
            if now != losses {
                losses = now;
                if !line(EventLine::Losses {
                    suppressed: now.suppressed,
                    lost: now.lost,
                }) {
                    return Ok(());
                }
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        ring.wait(left.map_or(WAIT, |left| left.min(WAIT)));
        while let Some(event) = ring.next_event() {
            if event.generation != meta.generation
                && let Ok(Some(newer)) = root.meta()
            {
                meta = newer;
            }
            let packet = PacketLine::new(&event, &meta, facts::tai_offset_s());
            if !line(EventLine::Packet(Box::new(packet))) {
                return Ok(());
            }
        }
    }
}

/// Path of the socket on which a controller serves events.
pub fn socket_path(root: &Root) -> PathBuf {
    root.run_dir().join("events.sock")
}

/// Reads the ring on a thread of its own for the life of the process. While nobody listens, events
/// are read and forgotten, so that the ring does not fill up with old ones.
pub(super) fn publish(root: Root) -> std::io::Result<broadcast::Sender<EventLine>> {
    let (sender, _) = broadcast::channel(BACKLOG_LINES);
    let lines = sender.clone();
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || {
            loop {
                let ended = read_ring(&root, None, |line| {
                    // No listener is no error.
                    let _ = lines.send(line);
                    true
                });
                if let Err(error) = ended {
                    tracing::debug!(%error, "no events for now");
                }
                thread::sleep(LOSSES_EVERY);
            }
        })?;
    Ok(sender)
}

/// Opens the socket on which events are served; root only.
pub(super) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves events as JSON lines to everybody who connects.
pub(super) async fn serve(
    listener: UnixListener,
    lines: broadcast::Sender<EventLine>,
) -> std::io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let lines = lines.subscribe();
        tokio::spawn(async move {
            // A client that goes away ends its own task only.
            let _ = serve_one(client, lines).await;
        });
    }
}

async fn serve_one(
    mut client: UnixStream,
    mut lines: broadcast::Receiver<EventLine>,
) -> std::io::Result<()> {
    loop {
        let line = match lines.recv().await {
            Ok(line) => line,
            Err(broadcast::error::RecvError::Lagged(missed)) => EventLine::Missed { missed },
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        client.write_all(&text).await?;
    }
}

#[cfg(test)]
mod tests {
    use filter_common::{abi::FlowKey, limits::EVENT_NAME_BYTES};

    use super::*;
    use crate::compile::MetaRule;

    fn event() -> Event {
        let mut name = [0; EVENT_NAME_BYTES];
        name[..13].copy_from_slice(b"forum.example");
        let mapped = |last| {
            let low = [0, 0, 0xff, 0xff, 192, 0, 2, last];
            [0, u64::from_ne_bytes(low)]
        };
        Event {
            tai_ns: 37_000_000_000,
            generation: 4,
            flow: FlowKey {
                src: mapped(7),
                dst: mapped(1),
                src_port: 50_000,
                dst_port: 443,
                protocol: 6,
                reserved: [0; 3],
            },
            ifindex: 2,
            frame_len: 583,
            slot_version: 3,
            slot: 5,
            name_len: 13,
            verdict: Verdict::Drop as u8,
            reason: Reason::Hostname as u8,
            protocol: Protocol::Tls as u8,
            reserved: [0; 5],
            name,
        }
    }

    #[test]
    fn an_event_names_the_rule_of_its_slot_and_version_and_tells_utc() {
        let rule = MetaRule {
            slot: 5,
            slot_version: 3,
            id: "a".into(),
            ..MetaRule::default()
        };
        let meta = Meta {
            rules: vec![rule],
            ..Meta::default()
        };
        let line = PacketLine::new(&event(), &meta, 37);
        let json = serde_json::to_value(EventLine::Packet(Box::new(line.clone()))).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00Z", "generation": 4, "ifindex": 2,
            "src": "192.0.2.7", "src_port": 50_000, "dst": "192.0.2.1", "dst_port": 443,
            "ip_protocol": 6, "protocol": "tls", "name": "forum.example", "verdict": "drop",
            "rule": "a", "reason": "hostname", "bytes": 583,
        });
        assert_eq!(json, expected);
        let back: EventLine = serde_json::from_value(json).unwrap();
        assert_eq!(back, EventLine::Packet(Box::new(line)));
    }

    #[test]
    fn a_slot_that_was_given_to_another_rule_is_not_named_after_it() {
        let rule = MetaRule {
            slot: 5,
            slot_version: 4,
            id: "b".into(),
            ..MetaRule::default()
        };
        let meta = Meta {
            rules: vec![rule],
            ..Meta::default()
        };
        assert_eq!(
            PacketLine::new(&event(), &meta, 0).rule.as_deref(),
            Some("slot 5")
        );
    }
}
