//! How a hello or request is cut into segments.

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nowhere, as far as segments allow.
    Whole,
    /// In the middle of the name, or of everything if there is none.
    InName,
    /// Before the last byte.
    LastByte,
    /// Everywhere.
    Bytes,
}

/// Longest stream that is cut everywhere, in bytes: Linux takes no more tiny segments than fit its
/// receive buffer.
const BYTES_MAX: usize = 700;

impl Cut {
    /// The cuts that are tried: few, or all.
    pub fn set(all: bool) -> &'static [Self] {
        if all {
            &[Self::Whole, Self::InName, Self::LastByte, Self::Bytes]
        } else {
            &[Self::Whole, Self::InName]
        }
    }

    /// The pieces of `bytes`, which speak of `name`.
    pub fn pieces<'b>(self, bytes: &'b [u8], name: &str) -> Vec<&'b [u8]> {
        let at = match self {
            Self::Whole => 0,
            Self::InName => bytes
                .windows(name.len())
                .position(|window| window.eq_ignore_ascii_case(name.as_bytes()))
                .map_or(bytes.len() / 2, |at| at + name.len() / 2),
            Self::LastByte => bytes.len().saturating_sub(1),
            Self::Bytes if bytes.len() <= BYTES_MAX => return bytes.chunks(1).collect(),
            Self::Bytes => return bytes.chunks(bytes.len().div_ceil(BYTES_MAX)).collect(),
        };
        let (head, tail) = bytes.split_at(at);
        vec![head, tail]
    }
}
