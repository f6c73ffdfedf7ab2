//! `events`.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::env::Env;
use crate::{
    controller::{
        CommandError,
        events::{EventLine, PacketLine, read_ring, socket_path},
    },
    datapath::Root,
};

/// Prints events until `count` packets or `timeout` seconds; through the controller if one runs.
pub(super) fn events(
    env: &mut Env<'_>,
    count: Option<u64>,
    timeout_s: Option<u64>,
) -> Result<(), CommandError> {
    let root = env.root()?;
    let deadline = timeout_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut printer = Printer {
        env,
        left: count,
        failed: None,
    };
    match root.controller_pid() {
        Some(_) => read_socket(&root, deadline, |line| printer.print(&line))?,
        None => read_ring(&root, deadline, |line| printer.print(&line))?,
    }
    match printer.failed {
        // Whoever read us has enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

struct Printer<'a, 'b> {
    env: &'a mut Env<'b>,
    left: Option<u64>,
    failed: Option<io::Error>,
}

impl Printer<'_, '_> {
    /// Whether to go on.
    fn print(&mut self, line: &EventLine) -> bool {
        if self.left == Some(0) {
            return false;
        }
        let text = match self.env.json {
            true => serde_json::to_string(line).unwrap_or_default(),
            false => text(line),
        };
        if let Err(error) = writeln!(self.env.out, "{text}").and_then(|()| self.env.out.flush()) {
            self.failed = Some(error);
            return false;
        }
        if let (EventLine::Packet(_), Some(left)) = (line, &mut self.left) {
            *left -= 1;
        }
        self.left != Some(0)
    }
}

fn text(line: &EventLine) -> String {
    match line {
        EventLine::Packet(packet) => packet_text(packet),
        EventLine::Losses { suppressed, lost } => {
            format!("({suppressed} events suppressed by the rate limit, {lost} lost so far)")
        }
        EventLine::Missed { missed } => format!("({missed} events missed: reading too slowly)"),
    }
}

fn packet_text(packet: &PacketLine) -> String {
    let end = |address: std::net::IpAddr, port| match port {
        0 => address.to_string(),
        port => std::net::SocketAddr::new(address, port).to_string(),
    };
    let name = packet
        .name
        .as_deref()
        .map(|name| format!(" {}", name.escape_default()));
    format!(
        "{} {} {} > {}{} {} rule {}",
        packet.time,
        packet.verdict,
        end(packet.src, packet.src_port),
        end(packet.dst, packet.dst_port),
        name.unwrap_or_default(),
        packet.reason,
        packet.rule.as_deref().unwrap_or("-"),
    )
}

fn read_socket(
    root: &Root,
    deadline: Option<Instant>,
    mut line: impl FnMut(EventLine) -> bool,
) -> Result<(), CommandError> {
    let stream = UnixStream::connect(socket_path(root))?;
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            reader.get_ref().set_read_timeout(Some(left))?;
        }
        match reader.read_line(&mut text) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                if !line(serde_json::from_str(&text)?) {
                    return Ok(());
                }
                text.clear();
            }
            // A line cut by the timeout is kept and completed if there is time left.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
