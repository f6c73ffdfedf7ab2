//! Where the running kernel keeps fields of its structures: rustc emits no relocations for them, so
//! they are read from the kernel's own type information.

use std::sync::OnceLock;

use btf_rs::{Btf, Struct, Type};
use filter_common::abi::SocketOffsets;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Structures inside structures, named or not, that a field is looked for in.
const NESTING_MAX: usize = 8;

/// The offsets that consulting sockets needs; `None` if the kernel has no type information or lacks
/// one of the fields. Read once in a process.
pub fn socket_offsets() -> Option<SocketOffsets> {
    static OFFSETS: OnceLock<Option<SocketOffsets>> = OnceLock::new();
    *OFFSETS.get_or_init(|| {
        let btf = Btf::from_file(VMLINUX).ok()?;
        let tcp = structure(&btf, "tcp_sock")?;
        let request = structure(&btf, "tcp_request_sock")?;
        Some(SocketOffsets {
            rcv_nxt: offset(&btf, &tcp, &["rcv_nxt"])?,
            snd_nxt: offset(&btf, &tcp, &["snd_nxt"])?,
            snd_una: offset(&btf, &tcp, &["snd_una"])?,
            bytes_received: offset(&btf, &tcp, &["bytes_received"])?,
            ts_recent: offset(&btf, &tcp, &["rx_opt", "ts_recent"])?,
            request_rcv_isn: offset(&btf, &request, &["rcv_isn"])?,
            request_snt_isn: offset(&btf, &request, &["snt_isn"])?,
            request_ts_recent: offset(&btf, &request, &["req", "req", "ts_recent"])?,
        })
    })
}

fn structure(btf: &Btf, name: &str) -> Option<Struct> {
    btf.resolve_types_by_name(name)
        .ok()?
        .into_iter()
        .find_map(as_structure)
}

fn as_structure(found: Type) -> Option<Struct> {
    match found {
        Type::Struct(structure) | Type::Union(structure) => Some(structure),
        _ => None,
    }
}

/// Offset in bytes of the field at the end of `path`.
fn offset(btf: &Btf, structure: &Struct, path: &[&str]) -> Option<u32> {
    let (name, rest) = path.split_first()?;
    let (at, field) = field(btf, structure, name, NESTING_MAX)?;
    if rest.is_empty() {
        return Some(at);
    }
    Some(at + offset(btf, &field?, rest)?)
}

/// Offset in bytes of a field, and its structure if it is one. Fields of unnamed structures and
/// unions belong to what they lie in.
fn field(btf: &Btf, structure: &Struct, name: &str, depth: usize) -> Option<(u32, Option<Struct>)> {
    let depth = depth.checked_sub(1)?;
    for member in &structure.members {
        let at = member.bit_offset() / 8;
        let kind = btf.resolve_chained_type(member).ok()?;
        match btf.resolve_name(member) {
            Ok(found) if found == name => return Some((at, as_structure(kind))),
            Ok(found) if !found.is_empty() => {}
            Ok(_) | Err(_) => {
                let inner =
                    as_structure(kind).and_then(|unnamed| field(btf, &unnamed, name, depth));
                if let Some((inside, field)) = inner {
                    return Some((at + inside, field));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_where_its_sockets_keep_their_numbers() {
        let offsets = socket_offsets().expect("a kernel with type information");
        let SocketOffsets {
            rcv_nxt,
            snd_nxt,
            snd_una,
            bytes_received,
            ts_recent,
            request_rcv_isn,
            request_snt_isn,
            request_ts_recent,
        } = offsets;
        let mut tcp = [rcv_nxt, snd_nxt, snd_una, bytes_received, ts_recent];
        let mut request = [request_rcv_isn, request_snt_isn, request_ts_recent];
        for offsets in [&mut tcp[..], &mut request[..]] {
            offsets.sort_unstable();
            assert!(offsets[0] > 0);
            assert!(offsets.windows(2).all(|pair| pair[1] - pair[0] >= 4));
        }
    }
}
