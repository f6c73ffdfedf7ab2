//! Next hops of rules: where they are, found out and kept fresh through the kernel's neighbour tables.

use std::{io, net::IpAddr};

use super::CommandError;
use crate::{
    compile::NextHop,
    datapath::{Resolved, Root, netdev},
    netlink::{Link, Neighbour, Netlink},
};

/// Has the kernel send to these next hops, as far as they are known, asks for those that are not, and says
/// which they are: what rules send there is dropped.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn refresh(
    root: &Root,
    next_hops: &[(u32, NextHop)],
) -> Result<Vec<String>, CommandError> {
    if next_hops.is_empty() {
        return Ok(Vec::new());
    }
    let netlink = Netlink::open()?;
    // Without the list nothing is known of any of them.
    let links = netlink.links().unwrap_or_default();
    let mut unresolved = Vec::new();
    for (number, hop) in next_hops {
        let resolved = resolve(&netlink, &links, hop);
        if resolved.is_none() {
            unresolved.push(hop.address.to_string());
        }
        root.follow_next_hop(*number, resolved)?;
    }
    Ok(unresolved)
}

/// Indexes of the interfaces that next hops are on, by number.
pub(super) fn devices(next_hops: &[NextHop]) -> Vec<(u32, u32)> {
    let Ok(netlink) = Netlink::open() else {
        return Vec::new();
    };
    let found = (0u32..).zip(next_hops).filter_map(|(number, hop)| {
        let (ifindex, _) = place(&netlink, hop).ok()?;
        Some((number, ifindex))
    });
    found.collect()
}

fn resolve(netlink: &Netlink, links: &[Link], hop: &NextHop) -> Option<Resolved> {
    let (ifindex, neighbour) = place(netlink, hop).ok()?;
    let Neighbour { mac, is_fresh } = netlink.neighbour(ifindex, neighbour).ok()?;
    if !is_fresh {
        // What comes of it is seen the next time.
        let _ = netlink.probe(ifindex, neighbour);
    }
    let from = links.iter().find(|link| link.index == ifindex)?.mac?;
    Some(Resolved {
        ifindex,
        to: mac?,
        from,
    })
}

/// The interface that a next hop is on, and the neighbour that leads to it.
fn place(netlink: &Netlink, hop: &NextHop) -> io::Result<(u32, IpAddr)> {
    match &hop.interface {
        Some(interface) => {
            let index = netdev::index(interface).map_err(io::Error::other)?;
            Ok((index, hop.address))
        }
        None => {
            let way = netlink.way_to(hop.address)?;
            Ok((way.ifindex, way.gateway.unwrap_or(hop.address)))
        }
    }
}
