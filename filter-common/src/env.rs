//! What the data path needs from outside: packet bytes, tables, rules, the clock,
//! the payload area. Implemented once over the kernel's maps and packet pointers,
//! once over plain memory on the host.

use crate::{
    abi::{Config, Rule},
    tables::Lines,
};

/// The surroundings of one packet.
pub trait Env: Lines {
    /// Load-time constants.
    fn config(&self) -> &Config;
    /// Length of the frame in bytes, all buffers included.
    fn frame_len(&self) -> u32;
    /// `N` bytes at `offset` of the frame; `None` if they are not all there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// Rule in `slot`; `None` beyond the table.
    fn rule(&self, slot: u16) -> Option<&Rule>;
    /// `port_class` bits of a port.
    fn port_class(&self, port: u16) -> u8;
    /// CLOCK_TAI now, in nanoseconds.
    fn now_tai_ns(&mut self) -> u64;
    /// Counts a hit of a rule that only observes.
    fn observe(&mut self, slot: u16);
}
