//! The program onto interfaces: swapping the program of a link that is there,
//! attaching a new one, and undoing both.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use jiff::Timestamp;

use super::{
    DatapathError, InstalledOn, Mode, Root, netdev, pin_name::pin_name, root::remove,
    state::AttachRecord, sys,
};
use crate::policy::model::{AttachMode, InterfaceConfig};

/// An interface that is to run the new program.
pub(super) struct Target {
    name: String,
    ifindex: u32,
    mode: AttachMode,
    place: Place,
}

/// What is there now.
enum Place {
    /// Our link is there: update it.
    Swap { old_program: u32 },
    /// Nothing is there.
    Attach,
}

impl Root {
    /// Every interface to be served: those asked for, then those enforced already.
    pub(super) fn targets(
        &self,
        interfaces: &[InterfaceConfig],
    ) -> Result<Vec<Target>, DatapathError> {
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

    /// Makes the interface run the program.
    pub(super) fn put_on(
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

/// What to put back when a later step fails.
#[derive(Default)]
pub(super) struct Undo {
    /// Pins and directories of pins that were not there before.
    pub(super) pins: Vec<PathBuf>,
    /// Interface, link, program it ran before.
    updated: Vec<(String, OwnedFd, OwnedFd)>,
    /// Pins of links that were not there before.
    pinned: Vec<PathBuf>,
}

impl Undo {
    /// Puts everything back; what could not be, as sentences.
    pub(super) fn run(self, root: &Root) -> Vec<String> {
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
            for pin in self.pins {
                problems.extend(remove(&pin).err().map(|error| error.to_string()));
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
