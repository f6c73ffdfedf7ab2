//! What is measured.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramFd, Xdp};
use filter_user::{
    compile::{self, HostFacts, Role},
    datapath::{Private, kernel_fields},
    policy::{self, model::HostConfig},
};
use serde::Serialize;

use crate::cases::{BLOCKED_NAME, Place, SERVED};

/// Whether a program takes frames of several buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does.
    Frags = 0,
    /// It does not.
    Linear = 1,
}

/// What a contender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    /// Nothing: it passes everything.
    Nothing,
    /// Source addresses.
    Addresses,
    /// A few rules, beside which everything measured is unrelated.
    FewRules,
    /// Addresses and names.
    All,
}

/// A loaded program to be put behind the mutator.
pub(crate) struct Contender {
    /// The stable word in the report.
    pub(crate) name: &'static str,
    pub(crate) entries: usize,
    pub(crate) kind: Kind,
    pub(crate) knows: Knows,
    pub(crate) place: Place,
    pub(crate) program: ProgramFd,
    pub(crate) facts: Facts,
    /// The only addresses that it blocks, if they are not those of all.
    pub(crate) blocks: Option<Vec<Ipv4Addr>>,
}

/// Costs beside time; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// Instructions that the verifier went through.
    pub(crate) verified_instructions: Option<u32>,
    /// Microseconds that verification and translation took.
    pub(crate) load_us: Option<u64>,
    /// Bytes of memory of its maps.
    pub(crate) map_bytes: Option<u64>,
}

impl Facts {
    /// What the kernel knows of a program.
    pub(crate) fn of(program: &Xdp) -> Self {
        let info = program.info().ok();
        Self {
            verified_instructions: info.and_then(|info| info.verified_instruction_count()),
            ..Self::default()
        }
    }
}

/// Descriptor of a loaded program.
pub(crate) fn descriptor(program: &Xdp) -> Result<ProgramFd> {
    program
        .fd()?
        .try_clone()
        .context("cannot duplicate a descriptor")
}

/// The filter, loaded as the controller loads it, with maps of its own.
pub(crate) fn edgefilter(
    name: &'static str,
    entries: usize,
    knows: Knows,
    place: Place,
    policy: &Path,
) -> Result<(Private, Contender)> {
    let policy = policy::load_policy(policy)?;
    let mut facts = HostFacts {
        sockets: kernel_fields::socket_offsets(),
        interfaces: 2,
        ..HostFacts::default()
    };
    let mut host = HostConfig::default();
    match place {
        Place::Server => facts.own_addresses = vec![IpAddr::V4(SERVED)],
        Place::Router => host.serves = Some(vec![IpAddr::V4(SERVED).into()]),
    }
    let compiled = compile::compile(&policy, &host, &facts, Role::Live, None)?;
    let mut private = Private::load(&compiled)?;
    let contender = Contender {
        name,
        entries,
        kind: Kind::Frags,
        knows,
        place,
        program: descriptor(private.program()?)?,
        facts: Facts {
            verified_instructions: private.verified_instructions(),
            load_us: u64::try_from(private.load_time().as_micros()).ok(),
            map_bytes: Some(private.map_bytes()),
        },
        blocks: None,
    };
    Ok((private, contender))
}

/// A policy of three rules, whose addresses are not among those measured.
pub(crate) fn three_rules() -> String {
    format!(
        "version = 1\n\
         [[rule]]\nid = \"address\"\norigins = [\"203.0.113.10\"]\naction = \"drop\"\n\
         [[rule]]\nid = \"range\"\norigins = [\"203.0.113.64/26\"]\naction = \"drop\"\n\
         [[rule]]\nid = \"name\"\nhosts = [\"{BLOCKED_NAME}\"]\naction = \"drop\"\n"
    )
}

/// Nanoseconds of a duration.
pub(crate) fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
