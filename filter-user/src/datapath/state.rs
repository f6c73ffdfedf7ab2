//! What the kernel has right now: links, generations, and the tables in place.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::ProgramInfo;
use filter_common::{
    abi::{Config, Line, Rule, Table, rule_index},
    tables::Lines,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    DatapathError, Lock, Mode, Root,
    install::PROGRAM,
    mapped::Mapped,
    netdev, object,
    pin_name::{interface_name, pin_name},
    root::{create_dirs, entries, remove},
    stored::{self, Stored},
    sys::{self, XdpLinkInfo},
};
use crate::compile::Meta;

/// How often a reader that is overtaken by a change begins again. Changes take longer than reading.
const READ_ATTEMPTS_MAX: u32 = 5;

/// One interface with a pinned link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Enforced {
    /// The interface.
    pub interface: String,
    /// Its index; 0 if it is gone.
    pub ifindex: u32,
    /// How the program sits there; `None` if it does not.
    pub mode: Option<Mode>,
    /// Id of the program.
    pub program_id: u32,
    /// The generation that runs there; `None` if its pins are gone.
    pub generation: Option<u64>,
    /// Since when the link has been there.
    pub since: Option<Timestamp>,
    /// Why native mode was refused, if it was.
    pub fallback: Option<String>,
    /// Whether the link no longer filters anything: its interface vanished.
    pub defunct: bool,
}

/// The generation in place, read from the kernel.
#[derive(Debug)]
pub struct Generation {
    /// What is stored with it.
    pub meta: Meta,
    /// Its load-time constants.
    pub config: Config,
    /// See [`object::digest`].
    pub object_digest: String,
    tables: Vec<Mapped>,
    /// By slot: a copy, since a change writes those of the generation after the next in their place.
    rules: Vec<Rule>,
    ports: Mapped,
    /// Where its pins are.
    directory: PathBuf,
}

impl Generation {
    fn read(directory: &Path) -> Result<Self, DatapathError> {
        let stored = Stored::read(directory)?;
        let config = stored.config().ok_or_else(|| DatapathError::Damaged {
            path: directory.to_owned(),
            problem: "its constants have another size".to_owned(),
        })?;
        let tables = Table::ALL
            .iter()
            .map(|table| Mapped::open::<Line>(&directory.join(table.name())))
            .collect::<Result<_, _>>()?;
        let rules = Mapped::open::<Rule>(&directory.join(object::RULES))?;
        let first = rule_index(0, stored.meta.generation) as usize;
        let rules = rules.as_slice::<Rule>();
        let rules = rules.iter().skip(first).step_by(2).copied().collect();
        if stored::live(directory)? != stored.meta.generation {
            return Err(DatapathError::Overtaken);
        }
        Ok(Self {
            config,
            object_digest: stored.object_digest,
            tables,
            rules,
            directory: directory.to_owned(),
            ports: Mapped::open::<[u8; 65_536]>(&directory.join(object::PORT_CLASS))?,
            meta: stored.meta,
        })
    }

    /// The rule in `slot`; `None` beyond the table.
    pub fn rule(&self, slot: u16) -> Option<&Rule> {
        self.rules.get(usize::from(slot))
    }

    /// Rules by slot, unused slots included.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Lines of a table.
    pub(crate) fn table(&self, table: Table) -> &[Line] {
        self.tables[table as usize].as_slice()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// `port_class` bits of a port.
    pub fn port_class(&self, port: u16) -> u8 {
        self.ports
            .as_slice::<[u8; 65_536]>()
            .first()
            .map_or(0, |ports| ports[usize::from(port)])
    }
}

impl Lines for Generation {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        self.tables
            .get(table as usize)?
            .as_slice()
            .get(index as usize)
    }
}

/// A pinned link.
pub(super) struct PinnedLink {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) info: XdpLinkInfo,
}

impl PinnedLink {
    /// Whether the interface it was attached to is gone (another of the same name may be there).
    pub(super) fn is_defunct(&self) -> bool {
        self.info.ifindex == 0 || netdev::name(self.info.ifindex).as_deref() != Some(&self.name)
    }
}

/// What is remembered of an attachment, in the run state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AttachRecord {
    pub(super) at: Timestamp,
    pub(super) fallback: Option<String>,
}

impl Root {
    /// Every interface with a pinned link, sorted by name.
    ///
    /// # Errors
    ///
    /// The pins could not be read, or have another ABI.
    pub fn enforced(&self) -> Result<Vec<Enforced>, DatapathError> {
        self.check_abi()?;
        let mut attempts = READ_ATTEMPTS_MAX;
        loop {
            let enforced = self.enforced_now()?;
            attempts -= 1;
            // A link without a generation: a swap happened between reading the one and the other.
            if attempts == 0 || enforced.iter().all(|link| link.generation.is_some()) {
                return Ok(enforced);
            }
        }
    }

    fn enforced_now(&self) -> Result<Vec<Enforced>, DatapathError> {
        let generations: Vec<(u64, u32)> = self
            .generations()?
            .into_iter()
            .filter_map(|number| Some((number, self.program_id(number).ok()?)))
            .collect();
        let links = self.links()?.into_iter();
        links
            .map(|link| {
                let defunct = link.is_defunct();
                let present = match defunct {
                    true => None,
                    false => netdev::xdp_state(link.info.ifindex)?,
                };
                let record = self.attachment(&link.name);
                Ok(Enforced {
                    ifindex: if defunct { 0 } else { link.info.ifindex },
                    mode: present.map(|state| state.mode),
                    program_id: link.info.program_id,
                    generation: generations
                        .iter()
                        .find(|(_, id)| *id == link.info.program_id)
                        .and_then(|(number, _)| stored::live(&self.generation_dir(*number)).ok()),
                    since: record.as_ref().map(|record| record.at),
                    fallback: record.and_then(|record| record.fallback),
                    defunct,
                    interface: link.name,
                })
            })
            .collect()
    }

    /// The generation in place, from its pinned maps.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there is none.
    pub fn generation(&self) -> Result<Generation, DatapathError> {
        self.check_abi()?;
        self.read_current(Generation::read)?
            .ok_or(DatapathError::NothingEnforced)
    }

    /// What is stored with the generation in place; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It is damaged or has another ABI.
    pub fn meta(&self) -> Result<Option<Meta>, DatapathError> {
        self.check_abi()?;
        self.read_current(|directory| Stored::read(directory).map(|stored| stored.meta))
    }

    /// Reads from the current generation's directory, and again if it was replaced meanwhile: readers
    /// take no lock, so that `status` never waits for a change.
    pub(super) fn read_current<T>(
        &self,
        read: impl Fn(&Path) -> Result<T, DatapathError>,
    ) -> Result<Option<T>, DatapathError> {
        let mut attempts = READ_ATTEMPTS_MAX;
        loop {
            let Some(number) = self.current_number()? else {
                return Ok(None);
            };
            attempts -= 1;
            match read(&self.generation_dir(number)) {
                Ok(value) => return Ok(Some(value)),
                Err(DatapathError::Overtaken) if attempts > 0 => {}
                Err(_) if attempts > 0 && self.current_number()? != Some(number) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops enforcing on one interface, or on all: removes links and, with the last, everything that
    /// was pinned. Works on pins of any ABI version.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NoInterface`] if there is neither a link nor an interface of that name.
    pub fn detach(
        &self,
        _lock: &Lock,
        interface: Option<&str>,
    ) -> Result<Vec<String>, DatapathError> {
        let links = self.links()?;
        let chosen: Vec<&PinnedLink> = links
            .iter()
            .filter(|link| interface.is_none_or(|interface| interface == link.name))
            .collect();
        if let (Some(name), true) = (interface, chosen.is_empty()) {
            netdev::index(name)?;
            return Ok(Vec::new());
        }
        for link in &chosen {
            // First the note, so that a running controller does not attach again.
            self.hold_back(&link.name)?;
            remove(&link.path)?;
            remove(&self.attachment_path(&link.name))?;
        }
        let names = chosen.iter().map(|link| link.name.clone()).collect();
        if chosen.len() == links.len() {
            remove(self.pins())?;
        }
        Ok(names)
    }

    /// Interfaces that were detached, and not attached since: a running controller leaves them alone.
    pub fn held_back(&self) -> Vec<String> {
        let pins = entries(&self.held_back_dir()).unwrap_or_default();
        pins.iter().map(|pin| interface_name(pin)).collect()
    }

    /// Forgets that an interface was detached.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn release(&self, _lock: &Lock, interface: &str) -> Result<(), DatapathError> {
        remove(&self.held_back_dir().join(pin_name(interface)))
    }

    /// Interfaces that rules redirect to and that are gone, or were made anew: the kernel drops what is
    /// redirected there until a generation is put in place while they exist.
    ///
    /// # Errors
    ///
    /// The pins could not be read.
    pub fn lost_redirects(&self) -> Result<Vec<String>, DatapathError> {
        let lost = self.read_current(|directory| {
            let meta = Stored::read(directory)?.meta;
            object::lost_redirects(&directory.join(object::REDIRECT), &meta)
        })?;
        Ok(lost.unwrap_or_default())
    }

    fn hold_back(&self, interface: &str) -> Result<(), DatapathError> {
        let directory = self.held_back_dir();
        create_dirs(&directory)?;
        let path = directory.join(pin_name(interface));
        fs::write(&path, "").map_err(|source| DatapathError::Io {
            action: "write",
            path,
            source,
        })
    }

    fn held_back_dir(&self) -> PathBuf {
        self.run_dir().join("detached")
    }

    /// All pinned links, sorted by interface name.
    pub(super) fn links(&self) -> Result<Vec<PinnedLink>, DatapathError> {
        let directory = self.links_dir();
        let mut pins = entries(&directory)?;
        pins.sort();
        pins.into_iter()
            .map(|pin| {
                let path = directory.join(&pin);
                let io = |action| {
                    let path = path.clone();
                    move |source| DatapathError::Io {
                        action,
                        path,
                        source,
                    }
                };
                let fd = sys::object_get(&path).map_err(io("open"))?;
                let info =
                    sys::xdp_link_info(fd.as_fd()).map_err(io("ask the kernel about the link"))?;
                Ok(PinnedLink {
                    name: interface_name(&pin),
                    path,
                    info,
                })
            })
            .collect()
    }

    /// The newest generation that a link runs, else the newest.
    pub(super) fn current_number(&self) -> Result<Option<u64>, DatapathError> {
        let generations = self.generations()?;
        let running: Vec<u32> = self
            .links()?
            .iter()
            .map(|link| link.info.program_id)
            .collect();
        let current = generations.iter().rev().find(|&&number| {
            self.program_id(number)
                .is_ok_and(|id| running.contains(&id))
        });
        Ok(current.or(generations.last()).copied())
    }

    /// Id of a generation's pinned program.
    pub(super) fn program_id(&self, number: u64) -> Result<u32, DatapathError> {
        ProgramInfo::from_pin(self.generation_dir(number).join(PROGRAM))
            .map(|info| info.id())
            .map_err(|source| DatapathError::Program {
                action: "ask the kernel about the program",
                source,
            })
    }

    /// The number after all that generations in place ever had.
    pub(crate) fn next_number(&self) -> Result<u64, DatapathError> {
        let mut next = 1;
        for number in self.generations()? {
            let live = stored::live(&self.generation_dir(number)).unwrap_or(number);
            next = next.max(number.max(live) + 1);
        }
        Ok(next)
    }

    /// Removes every pin if no interface has a link and there is no generation.
    pub(super) fn remove_if_unused(&self) -> Result<(), DatapathError> {
        if !entries(&self.links_dir())?.is_empty() || !self.generations()?.is_empty() {
            return Ok(());
        }
        remove(self.pins())
    }

    /// Remembers when and how an interface was attached; only `status` shows it, so a failure is
    /// reported and otherwise of no consequence.
    pub(super) fn record_attachment(&self, interface: &str, record: &AttachRecord) {
        let path = self.attachment_path(interface);
        let written = create_dirs(&self.run_dir().join("links")).and_then(|()| {
            serde_json::to_vec(record)
                .map_err(std::io::Error::other)
                .and_then(|json| fs::write(&path, json))
                .map_err(|source| DatapathError::Io {
                    action: "write",
                    path,
                    source,
                })
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the time of attachment is not recorded");
        }
    }

    fn attachment(&self, interface: &str) -> Option<AttachRecord> {
        serde_json::from_slice(&fs::read(self.attachment_path(interface)).ok()?).ok()
    }

    fn attachment_path(&self, interface: &str) -> PathBuf {
        self.run_dir().join("links").join(pin_name(interface))
    }
}
