//! The process that makes sockets of connections that were taken over, `edgefilter sink-handover`, where the kernel
//! makes none: it is told of them by the program at the page's end, and passes the sockets to the page's process.
//!
//! The page's process starts it, and each ends when the other does: they hold the two ends of a socket. It has
//! `CAP_NET_ADMIN` and `CAP_NET_BIND_SERVICE`, which reach no further than the page's network namespace, that it
//! cannot leave; the page's process has none.
//!
//! It never waits for the page's process. What that does not take at once, up to the kernel's bound on a socket's
//! queue, is forgotten without a word, so that the client tries again; likewise a connection of which no
//! socket can be made. Both are counted.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::TcpStream,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use filter_common::{
    abi::{FlowKey, Handover},
    limits::TAKEN_HELLO_BYTES_MAX,
    wire::{self, TCP},
};
use filter_page::Handed;
use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
        sendmsg, socketpair,
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    HANDOVER_COMMAND,
    error::{SinkError, file, step},
    privileges::{self, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE},
    process::inherit,
    serve::inherited,
    spec::Spec,
};
use crate::datapath::{HandoverRing, forget_socket, make_socket};

/// How long the process may take until it can make sockets.
const START_MAX: Duration = Duration::from_secs(5);

/// Sockets that wait in the page's process; those beyond wait in the kernel.
const WAITING_MAX: usize = 16;

/// Descriptors of the process. So many that are under way between processes may be one user's as well.
const DESCRIPTORS: u64 = 1_024;

/// Connections of which no socket came to the page's process, so far.
type Message = [u8; size_of::<u64>()];

/// The process, as the page's process has it.
pub(super) struct Maker {
    gone: oneshot::Receiver<()>,
}

/// Starts the process and waits until it can make sockets; what it hands over.
pub(super) fn start(
    spec: &Path,
    ring: OwnedFd,
) -> Result<(mpsc::Receiver<Handed>, Maker), SinkError> {
    let (here, there) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| step("make a pair of sockets")(errno.into()))?;
    let kept = vec![ring.as_raw_fd(), there.as_raw_fd()];
    let mut command = Command::new("/proc/self/exe");
    let to_page = there.as_raw_fd().to_string();
    command
        .args([
            HANDOVER_COMMAND.as_ref(),
            spec.as_os_str(),
            to_page.as_ref(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    inherit(&mut command, kept);
    let mut child = command
        .spawn()
        .map_err(step("start the process that makes sockets"))?;
    drop((ring, there));
    let mut asked = [PollFd::new(here.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(START_MAX).unwrap_or(PollTimeout::MAX);
    let is_there = poll(&mut asked, patience).is_ok_and(|ready| ready > 0);
    if !is_there || !matches!(receive(&here), Ok(Some(_))) {
        // Gone already, or not wanted.
        let _ = child.kill();
        let _ = child.wait();
        return Err(SinkError::EndedAtOnce {
            how: "no sockets can be made of connections that are taken over".to_owned(),
        });
    }
    let (to_server, handed) = mpsc::channel(WAITING_MAX);
    let (ended, gone) = oneshot::channel();
    thread::Builder::new()
        .name("handover".to_owned())
        .spawn(move || {
            pass_on(&here, &to_server);
            // Nobody waits any more if the server is stopping.
            let _ = ended.send(());
            // It has ended, or does now that its socket has no other end.
            drop(here);
            let _ = child.wait();
        })
        .map_err(step("start a thread"))?;
    Ok((handed, Maker { gone }))
}

/// Resolves when the process has ended; never if there is none.
pub(super) async fn gone(maker: Option<Maker>) {
    match maker {
        // An error is an end as well.
        Some(Maker { gone }) => drop(gone.await),
        None => std::future::pending().await,
    }
}

/// Hands to the server what comes, until there is nobody at one of the ends.
fn pass_on(from: &OwnedFd, to: &mpsc::Sender<Handed>) {
    let mut known = 0;
    while let Ok(Some((lost, socket))) = receive(from) {
        let news = [
            (lost > known).then(|| Handed::Lost(lost - known)),
            socket.map(|socket| Handed::Visitor(TcpStream::from(socket))),
        ];
        known = lost;
        for news in news.into_iter().flatten() {
            if to.blocking_send(news).is_err() {
                return;
            }
        }
    }
}

/// The next message; `None` at the end.
fn receive(from: &OwnedFd) -> nix::Result<Option<(u64, Option<OwnedFd>)>> {
    let mut bytes = Message::default();
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut socket = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made it for this process.
                socket = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    Ok(Some((u64::from_ne_bytes(bytes), socket)))
}

/// Makes sockets until the page's process is gone.
///
/// # Errors
///
/// It cannot begin to.
pub fn make_sockets(spec: &Path, to_page: RawFd) -> Result<(), SinkError> {
    let text = std::fs::read(spec).map_err(file("read", spec))?;
    let Spec {
        shape, handovers, ..
    } = serde_json::from_slice(&text).map_err(|error| file("read", spec)(error.into()))?;
    let ring = handovers.ok_or(io::ErrorKind::NotFound);
    let ring = ring.map_err(|kind| step("find the ring buffer")(kind.into()))?;
    let mut ring = HandoverRing::new(inherited(ring))?;
    let page = inherited(to_page);
    let kept = [CAP_NET_ADMIN, CAP_NET_BIND_SERVICE];
    privileges::drop(&shape, DESCRIPTORS, &kept).map_err(step("give up privileges"))?;
    let port = shape.ports.first().copied().unwrap_or(1);
    make_socket(&rehearsal(port)).map_err(step("make a socket by TCP_REPAIR"))?;

    let mut lost = 0;
    send(&page, lost, None).map_err(|errno| step("say that sockets can be made")(errno.into()))?;
    while wait(&ring, &page) {
        while let Some(handover) = ring.next_handover() {
            lost += match make_socket(&handover) {
                Ok(socket) => u64::from(!hand_over(&page, lost, socket)),
                // The client has sent its hello again, and is served already.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => 0,
                Err(error) => {
                    tracing::warn!(%error, "no socket of a connection that was taken over");
                    1
                }
            };
        }
    }
    Ok(())
}

/// Passes a socket to the page's process; `false` if that has enough of them.
fn hand_over(page: &OwnedFd, lost: u64, socket: TcpStream) -> bool {
    let is_sent = send(page, lost, Some(socket.as_raw_fd())).is_ok();
    if !is_sent {
        forget_socket(socket);
    }
    is_sent
}

fn send(page: &OwnedFd, lost: u64, socket: Option<RawFd>) -> nix::Result<()> {
    let bytes: Message = lost.to_ne_bytes();
    let sockets = socket.as_slice();
    let rights = [ControlMessage::ScmRights(sockets)];
    let with: &[ControlMessage<'_>] = match sockets {
        [] => &[],
        _ => &rights,
    };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(page.as_raw_fd(), &[IoSlice::new(&bytes)], with, flags, None)?;
    Ok(())
}

/// Waits for connections; `false` when the page's process is gone.
fn wait(ring: &HandoverRing, page: &OwnedFd) -> bool {
    let mut asked = [
        PollFd::new(ring.as_fd(), PollFlags::POLLIN),
        // It says nothing: there is only its end to hear of.
        PollFd::new(page.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut asked, PollTimeout::NONE) {
        Ok(_) => asked[1].revents().is_none_or(|events| events.is_empty()),
        Err(errno) => errno == Errno::EINTR,
    }
}

/// A connection that there is not, to see whether a socket can be made of it.
fn rehearsal(port: u16) -> Handover {
    const LOOPBACK: u32 = 0x7f00_0001;
    let address = wire::mapped(LOOPBACK).map(u64::to_be);
    Handover {
        key: FlowKey {
            src: address,
            dst: address,
            src_port: 1,
            dst_port: port,
            protocol: TCP,
            ..FlowKey::default()
        },
        start: 0,
        ack: 0,
        timestamps: [0; 2],
        window: 1,
        len: 0,
        flags: Handover::TIMESTAMPS,
        hello: [0; TAKEN_HELLO_BYTES_MAX as usize],
    }
}
