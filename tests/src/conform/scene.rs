//! Where a table is played: both roles of the edge behind one face.

use super::{POLICY, station::Station};
use crate::{
    edge::Edge,
    net::{Direct, Namespace, Routed},
};

/// The namespaces of one role.
#[derive(Debug)]
pub enum Scene {
    /// The servers run on the edge itself.
    Server(Direct),
    /// The servers run behind the edge, which routes.
    Router(Routed),
    /// As [`Scene::Router`], filtering the visitor's side only: answers are not seen.
    OneSided(Routed),
}

impl Scene {
    /// Client and edge with servers.
    pub fn server() -> Self {
        Self::Server(Direct::new())
    }

    /// Client, edge and servers.
    pub fn router() -> Self {
        Self::Router(Routed::new())
    }

    /// Client, edge and servers; the filter sees the client's direction only.
    pub fn one_sided() -> Self {
        Self::OneSided(Routed::new())
    }

    /// Where clients run.
    pub fn visitor(&self) -> &Namespace {
        match self {
            Self::Server(net) => &net.visitor,
            Self::Router(net) | Self::OneSided(net) => &net.visitor,
        }
    }

    /// Where servers run.
    pub fn servers(&self) -> &Namespace {
        match self {
            Self::Server(net) => &net.edge,
            Self::Router(net) | Self::OneSided(net) => &net.origin,
        }
    }

    /// The servers' IPv4 address.
    pub fn v4(&self) -> &'static str {
        match self {
            Self::Server(_) => Direct::EDGE_V4,
            Self::Router(_) | Self::OneSided(_) => Routed::NEIGHBOUR_V4,
        }
    }

    /// The servers' IPv6 address.
    pub fn v6(&self) -> &'static str {
        match self {
            Self::Server(_) => Direct::EDGE_V6,
            Self::Router(_) | Self::OneSided(_) => Routed::NEIGHBOUR_V6,
        }
    }

    /// A raw client beside the visitor.
    pub fn station(&self) -> Station {
        match self {
            Self::Server(net) => Station::direct(net),
            Self::Router(net) | Self::OneSided(net) => Station::routed(net),
        }
    }

    /// Starts the filter with [`POLICY`]; `inspect`: more keys of that table of the configuration.
    pub fn enforce(&self, inspect: &str) -> Edge<'_> {
        let serves = [self.v4(), self.v6()];
        let (edge, interfaces, serves): (_, &[&str], _) = match self {
            Self::Server(net) => (&net.edge, &[Direct::EDGE_IF], String::new()),
            Self::Router(net) => (
                &net.edge,
                &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE],
                format!("serves = {serves:?}\n"),
            ),
            Self::OneSided(net) => (
                &net.edge,
                &[Routed::VISITOR_SIDE],
                format!("serves = {serves:?}\n"),
            ),
        };
        let mut edge = Edge::new(edge, interfaces, POLICY);
        edge.configure(interfaces, &format!("[inspect]\n{serves}{inspect}"));
        edge.start();
        edge
    }

    /// The edge's own namespace.
    pub fn edge(&self) -> &Namespace {
        match self {
            Self::Server(net) => &net.edge,
            Self::Router(net) | Self::OneSided(net) => &net.edge,
        }
    }

    /// Its role in the names of tables.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::Router(_) => "router",
            Self::OneSided(_) => "one-sided",
        }
    }
}
