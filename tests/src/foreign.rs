//! An XDP program of somebody else on an interface: two instructions that pass everything.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use crate::net::Namespace;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// `r0 = XDP_PASS; exit` (linux/bpf.h, instruction encoding in host byte order).
const PASS: [u64; 2] = [0x0000_0002_0000_00B7, 0x0000_0000_0000_0095];

/// Holds the program on the interface; dropping it takes it off.
#[derive(Debug)]
pub struct ForeignProgram {
    _link: OwnedFd,
}

impl ForeignProgram {
    /// Attaches it.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn attach(namespace: &Namespace, interface: &str) -> Self {
        let link = namespace.run(|| {
            let index = nix::net::if_::if_nametoindex(interface)?;
            let program = load()?;
            link(&program, index)
        });
        let link = link.unwrap_or_else(|e: io::Error| panic!("foreign XDP on {interface}: {e}"));
        Self { _link: link }
    }
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn load() -> io::Result<OwnedFd> {
    let license = c"GPL";
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: PASS.len() as u32,
        insns: PASS.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
    };
    bpf(BPF_PROG_LOAD, &attr)
}

fn link(program: &OwnedFd, index: u32) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: index,
        attach_type: BPF_XDP,
        flags: 0,
    };
    bpf(BPF_LINK_CREATE, &attr)
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is a live struct of the length that is given, laid
    // out as the command wants it; pointers in it are to live memory.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Direct;

    #[test]
    fn a_second_program_is_refused_while_it_is_there() {
        let net = Direct::new();
        let first = ForeignProgram::attach(&net.edge, Direct::EDGE_IF);
        let attach = || ForeignProgram::attach(&net.edge, Direct::EDGE_IF);
        let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attach));
        assert!(second.is_err());
        drop(first);
        drop(attach());
    }
}
