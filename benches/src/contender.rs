//! What is measured: the empty program and edgefilter; xdp-filter has a module of its own.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _,
    programs::{TestRunOptions, Xdp},
};
use filter_user::{
    compile::{self, HostFacts, Role},
    datapath::Private,
    policy::{self, model::HostConfig},
};

use crate::cases::{BLOCKED_NAME, Case, SERVED};

/// A loaded XDP program.
pub(crate) trait Contender {
    /// The stable word in the report.
    fn name(&self) -> &'static str;

    /// XDP action, and mean duration over `repeat` runs with the kernel's harness included.
    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)>;

    /// The XDP action that is right for a case; `None` if any is.
    fn expected(&self, case: Case) -> Option<u32>;

    /// What it costs beside time.
    fn facts(&mut self) -> Facts;
}

/// Costs beside time; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Facts {
    /// Instructions that the verifier went through.
    pub(crate) verified_instructions: Option<u32>,
    /// Microseconds that verification and translation took.
    pub(crate) load_us: Option<u64>,
    /// Bytes of memory of its maps.
    pub(crate) map_bytes: Option<u64>,
}

/// The program that passes everything.
pub(crate) struct Empty(Ebpf);

impl Empty {
    const NAME: &str = "empty";

    /// Loads it from the object file of the kernel program.
    pub(crate) fn load(object: &Path) -> Result<Self> {
        let mut ebpf =
            Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
        program(&mut ebpf)?
            .load()
            .context("cannot load the empty program")?;
        Ok(Self(ebpf))
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut(Empty::NAME)
        .context("the object has no program `empty`")?;
    program
        .try_into()
        .context("the program `empty` is not of type XDP")
}

impl Contender for Empty {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        run_xdp(program(&mut self.0)?, frame, repeat)
    }

    fn expected(&self, _case: Case) -> Option<u32> {
        None
    }

    fn facts(&mut self) -> Facts {
        let info = program(&mut self.0)
            .ok()
            .and_then(|program| program.info().ok());
        let verified_instructions = info.and_then(|info| info.verified_instruction_count());
        Facts {
            verified_instructions,
            ..Facts::default()
        }
    }
}

/// One test run of a program.
pub(crate) fn run_xdp(program: &Xdp, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program
        .test_run(options)
        .context("the kernel refused a test run")?;
    Ok((result.return_value, result.duration))
}

/// The filter, loaded as the controller loads it, with maps of its own.
pub(crate) struct Edgefilter(Private);

impl Edgefilter {
    /// Blocks these addresses and [`BLOCKED_NAME`], and serves [`SERVED`].
    pub(crate) fn load(prefixes: &[Ipv4Addr]) -> Result<Self> {
        let origins: Vec<_> = prefixes
            .iter()
            .map(|prefix| format!("\"{prefix}\""))
            .collect();
        let text = format!(
            "version = 1\n[[rule]]\nid = \"bench-origins\"\norigins = [{}]\naction = \"drop\"\n\
             [[rule]]\nid = \"bench-name\"\nhosts = [\"{BLOCKED_NAME}\"]\naction = \"drop\"\n",
            origins.join(", ")
        );
        let policy = policy::parse_policy(&text, Path::new("bench.toml"), Path::new("."))?;
        let facts = HostFacts {
            own_addresses: vec![IpAddr::V4(SERVED)],
            ..HostFacts::default()
        };
        let compiled = compile::compile(&policy, &HostConfig::default(), &facts, Role::Live, None)?;
        Ok(Self(Private::load(&compiled)?))
    }
}

impl Contender for Edgefilter {
    fn name(&self) -> &'static str {
        "edgefilter"
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let (action, _) = self.0.run(frame)?;
        Ok((action, self.0.run_repeat(frame, repeat)?))
    }

    fn expected(&self, case: Case) -> Option<u32> {
        Some(case.action())
    }

    fn facts(&mut self) -> Facts {
        Facts {
            verified_instructions: self.0.verified_instructions(),
            load_us: u64::try_from(self.0.load_time().as_micros()).ok(),
            map_bytes: Some(self.0.map_bytes()),
        }
    }
}
