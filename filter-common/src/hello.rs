//! How far the reading of a hello got: common to TLS and HTTP.

/// How far the reading of a hello got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    /// Complete, with at least one name.
    Named = 0,
    /// Complete, without a name.
    NoName = 1,
    /// More bytes are needed; no server can act on what is there.
    Incomplete = 2,
    /// Not the protocol that was looked for.
    Other = 3,
    /// Breaks its own lengths or grammar: servers refuse it.
    Malformed = 4,
    /// Longer than [`crate::limits`] allow.
    TooLong = 5,
    /// HTTP/2 with prior knowledge.
    Http2 = 6,
}

impl Progress {
    /// The progress with this discriminant; anything unknown is malformed.
    #[inline(always)]
    pub const fn from_u8(progress: u8) -> Self {
        match progress {
            0 => Self::Named,
            1 => Self::NoName,
            2 => Self::Incomplete,
            3 => Self::Other,
            5 => Self::TooLong,
            6 => Self::Http2,
            _ => Self::Malformed,
        }
    }
}
