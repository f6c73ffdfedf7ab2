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
    sync::{OnceLock, atomic::Ordering},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, Map, MapData},
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
    },
};
use filter_common::{
    abi::{NextHop, Sink, method, sink},
    limits::HANDOVER_RING_BYTES,
};

use super::{
    DatapathError, Lock, Root,
    error::map_error,
    kfunc,
    mapped::Writable,
    netdev,
    object::{self, HANDOVERS, NEXT_HOPS, RESPONDING, SINK, SINK_DEV},
    pod::Raw,
    repair,
    root::{create_dirs, remove},
    sys,
};
use crate::policy::model::Takeover;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkMethod {
    /// It is not: names are refused, and the page answers for blocked addresses only.
    None,
    /// The kernel makes a socket of the segment (Linux 6.9).
    Kfunc,
    /// A process in the page's namespace makes the socket, by `TCP_REPAIR`.
    Repair,
}

impl SinkMethod {
    /// What the running kernel offers, the best first. Asked once in a process.
    pub fn of_kernel() -> Self {
        static METHOD: OnceLock<SinkMethod> = OnceLock::new();
        *METHOD.get_or_init(|| match kfunc::assign_id() {
            Some(_) => Self::Kfunc,
            None if repair::is_possible() => Self::Repair,
            None => Self::None,
        })
    }

    /// What there is of what the operator wants.
    pub fn wanted(takeover: Takeover) -> Self {
        match takeover {
            Takeover::Auto => Self::of_kernel(),
            Takeover::Repair if repair::is_possible() => Self::Repair,
            Takeover::Repair | Takeover::Off => Self::None,
        }
    }

    const fn word(self) -> u32 {
        match self {
            Self::None => method::NONE,
            Self::Kfunc => method::KFUNC,
            Self::Repair => method::REPAIR,
        }
    }

    const fn from_word(word: u32) -> Self {
        match word {
            method::KFUNC => Self::Kfunc,
            method::REPAIR => Self::Repair,
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
pub(super) type SinkWords = [u64; size_of::<Sink>() / size_of::<u64>()];

/// Where the controller's resets are counted.
pub(super) const LATE_RESETS_AT: usize = std::mem::offset_of!(Sink, late_resets) / size_of::<u64>();

/// Names of the programs and of the pins of their links.
const SINK_IN: &str = "sink_in";
const SINK_REPAIR: &str = "sink_repair";
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
    /// answering program the way. The page counts as not served until [`Root::set_sink`]. What is returned is,
    /// where a process makes the sockets, the ring buffer of the connections that it is told of
    /// ([`filter_common::abi::Handover`]).
    ///
    /// # Errors
    ///
    /// Of the kernel. What was attached before may be gone then.
    pub fn attach_sink(
        &self,
        _lock: &Lock,
        place: SinkPlace<'_>,
        method: SinkMethod,
    ) -> Result<Option<OwnedFd>, DatapathError> {
        self.check_abi()?;
        self.prepare_shared()?;
        let links = self.sink_dir();
        create_dirs(&links)?;
        let mut programs = self.load_sink(method)?;

        let edge_index = netdev::index(place.edge_interface)?;
        let edge_mac = hardware_address(place.edge_interface)?;
        attach(&mut programs, SINK_OUT, place.edge_interface, &links)?;
        let inside = match method {
            SinkMethod::Kfunc => Some(SINK_IN),
            SinkMethod::Repair => Some(SINK_REPAIR),
            SinkMethod::None => None,
        };
        let entering = |source| DatapathError::Kernel {
            action: "enter the block page's network namespace".to_owned(),
            source,
        };
        let sink_mac = netdev::in_namespace(place.namespace, entering, || {
            if let Some(name) = inside {
                attach(&mut programs, name, place.sink_interface, &links)?;
            }
            hardware_address(place.sink_interface)
        })?;
        set_device(&mut programs, edge_index, place.edge_interface)?;
        self.write_sink(sink_words(method, sink_mac, edge_mac))?;
        match method {
            SinkMethod::Repair => handovers(&programs).map(Some),
            SinkMethod::Kfunc | SinkMethod::None => Ok(None),
        }
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

    fn load_sink(&self, method: SinkMethod) -> Result<Ebpf, DatapathError> {
        let object = match kfunc::assign_id() {
            Some(id) if method == SinkMethod::Kfunc => kfunc::link(object::OBJECT, id),
            _ => object::OBJECT.to_vec(),
        };
        let ring_bytes = match method {
            SinkMethod::Repair => HANDOVER_RING_BYTES,
            SinkMethod::Kfunc | SinkMethod::None => object::RING_BYTES_MIN,
        };
        let shared = self.shared_dir();
        let pins: Vec<_> = RESPONDING.map(|name| (name, shared.join(name))).to_vec();
        let mut loader = EbpfLoader::new();
        for (name, entries) in UNUSED {
            loader.map_max_entries(name, entries);
        }
        loader.map_max_entries(HANDOVERS, ring_bytes);
        for (name, path) in &pins {
            loader.map_pin_path(name, path.as_path());
        }
        loader
            .load(&object)
            .map_err(|source| DatapathError::Object {
                source: Box::new(source),
            })
    }

    pub(super) fn sink_map(&self) -> Result<Writable, DatapathError> {
        Writable::open::<SinkWords>(&self.shared_dir().join(SINK))
    }

    fn write_sink(&self, words: [u64; LATE_RESETS_AT]) -> Result<(), DatapathError> {
        let map = self.sink_map()?;
        // State and method last.
        let known = map.words().iter().take(words.len());
        for (word, value) in known.zip(words).rev() {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    fn sink_dir(&self) -> std::path::PathBuf {
        self.pins().join("sink")
    }
}

/// All words but those that count.
fn sink_words(method: SinkMethod, sink_mac: [u8; 6], edge_mac: [u8; 6]) -> [u64; LATE_RESETS_AT] {
    let [a, b, c, d, e, f] = sink_mac;
    let [g, h, i, j, k, l] = edge_mac;
    [
        u64::from(method.word()) << 32 | u64::from(sink::DOWN),
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes([i, j, k, l, 0, 0, 0, 0]),
    ]
}

/// Has the kernel verify and translate a program, and attaches it to what comes in on an interface: by a link
/// that is pinned in the place of the one before, or, where tc knows no links (before Linux 6.6), by a filter that
/// goes with the interface.
fn attach(
    programs: &mut Ebpf,
    name: &str,
    interface: &str,
    links: &Path,
) -> Result<(), DatapathError> {
    let not_found = |source| DatapathError::Program {
        action: "find the program of the block page",
        source,
    };
    let program: &mut SchedClassifier = programs
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(not_found)?;
    program.load().map_err(object::load_error)?;
    let index = netdev::index(interface)?;
    let path = links.join(name);
    remove(&path)?;
    let fd = program.fd().map_err(not_found)?;
    match sys::tcx_link_create(fd.as_fd(), index) {
        Ok(link) => sys::object_pin(link.as_fd(), &path).map_err(|source| DatapathError::Io {
            action: "pin the link as",
            path,
            source,
        }),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            attach_filter(program, interface)
        }
        Err(source) => Err(DatapathError::Kernel {
            action: format!("attach a program to `{interface}`"),
            source,
        }),
    }
}

/// As tc(8) does. The interface is one of a fresh pair, on which there is nothing yet.
fn attach_filter(program: &mut SchedClassifier, interface: &str) -> Result<(), DatapathError> {
    let failed = |error: io::Error| DatapathError::Kernel {
        action: format!("attach a program to `{interface}`"),
        source: error,
    };
    qdisc_add_clsact(interface).map_err(|error| failed(io::Error::other(error)))?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let link = program
        .attach_with_options(interface, TcAttachType::Ingress, options)
        .and_then(|id| program.take_link(id))
        .map_err(|error| failed(io::Error::other(error)))?;
    // Dropping it would take the filter off, which is to outlive this process.
    std::mem::forget(link);
    Ok(())
}

/// The ring buffer of connections to make sockets of.
fn handovers(programs: &Ebpf) -> Result<OwnedFd, DatapathError> {
    let Some(Map::RingBuf(map)) = programs.map(HANDOVERS) else {
        return Err(object::missing(HANDOVERS));
    };
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| DatapathError::Kernel {
            action: "keep the ring buffer of the block page".to_owned(),
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
        .ok_or_else(|| object::missing(SINK_DEV))?;
    let mut devices: DevMap<_> = map.try_into().map_err(map_error)?;
    devices
        .set(0, ifindex, None, 0)
        .map_err(|error| DatapathError::Kernel {
            action: format!("make `{interface}` the way to the block page"),
            source: io::Error::other(error),
        })
}
