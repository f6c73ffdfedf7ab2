//! Putting a generation in place: build beside, check, swap, retire. Every step that
//! fails leaves what was enforced before in place.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    programs::ProgramInfo,
};
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use filter_common::abi::{RuleCounters, Table};
use jiff::Timestamp;

use super::{
    DatapathError, InstallError, Lock, Mode, Probe, Root, check, netdev,
    object::{self, Loaded, Pins},
    pin_name::pin_name,
    pod::Raw,
    root::{create_dirs, entries, remove},
    state::AttachRecord,
    stored::Stored,
    sys,
};
use crate::{
    compile::{Compiled, Meta},
    policy::model::{AttachMode, InterfaceConfig},
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
            .generations()
            .map_err(at("find the generation in place"))?
            .last()
            .map_or(1, |last| last + 1);
        compiled.config.generation = number;
        compiled.meta.generation = number;

        let previous_dir = previous.map(|number| self.generation_dir(number));
        let previous_meta = previous_dir
            .as_deref()
            .and_then(|dir| Stored::read(dir).ok())
            .map(|s| s.meta);
        self.prepare_shared()
            .map_err(at("create the pin directories"))?;
        let (mut loaded, reused_tables) = self
            .load_generation(&compiled, previous_dir.as_deref())
            .map_err(at("load the program"))?;
        zero_new_slots(&mut loaded, &compiled.meta, previous_meta.as_ref())
            .map_err(at("zero the counters of new rules"))?;

        let new_dir = self.new_generation_dir(number);
        undo.directories.push(new_dir.clone());
        let stored = Stored::new(
            compiled.meta.clone(),
            &compiled.config,
            object::digest(),
            u64::try_from(loaded.load_time.as_micros()).unwrap_or(u64::MAX),
        );
        pin_generation(&mut loaded, &stored, &new_dir).map_err(at("pin the generation"))?;
        check::run(&compiled, &new_dir, probes)
            .map_err(at("check the program before attaching it"))?;

        let final_dir = self.generation_dir(number);
        fs::rename(&new_dir, &final_dir)
            .map_err(|source| DatapathError::Io {
                action: "rename",
                path: new_dir,
                source,
            })
            .map_err(at("pin the generation"))?;
        undo.directories.push(final_dir.clone());

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

        // From here on the new generation enforces; leftovers are swept by the next change.
        if let Err(error) = self.retire_all_but(number) {
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

    /// Every interface to be served: those asked for, then those enforced already.
    fn targets(&self, interfaces: &[InterfaceConfig]) -> Result<Vec<Target>, DatapathError> {
        let links = self.links()?;
        let mut targets: Vec<Target> = Vec::new();
        for interface in interfaces {
            if targets.iter().any(|target| target.name == interface.name) {
                continue;
            }
            let ifindex = netdev::index(&interface.name)?;
            let link = links
                .iter()
                .find(|link| link.name == interface.name && link.info.ifindex == ifindex);
            let present = netdev::xdp_state(ifindex)?;
            let place = match (present, link) {
                (_, Some(link)) => Place::Swap {
                    old_program: link.info.program_id,
                },
                (None, None) => Place::Attach,
                (Some(state), None) => return Err(busy(&interface.name, state.program_id)),
            };
            targets.push(Target {
                name: interface.name.clone(),
                ifindex,
                mode: interface.mode,
                place,
            });
        }
        for link in links {
            let known = targets.iter().any(|target| target.name == link.name);
            if known || link.is_defunct() {
                continue;
            }
            targets.push(Target {
                name: link.name,
                ifindex: link.info.ifindex,
                mode: AttachMode::Auto,
                place: Place::Swap {
                    old_program: link.info.program_id,
                },
            });
        }
        Ok(targets)
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

    fn prepare_shared(&self) -> Result<(), DatapathError> {
        create_dirs(&self.shared_dir())?;
        create_dirs(&self.links_dir())?;
        self.pin_identity()
    }

    fn load_generation(
        &self,
        compiled: &Compiled,
        previous: Option<&Path>,
    ) -> Result<(Loaded, Vec<&'static str>), DatapathError> {
        let mut pins = Pins::shared(&self.shared_dir());
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
        Ok((object::load(compiled, &pins)?, reused))
    }

    fn put_on(
        &self,
        target: &Target,
        program: &OwnedFd,
        undo: &mut Undo,
        warnings: &mut Vec<String>,
    ) -> Result<InstalledOn, DatapathError> {
        let path = self.links_dir().join(pin_name(&target.name));
        match target.place {
            Place::Swap { old_program } => {
                let link = sys::object_get(&path).map_err(|source| DatapathError::Io {
                    action: "open",
                    path: path.clone(),
                    source,
                })?;
                let old =
                    sys::program_by_id(old_program).map_err(|source| DatapathError::Kernel {
                        action: format!("open the program {old_program} of `{}`", target.name),
                        source,
                    })?;
                sys::link_update(link.as_fd(), program.as_fd()).map_err(|source| {
                    DatapathError::Kernel {
                        action: format!("swap the program of `{}`", target.name),
                        source,
                    }
                })?;
                undo.updated.push((target.name.clone(), link, old));
                let mode =
                    netdev::xdp_state(target.ifindex)?.map_or(Mode::Native, |state| state.mode);
                let differs = matches!(
                    (target.mode, mode),
                    (AttachMode::Native, Mode::Generic) | (AttachMode::Generic, Mode::Native)
                );
                if differs {
                    warnings.push(format!(
                        "`{0}` stays in {mode} mode: a link keeps its mode; `edgefilter detach --interface {0}` and \
                         `edgefilter apply` change it",
                        target.name
                    ));
                }
                Ok(InstalledOn {
                    name: target.name.clone(),
                    mode,
                    attached_now: false,
                })
            }
            Place::Attach => {
                // What is pinned there belongs to an interface that vanished.
                remove(&path)?;
                let (link, mode, fallback) = attach(target, program)?;
                sys::object_pin(link.as_fd(), &path).map_err(|source| DatapathError::Io {
                    action: "pin the link as",
                    path: path.clone(),
                    source,
                })?;
                undo.pinned.push(path);
                if let Some(reason) = &fallback {
                    warnings.push(format!(
                        "`{}` runs in generic mode, which is slower: native was refused ({reason})",
                        target.name
                    ));
                }
                self.record_attachment(
                    &target.name,
                    &AttachRecord {
                        at: Timestamp::now(),
                        fallback,
                    },
                );
                Ok(InstalledOn {
                    name: target.name.clone(),
                    mode,
                    attached_now: true,
                })
            }
        }
    }
}

/// Name of the pinned program in a generation's directory.
pub(super) const PROGRAM: &str = "program";

struct Target {
    name: String,
    ifindex: u32,
    mode: AttachMode,
    place: Place,
}

enum Place {
    /// Our link is there: update it.
    Swap { old_program: u32 },
    /// Nothing is there.
    Attach,
}

/// What to put back when a later step fails.
#[derive(Default)]
struct Undo {
    directories: Vec<PathBuf>,
    /// Interface, link, program it ran before.
    updated: Vec<(String, OwnedFd, OwnedFd)>,
    /// Pins of links that were not there before.
    pinned: Vec<PathBuf>,
}

impl Undo {
    fn run(self, root: &Root) -> Vec<String> {
        let mut problems = Vec::new();
        for (interface, link, old_program) in &self.updated {
            if let Err(error) = sys::link_update(link.as_fd(), old_program.as_fd()) {
                problems.push(format!("`{interface}` keeps the new program: {error}"));
            }
        }
        let kept_new = !problems.is_empty();
        for path in self.pinned {
            problems.extend(remove(&path).err().map(|error| error.to_string()));
        }
        // While a link runs the new program its pins must stay, or nobody could tell what is enforced.
        if !kept_new {
            for directory in self.directories {
                problems.extend(remove(&directory).err().map(|error| error.to_string()));
            }
        }
        problems.extend(root.remove_if_unused().err().map(|error| error.to_string()));
        problems
    }
}

/// Attaches in the mode asked for; with `auto`, the reason why native was refused comes back.
fn attach(
    target: &Target,
    program: &OwnedFd,
) -> Result<(OwnedFd, Mode, Option<String>), DatapathError> {
    let create = |flags| sys::xdp_link_create(program.as_fd(), target.ifindex, flags);
    let refused = |mode, source: std::io::Error| match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            let present = netdev::xdp_state(target.ifindex).ok().flatten();
            busy(&target.name, present.map_or(0, |state| state.program_id))
        }
        _ => DatapathError::Mode {
            interface: target.name.clone(),
            mode,
            source,
        },
    };
    if target.mode == AttachMode::Generic {
        let link = create(XDP_FLAGS_SKB_MODE).map_err(|error| refused(Mode::Generic, error))?;
        return Ok((link, Mode::Generic, None));
    }
    let native_error = match create(XDP_FLAGS_DRV_MODE) {
        Ok(link) => return Ok((link, Mode::Native, None)),
        Err(error) => error,
    };
    let occupied = matches!(
        native_error.raw_os_error(),
        Some(libc::EBUSY | libc::EEXIST)
    );
    if target.mode == AttachMode::Native || occupied {
        return Err(refused(Mode::Native, native_error));
    }
    let link = create(XDP_FLAGS_SKB_MODE).map_err(|error| refused(Mode::Generic, error))?;
    Ok((link, Mode::Generic, Some(native_error.to_string())))
}

fn busy(interface: &str, program_id: u32) -> DatapathError {
    let program_name = aya::programs::loaded_programs()
        .flatten()
        .find(|info| info.id() == program_id)
        .and_then(|info| info.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| "?".to_owned());
    DatapathError::Busy {
        interface: interface.to_owned(),
        program_id,
        program_name,
    }
}

/// Slots that no running program uses yet may hold counts of a rule long gone.
fn zero_new_slots(
    loaded: &mut Loaded,
    meta: &Meta,
    previous: Option<&Meta>,
) -> Result<(), DatapathError> {
    const NAME: &str = "RULE_COUNTERS";
    let map_error = |source| DatapathError::Map {
        map: NAME.to_owned(),
        source,
    };
    let known = |slot: u16, version: u32| {
        previous.is_some_and(|meta| {
            meta.rules
                .iter()
                .any(|rule| rule.slot == slot && rule.slot_version == version)
        })
    };
    let cpus = object::processors()?;
    let map = loaded.take_map(NAME)?;
    let mut counters: PerCpuArray<MapData, Raw<RuleCounters>> =
        map.try_into().map_err(map_error)?;
    for rule in meta
        .rules
        .iter()
        .filter(|rule| !known(rule.slot, rule.slot_version))
    {
        let zeros =
            PerCpuValues::try_from(vec![Raw(RuleCounters::default()); cpus]).map_err(|source| {
                DatapathError::Kernel {
                    action: "zero counters".to_owned(),
                    source,
                }
            })?;
        counters
            .set(u32::from(rule.slot), zeros, 0)
            .map_err(map_error)?;
    }
    Ok(())
}

fn pin_generation(
    loaded: &mut Loaded,
    stored: &Stored,
    directory: &Path,
) -> Result<(), DatapathError> {
    create_dirs(directory)?;
    let pin = |name: &str, map: &Map| {
        map.pin(directory.join(name))
            .map_err(|error| DatapathError::Kernel {
                action: format!("pin map {name}"),
                source: std::io::Error::other(error),
            })
    };
    let names = Table::ALL.iter().map(|table| table.name()).chain([
        object::RULES,
        object::PORT_CLASS,
        object::REDIRECT,
    ]);
    for name in names {
        pin(name, loaded.map(name)?)?;
    }
    stored.pin(directory)?;
    let path = directory.join(PROGRAM);
    loaded
        .program()?
        .pin(&path)
        .map_err(|error| DatapathError::Kernel {
            action: format!("pin the program as {}", path.display()),
            source: std::io::Error::other(error),
        })
}
