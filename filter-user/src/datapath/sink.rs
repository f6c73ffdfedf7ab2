//! The way to the block page: the programs on both ends of the pair of interfaces that leads to its
//! namespace, and what the answering program knows of it.
//!
//! The controller makes namespace and pair, calls [`Root::attach_sink`], starts the page's server, and
//! calls [`Root::set_sink`] when that listens, and again whenever it does not. What is attached is pinned and
//! outlives the controller; a page that nobody serves any more is noticed by the program at its end, which
//! then sets the state to down, and what leads to the page is refused.
//!
//! What the page's namespace needs: `net.ipv4.tcp_syncookies = 1` (the kernel takes a connection over as one
//! that a SYN cookie opened), `rp_filter = 0`, all addresses local on the interface (a `local` default route),
//! the default route and a permanent neighbour entry for the edge's end, and GRO on at the page's end, without
//! which the driver does not take redirected frames. Its listening sockets need `IP_TRANSPARENT`: without it
//! the kernel drops what they are given without a word. A dual-stack socket takes both families.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::Ordering,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, MapData},
    programs::{ProgramError, SchedClassifier},
};
use filter_common::abi::{NextHop, Sink, method, sink};

use super::{
    DatapathError, Lock, Root,
    error::map_error,
    kfunc,
    mapped::Writable,
    netdev,
    object::{self, NEXT_HOPS, RESPONDING, SINK, SINK_DEV},
    pod::Raw,
    root::{create_dirs, remove},
    sys,
};

/// Where the pair of interfaces is.
#[derive(Clone, Copy, Debug)]
pub struct SinkPlace<'a> {
    /// The end in this thread's network namespace, where the clients' frames come in.
    pub edge_interface: &'a str,
    /// The page's network namespace.
    pub namespace: BorrowedFd<'a>,
    /// The end in that namespace.
    pub sink_interface: &'a str,
}

/// How an established connection is handed to the page's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkMethod {
    /// It is not: names are refused, and the page answers for blocked addresses only.
    None,
    /// The kernel makes a socket of the segment (Linux 6.9).
    Kfunc,
}

impl SinkMethod {
    /// What the running kernel offers.
    pub fn of_kernel() -> Self {
        match kfunc::assign_id() {
            Some(_) => Self::Kfunc,
            None => Self::None,
        }
    }

    const fn word(self) -> u32 {
        match self {
            Self::None => method::NONE,
            Self::Kfunc => method::KFUNC,
        }
    }

    const fn from_word(word: u32) -> Self {
        match word {
            method::KFUNC => Self::Kfunc,
            _ => Self::None,
        }
    }
}

/// What the answering program knows of the way to the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SinkStatus {
    /// Whether all that lead there are sent there.
    pub up: bool,
    /// How connections are handed over.
    pub method: SinkMethod,
}

/// Words of [`Sink`] in its map: the first has state (low half) and method.
type SinkWords = [u64; size_of::<Sink>() / size_of::<u64>()];

/// Names of the programs and of the pins of their links.
const SINK_IN: &str = "sink_in";
const SINK_OUT: &str = "sink_out";

/// Maps of the other programs, which these do not use, and their smallest size.
const UNUSED: [(&str, u32); 7] = [
    ("RULE_COUNTERS", 1),
    ("EVENTS", 4096),
    ("FLOWS", 1),
    ("HELLOS", 1),
    ("LONG_HELLOS", 1),
    ("BLOCKED", 1),
    ("DIRECTIONS", 1),
];

impl Root {
    /// Attaches the programs to both ends of the pair, in the place of those there before, and tells the
    /// answering program the way. The page counts as not served until [`Root::set_sink`].
    ///
    /// # Errors
    ///
    /// Of the kernel: before Linux 6.6 it cannot attach such programs by a link. What was attached before may
    /// be gone then.
    pub fn attach_sink(
        &self,
        _lock: &Lock,
        place: SinkPlace<'_>,
    ) -> Result<SinkStatus, DatapathError> {
        self.check_abi()?;
        self.prepare_shared()?;
        let links = self.sink_dir();
        create_dirs(&links)?;
        let kfunc = kfunc::assign_id();
        let mut programs = self.load_sink(kfunc)?;
        let method = SinkMethod::of_kernel();

        let edge_index = netdev::index(place.edge_interface)?;
        let edge_mac = hardware_address(place.edge_interface)?;
        let out = load(&mut programs, SINK_OUT)?;
        pin_link(&links.join(SINK_OUT), place.edge_interface, || {
            sys::tcx_link_create(out.as_fd(), edge_index)
        })?;
        let inside = match kfunc {
            Some(_) => Some(load(&mut programs, SINK_IN)?),
            None => None,
        };
        let entering = |source| DatapathError::Kernel {
            action: "enter the block page's network namespace".to_owned(),
            source,
        };
        let sink_mac = netdev::in_namespace(place.namespace, entering, || {
            if let Some(inside) = &inside {
                let index = netdev::index(place.sink_interface)?;
                pin_link(&links.join(SINK_IN), place.sink_interface, || {
                    sys::tcx_link_create(inside.as_fd(), index)
                })?;
            }
            hardware_address(place.sink_interface)
        })?;
        set_device(&mut programs, edge_index, place.edge_interface)?;
        self.write_sink(sink_words(method, sink_mac, edge_mac))?;
        Ok(SinkStatus { up: false, method })
    }

    /// Says whether the page is served: if not, what leads to it is refused.
    ///
    /// # Errors
    ///
    /// The map could not be written, for instance since [`Root::attach_sink`] was not called.
    pub fn set_sink(&self, up: bool) -> Result<(), DatapathError> {
        self.set_state(if up { sink::UP } else { sink::DOWN })
    }

    /// Says that the page does not keep up: who has it keeps it, others are refused.
    ///
    /// # Errors
    ///
    /// As [`Root::set_sink`].
    pub fn set_sink_busy(&self) -> Result<(), DatapathError> {
        self.set_state(sink::BUSY)
    }

    fn set_state(&self, state: u32) -> Result<(), DatapathError> {
        let map = self.sink_map()?;
        if let Some(word) = map.words().first() {
            let method = word.load(Ordering::Acquire) & !u64::from(u32::MAX);
            word.store(method | u64::from(state), Ordering::Release);
        }
        Ok(())
    }

    /// What the answering program knows of the way to the page; `None` if [`Root::attach_sink`] was never
    /// called.
    pub fn sink_status(&self) -> Option<SinkStatus> {
        let word = self
            .sink_map()
            .ok()?
            .words()
            .first()?
            .load(Ordering::Acquire);
        Some(SinkStatus {
            up: word as u32 == sink::UP,
            method: SinkMethod::from_word((word >> 32) as u32),
        })
    }

    /// Takes the programs off both ends. What leads to the page is refused from then on.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn detach_sink(&self, _lock: &Lock) -> Result<(), DatapathError> {
        if self.sink_status().is_some() {
            self.set_sink(false)?;
        }
        remove(&self.sink_dir())
    }

    /// Writes next hop `index`, which rules send to; `device` is the key of its interface in the map of
    /// devices.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn set_next_hop(&self, index: u32, hop: NextHop) -> Result<(), DatapathError> {
        let map_error = map_error(NEXT_HOPS);
        let data = MapData::from_pin(self.shared_dir().join(NEXT_HOPS)).map_err(map_error)?;
        let mut hops: aya::maps::Array<_, Raw<NextHop>> = aya::maps::Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error)?;
        hops.set(index, Raw(hop), 0).map_err(map_error)
    }

    fn load_sink(&self, kfunc: Option<u32>) -> Result<Ebpf, DatapathError> {
        let object = match kfunc {
            Some(id) => kfunc::link(object::OBJECT, id),
            None => object::OBJECT.to_vec(),
        };
        let shared = self.shared_dir();
        let pins: Vec<_> = RESPONDING.map(|name| (name, shared.join(name))).to_vec();
        let mut loader = EbpfLoader::new();
        for (name, entries) in UNUSED {
            loader.map_max_entries(name, entries);
        }
        for (name, path) in &pins {
            loader.map_pin_path(name, path.as_path());
        }
        loader
            .load(&object)
            .map_err(|source| DatapathError::Object {
                source: Box::new(source),
            })
    }

    fn sink_map(&self) -> Result<Writable, DatapathError> {
        Writable::open::<SinkWords>(&self.shared_dir().join(SINK))
    }

    fn write_sink(&self, words: SinkWords) -> Result<(), DatapathError> {
        let map = self.sink_map()?;
        let pairs = map.words().iter().zip(words);
        // State and method last.
        for (word, value) in pairs.rev() {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    fn sink_dir(&self) -> std::path::PathBuf {
        self.pins().join("sink")
    }
}

fn sink_words(method: SinkMethod, sink_mac: [u8; 6], edge_mac: [u8; 6]) -> SinkWords {
    let [a, b, c, d, e, f] = sink_mac;
    let [g, h, i, j, k, l] = edge_mac;
    [
        u64::from(method.word()) << 32 | u64::from(sink::DOWN),
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes([i, j, k, l, 0, 0, 0, 0]),
    ]
}

/// Has the kernel verify and translate a program.
fn load(programs: &mut Ebpf, name: &str) -> Result<OwnedFd, DatapathError> {
    let program: &mut SchedClassifier = programs
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|source| DatapathError::Program {
            action: "find the program of the block page",
            source,
        })?;
    program.load().map_err(object::load_error)?;
    let fd = program.fd().map_err(|source| DatapathError::Program {
        action: "find the program of the block page",
        source,
    })?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|source| DatapathError::Kernel {
            action: "keep the program of the block page".to_owned(),
            source,
        })
}

/// Makes a link and pins it in the place of the one before.
fn pin_link(
    path: &Path,
    interface: &str,
    create: impl FnOnce() -> io::Result<OwnedFd>,
) -> Result<(), DatapathError> {
    remove(path)?;
    let link = create().map_err(|source| DatapathError::Kernel {
        action: format!("attach a program to `{interface}`"),
        source,
    })?;
    sys::object_pin(link.as_fd(), path).map_err(|source| DatapathError::Io {
        action: "pin the link as",
        path: path.to_owned(),
        source,
    })
}

fn hardware_address(interface: &str) -> Result<[u8; 6], DatapathError> {
    netdev::hardware_address(interface).map_err(|source| DatapathError::Kernel {
        action: format!("ask for the address of `{interface}`"),
        source,
    })
}

fn set_device(programs: &mut Ebpf, ifindex: u32, interface: &str) -> Result<(), DatapathError> {
    let map_error = map_error(SINK_DEV);
    let map = programs
        .map_mut(SINK_DEV)
        .ok_or_else(|| DatapathError::Unfit {
            problem: format!("the kernel program has no map {SINK_DEV}"),
        })?;
    let mut devices: DevMap<_> = map.try_into().map_err(map_error)?;
    devices
        .set(0, ifindex, None, 0)
        .map_err(|error| DatapathError::Kernel {
            action: format!("make `{interface}` the way to the block page"),
            source: io::Error::other(error),
        })
}
