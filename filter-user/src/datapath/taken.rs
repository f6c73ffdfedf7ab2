//! Connections that are answered in the server's place: forgetting those that nobody uses any more, and
//! what became of frames that were to be answered.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use aya::maps::{HashMap as KernelHash, Map, MapData, MapError};
use filter_common::{
    abi::{FlowKey, Taken},
    limits::TAKEN_MAX,
    respond::counted::Answer,
};

use super::{
    DatapathError, Root,
    alter::wait_for_packets,
    mapped::Writable,
    object::{ANSWERS, TAKEN, TAKEN_PORTS},
    pod::Raw,
};

/// How long an entry stays that no segment asks for: longer than the page lets a client be silent, and
/// than a client repeats what nobody answers.
const IDLE_MAX: Duration = Duration::from_secs(150);

/// What a sweep remembers for the next one: since when each entry was not used.
#[derive(Debug, Default)]
pub struct Idle {
    since: HashMap<FlowKey, (u32, Instant)>,
}

impl Root {
    /// Forgets connections that were not used for long, and with them the marks on ports that keep
    /// other connections' segments from being looked up. The number of connections that stay.
    ///
    /// # Errors
    ///
    /// The maps could not be read.
    pub fn sweep_taken(&self, idle: &mut Idle) -> Result<usize, DatapathError> {
        let Some(mut taken) = self.taken()? else {
            *idle = Idle::default();
            return Ok(0);
        };
        let now = Instant::now();
        let mut since = HashMap::new();
        let entries: Vec<_> = all(&taken).collect();
        for (key, entry) in entries {
            let known = idle.since.get(&key).filter(|(used, _)| *used == entry.used);
            let (used, at) = known.copied().unwrap_or((entry.used, now));
            match now.duration_since(at) > IDLE_MAX {
                // One that went by itself is gone as well.
                true => _ = taken.remove(&Raw(key)),
                false => _ = since.insert(key, (used, at)),
            }
        }
        let count = since.len();
        idle.since = since;
        self.clear_ports(&taken)?;
        Ok(count)
    }

    /// Clears the bit of each port that no entry has. The program sets a bit before it makes an entry, so
    /// what it was about to make is there when all packets under way are done.
    fn clear_ports(
        &self,
        taken: &KernelHash<MapData, Raw<FlowKey>, Raw<Taken>>,
    ) -> Result<(), DatapathError> {
        let path = self.shared_dir().join(TAKEN_PORTS);
        if !path.exists() {
            return Ok(());
        }
        let ports = Writable::open::<[u64; 1024]>(&path)?;
        let used: HashSet<u16> = all(taken).map(|(key, _)| key.src_port).collect();
        let mut cleared = false;
        for (at, word) in ports.words().iter().enumerate() {
            let marked = word.load(Ordering::SeqCst);
            let idle = (0..64)
                .filter(|bit| marked & 1 << bit != 0 && !used.contains(&((at * 64 + bit) as u16)))
                .fold(0, |idle, bit| idle | 1 << bit);
            if idle != 0 {
                word.fetch_and(!idle, Ordering::SeqCst);
                cleared = true;
            }
        }
        if !cleared {
            return Ok(());
        }
        wait_for_packets();
        for (key, _) in all(taken) {
            if let Some(word) = ports.words().get(usize::from(key.src_port / 64)) {
                word.fetch_or(1 << (key.src_port % 64), Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// What became of frames that were to be answered, by the word of each outcome that occurred.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn answers(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        if !self.shared_dir().join(ANSWERS).exists() {
            return Ok(Vec::new());
        }
        let map = self.shared_array::<[u64; 32]>(ANSWERS)?;
        let values = map.get(&0, 0).map_err(map_error(ANSWERS))?;
        let sum = |at: usize| values.iter().filter_map(|one| one.get(at)).sum();
        let counted = Answer::ALL
            .iter()
            .map(|answer| (answer.as_str(), sum(*answer as usize)));
        Ok(counted.filter(|(_, count)| *count > 0).collect())
    }

    fn taken(
        &self,
    ) -> Result<Option<KernelHash<MapData, Raw<FlowKey>, Raw<Taken>>>, DatapathError> {
        let path: PathBuf = self.shared_dir().join(TAKEN);
        if !path.exists() {
            return Ok(None);
        }
        let data = MapData::from_pin(path).map_err(map_error(TAKEN))?;
        let map = Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error(TAKEN))?;
        Ok(Some(map))
    }
}

/// The entries as they are now. Entries that come and go meanwhile may be missed or seen twice, but not
/// without end.
fn all(
    taken: &KernelHash<MapData, Raw<FlowKey>, Raw<Taken>>,
) -> impl Iterator<Item = (FlowKey, Taken)> {
    let entries = taken.iter().take(2 * TAKEN_MAX as usize);
    entries.filter_map(|entry| entry.ok().map(|(Raw(key), Raw(entry))| (key, entry)))
}

fn map_error(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map {
        map: map.to_owned(),
        source,
    }
}
