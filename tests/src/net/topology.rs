//! The two shapes that the product works in: the edge as server and as router.

use super::{Namespace, Offload, set_offload};

/// Server role: `visitor` (eth0) joined to `edge` (eth0), which serves.
#[derive(Debug)]
pub struct Direct {
    /// Where clients run.
    pub visitor: Namespace,
    /// Where edgefilter and the servers run.
    pub edge: Namespace,
}

impl Direct {
    /// Interface of the edge that visitors' frames arrive on.
    pub const EDGE_IF: &str = "eth0";
    /// Interface of the visitor.
    pub const VISITOR_IF: &str = "eth0";
    /// The edge's IPv4 address.
    pub const EDGE_V4: &str = "198.51.100.1";
    /// The edge's IPv6 address.
    pub const EDGE_V6: &str = "2001:db8:1::1";
    /// The visitor's IPv4 address.
    pub const VISITOR_V4: &str = "198.51.100.2";
    /// The visitor's IPv6 address.
    pub const VISITOR_V6: &str = "2001:db8:1::2";
    /// A second address of the visitor, for "blocked source and its neighbour".
    pub const OTHER_V4: &str = "198.51.100.3";
    /// As [`Direct::OTHER_V4`].
    pub const OTHER_V6: &str = "2001:db8:1::3";

    /// Makes the namespaces, links and addresses.
    pub fn new() -> Self {
        Self::linked(Namespace::veth)
    }

    /// As [`Direct::new`], the edge's interface joined to the visitor's by `link`.
    pub fn linked(link: impl FnOnce(&Namespace, &str, &Namespace, &str)) -> Self {
        let (visitor, edge) = (Namespace::new("visitor"), Namespace::new("edge"));
        link(&edge, Self::EDGE_IF, &visitor, Self::VISITOR_IF);
        set_offload(&edge, Self::EDGE_IF, Offload::ReceiveAggregation, true);
        edge.address(Self::EDGE_IF, &format!("{}/24", Self::EDGE_V4));
        edge.address(Self::EDGE_IF, &format!("{}/64", Self::EDGE_V6));
        for address in [Self::VISITOR_V4, Self::OTHER_V4] {
            visitor.address(Self::VISITOR_IF, &format!("{address}/24"));
        }
        // The address added last is the one that IPv6 would choose as source.
        for address in [Self::OTHER_V6, Self::VISITOR_V6] {
            visitor.address(Self::VISITOR_IF, &format!("{address}/64"));
        }
        Self { visitor, edge }
    }
}

impl Default for Direct {
    fn default() -> Self {
        Self::new()
    }
}

/// Router role: `visitor` (eth0) – `edge` (vis0, org0, routing) – `origin` (eth0), which serves.
#[derive(Debug)]
pub struct Routed {
    /// Where clients run.
    pub visitor: Namespace,
    /// Where edgefilter runs.
    pub edge: Namespace,
    /// Where servers run.
    pub origin: Namespace,
}

impl Routed {
    /// Interface of the edge towards visitors.
    pub const VISITOR_SIDE: &str = "vis0";
    /// Interface of the edge towards origins.
    pub const ORIGIN_SIDE: &str = "org0";
    /// The visitor's IPv4 address.
    pub const VISITOR_V4: &str = "198.51.100.2";
    /// The visitor's IPv6 address.
    pub const VISITOR_V6: &str = "2001:db8:1::2";
    /// IPv4 address of the origin that tests block.
    pub const BLOCKED_V4: &str = "203.0.113.66";
    /// IPv6 address of the origin that tests block.
    pub const BLOCKED_V6: &str = "2001:db8:2::66";
    /// IPv4 address of the origin that stays reachable.
    pub const NEIGHBOUR_V4: &str = "203.0.113.67";
    /// IPv6 address of the origin that stays reachable.
    pub const NEIGHBOUR_V6: &str = "2001:db8:2::67";

    /// All addresses of the origin's namespace.
    pub const ORIGINS: [&str; 4] = [
        Self::BLOCKED_V4,
        Self::BLOCKED_V6,
        Self::NEIGHBOUR_V4,
        Self::NEIGHBOUR_V6,
    ];

    /// Makes the namespaces, links, addresses and routes.
    pub fn new() -> Self {
        Self::linked(Namespace::veth, Namespace::veth)
    }

    /// As [`Routed::new`], the edge's interfaces joined to the visitor's and the origin's by these.
    pub fn linked(
        to_visitor: impl FnOnce(&Namespace, &str, &Namespace, &str),
        to_origin: impl FnOnce(&Namespace, &str, &Namespace, &str),
    ) -> Self {
        let visitor = Namespace::new("visitor");
        let edge = Namespace::new("edge");
        let origin = Namespace::new("origin");
        to_visitor(&edge, Self::VISITOR_SIDE, &visitor, "eth0");
        to_origin(&edge, Self::ORIGIN_SIDE, &origin, "eth0");
        for interface in [Self::VISITOR_SIDE, Self::ORIGIN_SIDE] {
            set_offload(&edge, interface, Offload::ReceiveAggregation, true);
        }
        edge.address(Self::VISITOR_SIDE, "198.51.100.1/24");
        edge.address(Self::VISITOR_SIDE, "2001:db8:1::1/64");
        edge.address(Self::ORIGIN_SIDE, "203.0.113.1/24");
        edge.address(Self::ORIGIN_SIDE, "2001:db8:2::1/64");
        edge.forward();
        visitor.address("eth0", &format!("{}/24", Self::VISITOR_V4));
        visitor.address("eth0", &format!("{}/64", Self::VISITOR_V6));
        for address in [Self::BLOCKED_V4, Self::NEIGHBOUR_V4] {
            origin.address("eth0", &format!("{address}/24"));
        }
        for address in [Self::BLOCKED_V6, Self::NEIGHBOUR_V6] {
            origin.address("eth0", &format!("{address}/64"));
        }
        for gateway in ["198.51.100.1", "2001:db8:1::1"] {
            visitor.default_route(gateway);
        }
        for gateway in ["203.0.113.1", "2001:db8:2::1"] {
            origin.default_route(gateway);
        }
        Self {
            visitor,
            edge,
            origin,
        }
    }
}

impl Default for Routed {
    fn default() -> Self {
        Self::new()
    }
}
