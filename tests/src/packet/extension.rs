//! IPv6 extension headers (RFC 8200, section 4).

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub enum Extension {
    /// Hop-by-hop options of this many 8-byte units (at least 1), filled with PadN.
    HopByHop(usize),
    /// Destination options of this many 8-byte units (at least 1), filled with PadN.
    Destination(usize),
    /// A routing header of this type, no segments left, of 8 bytes.
    Routing(u8),
}

impl Extension {
    /// Its number and bytes; the next header is filled in by the caller.
    pub(super) fn bytes(&self) -> (u8, Vec<u8>) {
        match self {
            Self::HopByHop(units) => (0, options(*units)),
            Self::Destination(units) => (60, options(*units)),
            Self::Routing(kind) => (43, vec![0, 0, *kind, 0, 0, 0, 0, 0]),
        }
    }
}

fn options(units: usize) -> Vec<u8> {
    assert!((1..=32).contains(&units), "PadN fills at most 255 bytes");
    let mut header = vec![0; units * 8];
    header[1] = (units - 1) as u8;
    header[2] = 1;
    header[3] = (units * 8 - 4) as u8;
    header
}

/// Writes each header's successor into its first byte; the number of the first one, or
/// `protocol` if there is none.
pub(super) fn link(chain: &mut [(u8, Vec<u8>)], protocol: u8) -> u8 {
    let mut next = protocol;
    for (number, header) in chain.iter_mut().rev() {
        header[0] = next;
        next = *number;
    }
    next
}
