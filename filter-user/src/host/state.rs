//! What is kept of streams, in memory: the maps of the kernel program, with their limits.

use std::collections::{HashMap, HashSet, VecDeque};

use filter_common::{
    abi::{Directions, FlowKey, Taken},
    flow::{Blocked, Entry},
    limits::{
        BLOCKED_FLOWS_MAX, FLOWS_MAX, HELLO_KEPT_BYTES, HELLOS_MAX, LONG_HELLOS_MAX, TAKEN_MAX,
    },
};

/// A table of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTable {
    /// Undecided streams.
    Flows,
    /// Their bytes.
    Hellos,
    /// Their bytes, where there are many.
    LongHellos,
    /// Blocked connections.
    Blocked,
}

impl StreamTable {
    /// All.
    pub const ALL: [Self; 4] = [Self::Flows, Self::Hellos, Self::LongHellos, Self::Blocked];

    /// Its name in the kernel program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "FLOWS",
            Self::Hellos => "HELLOS",
            Self::LongHellos => "LONG_HELLOS",
            Self::Blocked => "BLOCKED",
        }
    }
}

/// Everything kept of streams.
pub(super) struct Streams {
    /// Undecided streams.
    pub(super) flows: Evicting<Entry>,
    /// Blocked connections.
    pub(super) blocked: Evicting<Blocked>,
    /// Connections that are answered in the server's place.
    pub(super) taken: Evicting<Taken>,
    /// Their clients' ports.
    pub(super) taken_ports: HashSet<u16>,
    /// Connections that were judged.
    pub(super) directions: Directions,
    hellos: Evicting<Vec<u8>>,
    long_hellos: Evicting<Vec<u8>>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            flows: Evicting::new(FLOWS_MAX),
            blocked: Evicting::new(BLOCKED_FLOWS_MAX),
            taken: Evicting::new(TAKEN_MAX),
            taken_ports: HashSet::new(),
            directions: Directions::default(),
            hellos: Evicting::new(HELLOS_MAX),
            long_hellos: Evicting::new(LONG_HELLOS_MAX),
        }
    }

    /// Has a table refuse new keys, as the kernel does where it has no free element at hand, or take them
    /// again.
    pub(super) fn set_full(&mut self, table: StreamTable, full: bool) {
        match table {
            StreamTable::Flows => self.flows.full = full,
            StreamTable::Hellos => self.hellos.full = full,
            StreamTable::LongHellos => self.long_hellos.full = full,
            StreamTable::Blocked => self.blocked.full = full,
        }
    }

    /// The first `len` bytes kept of a stream.
    pub(super) fn hello(&self, key: &FlowKey, len: u32) -> Option<&[u8]> {
        let kept = if len <= HELLO_KEPT_BYTES {
            &self.hellos
        } else {
            &self.long_hellos
        };
        kept.load(key)?.get(..len as usize)
    }

    /// Keeps bytes of a stream; `false` if the table does not take them, and what was kept still is.
    pub(super) fn keep_hello(&mut self, key: FlowKey, bytes: &[u8]) -> bool {
        if bytes.len() <= HELLO_KEPT_BYTES as usize {
            return self.hellos.store(key, bytes.to_vec());
        }
        let stored = self.long_hellos.store(key, bytes.to_vec());
        if stored {
            self.hellos.delete(&key);
        }
        stored
    }

    /// Forgets the bytes of a stream.
    pub(super) fn forget_hello(&mut self, key: &FlowKey) {
        self.hellos.delete(key);
        self.long_hellos.delete(key);
    }
}

/// A table that makes room by evicting its oldest entry.
pub(super) struct Evicting<V> {
    entries: HashMap<FlowKey, V>,
    /// Keys in the order of their arrival, those of deleted entries included.
    order: VecDeque<FlowKey>,
    max: usize,
    /// Whether it takes no new key.
    full: bool,
}

impl<V> Evicting<V> {
    fn new(max: u32) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            max: max as usize,
            full: false,
        }
    }

    pub(super) fn load(&self, key: &FlowKey) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn load_mut(&mut self, key: &FlowKey) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// `false` if it does not take the key.
    pub(super) fn store(&mut self, key: FlowKey, value: V) -> bool {
        if self.full && !self.entries.contains_key(&key) {
            return false;
        }
        if self.entries.insert(key, value).is_some() {
            return true;
        }
        self.order.push_back(key);
        while self.entries.len() > self.max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.entries.remove(&oldest);
        }
        if self.order.len() > 2 * self.max {
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key));
        }
        true
    }

    pub(super) fn delete(&mut self, key: &FlowKey) {
        self.entries.remove(key);
    }
}
