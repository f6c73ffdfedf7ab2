//! The working area of the slow path: one per CPU in the kernel, one per instance on the host.
//!
//! All state that grows lives here and not on the 512-byte stack, and the verifier takes what is
//! read from it for unknown, which keeps its walk over loops short.

use crate::limits::{HELLO_BYTES_MAX, NAME_CANDIDATES_MAX, NAMES_PER_HELLO_MAX, STREAM_BYTES_MAX};

/// Size of [`Work::bytes`]; a power of two, so that an index is one mask.
pub const BYTES: usize = 65_536;
const MASK: u32 = BYTES as u32 - 1;

/// Where in [`Work::bytes`] the handshake messages are put together that several TLS records carry.
pub const HANDSHAKE_AT: u32 = STREAM_BYTES_MAX as u32;

const _: () = assert!(STREAM_BYTES_MAX + 2 * HELLO_BYTES_MAX <= BYTES);

/// A variable that stays in memory. The compiler keeps an ordinary field in a register across
/// a loop; the verifier then knows its value on every path and walks each combination. What is
/// read from map memory is unknown to it, so that the paths of a loop's turn join again.
pub trait Variable {
    /// The value.
    fn get(&self) -> u32;
    /// Sets the value.
    fn set(&self, value: u32);

    /// Adds to the value, which wraps.
    #[inline(always)]
    fn add(&self, value: u32) {
        self.set(self.get().wrapping_add(value));
    }
}

/// The kind of memory a working area lies in.
pub trait Memory {
    /// A variable in it.
    type Var: Variable;

    /// Copies `len` bytes at `from` to `to`. Neither run leaves `bytes`, and they do not overlap.
    fn copy(bytes: &mut [u8; BYTES], from: u32, to: u32, len: u32);
}

/// A run of [`Work::bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// First byte.
    pub at: u32,
    /// Number of bytes.
    pub len: u32,
}

/// The working area.
#[repr(C)]
pub struct Work<M: Memory> {
    /// First the stream from its start, from [`HANDSHAKE_AT`] on handshake bytes without record headers.
    pub bytes: [u8; BYTES],
    /// Names found in the hello.
    pub names: [Span; NAMES_PER_HELLO_MAX],
    /// How many of `names` are used.
    pub name_count: M::Var,
    /// Which of `names` the outcome reports: the one that hit, else the first.
    pub name_reported: M::Var,
    /// Rule sets of the listed suffixes of a name, shortest first; the top bit marks the whole name.
    pub candidates: [u32; NAME_CANDIDATES_MAX],
    /// Lengths in bytes of those suffixes.
    pub candidate_lens: [u16; NAME_CANDIDATES_MAX],
    /// How many of `candidates` are used.
    pub candidate_count: M::Var,
    /// Nonzero if a name has bytes that no hostname has.
    pub odd_name: M::Var,
    /// Nonzero if there is an IP address in place of a name.
    pub literal_name: M::Var,
    /// Nonzero if the ClientHello has the extension of an encrypted one.
    pub ech: M::Var,
    /// Where in the stream the hello begins: behind a PROXY protocol header, if there is one.
    pub begins: M::Var,
    /// The flow that the packet belongs to.
    pub key: crate::abi::FlowKey,
    /// What the host knows of it.
    pub peer: crate::flow::Peer,
    /// What the stream tables have of it: bits of [`crate::flow::known`].
    pub known: M::Var,
    /// Nonzero if the host, whose numbers are in `peer`, has more to send than it has sent.
    pub queued: M::Var,
    /// What of the segment is to be read, see [`crate::flow::plan`]: [`crate::flow::Segment::pack`].
    pub planned: [u64; 3],
    /// Nonzero if it is to be read.
    pub reads: M::Var,
    /// Bytes that an earlier segment at the stream's start brought, on which there is a verdict that this
    /// one's takes the place of; 0 if there was none.
    pub before: M::Var,
    /// Whether its destination is an address of this host: one of [`crate::abi::served`].
    pub served: u32,
    /// What is kept of it: loaded from and stored to the flow table.
    pub entry: crate::flow::Entry,
    /// State of a walk over TCP options.
    pub options: crate::flow::OptionWalk<M>,
    /// State of a comparison.
    pub comparison: crate::flow::Comparison<M>,
    /// State of the walk over a name.
    pub suffixes: crate::hostname::Suffixes<M>,
    /// State of the walk over TLS records.
    pub records: crate::tls::Records<M>,
    /// State of the walk over a ClientHello's extensions.
    pub extensions: crate::tls::Extensions<M>,
    /// State of the walk over an HTTP request head.
    pub head: crate::http::Head<M>,
}

impl<M: Memory> Work<M> {
    /// The byte at `at`, which wraps: callers compare positions with lengths themselves.
    #[inline(always)]
    pub fn byte(&self, at: u32) -> u8 {
        self.bytes[(at & MASK) as usize]
    }

    /// The big-endian 16-bit word at `at`.
    #[inline(always)]
    pub fn be16(&self, at: u32) -> u32 {
        u32::from(self.byte(at)) << 8 | u32::from(self.byte(at + 1))
    }

    /// The big-endian 24-bit word at `at`.
    #[inline(always)]
    pub fn be24(&self, at: u32) -> u32 {
        u32::from(self.byte(at)) << 16 | self.be16(at + 1)
    }

    /// Forgets what was found in the hello before.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.name_count.set(0);
        self.name_reported.set(0);
        self.odd_name.set(0);
        self.literal_name.set(0);
        self.ech.set(0);
    }

    /// Remembers a name; `false` if there are too many.
    #[inline(always)]
    pub fn add_name(&mut self, at: u32, len: u32) -> bool {
        let count = self.name_count.get();
        if count >= NAMES_PER_HELLO_MAX as u32 {
            return false;
        }
        self.names[count as usize & (NAMES_PER_HELLO_MAX - 1)] = Span { at, len };
        self.name_count.set(count + 1);
        true
    }

    /// The span at `index`, which wraps.
    #[inline(always)]
    pub fn name(&self, index: u32) -> Span {
        self.names[index as usize & (NAMES_PER_HELLO_MAX - 1)]
    }
}
