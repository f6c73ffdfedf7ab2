//! Where a table is played: both roles of the edge behind one face.

use super::{POLICY, known::Checksums, station::Station};
use crate::{
    edge::Edge,
    net::{Direct, Namespace, Offload, Routed, set_offload},
};

/// The namespaces of one role, and how the filter judges checksums there.
#[derive(Debug)]
pub struct Scene {
    role: Role,
    checksums: Checksums,
    cookies: bool,
}

#[derive(Debug)]
enum Role {
    /// The servers run on the edge itself.
    Server(Direct),
    /// The servers run behind the edge, which routes.
    Router(Routed),
    /// As [`Role::Router`], filtering the visitor's side only: answers are not seen.
    OneSided(Routed),
}

impl Scene {
    /// Client and edge with servers.
    pub fn server(checksums: Checksums) -> Self {
        let net = Direct::new();
        if checksums == Checksums::Strict {
            for (namespace, interface) in [
                (&net.visitor, Direct::VISITOR_IF),
                (&net.edge, Direct::EDGE_IF),
            ] {
                set_offload(namespace, interface, Offload::TransmitChecksum, false);
            }
        }
        Self::of(Role::Server(net), checksums)
    }

    /// As [`Scene::server`]; the host answers every SYN with a cookie.
    pub fn with_syn_cookies(checksums: Checksums) -> Self {
        let scene = Self {
            cookies: true,
            ..Self::server(checksums)
        };
        scene.servers().sysctl("net/ipv4/tcp_syncookies", "2");
        scene
    }

    /// Client, edge and servers.
    pub fn router(checksums: Checksums) -> Self {
        let net = routed(checksums);
        Self::of(Role::Router(net), checksums)
    }

    /// Whether the host answers every SYN with a cookie.
    pub fn uses_cookies(&self) -> bool {
        self.cookies
    }

    /// Whether the truth was measured in such a scene.
    pub fn is_as_measured(&self) -> bool {
        matches!(self.role, Role::Server(_)) && !self.cookies
    }

    /// As [`Scene::router`]; the filter sees the client's direction only.
    pub fn one_sided(checksums: Checksums) -> Self {
        let net = routed(checksums);
        Self::of(Role::OneSided(net), checksums)
    }

    /// As [`Scene::server`] with partial checksums, in a net of its own.
    pub fn server_in(net: Direct) -> Self {
        Self::of(Role::Server(net), Checksums::Partial)
    }

    /// As [`Scene::router`] with partial checksums, in a net of its own.
    pub fn router_in(net: Routed) -> Self {
        Self::of(Role::Router(net), Checksums::Partial)
    }

    fn of(role: Role, checksums: Checksums) -> Self {
        Self {
            role,
            checksums,
            cookies: false,
        }
    }

    /// Where clients run.
    pub fn visitor(&self) -> &Namespace {
        match &self.role {
            Role::Server(net) => &net.visitor,
            Role::Router(net) | Role::OneSided(net) => &net.visitor,
        }
    }

    /// Where servers run.
    pub fn servers(&self) -> &Namespace {
        match &self.role {
            Role::Server(net) => &net.edge,
            Role::Router(net) | Role::OneSided(net) => &net.origin,
        }
    }

    /// The servers' IPv4 address.
    pub fn v4(&self) -> &'static str {
        match &self.role {
            Role::Server(_) => Direct::EDGE_V4,
            Role::Router(_) | Role::OneSided(_) => Routed::NEIGHBOUR_V4,
        }
    }

    /// The servers' IPv6 address.
    pub fn v6(&self) -> &'static str {
        match &self.role {
            Role::Server(_) => Direct::EDGE_V6,
            Role::Router(_) | Role::OneSided(_) => Routed::NEIGHBOUR_V6,
        }
    }

    /// A raw client beside the visitor.
    pub fn station(&self) -> Station {
        match &self.role {
            Role::Server(net) => Station::direct(net),
            Role::Router(net) | Role::OneSided(net) => Station::routed(net),
        }
    }

    /// Starts the filter with [`POLICY`]; `inspect`: more keys of that table of the configuration.
    pub fn enforce(&self, inspect: &str) -> Edge<'_> {
        let serves = [self.v4(), self.v6()];
        let (edge, interfaces, serves): (_, &[&str], _) = match &self.role {
            Role::Server(net) => (&net.edge, &[Direct::EDGE_IF], String::new()),
            Role::Router(net) => (
                &net.edge,
                &[Routed::VISITOR_SIDE, Routed::ORIGIN_SIDE],
                format!("serves = {serves:?}\n"),
            ),
            Role::OneSided(net) => (
                &net.edge,
                &[Routed::VISITOR_SIDE],
                format!("serves = {serves:?}\n"),
            ),
        };
        let mut edge = Edge::new(edge, interfaces, POLICY);
        let checksum = format!("checksum = \"{}\"\n", self.checksums.word());
        edge.configure(
            interfaces,
            &format!("[inspect]\n{serves}{checksum}{inspect}"),
        );
        edge.start();
        edge
    }

    /// The edge's own namespace.
    pub fn edge(&self) -> &Namespace {
        match &self.role {
            Role::Server(net) => &net.edge,
            Role::Router(net) | Role::OneSided(net) => &net.edge,
        }
    }

    /// Its role in the names of tables.
    pub fn role(&self) -> &'static str {
        match &self.role {
            Role::Server(_) => "server",
            Role::Router(_) => "router",
            Role::OneSided(_) => "one-sided",
        }
    }

    /// The name of a table that is played here: of `what`, in which `variant` if any.
    pub fn table(&self, what: &str, variant: &str) -> String {
        let role = self.role();
        let cookies = if self.cookies { "-cookies" } else { "" };
        let checksums = self.checksums.word();
        format!("{what}-{role}{cookies}{variant}-{checksums}")
    }
}

/// A net with a router, whose hosts finish their checksums if those are judged strictly.
fn routed(checksums: Checksums) -> Routed {
    let net = Routed::new();
    if checksums == Checksums::Strict {
        for (namespace, interface) in [
            (&net.visitor, "eth0"),
            (&net.edge, Routed::VISITOR_SIDE),
            (&net.edge, Routed::ORIGIN_SIDE),
            (&net.origin, "eth0"),
        ] {
            set_offload(namespace, interface, Offload::TransmitChecksum, false);
        }
    }
    net
}
