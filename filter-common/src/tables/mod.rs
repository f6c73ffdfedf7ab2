//! Static lookup tables: written once by user space, only read by the kernel.
//!
//! Every table is an array of 64-byte [`Line`]s, so that one lookup touches whole
//! cache lines and user space can write it through a memory map. A *summary*
//! answers nearly all misses with one load; the *buckets* behind it hold the keys.

pub mod names;
pub mod v4;
pub mod v6;

use crate::abi::{Line, Table};

/// Read access to the tables of a generation.
pub trait Lines {
    /// Line `index` of `table`; `None` beyond its end.
    fn line(&self, table: Table, index: u32) -> Option<&Line>;
}
