//! Network interfaces: names, indices, and the XDP program that sits on one.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    panic, thread,
};

use nix::sched::{CloneFlags, setns};

use super::{DatapathError, Mode};

/// What the kernel reports of an interface's XDP programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// How the program is attached.
    pub mode: Mode,
    /// Id of the program; 0 when several modes are active at once.
    pub program_id: u32,
}

/// Index of an interface of this thread's network namespace.
pub fn index(name: &str) -> Result<u32, DatapathError> {
    nix::net::if_::if_nametoindex(name).map_err(|_| DatapathError::NoInterface {
        name: name.to_owned(),
    })
}

/// Name of an interface of this thread's network namespace.
pub(super) fn name(ifindex: u32) -> Option<String> {
    let mut buffer = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call demands.
    let found = unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let end = buffer.iter().position(|&byte| byte == 0)?;
    String::from_utf8(buffer[..end].to_vec()).ok()
}

/// Runs `action` in a network namespace, on a thread of its own; `failed` says what it means that the
/// namespace cannot be entered.
///
/// # Errors
///
/// As `failed` and `action`.
pub fn in_namespace<T: Send, E: Send>(
    namespace: BorrowedFd<'_>,
    failed: impl FnOnce(io::Error) -> E + Send,
    action: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| failed(io::Error::from(errno)))?;
            action()
        });
        inside
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// Link-layer address of an interface of this thread's network namespace (`SIOCGIFHWADDR`).
pub(super) fn hardware_address(name: &str) -> io::Result<[u8; 6]> {
    let mut request = named_request(name);
    // SAFETY: the command fills the request, and reads its name only.
    unsafe { carry_out(libc::SIOCGIFHWADDR, &mut request)? };
    // SAFETY: the command has filled this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Ok(std::array::from_fn(|i| address[i].cast_unsigned()))
}

/// A request about an interface.
fn named_request(name: &str) -> libc::ifreq {
    // SAFETY: every field is an integer or a pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

/// Whether an interface may deliver TCP checksums that a device is still to complete: it connects
/// senders on this machine. What cannot be asked counts as such, since the other error loses traffic.
pub fn leaves_checksums(name: &str) -> bool {
    const VIRTUAL: [&str; 8] = [
        "veth",
        "virtio_net",
        "tun",
        "netkit",
        "bridge",
        "bonding",
        "vhost_net",
        "xen_netfront",
    ];
    driver(name).is_none_or(|driver| VIRTUAL.contains(&driver.as_str()))
}

/// Name of an interface's driver (`ETHTOOL_GDRVINFO`, linux/ethtool.h).
fn driver(name: &str) -> Option<String> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    const DRVINFO_BYTES: usize = 196;
    const DRIVER: std::ops::Range<usize> = 4..36;
    let mut info = [0u8; DRVINFO_BYTES];
    info[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    ethtool(name, &mut info).ok()?;
    let text = &info[DRIVER];
    let end = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len());
    String::from_utf8(text[..end].to_vec()).ok()
}

/// Switches on generic receive offload of an interface of this thread's network namespace.
///
/// # Errors
///
/// The driver refuses.
pub fn set_gro(name: &str) -> io::Result<()> {
    const ETHTOOL_SGRO: u32 = 0x2c;
    let mut value = [0u8; 8];
    value[..4].copy_from_slice(&ETHTOOL_SGRO.to_ne_bytes());
    value[4..].copy_from_slice(&1u32.to_ne_bytes());
    ethtool(name, &mut value)
}

/// One command of ethtool(8): `buffer` begins with its number, and has the size that it reads and writes.
fn ethtool(name: &str, buffer: &mut [u8]) -> io::Result<()> {
    let mut request = named_request(name);
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    // SAFETY: a buffer of the size that the command writes.
    unsafe { carry_out(libc::SIOCETHTOOL, &mut request) }
}

/// A command about an interface (netdevice(7)).
///
/// # Safety
///
/// What the request points to is as the command demands.
unsafe fn carry_out(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: as the caller promises.
    match unsafe { libc::ioctl(socket.as_raw_fd(), command, &raw mut *request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The XDP program on an interface, whoever attached it.
pub fn xdp_state(ifindex: u32) -> Result<Option<XdpState>, DatapathError> {
    query_link(ifindex)
        .map(|reply| parse_xdp(&reply))
        .map_err(|source| DatapathError::Kernel {
            action: format!("ask the kernel about interface {ifindex}"),
            source,
        })
}

const NETLINK_HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// A link's answer is some 1.5 KiB, more with virtual functions.
const REPLY_BYTES_MAX: usize = 64 * 1024;
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
/// `IFLA_XDP_*` of linux/if_link.h.
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM_ID: u16 = 4;

/// `RTM_GETLINK` for one interface; the message with both headers.
fn query_link(ifindex: u32) -> io::Result<Vec<u8>> {
    let mut header = [0u8; LINK_HEADER];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    ask(libc::NETLINK_ROUTE, libc::RTM_GETLINK, &header)
}

/// Whether the driver sends frames that XDP redirects to this interface; without that the kernel
/// loses them. `None` if it cannot be told (before Linux 6.3).
pub fn takes_redirects(ifindex: u32) -> Option<bool> {
    let id = family_id()?;
    let device = attributes_of(&generic(
        id,
        NETDEV_CMD_DEV_GET,
        NETDEV_IFINDEX,
        &ifindex.to_ne_bytes(),
    )?);
    let features = attribute(&device, NETDEV_XDP_FEATURES)?;
    let features = u64::from_ne_bytes(features.first_chunk().copied()?);
    Some(features & NETDEV_XDP_NDO_XMIT != 0)
}

/// Whether the kernel tells what drivers can do with XDP.
pub(super) fn tells_features() -> bool {
    family_id().is_some()
}

/// Number of the generic netlink family `netdev`.
fn family_id() -> Option<u16> {
    let family = attributes_of(&generic(
        libc::GENL_ID_CTRL as u16,
        libc::CTRL_CMD_GETFAMILY as u8,
        libc::CTRL_ATTR_FAMILY_NAME as u16,
        b"netdev\0\0",
    )?);
    let id = attribute(&family, libc::CTRL_ATTR_FAMILY_ID as u16)?;
    Some(u16::from_ne_bytes(id.first_chunk().copied()?))
}

/// Attributes of the generic netlink family `netdev`, linux/netdev.h.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_IFINDEX: u16 = 1;
const NETDEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_NDO_XMIT: u64 = 1 << 2;
const GENERIC_HEADER: usize = 4;

/// One question of generic netlink with one attribute, whose length must be a multiple of four.
fn generic(family: u16, command: u8, kind: u16, value: &[u8]) -> Option<Vec<u8>> {
    let mut payload = vec![command, 1, 0, 0];
    payload.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
    payload.extend_from_slice(&kind.to_ne_bytes());
    payload.extend_from_slice(value);
    ask(libc::NETLINK_GENERIC, family, &payload).ok()
}

fn attributes_of(generic_reply: &[u8]) -> Vec<u8> {
    generic_reply
        .get(NETLINK_HEADER + GENERIC_HEADER..)
        .unwrap_or_default()
        .to_vec()
}

/// Sends one netlink request; the first message of the answer.
fn ask(protocol: libc::c_int, kind: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
    // SAFETY: plain system call, no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    let mut request = vec![0u8; NETLINK_HEADER];
    request.extend_from_slice(payload);
    let length = request.len() as u32;
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // SAFETY: the buffer is valid for its length.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            request.as_ptr().cast(),
            request.len(),
            0,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut reply = vec![0u8; REPLY_BYTES_MAX];
    // SAFETY: the buffer is valid for its length.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            reply.as_mut_ptr().cast(),
            reply.len(),
            0,
        )
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    reply.truncate(received as usize);
    let kind = reply
        .get(4..6)
        .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let errno = u32_at(&reply, NETLINK_HEADER).map_or(0, |errno| errno as i32);
        return Err(io::Error::from_raw_os_error(-errno));
    }
    Ok(reply)
}

fn parse_xdp(reply: &[u8]) -> Option<XdpState> {
    let attributes = reply.get(NETLINK_HEADER + LINK_HEADER..)?;
    let xdp = attribute(attributes, libc::IFLA_XDP)?;
    let mode = match attribute(xdp, XDP_ATTACHED)?.first()? {
        0 => return None,
        2 => Mode::Generic,
        3 => Mode::Offloaded,
        // 4: several modes at once, of which the driver's comes first.
        _ => Mode::Native,
    };
    let program_id = attribute(xdp, XDP_PROGRAM_ID)
        .and_then(|id| u32_at(id, 0))
        .unwrap_or(0);
    Some(XdpState { mode, program_id })
}

/// Payload of the first attribute of a type in a sequence of netlink attributes.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK;
        if kind == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
