//! The way to the block page, as the kernel has it.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{DevMap, Map, MapData, MapInfo};
use filter_common::abi::{NextHop, Sink, sink};

use super::{
    DatapathError, Root,
    mapped::{Mapped, Writable},
    object::{self, NEXT_HOPS, SINK, SINK_DEV},
    pod::{next_hop_words, sink_words},
};
use crate::sink::place::Ends;

impl Root {
    /// Tells the maps that lead to the page from others that were there before: those that the page's end
    /// is connected to are gone when it changes. 0 if there are none.
    ///
    /// # Errors
    ///
    /// The pins could not be read.
    pub fn page_maps(&self) -> Result<u32, DatapathError> {
        let path = self.shared_dir().join(SINK);
        if !path.exists() {
            return Ok(0);
        }
        let info = MapInfo::from_pin(path).map_err(|source| DatapathError::Map {
            map: SINK.to_owned(),
            source,
        })?;
        Ok(info.id())
    }

    /// From now on connections are sent to the page, established ones by this method, one of
    /// [`filter_common::abi::method`].
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn page_up(&self, ends: &Ends, method: u32) -> Result<(), DatapathError> {
        self.set_sink(&Sink {
            state: sink::UP,
            method,
            sink_mac: ends.far_mac,
            edge_mac: ends.near_mac,
            reserved: 0,
        })
    }

    /// From now on what leads to the page is refused.
    ///
    /// # Errors
    ///
    /// The map could not be written; that there is none is no error.
    pub fn page_down(&self) -> Result<(), DatapathError> {
        self.set_sink(&Sink::default())
    }

    /// Whether connections are sent to the page, and how they are handed over.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn page_way(&self) -> Result<Sink, DatapathError> {
        let path = self.shared_dir().join(SINK);
        if !path.exists() {
            return Ok(Sink::default());
        }
        let map = Mapped::open::<Sink>(&path)?;
        Ok(map.as_slice().first().copied().unwrap_or_default())
    }

    /// Says where frames for a next hop go from now on; `None` drops them.
    ///
    /// # Errors
    ///
    /// The maps could not be written.
    pub fn set_next_hop(
        &self,
        number: u32,
        resolved: Option<Resolved>,
    ) -> Result<(), DatapathError> {
        let path = self.shared_dir().join(NEXT_HOPS);
        let directory = self.current_number()?.map(|it| self.generation_dir(it));
        let (Some(directory), true) = (directory, path.exists()) else {
            return Ok(());
        };
        let key = object::next_hop_key(number);
        if let Some(resolved) = resolved {
            let map_error = |source| DatapathError::Map {
                map: object::REDIRECT.to_owned(),
                source,
            };
            let pin = directory.join(object::REDIRECT);
            let data = MapData::from_pin(pin).map_err(map_error)?;
            let mut devices: DevMap<MapData> = Map::from_map_data(data)
                .and_then(TryInto::try_into)
                .map_err(map_error)?;
            let is_there = devices
                .get(key, 0)
                .is_ok_and(|device| device.if_index == resolved.ifindex);
            if !is_there {
                let set = devices.set(key, resolved.ifindex, None, 0);
                set.map_err(|error| DatapathError::Kernel {
                    action: "make the interface of a next hop a redirect target".to_owned(),
                    source: std::io::Error::other(error),
                })?;
            }
        }
        let map = Writable::open::<NextHop>(&path)?;
        let value = resolved.map_or(NextHop::default(), |resolved| NextHop {
            device: key,
            resolved: 1,
            dst_mac: resolved.to,
            src_mac: resolved.from,
            reserved: 0,
        });
        put(
            map.element::<NextHop>(number as usize),
            &next_hop_words(&value),
        );
        Ok(())
    }

    /// Makes an interface the one that leads to the page.
    pub(super) fn set_page_device(&self, ifindex: u32) -> Result<(), DatapathError> {
        let path = self.shared_dir().join(SINK_DEV);
        if !path.exists() {
            return Ok(());
        }
        let map_error = |source| DatapathError::Map {
            map: SINK_DEV.to_owned(),
            source,
        };
        let data = MapData::from_pin(path).map_err(map_error)?;
        let mut devices: DevMap<MapData> = Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error)?;
        devices
            .set(0, ifindex, None, 0)
            .map_err(|error| DatapathError::Kernel {
                action: "make the block page a redirect target".to_owned(),
                source: std::io::Error::other(error),
            })
    }

    /// The state is the last word that is written, and the first that is taken away.
    fn set_sink(&self, value: &Sink) -> Result<(), DatapathError> {
        let path = self.shared_dir().join(SINK);
        if !path.exists() {
            return Ok(());
        }
        let map = Writable::open::<Sink>(&path)?;
        put(map.words(), &sink_words(value));
        Ok(())
    }
}

/// A neighbour to which frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Index of the interface it is on.
    pub ifindex: u32,
    /// Its address.
    pub to: [u8; 6],
    /// The interface's.
    pub from: [u8; 6],
}

/// Writes a value whose first word says whether the others are valid: that is taken away first and
/// written last.
fn put(place: &[AtomicU64], words: &[u64]) {
    let (Some((first, rest)), Some((value, values))) = (place.split_first(), words.split_first())
    else {
        return;
    };
    let same = |(place, value): (&AtomicU64, &u64)| place.load(Ordering::Acquire) == *value;
    if place.iter().zip(words).all(same) {
        return;
    }
    first.store(0, Ordering::SeqCst);
    for (place, value) in rest.iter().zip(values) {
        place.store(*value, Ordering::SeqCst);
    }
    first.store(*value, Ordering::SeqCst);
}
