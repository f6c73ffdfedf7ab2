//! Giving up what the page's processes do not need.

use std::io;

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::spec::Shape;

/// Capabilities that a kernel may have, now and later.
const CAPABILITIES: std::ops::Range<libc::c_ulong> = 0..64;

/// To bind to ports below 1,024, and to change sockets of the own network namespace (linux/capability.h).
pub(super) const CAP_NET_BIND_SERVICE: u32 = 10;
pub(super) const CAP_NET_ADMIN: u32 = 12;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities, in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Another user, no capabilities but these (numbers below 32) and no way to new ones, few descriptors, no core
/// dumps.
pub(super) fn drop(shape: &Shape, descriptors: u64, kept: &[u32]) -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = most.min(descriptors);
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    for capability in CAPABILITIES {
        // Those that this kernel does not know cannot be given either.
        let _ = prctl(libc::PR_CAPBSET_DROP, capability);
    }
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )?;
    let (user, group) = (Uid::from_raw(shape.user), Gid::from_raw(shape.group));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    // Otherwise capabilities go with the user.
    prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(!kept.is_empty()))?;
    setresuid(user, user, user)?;
    set_capabilities(kept)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    // The keys are in memory: no debugger of the same user reads them.
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Has these capabilities of the ones that there are, and no others.
fn set_capabilities(kept: &[u32]) -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let set = kept.iter().fold(0, |set, capability| set | 1 << capability);
    let low = CapabilityHalf {
        effective: set,
        permitted: set,
        inheritable: 0,
    };
    let halves = [low, CapabilityHalf::default()];
    // SAFETY: a header and two halves, as the version says, which the kernel reads.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: plain system call, no pointers.
    match unsafe { libc::prctl(option, argument, none, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
