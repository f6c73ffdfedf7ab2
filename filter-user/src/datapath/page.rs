//! The way to the block page, as the kernel has it.

use std::sync::atomic::Ordering;

use aya::maps::{DevMap, Map, MapData, MapInfo};
use filter_common::abi::{Sink, method, sink};

use super::{DatapathError, Root, mapped::Writable, pod::sink_words};
use crate::sink::{
    SinkError,
    place::{Ends, Place},
};

/// Names of the shared maps.
const SINK: &str = "SINK";
const SINK_DEV: &str = "SINK_DEV";

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

    /// Attaches what takes connections in at the page's end, and sends its answers on at the host's. The
    /// calling thread is in the host's namespace. Nothing is sent there yet.
    ///
    /// # Errors
    ///
    /// The kernel refuses. What was attached goes with the interfaces.
    pub fn connect_page(&self, place: &Place) -> Result<(), SinkError> {
        self.set_page_device(place.ends.near_index)?;
        Ok(())
    }

    /// From now on connections are sent to the page.
    ///
    /// # Errors
    ///
    /// The map could not be written.
    pub fn page_up(&self, ends: &Ends) -> Result<(), DatapathError> {
        self.set_sink(&Sink {
            state: sink::UP,
            method: method::KFUNC,
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

    fn set_page_device(&self, ifindex: u32) -> Result<(), DatapathError> {
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
        let words = sink_words(value);
        let off = sink_words(&Sink::default())[0];
        let Some((state, rest)) = map.words().split_first() else {
            return Ok(());
        };
        state.store(off, Ordering::SeqCst);
        for (word, value) in rest.iter().zip(&words[1..]) {
            word.store(*value, Ordering::SeqCst);
        }
        state.store(words[0], Ordering::SeqCst);
        Ok(())
    }
}
