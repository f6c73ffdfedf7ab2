//! Calls of a kernel function in the kernel programs: the compiler cannot declare it, so the programs call
//! a helper of a number that no kernel has, and the function's own number is put in its place.

use std::{fs, sync::OnceLock};

use super::btf::Btf;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Gives an established connection to a listening socket (Linux 6.9).
const ASSIGN: &str = "bpf_sk_assign_tcp_reqsk";

/// The call of the helper whose number stands for it, see `filter-ebpf/src/sink/kfunc.rs`.
const PLACEHOLDER: [u8; 8] = [0x85, 0, 0, 0, 0x01, 0x46, 0x4b, 0x7f];

/// `BPF_PSEUDO_KFUNC_CALL` of linux/bpf.h, as the instruction's source register.
const PSEUDO_KFUNC_CALL: u8 = 2 << 4;

/// Number of the function in the running kernel's type information; `None` if it has none. Read once in a
/// process.
pub(super) fn assign_id() -> Option<u32> {
    static ID: OnceLock<Option<u32>> = OnceLock::new();
    *ID.get_or_init(|| Btf::parse(fs::read(VMLINUX).ok()?)?.function(ASSIGN))
}

/// The object file with calls of that function in the place of the placeholder's.
pub(super) fn link(object: &[u8], id: u32) -> Vec<u8> {
    let mut linked = object.to_vec();
    let calls = object
        .windows(PLACEHOLDER.len())
        .enumerate()
        .filter(|(_, bytes)| **bytes == PLACEHOLDER);
    for (at, _) in calls {
        linked[at + 1] = PSEUDO_KFUNC_CALL;
        linked[at + 4..at + 8].copy_from_slice(&id.to_le_bytes());
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::object::OBJECT;

    #[test]
    fn the_object_calls_the_placeholder_exactly_once() {
        let calls = |object: &[u8]| {
            object
                .windows(PLACEHOLDER.len())
                .filter(|bytes| *bytes == PLACEHOLDER)
                .count()
        };
        assert_eq!(calls(OBJECT), 1);
        assert_eq!(calls(&link(OBJECT, 77)), 0);
    }
}
