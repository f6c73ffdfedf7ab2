//! Frames and generations for tests.

use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use filter_common::{
    abi::{Config, Table, feature, port_class},
    limits::NAME_BYTES_MAX,
};

use super::{
    Findings, Ran, RunError, Runner, Session,
    capture::{Capture, CaptureError, Frame, Framing},
};
use crate::compile::{Compiled, Meta};

/// Flags of a TCP segment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) syn: bool,
    pub(crate) ack: Option<u32>,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
}

pub(crate) const SYN: Flags = Flags {
    syn: true,
    ack: None,
    fin: false,
    rst: false,
};
pub(crate) const DATA: Flags = Flags {
    syn: false,
    ack: Some(1),
    fin: false,
    rst: false,
};
pub(crate) const FIN: Flags = Flags {
    syn: false,
    ack: Some(1),
    fin: true,
    rst: false,
};
pub(crate) const RST: Flags = Flags {
    syn: false,
    ack: None,
    fin: false,
    rst: true,
};

pub(crate) const fn syn_ack(ack: u32) -> Flags {
    Flags {
        syn: true,
        ack: Some(ack),
        fin: false,
        rst: false,
    }
}

/// Last byte of an address in 192.0.2.0/24, and port.
pub(crate) type End = (u8, u16);

/// An Ethernet frame with a TCP segment.
pub(crate) fn tcp(src: End, dst: End, seq: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([192, 0, 2, src.0], [192, 0, 2, dst.0], 64)
        .tcp(src.1, dst.1, seq, 65_535);
    if flags.syn {
        builder = builder.syn();
    }
    if let Some(ack) = flags.ack {
        builder = builder.ack(ack);
    }
    if flags.fin {
        builder = builder.fin();
    }
    if flags.rst {
        builder = builder.rst();
    }
    let mut frame = Vec::new();
    builder
        .write(&mut frame, payload)
        .expect("writing to memory");
    frame
}

/// An Ethernet frame with a UDP datagram.
pub(crate) fn udp(src: End, dst: End, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([192, 0, 2, src.0], [192, 0, 2, dst.0], 64)
        .udp(src.1, dst.1)
        .write(&mut frame, payload)
        .expect("writing to memory");
    frame
}

/// A whole frame as captured on Ethernet.
pub(crate) fn captured(bytes: Vec<u8>) -> Frame {
    let wire_len = bytes.len() as u32;
    Frame {
        framing: Framing::Ethernet,
        bytes,
        wire_len,
    }
}

/// Replays frames.
pub(crate) fn replay(runner: &mut dyn Runner, frames: Vec<Frame>) -> Findings {
    let mut session = Session::new(runner, false);
    for frame in frames {
        session.frame(frame).expect("the runner does not fail");
    }
    session.finish()
}

/// A minimal ClientHello in one record, with this name.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let prefixed = |len: usize, body: Vec<u8>| {
        let length = (body.len() as u32).to_be_bytes();
        [&length[4 - len..], &body].concat()
    };
    let entry = [&[0][..], &prefixed(2, name.to_vec())].concat();
    let extension = [&[0, 0][..], &prefixed(2, prefixed(2, entry))].concat();
    let body = [
        &[3, 3][..],
        &[0x5a; 32],
        &[0],
        &prefixed(2, vec![0x13, 0x01]),
        &prefixed(1, vec![0]),
        &prefixed(2, extension),
    ]
    .concat();
    let message = [&[1][..], &prefixed(3, body)].concat();
    [&[0x16, 0x03, 0x01][..], &prefixed(2, message)].concat()
}

/// A generation without rules that reads names on every port, as a replay without a policy.
pub(crate) fn names_only() -> Compiled {
    let mut config = Config::EMPTY;
    config.features = feature::READ_NAMES | feature::SERVE_ANY | feature::TRACE;
    Compiled {
        config,
        tables: std::array::from_fn::<_, { Table::ALL.len() }, _>(|_| vec![[0; 8]]),
        rules: Vec::new(),
        ports: Box::new([port_class::TLS | port_class::HTTP | port_class::QUIC; 65_536]),
        redirect_interfaces: Vec::new(),
        next_hops: Vec::new(),
        next_hop_devices: Vec::new(),
        local_proxies: None,
        meta: Meta::default(),
    }
}

/// Answers with what a closure says, and keeps the frames it saw.
pub(crate) struct Scripted<F> {
    answer: F,
    pub(crate) seen: Vec<Vec<u8>>,
}

impl<F: FnMut(&[u8]) -> Result<Ran, RunError>> Scripted<F> {
    pub(crate) fn new(answer: F) -> Self {
        Self {
            answer,
            seen: Vec::new(),
        }
    }
}

impl<F: FnMut(&[u8]) -> Result<Ran, RunError>> Runner for Scripted<F> {
    fn run(&mut self, frame: &[u8]) -> Result<Ran, RunError> {
        self.seen.push(frame.to_vec());
        (self.answer)(frame)
    }
}

/// An outcome as the program reports it.
pub(crate) fn outcome(
    verdict: filter_common::abi::Verdict,
    reason: filter_common::reason::Reason,
    slot: u16,
    protocol: filter_common::abi::Protocol,
    name: &[u8],
) -> Ran {
    let mut bytes = [0; NAME_BYTES_MAX];
    bytes[..name.len()].copy_from_slice(name);
    Ran {
        action: 2,
        outcome: filter_common::abi::Outcome {
            verdict: verdict as u8,
            reason: reason as u8,
            protocol: protocol as u8,
            reserved: 0,
            slot,
            name_len: name.len() as u16,
            slot_version: 0,
            frame_len: 0,
            name: bytes,
        },
    }
}

/// The repository's fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// All frames of a capture file, and the error that ended it, if any.
pub(crate) fn frames_of_file(path: &Path) -> (Vec<Frame>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(path) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}
