//! Putting a generation in place: build beside, check, swap, retire. Every step that
//! fails leaves what was enforced before in place.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::programs::ProgramInfo;
use filter_common::abi::Table;

use super::{
    DatapathError, InstallError, Lock, Mode, Probe, Root,
    attach::Undo,
    check,
    counters::{RULE_COUNTERS, zero_counters},
    local::LocalHook,
    object::{self, Loaded, Pins},
    root::{create_dirs, entries, remove},
    stored::Stored,
    sys,
};
use crate::{
    compile::{Compiled, Meta},
    policy::model::InterfaceConfig,
};

/// What an installation did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Installed {
    /// Number of the generation now in place.
    pub generation: u64,
    /// Every interface that runs it.
    pub interfaces: Vec<InstalledOn>,
    /// Tables taken over from the generation before, since nothing in them changed.
    pub reused_tables: Vec<&'static str>,
    /// Instructions that the verifier went through.
    pub verified_instructions: Option<u32>,
    /// How long verification and translation took.
    pub load_time: Duration,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// One interface of an [`Installed`] generation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct InstalledOn {
    /// The interface.
    pub name: String,
    /// How the program sits there.
    pub mode: Mode,
    /// Whether it was attached now, rather than swapped.
    pub attached_now: bool,
}

impl Root {
    /// Puts a compiled policy in place on these interfaces, and on every other interface that is
    /// enforced already: nothing stops being enforced other than by [`Root::detach`]. `probes` must get
    /// their verdicts before it is attached.
    ///
    /// # Errors
    ///
    /// Names the step; what was enforced before still is.
    pub fn install(
        &self,
        _lock: &Lock,
        compiled: Compiled,
        interfaces: &[InterfaceConfig],
        probes: &[Probe],
    ) -> Result<Installed, InstallError> {
        let mut undo = Undo::default();
        let result = self.try_install(compiled, interfaces, probes, &mut undo);
        result.map_err(|(step, source)| {
            let undo_problems = undo.run(self);
            InstallError {
                step,
                source: Box::new(source),
                undo_problems,
            }
        })
    }

    fn try_install(
        &self,
        mut compiled: Compiled,
        interfaces: &[InterfaceConfig],
        probes: &[Probe],
        undo: &mut Undo,
    ) -> Result<Installed, (&'static str, DatapathError)> {
        let at = |step: &'static str| move |error: DatapathError| (step, error);

        self.check_abi()
            .map_err(at("compare the ABI of the pinned maps"))?;
        let targets = self
            .targets(interfaces)
            .map_err(at("look at the interfaces"))?;
        self.sweep()
            .map_err(at("remove leftovers of an interrupted change"))?;
        let previous = self
            .current_number()
            .map_err(at("find the generation in place"))?;
        let number = self
            .next_number()
            .map_err(at("find the generation in place"))?;
        compiled.config.generation = number;
        compiled.meta.generation = number;

        let previous_dir = previous.map(|number| self.generation_dir(number));
        let previous_meta = previous_dir
            .as_deref()
            .and_then(|dir| Stored::read(dir).ok())
            .map(|s| s.meta);
        self.prepare_shared()
            .map_err(at("create the pin directories"))?;
        let reads_names = object::reads_names(&compiled);
        if reads_names {
            let made_now = self.stream_pins().filter(|pin| !pin.exists());
            undo.pins.extend(made_now);
        }
        let (mut loaded, reused_tables) = self
            .load_generation(&compiled, previous_dir.as_deref())
            .map_err(at("make the tables"))?;
        let new_dir = self.new_generation_dir(number);
        undo.pins.push(new_dir.clone());
        pin_maps(&loaded, &new_dir).map_err(at("pin the generation"))?;
        loaded.verify().map_err(at("load the program"))?;
        let group = compiled.local_proxies.clone();
        let local = group
            .as_deref()
            .map(|group| LocalHook::load(&mut loaded, group))
            .transpose()
            .map_err(at("load the programs for local proxies"))?;
        loaded
            .program()
            .and_then(|program| check::run(program, probes))
            .map_err(at("check the program before attaching it"))?;
        zero_new_slots(&mut loaded, &compiled.meta, previous_meta.as_ref())
            .map_err(at("zero the counters of new rules"))?;
        let stored = Stored::new(
            compiled.meta.clone(),
            &compiled.config,
            object::digest(),
            u64::try_from(loaded.load_time.as_micros()).unwrap_or(u64::MAX),
        );
        stored.pin(&new_dir).map_err(at("pin the generation"))?;
        pin_program(&mut loaded, &new_dir).map_err(at("pin the generation"))?;

        let final_dir = self.generation_dir(number);
        fs::rename(&new_dir, &final_dir)
            .map_err(|source| DatapathError::Io {
                action: "rename",
                path: new_dir,
                source,
            })
            .map_err(at("pin the generation"))?;
        undo.pins.push(final_dir.clone());

        let program = sys::object_get(&final_dir.join(PROGRAM))
            .map_err(|source| DatapathError::Io {
                action: "open",
                path: final_dir.clone(),
                source,
            })
            .map_err(at("attach the program"))?;
        let mut installed = Vec::new();
        let mut warnings = Vec::new();
        for target in &targets {
            let on = self
                .put_on(target, &program, undo, &mut warnings)
                .map_err(at("attach the program"))?;
            installed.push(on);
        }
        undo.pins.extend(self.local_pins_to_come());
        self.hook_local(local.as_ref())
            .map_err(at("attach to the control group of local proxies"))?;

        // From here on the new generation enforces; leftovers are swept by the next change.
        let retired = self
            .retire_all_but(number)
            .and_then(|()| match reads_names {
                true => Ok(()),
                false => self.stream_pins().try_for_each(|pin| remove(&pin)),
            });
        if let Err(error) = retired {
            warnings.push(format!(
                "the previous generation could not be removed: {error}"
            ));
        }
        Ok(Installed {
            generation: number,
            interfaces: installed,
            reused_tables,
            verified_instructions: ProgramInfo::from_pin(final_dir.join(PROGRAM))
                .ok()
                .and_then(|info| info.verified_instruction_count()),
            load_time: loaded.load_time,
            warnings,
        })
    }

    /// Removes half-made generations of a process that died. A generation that a link still runs stays.
    fn sweep(&self) -> Result<(), DatapathError> {
        for name in entries(self.pins())? {
            if name.starts_with("new-") {
                remove(&self.pins().join(name))?;
            }
        }
        let Some(current) = self.current_number()? else {
            return Ok(());
        };
        let running: Vec<u32> = self
            .links()?
            .iter()
            .map(|link| link.info.program_id)
            .collect();
        for number in self.generations()? {
            let runs = self
                .program_id(number)
                .is_ok_and(|id| running.contains(&id));
            if number != current && !runs {
                remove(&self.generation_dir(number))?;
            }
        }
        Ok(())
    }

    fn retire_all_but(&self, number: u64) -> Result<(), DatapathError> {
        for other in self.generations()? {
            if other != number {
                remove(&self.generation_dir(other))?;
            }
        }
        Ok(())
    }

    /// Pins of the maps that only generations that read names use.
    fn stream_pins(&self) -> impl Iterator<Item = PathBuf> {
        let directory = self.shared_dir();
        object::STREAMS.iter().map(move |name| directory.join(name))
    }

    pub(super) fn prepare_shared(&self) -> Result<(), DatapathError> {
        create_dirs(&self.shared_dir())?;
        create_dirs(&self.links_dir())?;
        self.pin_identity()
    }

    fn load_generation(
        &self,
        compiled: &Compiled,
        previous: Option<&Path>,
    ) -> Result<(Loaded, Vec<&'static str>), DatapathError> {
        let mut pins = Pins::shared(&self.shared_dir(), compiled);
        let mut reused = Vec::new();
        if let Some(previous) = previous {
            for (table, lines) in Table::ALL.iter().zip(&compiled.tables) {
                let path = previous.join(table.name());
                if object::same_lines(&path, lines) {
                    pins.by_name.push((table.name(), path));
                    reused.push(table.name());
                }
            }
        }
        Ok((object::prepare(compiled, &pins)?, reused))
    }
}

/// Name of the pinned program in a generation's directory.
pub(super) const PROGRAM: &str = "program";

/// Slots that no running program uses yet may hold counts of a rule long gone.
fn zero_new_slots(
    loaded: &mut Loaded,
    meta: &Meta,
    previous: Option<&Meta>,
) -> Result<(), DatapathError> {
    let known = |slot: u16, version: u32| {
        previous.is_some_and(|meta| {
            meta.rules
                .iter()
                .any(|rule| rule.slot == slot && rule.slot_version == version)
        })
    };
    let map = loaded.take_map(RULE_COUNTERS)?;
    let mut counters = map.try_into().map_err(|source| DatapathError::Map {
        map: RULE_COUNTERS.to_owned(),
        source,
    })?;
    let new = meta
        .rules
        .iter()
        .filter(|rule| !known(rule.slot, rule.slot_version));
    zero_counters(&mut counters, new.map(|rule| rule.slot))
}

fn pin_maps(loaded: &Loaded, directory: &Path) -> Result<(), DatapathError> {
    create_dirs(directory)?;
    let names = Table::ALL.iter().map(|table| table.name()).chain([
        object::RULES,
        object::LIVE,
        object::PORT_CLASS,
        object::REDIRECT,
        object::RESPONDER,
    ]);
    for name in names {
        let pinned = loaded.map(name)?.pin(directory.join(name));
        pinned.map_err(|error| DatapathError::Kernel {
            action: format!("pin map {name}"),
            source: std::io::Error::other(error),
        })?;
    }
    Ok(())
}

fn pin_program(loaded: &mut Loaded, directory: &Path) -> Result<(), DatapathError> {
    let path = directory.join(PROGRAM);
    let pinned = loaded.program()?.pin(&path);
    pinned.map_err(|error| DatapathError::Kernel {
        action: format!("pin the program as {}", path.display()),
        source: std::io::Error::other(error),
    })
}
