//! IPv4 prefixes.

/// Shape of an IPv4 prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct V4Params {
    /// Right shift that turns an address (host byte order) into an index of a summary bit.
    pub summary_shift: u32,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// Key of the bucket hash, random per table.
    pub seed: u64,
    /// How many of `lengths` are used.
    pub length_count: u32,
    /// The prefix lengths that occur, longest first.
    pub lengths: [u8; 36],
}
