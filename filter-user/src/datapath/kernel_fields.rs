//! Where the running kernel keeps fields of its structures: rustc emits no relocations for them, so
//! they are read from the kernel's own type information.

use std::{fs, sync::OnceLock};

use filter_common::abi::SocketOffsets;

use super::btf::Btf;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets that consulting sockets needs; `None` if the kernel has no type information or lacks
/// one of the fields. Read once in a process.
pub fn socket_offsets() -> Option<SocketOffsets> {
    static OFFSETS: OnceLock<Option<SocketOffsets>> = OnceLock::new();
    *OFFSETS.get_or_init(|| {
        let btf = Btf::parse(fs::read(VMLINUX).ok()?)?;
        let tcp = btf.structure("tcp_sock")?;
        let request = btf.structure("tcp_request_sock")?;
        Some(SocketOffsets {
            rcv_nxt: btf.offset(tcp, &["rcv_nxt"])?,
            snd_nxt: btf.offset(tcp, &["snd_nxt"])?,
            snd_una: btf.offset(tcp, &["snd_una"])?,
            write_seq: btf.offset(tcp, &["write_seq"])?,
            bytes_received: btf.offset(tcp, &["bytes_received"])?,
            ts_recent: btf.offset(tcp, &["rx_opt", "ts_recent"])?,
            request_rcv_isn: btf.offset(request, &["rcv_isn"])?,
            request_snt_isn: btf.offset(request, &["snt_isn"])?,
            request_ts_recent: btf.offset(request, &["req", "req", "ts_recent"])?,
            reserved: 0,
        })
    })
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
            write_seq,
            bytes_received,
            ts_recent,
            request_rcv_isn,
            request_snt_isn,
            request_ts_recent,
            reserved: _,
        } = offsets;
        let mut tcp = [
            rcv_nxt,
            snd_nxt,
            snd_una,
            write_seq,
            bytes_received,
            ts_recent,
        ];
        let mut request = [request_rcv_isn, request_snt_isn, request_ts_recent];
        for offsets in [&mut tcp[..], &mut request[..]] {
            offsets.sort_unstable();
            assert!(offsets[0] > 0);
            assert!(offsets.windows(2).all(|pair| pair[1] - pair[0] >= 4));
        }
    }
}
