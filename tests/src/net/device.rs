//! Offloads and addresses of network devices, through the ethtool and socket ioctls.

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, RawFd},
};

use super::Namespace;

/// Ioctl request of the socket interface to ethtool (`linux/sockios.h`).
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// An offload that can be switched, with its legacy ethtool command (`linux/ethtool.h`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Offload {
    /// Transmit checksums left to the device: on veth, frames carry only the pseudo-header sum.
    TransmitChecksum = 0x17,
    /// Segmentation left to the device: frames larger than the MTU.
    Segmentation = 0x1F,
    /// Receive aggregation. On veth it also starts NAPI, without which a native XDP redirect to
    /// the device finds nobody who takes the frame.
    ReceiveAggregation = 0x2C,
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Switches an offload of an interface.
///
/// # Panics
/// If the device refuses.
pub fn set_offload(namespace: &Namespace, interface: &str, offload: Offload, on: bool) {
    namespace.run(|| {
        let mut value = EthtoolValue {
            command: offload as u32,
            data: u32::from(on),
        };
        let mut request = request(interface);
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        ioctl(SIOCETHTOOL, &mut request)
            .unwrap_or_else(|e| panic!("set {offload:?} of {interface} to {on}: {e}"));
    });
}

/// The MAC address of an interface.
///
/// # Panics
/// If there is no such interface.
pub fn mac_of(namespace: &Namespace, interface: &str) -> [u8; 6] {
    namespace.run(|| {
        let mut request = request(interface);
        ioctl(libc::SIOCGIFHWADDR, &mut request)
            .unwrap_or_else(|e| panic!("MAC address of {interface}: {e}"));
        // SAFETY: the kernel has filled in the hardware address, the member that
        // this request returns; any bytes are valid.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        std::array::from_fn(|i| data[i] as u8)
    })
}

fn request(interface: &str) -> libc::ifreq {
    assert!(
        interface.len() < libc::IFNAMSIZ,
        "interface name fits: {interface}"
    );
    // SAFETY: all-zero bytes are a valid `ifreq`, a struct of integers and
    // pointers that are not followed.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let descriptor: RawFd = socket.as_raw_fd();
    // SAFETY: the descriptor is an open socket and the request a valid `ifreq`,
    // whose pointer, if the request follows one, points to a live value.
    let result = unsafe { libc::ioctl(descriptor, number, request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
