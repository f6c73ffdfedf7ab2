//! What the data path needs from outside: packet bytes, tables, rules, the clock,
//! the payload area. Implemented once over the kernel's maps and packet pointers,
//! once over plain memory on the host.

use crate::{
    abi::{Config, Rule, Taken},
    flow::{Blocked, Course, Options, Reading, Segment},
    hit::{Hit, Listed, Qualifiers},
    reason::Reason,
    tables::Lines,
    wire::{Chain, Tags},
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
    /// [`crate::hit::apply`], behind a function boundary in the kernel.
    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit;
    /// [`crate::origins::listed_v6`], behind a function boundary in the kernel.
    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed;
    /// Counts a hit of a rule that only observes, and remembers the first for the outcome.
    fn observe(&self, slot: u16, reason: Reason);
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

    /// [`crate::origins::serves_v4`], behind a function boundary in the kernel.
    fn serves_v4(&self, addr: u32) -> u32;

    /// [`crate::origins::serves_v6`], behind a function boundary in the kernel.
    fn serves_v6(&self, addr: [u64; 2]) -> u32;

    /// [`crate::flow::plan`], behind a function boundary in the kernel.
    fn plan(&mut self, segment: Segment) -> Reading;

    /// [`crate::flow::judge`], behind a function boundary in the kernel.
    fn judge(&mut self) -> Reading;

    /// [`crate::flow::watch`], behind a function boundary in the kernel.
    fn watch(&mut self, segment: Segment);

    /// [`crate::flow::course`], behind a function boundary in the kernel.
    fn course(&mut self, segment: Segment) -> Course;

    /// [`crate::flow::between`], behind a function boundary in the kernel.
    fn between(&mut self, segment: Segment) -> Course;

    /// [`crate::flow::settle`], behind a function boundary in the kernel.
    #[must_use]
    fn settle(&mut self, state: u32, next: u32, kept: u32) -> bool;

    /// Index of the interface that the frame came in on.
    fn interface(&self) -> u32;

    /// Counts a connection whose first payload came in on the frame's interface, by whether the
    /// server's direction was seen.
    fn count_connection(&mut self, answered: bool);

    /// Copies `len` bytes of the frame at `offset` to the stream area at `at`.
    /// `false` if they are not all there or do not fit.
    fn fetch(&mut self, offset: u32, len: u32, at: u32) -> bool;

    /// Copies `len` bytes of the frame at `offset` to where they can be compared.
    /// `false` if they are not all there or do not fit.
    fn fetch_aside(&mut self, offset: u32, len: u32) -> bool;

    /// Writes what the host knows of the working area's flow, to which `segment` belongs, to the
    /// working area: [`crate::flow::peer::NONE`] if there is no socket, or sockets are not
    /// consulted ([`crate::abi::feature::SOCKETS`]).
    fn look_up_peer(&mut self, segment: Segment);

    /// [`crate::flow::options_at`], behind a function boundary in the kernel.
    fn options(&mut self, offset: u32, len: u32) -> Options;

    /// The ones' complement sum (RFC 1071), folded to 16 bits, of `len` bytes of the frame at
    /// `offset` and of `start`; 0 if they are not all there or too many.
    fn sum(&mut self, offset: u32, len: u32, start: u32) -> u32;

    /// Whether `len` bytes fetched aside are those of the stream at `at`.
    fn compare(&mut self, at: u32, len: u32) -> bool;

    /// Loads the entry of the working area's flow into the working area; `false` if there is none.
    fn flow_load(&mut self) -> bool;

    /// Stores the working area's entry; of one that exists only [`crate::flow::Flow`]. A full table
    /// evicts its oldest. `false` if the table takes it nevertheless not, which one that exists cannot meet.
    fn flow_store(&mut self) -> bool;

    /// Stores the [`crate::flow::Answers`] of the working area's entry, if it exists.
    fn answers_store(&mut self);

    /// [`crate::flow::forget_known`], behind a function boundary in the kernel.
    fn forget(&mut self);

    /// Deletes the entry.
    fn flow_delete(&mut self);

    /// Loads the first `len` bytes kept of the stream into the stream area; `false` if they are gone.
    fn hello_load(&mut self, len: u32) -> bool;

    /// Keeps the first `len` bytes of the stream area, of which the first [`crate::flow::Flow::kept`] are
    /// kept already; `false` if the table does not take them, and what was kept before still is.
    fn hello_store(&mut self, len: u32) -> bool;

    /// Forgets the bytes kept.
    fn hello_delete(&mut self);

    /// The entry of a blocked connection.
    fn blocked_load(&mut self) -> Option<Blocked>;

    /// Stores the entry of a blocked connection. Nothing depends on its being taken: the stream's entry is
    /// still that of before the hello was complete, so what comes again is read, and blocked, again.
    fn blocked_store(&mut self, blocked: Blocked);

    /// Deletes the entry of a blocked connection.
    fn blocked_delete(&mut self);

    /// Whether a connection from this client port may have been answered in the server's place: its bit in
    /// the map of ports.
    fn port_taken(&self, port: u16) -> bool;

    /// [`crate::respond::follow`], behind a function boundary in the kernel.
    fn follow(&mut self, segment: Segment) -> Reading;

    /// The entry of a connection that is answered in the server's place.
    fn taken_load(&mut self) -> Option<Taken>;

    /// Notes in that entry that another connection may start at `at`.
    fn taken_reopen(&mut self, at: u32);

    /// Deletes that entry.
    fn taken_delete(&mut self);

    /// The working area of the slow path; `None` never happens, but the verifier does not know.
    fn work(&mut self) -> Option<&mut Work<Self::Memory>>;

    /// [`crate::wire::skip_tags`], behind a function boundary in the kernel.
    fn skip_tags(&self, ethertype: u16) -> Option<Tags>;

    /// [`crate::wire::walk_extensions`], behind a function boundary in the kernel.
    fn walk_extensions(&self, protocol: u8, at: u32, end: u32) -> Chain;

    /// [`crate::origins::search_v4`], behind a function boundary in the kernel.
    fn search_v4(&self, addr: u32, qualifiers: Qualifiers) -> Hit;

    /// [`crate::origins::search_v6`], behind a function boundary in the kernel.
    fn search_v6(&self, addr: [u64; 2], qualifiers: Qualifiers) -> Hit;

    /// [`crate::proxy::read`] of the first `len` bytes of the stream, behind a function boundary in the kernel.
    fn read_proxy(&mut self, len: u32) -> crate::proxy::Header;

    /// The walks of [`crate::tls`] over the first `len` bytes of the stream, behind a function boundary.
    fn read_tls(&mut self, len: u32) -> crate::hello::Progress;

    /// The walk of [`crate::http`] over the first `len` bytes of the stream, behind a function boundary.
    /// `certain` if the stream is known to start there: then also what only some servers take for a request.
    fn read_http(&mut self, len: u32, certain: bool) -> crate::hello::Progress;

    /// The strongest rule for the names found in the hello; notes which name it was.
    fn search_names(&mut self, qualifiers: Qualifiers) -> Hit;
}
