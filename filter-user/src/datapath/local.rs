//! The programs that keep this host's own proxies from connecting to blocked origins, on a control group.

use std::{
    fs::{self, File},
    mem::offset_of,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::programs::CgroupSockAddr;
use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT,
};

use filter_common::abi::Sink;

use super::{
    DatapathError, Root,
    object::Loaded,
    root::{create_dirs, remove},
    sys,
};

/// Word of [`Sink`] in its map whose upper half is the port.
const LOCAL_PORT_WORD: usize = offset_of!(Sink, local_port) / size_of::<u64>();
const _: () = assert!(offset_of!(Sink, local_port) % size_of::<u64>() == 4);

/// A program, what it is attached as, and the name of its link's pin.
struct Hook {
    program: &'static str,
    kind: bpf_attach_type,
}

const HOOKS: [Hook; 2] = [
    Hook {
        program: "connect_v4",
        kind: BPF_CGROUP_INET4_CONNECT,
    },
    Hook {
        program: "connect_v6",
        kind: BPF_CGROUP_INET6_CONNECT,
    },
];

/// The loaded programs, and the control group that they are for.
pub(super) struct LocalHook<'a> {
    group: &'a Path,
    directory: File,
    programs: [OwnedFd; HOOKS.len()],
}

impl<'a> LocalHook<'a> {
    /// Has the kernel verify the programs of a generation whose maps are all there.
    pub(super) fn load(loaded: &mut Loaded, group: &'a Path) -> Result<Self, DatapathError> {
        let [v4, v6] = &HOOKS;
        Ok(Self {
            group,
            directory: open_group(group)?,
            programs: [load(loaded, v4)?, load(loaded, v6)?],
        })
    }
}

impl Root {
    /// Has these programs decide about connections of their control group, or nobody.
    pub(super) fn hook_local(&self, local: Option<&LocalHook<'_>>) -> Result<(), DatapathError> {
        let Some(local) = local else {
            return remove(&self.local_dir());
        };
        create_dirs(&self.local_dir())?;
        for (hook, program) in HOOKS.iter().zip(&local.programs) {
            self.hook_one(local, hook, program)?;
        }
        Ok(())
    }

    fn hook_one(
        &self,
        local: &LocalHook<'_>,
        hook: &Hook,
        program: &OwnedFd,
    ) -> Result<(), DatapathError> {
        let pin = self.local_dir().join(hook.program);
        let error = |action: &str, source| DatapathError::Kernel {
            action: format!("{action} the control group {}", local.group.display()),
            source,
        };
        if let Ok(link) = sys::object_get(&pin)
            && sys::cgroup_of_link(link.as_fd()).ok() == inode(local.group)
        {
            return sys::link_update(link.as_fd(), program.as_fd())
                .map_err(|source| error("swap the program of", source));
        }
        // What is pinned there belongs to another group, or to one that vanished.
        remove(&pin)?;
        sys::cgroup_link_create(program.as_fd(), local.directory.as_fd(), hook.kind)
            .and_then(|link| sys::object_pin(link.as_fd(), &pin))
            .map_err(|source| error("attach a program to", source))
    }

    /// Whether connections from this control group are decided about, as far as links tell.
    ///
    /// # Errors
    ///
    /// A link could not be read.
    pub fn local_hooked(&self, group: &Path) -> Result<bool, DatapathError> {
        let Some(inode) = inode(group) else {
            return Ok(false);
        };
        for hook in &HOOKS {
            let pin = self.local_dir().join(hook.program);
            if !pin.exists() {
                return Ok(false);
            }
            let of_link = sys::object_get(&pin)
                .and_then(|link| sys::cgroup_of_link(link.as_fd()))
                .map_err(|source| DatapathError::Io {
                    action: "read the link",
                    path: pin,
                    source,
                })?;
            if of_link != inode {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says on which port the page's server listens for these connections; 0 has them fail.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn set_local_page(&self, port: u16) -> Result<(), DatapathError> {
        let map = self.sink_map()?;
        if let Some(word) = map.words().get(LOCAL_PORT_WORD) {
            let address = word.load(Ordering::Acquire) & u64::from(u32::MAX);
            word.store(address | u64::from(port) << 32, Ordering::Release);
        }
        Ok(())
    }

    /// What [`Root::hook_local`] will pin where nothing is pinned yet.
    pub(super) fn local_pins_to_come(&self) -> Option<PathBuf> {
        let directory = self.local_dir();
        (!directory.exists()).then_some(directory)
    }

    fn local_dir(&self) -> PathBuf {
        self.pins().join("local")
    }
}

/// The id that the kernel tells of a control group.
fn inode(group: &Path) -> Option<u64> {
    fs::metadata(group).ok().map(|metadata| metadata.ino())
}

fn open_group(group: &Path) -> Result<File, DatapathError> {
    let none = |problem| DatapathError::NoControlGroup {
        group: group.to_owned(),
        problem,
    };
    let directory = File::open(group).map_err(|error| none(error.to_string()))?;
    // Version 1 has no such file.
    if !group.join("cgroup.controllers").exists() {
        return Err(none("it has no `cgroup.controllers`".to_owned()));
    }
    Ok(directory)
}

fn load(loaded: &mut Loaded, hook: &Hook) -> Result<OwnedFd, DatapathError> {
    let failed = |source| DatapathError::Program {
        action: "load a program for local connections",
        source,
    };
    let program: &mut CgroupSockAddr = loaded
        .ebpf
        .program_mut(hook.program)
        .ok_or(aya::programs::ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(failed)?;
    program.load().map_err(failed)?;
    let descriptor = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    descriptor.map_err(|source| DatapathError::Kernel {
        action: "keep a program for local connections".to_owned(),
        source,
    })
}
