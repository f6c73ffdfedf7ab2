//! Hostnames.

/// Shape of a name table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NameParams {
    /// Lines of the Bloom filter.
    pub bloom_lines: u32,
    /// Buckets (lines) in the table.
    pub bucket_count: u32,
    /// Key of the fingerprints, random per table.
    pub key: [u64; 4],
}
