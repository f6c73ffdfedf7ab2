//! The kernel's network configuration through rtnetlink(7): links, routes, rules, neighbours.
//!
//! Everything is about the network namespace of the thread that opened the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An Ethernet address, as on the wire.
pub type Mac = [u8; 6];

/// Messages of one answer that are read at most: a host has fewer links and neighbours by far.
const ANSWERS_MAX: usize = 1 << 20;

/// A way to ask and change the kernel's network configuration.
pub struct Netlink {
    socket: Socket,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What somebody wrote beside it; empty if nobody did.
    pub alias: String,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Its address, if it has one like Ethernet's.
    pub mac: Option<Mac>,
}

/// One end of a pair of virtual Ethernet interfaces that is to be made.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its address.
    pub mac: Mac,
}

/// Where a packet to an address would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub ifindex: u32,
    /// The gateway; `None` if the address is on the link.
    pub gateway: Option<IpAddr>,
}

/// What is known of the link-layer address of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address; `None` if it was not found out, or no longer answers.
    pub mac: Option<Mac>,
    /// Whether it was confirmed lately, or is configured.
    pub is_fresh: bool,
}

impl Netlink {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let answers = self.ask(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            Message::NewLink(link) => Some(link_of(link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The interface of a name, if there is one.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let links = self.links()?;
        Ok(links.into_iter().find(|link| link.name == name))
    }

    /// Makes a pair of virtual Ethernet interfaces, `far` in another network namespace. Both are down.
    ///
    /// # Errors
    ///
    /// The kernel refuses: `EEXIST` if a name is taken.
    pub fn add_pair(
        &self,
        near: &End<'_>,
        far: &End<'_>,
        namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> io::Result<()> {
        let attributes = |end: &End<'_>| {
            vec![
                LinkAttribute::IfName(end.name.to_owned()),
                LinkAttribute::Address(end.mac.to_vec()),
                LinkAttribute::Mtu(mtu),
            ]
        };
        let mut peer = LinkMessage::default();
        peer.attributes = attributes(far);
        peer.attributes
            .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes = attributes(near);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.tell(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Writes something beside an interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::IfAlias(alias.to_owned()));
        self.tell(Message::SetLink(message), 0)
    }

    /// Keeps an interface that is still down from getting an IPv6 address by itself.
    ///
    /// # Errors
    ///
    /// The kernel refuses; that it has no IPv6 is none.
    pub fn without_addresses(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
            )]));
        match self.tell(Message::SetLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }

    /// Switches an interface on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.tell(Message::SetLink(message), 0)
    }

    /// Removes an interface, and with it the other end of its pair.
    ///
    /// # Errors
    ///
    /// The kernel refuses; that it is gone already is none.
    pub fn delete_link(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.tell(Message::DelLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Every address of a family is this machine's own, for packets that come in on an interface: one
    /// rule, and one route in a table of its own.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn accept_any(
        &self,
        family: Family,
        interface: &str,
        loopback: u32,
        table: u8,
    ) -> io::Result<()> {
        let mut rule = RuleMessage::default();
        rule.header.family = family.into();
        rule.header.table = table;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Iifname(interface.to_owned()),
            RuleAttribute::Priority(u32::from(table)),
        ];
        self.tell(Message::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)?;
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: family.into(),
            table,
            protocol: RouteProtocol::Static,
            scope: RouteScope::Host,
            kind: RouteType::Local,
            ..RouteHeader::default()
        };
        route.attributes = vec![RouteAttribute::Oif(loopback)];
        self.tell(Message::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends everything of a family by one interface to one gateway, whose link-layer address is given
    /// and not asked for, in packets of at most `mtu` bytes.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn add_default(
        &self,
        index: u32,
        gateway: IpAddr,
        gateway_mac: Mac,
        mtu: u32,
    ) -> io::Result<()> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = Family::of(gateway).into();
        neighbour.header.ifindex = index;
        neighbour.header.state = NeighbourState::Permanent;
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(neighbour_address(gateway)),
            NeighbourAttribute::LinkLayerAddress(gateway_mac.to_vec()),
        ];
        self.tell(
            Message::NewNeighbour(neighbour),
            NLM_F_CREATE | NLM_F_REPLACE,
        )?;
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: Family::of(gateway).into(),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            flags: RouteFlags::Onlink,
            ..RouteHeader::default()
        };
        route.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::from(gateway)),
            RouteAttribute::Oif(index),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]),
        ];
        self.tell(Message::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Where a packet to this address would leave.
    ///
    /// # Errors
    ///
    /// There is no route, or the kernel refuses.
    pub fn way_to(&self, address: IpAddr) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(address).into();
        message.header.destination_prefix_length = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(address))];
        let answers = self.ask(Message::GetRoute(message), 0)?;
        let route = answers.into_iter().find_map(|answer| match answer {
            Message::NewRoute(route) => Some(route),
            _ => None,
        });
        let attributes = route.map(|route| route.attributes).unwrap_or_default();
        let mut ifindex = None;
        let mut gateway = None;
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::Gateway(RouteAddress::Inet(at)) => gateway = Some(IpAddr::V4(at)),
                RouteAttribute::Gateway(RouteAddress::Inet6(at)) => gateway = Some(IpAddr::V6(at)),
                _ => {}
            }
        }
        match ifindex {
            Some(ifindex) => Ok(Way { ifindex, gateway }),
            None => Err(io::Error::from_raw_os_error(libc::ENETUNREACH)),
        }
    }

    /// What the kernel knows of a neighbour on an interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn neighbour(&self, ifindex: u32, address: IpAddr) -> io::Result<Neighbour> {
        let mut message = NeighbourMessage::default();
        message.header.family = Family::of(address).into();
        let wanted = neighbour_address(address);
        let answers = self.ask(Message::GetNeighbour(message), NLM_F_DUMP)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            Message::NewNeighbour(entry)
                if entry.header.ifindex == ifindex
                    && entry
                        .attributes
                        .contains(&NeighbourAttribute::Destination(wanted.clone())) =>
            {
                Some(entry)
            }
            _ => None,
        });
        let Some(entry) = found else {
            return Ok(Neighbour {
                mac: None,
                is_fresh: false,
            });
        };
        let answers = !matches!(
            entry.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        let mac = entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
                _ => None,
            });
        Ok(Neighbour {
            mac: mac.filter(|_| answers),
            is_fresh: matches!(
                entry.header.state,
                NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp
            ),
        })
    }

    /// Has the kernel find out, or confirm, a neighbour's link-layer address: as if a packet were sent
    /// to it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn probe(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = Family::of(address).into();
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes = vec![NeighbourAttribute::Destination(neighbour_address(address))];
        self.tell(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sends a request and waits for the kernel to say that it is done.
    fn tell(&self, message: Message, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends a request; all that the kernel answers.
    fn ask(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() && answers.len() < ANSWERS_MAX {
                let answer = NetlinkMessage::<Message>::deserialize(rest).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                })?;
                let len = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(len..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            Some(_) => Err(error.to_io()),
                            None => Ok(answers),
                        };
                    }
                    _ => {}
                }
            }
            // A question about one thing has one answer and no end mark.
            if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
                return Ok(answers);
            }
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that stands for all.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Inet,
            Family::V6 => Self::Inet6,
        }
    }
}

fn neighbour_address(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

fn link_of(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        mtu: 0,
        mac: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
            _ => {}
        }
    }
    link
}
