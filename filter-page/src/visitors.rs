//! How many connections are open, in all and of each client.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Bits of an IPv6 address that stand for one client: what a provider gives to a household.
const CLIENT_BITS_V6: u32 = 64;

/// The open connections.
#[derive(Debug)]
pub(crate) struct Visitors {
    connections_max: usize,
    per_client_max: usize,
    open: Mutex<Open>,
    /// Told when the last one is closed.
    none_left: Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    All,
    Client,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    visitors: Arc<Visitors>,
    client: IpAddr,
}

impl Visitors {
    pub(crate) fn new(connections_max: usize, per_client_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            per_client_max,
            open: Mutex::default(),
            none_left: Notify::new(),
        })
    }

    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let client = client(address);
        let mut open = self.lock();
        if open.all >= self.connections_max {
            return Err(Full::All);
        }
        let of_client = open.by_client.entry(client).or_default();
        if *of_client >= self.per_client_max {
            return Err(Full::Client);
        }
        *of_client += 1;
        open.all += 1;
        Ok(Place {
            visitors: self.clone(),
            client,
        })
    }

    pub(crate) fn open(&self) -> usize {
        self.lock().all
    }

    /// Until no connection is open.
    pub(crate) async fn all_left(&self) {
        loop {
            let left = self.none_left.notified();
            if self.open() == 0 {
                return;
            }
            left.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.visitors.lock();
        open.all -= 1;
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
        if open.all == 0 {
            self.visitors.none_left.notify_waiters();
        }
    }
}

fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> (128 - CLIENT_BITS_V6) << (128 - CLIENT_BITS_V6);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_bounded_and_come_free() {
        let visitors = Visitors::new(3, 2);
        let a = address("192.0.2.1");
        let first = visitors.enter(a).expect("room");
        let _second = visitors.enter(a).expect("room");
        assert_eq!(visitors.enter(a).expect_err("two at once"), Full::Client);
        let _other = visitors.enter(address("192.0.2.2")).expect("room");
        assert_eq!(
            visitors.enter(address("192.0.2.3")).expect_err("three"),
            Full::All
        );
        drop(first);
        let _again = visitors.enter(a).expect("free again");
        assert_eq!(visitors.open(), 3);
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_left() {
        let visitors = Visitors::new(3, 1);
        drop(visitors.enter(address("192.0.2.1")).expect("room"));
        assert!(visitors.lock().by_client.is_empty());
    }

    #[test]
    fn a_client_is_an_address_or_a_prefix_of_64_bits() {
        assert_eq!(client(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(
            client(address("2001:db8:0:1:2:3:4:5")),
            address("2001:db8:0:1::")
        );
    }
}
