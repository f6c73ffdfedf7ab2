//! What the controller tells the programs that send frames away beside what is in `sink`: next hops, and
//! whether the maps are still those that the block page's end is connected to.

use aya::maps::{DevMap, Map, MapData, MapInfo};
use filter_common::abi::NextHop;

use super::{
    DatapathError, Root,
    error::map_error,
    object::{self, NEXT_HOPS, REDIRECT, SINK},
};

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
        let info = MapInfo::from_pin(path).map_err(map_error(SINK))?;
        Ok(info.id())
    }

    /// Says where frames for a next hop go from now on; `None` drops them.
    ///
    /// # Errors
    ///
    /// The maps could not be written; that there are none is no error.
    pub fn follow_next_hop(
        &self,
        number: u32,
        resolved: Option<Resolved>,
    ) -> Result<(), DatapathError> {
        let directory = self.current_number()?.map(|it| self.generation_dir(it));
        let Some(directory) = directory.filter(|_| self.shared_dir().join(NEXT_HOPS).exists())
        else {
            return Ok(());
        };
        let Some(Resolved { ifindex, to, from }) = resolved else {
            return self.set_next_hop(number, NextHop::default());
        };
        let device = object::next_hop_key(number);
        let data = MapData::from_pin(directory.join(REDIRECT)).map_err(map_error(REDIRECT))?;
        let mut devices: DevMap<MapData> = Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .map_err(map_error(REDIRECT))?;
        let known = devices.get(device, 0);
        if !known.is_ok_and(|known| known.if_index == ifindex) {
            let set = devices.set(device, ifindex, None, 0);
            set.map_err(|error| DatapathError::Kernel {
                action: "make the interface of a next hop a redirect target".to_owned(),
                source: std::io::Error::other(error),
            })?;
        }
        self.set_next_hop(
            number,
            NextHop {
                device,
                resolved: 1,
                dst_mac: to,
                src_mac: from,
                reserved: 0,
            },
        )
    }
}
