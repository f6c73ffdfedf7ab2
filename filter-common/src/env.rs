//! What the data path needs from outside: packet bytes, tables, rules, the clock,
//! the payload area. Implemented once over the kernel's maps and packet pointers,
//! once over plain memory on the host.

use crate::{
    abi::{Config, Rule},
    hit::{Hit, Qualifiers},
    tables::Lines,
    work::{Memory, Work},
};

/// `N` bytes of the frame that are known to be there, read at constant offsets.
pub trait Window<const N: usize>: Copy {
    /// The byte at `O`.
    fn u8<const O: usize>(self) -> u8;
    /// The big-endian 16-bit word at `O`.
    fn be16<const O: usize>(self) -> u16;
    /// The big-endian 32-bit word at `O`.
    fn be32<const O: usize>(self) -> u32;
    /// The big-endian 64-bit word at `O`.
    fn be64<const O: usize>(self) -> u64;
}

/// The rules and tables of the running generation: what a lookup needs.
pub trait Rules: Lines {
    /// Load-time constants.
    fn config(&self) -> &Config;
    /// Rule in `slot`; `None` beyond the table.
    fn rule(&self, slot: u16) -> Option<&Rule>;
    /// CLOCK_TAI now, in nanoseconds.
    fn now_tai_ns(&self) -> u64;
    /// Counts a hit of a rule that only observes and remembers the first for the outcome.
    fn observe(&self, slot: u16);
}

/// The surroundings of one packet.
pub trait Env: Rules {
    /// A checked window of the frame.
    type Window<const N: usize>: Window<N>;

    /// The memory of the working area.
    type Memory: Memory;

    /// Whether the frame has at least `len` bytes, all buffers included.
    fn contains(&self, len: u32) -> bool;

    /// `N` bytes of the headers at `offset`; `None` if they are not all in the frame's first
    /// buffer, or beyond [`crate::limits::HEADER_OFFSET_MAX`].
    fn window<const N: usize>(&self, offset: u32) -> Option<Self::Window<N>>;

    /// [`crate::abi::port_class`] bits of a port.
    fn port_class(&self, port: u16) -> u8;

    /// [`crate::origins::serves_v4`].
    fn serves_v4(&self, addr: u32) -> bool;

    /// [`crate::origins::serves_v6`], behind a function boundary in the kernel.
    fn serves_v6(&self, addr: [u64; 2]) -> bool;

    /// Copies `len` bytes of the frame at `offset` to the stream area at `at`.
    /// `false` if they are not all there or do not fit.
    fn fetch(&mut self, offset: u32, len: u32, at: u32) -> bool;

    /// The working area of the slow path; `None` never happens, but the verifier does not know.
    fn work(&mut self) -> Option<&mut Work<Self::Memory>>;

    /// [`crate::origins::search_v4`], behind a function boundary in the kernel.
    fn search_v4(&self, addr: u32, qualifiers: Qualifiers) -> Hit;

    /// [`crate::origins::search_v6`], behind a function boundary in the kernel.
    fn search_v6(&self, addr: [u64; 2], qualifiers: Qualifiers) -> Hit;

    /// [`crate::tls::read`] over the first `len` bytes of the stream, behind a function boundary.
    fn read_tls(&mut self, len: u32) -> crate::hello::Progress;

    /// [`crate::http::read`] over the first `len` bytes of the stream, behind a function boundary.
    fn read_http(&mut self, len: u32) -> crate::hello::Progress;

    /// [`crate::hostname::search`] for every name found in the hello, behind a function boundary.
    fn search_names(&mut self, qualifiers: Qualifiers) -> Hit;
}
