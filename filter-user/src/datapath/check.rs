//! Synthetic packets through a generation before it is attached.
//!
//! They run through a second instance of the same program over the same pinned tables, with counters
//! and rings of its own: nothing that an operator counts moves.

use std::path::Path;

use filter_common::abi::{Table, feature};

use super::{
    DatapathError, Private,
    object::{PORT_CLASS, Pins, REDIRECT, RULES},
};
use crate::compile::Compiled;

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

/// `XDP_PASS` of linux/bpf.h.
const XDP_PASS: u32 = 2;

/// An ARP request for 192.0.2.1: no policy concerns it, and without it there is no network.
const ARP: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
    0, 1, 0x08, 0, 6, 4, 0, 1, // request, Ethernet and IPv4
    0x02, 0, 0, 0, 0, 1, 192, 0, 2, 2, // sender
    0, 0, 0, 0, 0, 0, 192, 0, 2, 1, // target
];

/// Sends an unrelated packet and `probes` through the tables pinned in `directory`.
pub(super) fn run(
    compiled: &Compiled,
    directory: &Path,
    probes: &[Probe],
) -> Result<(), DatapathError> {
    let names = Table::ALL
        .iter()
        .map(|table| table.name())
        .chain([RULES, PORT_CLASS, REDIRECT]);
    let pins = Pins {
        by_name: names.map(|name| (name, directory.join(name))).collect(),
    };
    let mut copy = compiled.clone();
    copy.config.features &= !(feature::EVENTS | feature::DEBUG);
    let mut instance = Private::load_with(&copy, &pins)?;

    let unrelated = Probe {
        description: "an ARP request".to_owned(),
        frame: ARP.to_vec(),
        blocked: false,
    };
    for probe in std::iter::once(&unrelated).chain(probes) {
        let returned = instance.action(&probe.frame)?;
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
