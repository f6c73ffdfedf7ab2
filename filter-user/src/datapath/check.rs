//! Synthetic packets through a generation before it is attached, or when it was switched to.
//!
//! They run through the very program that is attached afterwards, or already, with its tables and counters; a
//! mark before them keeps it from counting and reporting them: nothing that an operator counts moves.

use aya::{
    TestRun as _,
    programs::{TestRunOptions, Xdp},
};
use filter_common::abi::PROBE_MARK;

use super::DatapathError;

/// A synthetic packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What it is, for people.
    pub description: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// Whether it must be blocked (else it must pass).
    pub blocked: bool,
}

const MARK_LEN: u32 = size_of_val(&PROBE_MARK) as u32;

/// `XDP_PASS` of linux/bpf.h.
const XDP_PASS: u32 = 2;

/// An ARP request for 192.0.2.1: no policy concerns it, and without it there is no network.
const ARP: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
    0, 1, 0x08, 0, 6, 4, 0, 1, // request, Ethernet and IPv4
    0x02, 0, 0, 0, 0, 1, 192, 0, 2, 2, // sender
    0, 0, 0, 0, 0, 0, 192, 0, 2, 1, // target
];

/// Sends an unrelated packet and `probes` through a loaded program.
pub(super) fn run(program: &mut Xdp, probes: &[Probe]) -> Result<(), DatapathError> {
    let unrelated = Probe {
        description: "an ARP request".to_owned(),
        frame: ARP.to_vec(),
        blocked: false,
    };
    for probe in std::iter::once(&unrelated).chain(probes) {
        let returned = action(program, &probe.frame)?;
        if (returned == XDP_PASS) == probe.blocked {
            return Err(DatapathError::SelfCheck {
                probe: probe.description.clone(),
                expected: if probe.blocked { "be blocked" } else { "pass" },
                returned,
            });
        }
    }
    Ok(())
}

/// The XDP action for a frame with [`PROBE_MARK`] before it.
fn action(program: &mut Xdp, frame: &[u8]) -> Result<u32, DatapathError> {
    let data = [&PROBE_MARK.to_ne_bytes()[..], frame].concat();
    // `struct xdp_md` of linux/bpf.h: where the frame begins and ends; the metadata lies before it.
    let context = [MARK_LEN, data.len() as u32, 0, 0, 0, 0];
    let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
    let options = TestRunOptions {
        data_in: Some(&data),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = program
        .test_run(options)
        .map_err(|source| DatapathError::Program {
            action: "run the program on a frame",
            source,
        })?;
    Ok(result.return_value)
}
