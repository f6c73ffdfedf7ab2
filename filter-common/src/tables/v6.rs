//! IPv6 prefixes.

/// Shape of an IPv6 prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct V6Params {
    /// Lines of the Bloom filter.
    pub bloom_lines: u32,
    /// Buckets in the table.
    pub bucket_count: u32,
    /// Key of the hashes, random per table.
    pub seed: u64,
    /// How many of `lengths` are used.
    pub length_count: u32,
    /// The prefix lengths that occur, longest first.
    pub lengths: [u8; 132],
}
