//! The host's TCP connections, listed and ended through the kernel's sock_diag(7).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::DatapathError;

/// A TCP connection that ends in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The host's end. IPv4-mapped addresses are IPv4.
    pub local: SocketAddr,
    /// The other end, likewise.
    pub peer: SocketAddr,
    family: u8,
    /// As the kernel gave it: with the socket's cookie, so that no other socket on the same addresses
    /// and ports can be meant.
    id: SocketId,
}

/// The connections of the calling thread's network namespace.
pub struct Connections {
    socket: Socket,
}

impl Connections {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    ///
    /// The kernel has no sock_diag.
    pub fn open() -> Result<Self, DatapathError> {
        let open = || {
            let socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.connect(&NetlinkAddress::new(0, 0))?;
            Ok(Self { socket })
        };
        open().map_err(|source| DatapathError::Connections { source })
    }

    /// Whether this process and this kernel can end connections; asked about a socket that cannot
    /// exist, so that nothing ends.
    ///
    /// # Errors
    ///
    /// They cannot: no CAP_NET_ADMIN, or a kernel without `CONFIG_INET_DIAG_DESTROY`.
    pub fn check(&self) -> Result<(), DatapathError> {
        // Also loads the modules that the kernel may have put this into.
        self.list(AF_INET, StateFlags::LISTEN)?;
        self.destroy(AF_INET, SocketId::new_v4()).map(drop)
    }

    /// Every connection over which data may still flow.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn established(&self) -> Result<Vec<Connection>, DatapathError> {
        self.both_families(
            StateFlags::ESTABLISHED
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING,
        )
    }

    /// The local ports that a socket listens on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn listening_ports(&self) -> Result<Vec<u16>, DatapathError> {
        let sockets = self.both_families(StateFlags::LISTEN)?;
        Ok(sockets.iter().map(|socket| socket.local.port()).collect())
    }

    /// Ends a connection: the peer gets an RST, the application an error. `false` if it is gone already.
    ///
    /// # Errors
    ///
    /// As [`Connections::check`].
    pub fn end(&self, connection: &Connection) -> Result<bool, DatapathError> {
        self.destroy(connection.family, connection.id.clone())
    }

    fn both_families(&self, states: StateFlags) -> Result<Vec<Connection>, DatapathError> {
        let mut all = self.list(AF_INET, states.clone())?;
        all.extend(self.list(AF_INET6, states)?);
        Ok(all)
    }

    fn list(&self, family: u8, states: StateFlags) -> Result<Vec<Connection>, DatapathError> {
        self.dump(family, states)
            .map_err(|source| DatapathError::Connections { source })
    }

    fn dump(&self, family: u8, states: StateFlags) -> io::Result<Vec<Connection>> {
        let question = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id: any_of(family),
        });
        self.send(question, NLM_F_DUMP)?;
        let mut found = Vec::new();
        loop {
            for payload in self.receive()? {
                match payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        found.push(Connection::of(
                            response.header.family,
                            response.header.socket_id,
                        ));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    _ => {}
                }
            }
        }
    }

    fn destroy(&self, family: u8, id: SocketId) -> Result<bool, DatapathError> {
        let error = match self.try_destroy(family, id) {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(false),
            Some(libc::EOPNOTSUPP) => Err(DatapathError::CannotEndConnections),
            _ => Err(DatapathError::Connections { source: error }),
        }
    }

    fn try_destroy(&self, family: u8, id: SocketId) -> io::Result<()> {
        self.send(
            Destroy(InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::all(),
                socket_id: id,
            }),
            NLM_F_ACK,
        )?;
        loop {
            for payload in self.receive()? {
                if let NetlinkPayload::Error(answer) = payload {
                    return match answer.code {
                        None => Ok(()),
                        Some(_) => Err(answer.to_io()),
                    };
                }
            }
        }
    }

    fn send<M: NetlinkSerializable + Into<NetlinkPayload<M>>>(
        &self,
        message: M,
        flags: u16,
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut packet = NetlinkMessage::new(header, message.into());
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// The messages of one datagram from the kernel.
    fn receive(&self) -> io::Result<Vec<NetlinkPayload<SockDiagMessage>>> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut payloads = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let len = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(len..).unwrap_or_default();
            payloads.push(message.payload);
        }
        Ok(payloads)
    }
}

impl Connection {
    fn of(family: u8, id: SocketId) -> Self {
        let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        Self {
            local: end(id.source_address, id.source_port),
            peer: end(id.destination_address, id.destination_port),
            family,
            id,
        }
    }
}

fn any_of(family: u8) -> SocketId {
    if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    }
}

/// A request that ends the socket it names; the crate has the same message for questions only.
struct Destroy(InetRequest);

impl NetlinkSerializable for Destroy {
    fn message_type(&self) -> u16 {
        SOCK_DESTROY
    }

    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.0.emit(buffer);
    }
}

impl From<Destroy> for NetlinkPayload<Destroy> {
    fn from(message: Destroy) -> Self {
        Self::InnerMessage(message)
    }
}
