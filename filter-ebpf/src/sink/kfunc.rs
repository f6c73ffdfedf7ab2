//! A kernel function that is no helper. rustc emits no type information for external functions, so that
//! a loader could not find it: the call goes to a helper of a number that no kernel has, and user space
//! puts the function's own number in its place before loading (`filter-user/src/datapath/kfunc.rs`).

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;

/// The helper's number, which user space looks for.
const PLACEHOLDER: usize = 0x7f4b_4601;

/// `struct bpf_tcp_req_attrs` of net/tcp.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RequestAttributes {
    /// The client's timestamp.
    pub(super) rcv_tsval: u32,
    /// The timestamp that it gives back.
    pub(super) rcv_tsecr: u32,
    /// The client's maximum segment size.
    pub(super) mss: u16,
    /// Scale of the windows that are announced to it.
    pub(super) rcv_wscale: u8,
    /// Scale of its windows.
    pub(super) snd_wscale: u8,
    /// Whether it takes congestion notification.
    pub(super) ecn_ok: u8,
    /// Whether windows are scaled.
    pub(super) wscale_ok: u8,
    /// Whether it takes selective acknowledgements.
    pub(super) sack_ok: u8,
    /// Whether it uses timestamps.
    pub(super) tstamp_ok: u8,
    /// Whether they are in microseconds.
    pub(super) usec_ts_ok: u8,
    /// Zero.
    pub(super) reserved: [u8; 3],
}

/// `bpf_sk_assign_tcp_reqsk` (Linux 6.9): the segment opens a connection at the listening socket, as
/// one with a right SYN cookie does, with these options of the client; `false` if the kernel refuses.
#[inline(always)]
pub(super) fn assign(
    skb: *mut __sk_buff,
    listener: *mut c_void,
    attributes: &mut RequestAttributes,
) -> bool {
    type Assign =
        unsafe extern "C" fn(*mut __sk_buff, *mut c_void, *mut RequestAttributes, i32) -> i32;
    // SAFETY: a number in the place of an address, as for every helper; it has this signature.
    let assign: Assign = unsafe { core::mem::transmute(PLACEHOLDER) };
    let len = size_of::<RequestAttributes>() as i32;
    // SAFETY: the context the kernel gave us, a socket with a reference, attributes of that size.
    unsafe { assign(skb, listener, attributes, len) == 0 }
}
