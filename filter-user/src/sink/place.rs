//! Where the block page is served: a network namespace of its own, joined to the host's by a pair of
//! virtual Ethernet interfaces, in which every address is the machine's own.
//!
//! The namespace has no name and no mount: it lives as long as the process that serves the page, and
//! the interfaces with it. Nothing is left behind by a crash but that process, and it ends when its
//! interface is gone. The host's end carries the inode of the host's namespace in its name and its
//! alias, by which it is recognised.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    panic,
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::error::{SinkError, step};
use crate::{
    datapath::netdev,
    netlink::{End, Family, Link, Mac, Netlink},
};

/// Name of the interface in the sink's namespace.
pub const FAR_NAME: &str = "sink0";

/// Addresses of both ends: locally administered, on a link of two.
const NEAR_MAC: Mac = [0x02, 0x65, 0x66, 0x73, 0, 1];
const FAR_MAC: Mac = [0x02, 0x65, 0x66, 0x73, 0, 2];

/// The host's end as a gateway. Its link-layer address is told to the kernel, so nobody answers to these.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 101, 102));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Table and priority of the rule that makes every address the namespace's own.
const TABLE: u8 = 101;

/// Connections that wait to be accepted, of one port.
const BACKLOG: libc::c_int = 1_024;

/// Settings of the namespace, below `/proc/sys/net`.
const SETTINGS: [(&str, &str); 18] = [
    // A connection that is taken over enters as one whose cookie is right.
    ("ipv4/tcp_syncookies", "1"),
    ("ipv4/tcp_max_syn_backlog", "4096"),
    ("core/somaxconn", "4096"),
    // Sources are visitors from anywhere, and answers leave by no route of theirs.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/sink0/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/sink0/send_redirects", "0"),
    // The same ports come back at once, and visitors vanish.
    ("ipv4/tcp_max_tw_buckets", "0"),
    ("ipv4/tcp_synack_retries", "2"),
    ("ipv4/tcp_retries2", "6"),
    ("ipv4/tcp_orphan_retries", "2"),
    ("ipv4/tcp_fin_timeout", "5"),
    // The process that serves has no privileges, and binds nothing itself.
    ("ipv4/ip_unprivileged_port_start", "1024"),
    ("ipv4/icmp_echo_ignore_all", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/sink0/accept_ra", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
];

/// What the interfaces are to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mtu {
    /// Largest frame's payload that may be redirected here: the largest of the filtered interfaces.
    pub link: u32,
    /// Largest packet that the sink may send: the smallest of them.
    pub path: u32,
}

/// Name of the host's end for a host's namespace.
pub fn near_name(inode: u64) -> String {
    // Such inodes have 32 bits.
    format!("efs{:08x}", inode as u32)
}

/// What is written beside the host's end.
pub fn near_alias(inode: u64) -> String {
    format!("edgefilter block page of netns-{inode}")
}

/// The host's end, if there is one. The calling thread is in the host's namespace.
///
/// # Errors
///
/// [`SinkError::Foreign`] if somebody else has an interface of this name.
pub fn find(netlink: &Netlink, inode: u64) -> Result<Option<Link>, SinkError> {
    let (name, alias) = (near_name(inode), near_alias(inode));
    let link = netlink.link(&name).map_err(step("list the interfaces"))?;
    match link {
        Some(link) if link.alias != alias => Err(SinkError::Foreign { name, alias }),
        found => Ok(found),
    }
}

/// Removes the pair, whoever left it, and with it what serves there. Whether there was one.
///
/// # Errors
///
/// As [`find`], or the kernel refuses.
pub fn remove(inode: u64) -> Result<bool, SinkError> {
    let netlink = Netlink::open().map_err(step("open rtnetlink"))?;
    let Some(link) = find(&netlink, inode)? else {
        return Ok(false);
    };
    netlink
        .delete_link(link.index)
        .map_err(step(format!("remove the interface {}", link.name)))?;
    Ok(true)
}

/// A namespace that is being made. It is gone when the last process in it and this are.
#[derive(Debug)]
pub struct Place {
    namespace: OwnedFd,
}

impl Place {
    /// Makes namespace, pair, routes and settings. The calling thread is in the host's namespace.
    ///
    /// # Errors
    ///
    /// Names the step. Nothing is left.
    pub fn new(inode: u64, mtu: Mtu) -> Result<Self, SinkError> {
        let namespace = fresh_namespace()
            .map_err(step("make a network namespace (this needs CAP_SYS_ADMIN)"))?;
        let netlink = Netlink::open().map_err(step("open rtnetlink"))?;
        let (name, alias) = (near_name(inode), near_alias(inode));
        let near = End {
            name: &name,
            mac: NEAR_MAC,
        };
        let far = End {
            name: FAR_NAME,
            mac: FAR_MAC,
        };
        netlink
            .add_pair(&near, &far, namespace.as_fd(), mtu.link)
            .map_err(step(format!("make the pair of interfaces {name}")))?;
        let near_index = netdev::index(&name)?;
        let place = Self { namespace };
        let made = netlink
            .set_alias(near_index, &alias)
            .and_then(|()| netlink.without_addresses(near_index))
            .and_then(|()| netlink.set_up(near_index))
            .map_err(step(format!("set up the interface {name}")))
            .and_then(|()| place.inside(|| furnish(mtu)));
        if let Err(error) = made {
            // The error of the step says more than one of clearing up.
            let _ = netlink.delete_link(near_index);
            return Err(error);
        }
        Ok(place)
    }

    /// The namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Runs something in the namespace, on a thread of its own.
    ///
    /// # Errors
    ///
    /// As `f`, or the namespace cannot be entered.
    pub fn inside<T: Send, E: Send + From<SinkError>>(
        &self,
        f: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let failed = |error| step("enter the sink's namespace")(error).into();
        netdev::in_namespace(self.namespace(), failed, f)
    }
}

fn fresh_namespace() -> io::Result<OwnedFd> {
    let maker = thread::Builder::new()
        .name("namespace".to_owned())
        .spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
        })?;
    maker
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Everything inside the namespace.
fn furnish(mtu: Mtu) -> Result<(), SinkError> {
    let netlink = Netlink::open().map_err(step("open rtnetlink"))?;
    let loopback = netdev::index("lo")?;
    let far = netdev::index(FAR_NAME)?;
    for (setting, value) in SETTINGS {
        set(setting, value)?;
    }
    netlink
        .without_addresses(far)
        .map_err(step("set up the sink's interface"))?;
    for index in [loopback, far] {
        netlink
            .set_up(index)
            .map_err(step("set up the sink's interfaces"))?;
    }
    // Native XDP redirects into a veth need this at its other end; and only when it is switched on while
    // that is up does the driver say that it takes them.
    netdev::set_gro(FAR_NAME).map_err(step(format!("switch on GRO of {FAR_NAME}")))?;
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        let family = Family::of(gateway);
        if family == Family::V6 && !has_ipv6() {
            continue;
        }
        netlink
            .accept_any(family, FAR_NAME, loopback, TABLE)
            .and_then(|()| netlink.add_default(far, gateway, NEAR_MAC, mtu.path))
            .map_err(step(format!("set routes in the sink ({family:?})")))?;
    }
    Ok(())
}

/// Writes a setting of the calling thread's namespace. One that this kernel has not is left out, but for
/// those without which nothing works.
fn set(setting: &str, value: &str) -> Result<(), SinkError> {
    let path = Path::new("/proc/sys/net").join(setting);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(super::error::file("write", path)),
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Listens on a port of every address, of every family that there is. The calling thread is in the sink's
/// namespace.
///
/// # Errors
///
/// The kernel refuses.
pub fn listen(port: u16) -> Result<Vec<TcpListener>, SinkError> {
    let families = Family::ALL
        .into_iter()
        .filter(|family| *family == Family::V4 || has_ipv6());
    families
        .map(|family| {
            listen_on(family, port).map_err(step(format!("listen on port {port} of the sink")))
        })
        .collect()
}

/// Listens on a free port of all addresses of the loopback interface of the calling thread's namespace, of IPv4,
/// as which an IPv6 socket connects there too; the port beside it. Nothing that comes in by another interface
/// gets there.
///
/// # Errors
///
/// The kernel refuses.
pub fn listen_locally() -> Result<(TcpListener, u16), SinkError> {
    let listening = || {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC | nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        let loopback = std::ffi::OsString::from("lo");
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &loopback)?;
        let any = nix::sys::socket::SockaddrIn::new(0, 0, 0, 0, 0);
        nix::sys::socket::bind(socket.as_raw_fd(), &any)?;
        let backlog = nix::sys::socket::Backlog::new(BACKLOG)?;
        nix::sys::socket::listen(&socket, backlog)?;
        let listener = TcpListener::from(socket);
        let port = listener.local_addr()?.port();
        io::Result::Ok((listener, port))
    };
    listening().map_err(step("listen for this host's own proxies"))
}

fn listen_on(family: Family, port: u16) -> io::Result<TcpListener> {
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call, no pointers.
    let fd = unsafe { libc::socket(domain, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let options: &[(libc::c_int, libc::c_int)] = match family {
        // Without these, answers from addresses that no interface has are not sent.
        Family::V4 => &[(libc::SOL_IP, libc::IP_TRANSPARENT)],
        Family::V6 => &[
            (libc::SOL_IPV6, libc::IPV6_V6ONLY),
            (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
        ],
    };
    switch_on(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    for (level, option) in options {
        switch_on(&socket, *level, *option)?;
    }
    let address = std::net::SocketAddr::new(family.unspecified(), port);
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    // SAFETY: plain system call on an open descriptor.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

fn switch_on(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: value and length describe a local integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
