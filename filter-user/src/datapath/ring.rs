//! Reading sampled events from the kernel's ring buffer.
//!
//! The ring has one consumer: the controller, or `edgefilter events` when there is none. Waiting is
//! poll(2) on a thread of its own, so that no event loop holds the descriptor.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::maps::{Map, MapData, RingBuf};
use filter_common::abi::Event;

use super::{DatapathError, Root, error::map_error};

const NAME: &str = "EVENTS";

/// The consumer's end of the ring buffer.
pub struct EventRing {
    ring: RingBuf<MapData>,
}

impl Root {
    /// Opens the ring buffer. There must be one reader at a time: two would share the events.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NothingEnforced`] if there is none.
    pub fn event_ring(&self) -> Result<EventRing, DatapathError> {
        let path = self.shared_dir().join(NAME);
        if !path.exists() {
            return Err(DatapathError::NothingEnforced);
        }
        self.check_abi()?;
        let map_error = map_error(NAME);
        let map = MapData::from_pin(path)
            .and_then(Map::from_map_data)
            .map_err(map_error)?;
        Ok(EventRing {
            ring: map.try_into().map_err(map_error)?,
        })
    }
}

impl EventRing {
    /// Waits until there may be an event, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        let mut poll = libc::pollfd {
            fd: self.ring.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid structure. An interrupted or failed wait only means looking earlier.
        unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    }

    /// The next event, if there is one. Records of another size are skipped: they are not ours.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() >= size_of::<Event>() {
                // SAFETY: the length was checked, and every bit pattern is a valid `Event`.
                return Some(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) });
            }
        }
    }
}
