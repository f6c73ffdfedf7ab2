//! Static lookup tables: written once by user space, only read by the kernel.
//!
//! Every table is an array of 64-byte [`Line`]s, so that one lookup touches whole
//! cache lines and user space can write it through a memory map. A *summary*
//! answers nearly all misses with one load; the *buckets* behind it hold the keys.
//!
//! What the three bucket tables have in common: a key lives in its *home* bucket
//! or, if that was full, in its *alternative* one; a flag in the home bucket says
//! whether anything was sent away, so that most lookups touch one line. An
//! all-zero line is an empty bucket. Values are [`VALUE_BITS`] wide and index
//! [`Table::RuleSets`].

pub mod hash;
pub mod names;
pub mod v4;
pub mod v6;

use crate::abi::{Line, SetRef, Table};

/// Width of the value stored with a key.
pub const VALUE_BITS: u32 = 25;

/// Largest value that can be stored with a key.
pub const VALUE_MAX: u32 = (1 << VALUE_BITS) - 1;

/// Rule set elements in one line of [`Table::RuleSets`].
pub const SET_REFS_PER_LINE: u32 = 16;

/// Read access to the tables of a generation.
pub trait Lines {
    /// Line `index` of `table`; `None` beyond its end.
    fn line(&self, table: Table, index: u32) -> Option<&Line>;
}

/// Element `index` of [`Table::RuleSets`]; `None` beyond its end. A set is read
/// from the value stored with its key on, up to the element marked
/// [`SetRef::LAST`]. Touches one cache line, which sixteen elements share.
#[inline(always)]
pub fn set_ref<L: Lines + ?Sized>(lines: &L, index: u32) -> Option<SetRef> {
    let line = lines.line(Table::RuleSets, index / SET_REFS_PER_LINE)?;
    let word = line[(index as usize >> 1) & 7];
    Some(SetRef(if index & 1 == 0 {
        word as u32
    } else {
        (word >> 32) as u32
    }))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Line, Lines, Table};

    /// One table standing in for all.
    pub(crate) struct One<'a>(pub(crate) &'a [Line]);

    impl Lines for One<'_> {
        fn line(&self, _: Table, index: u32) -> Option<&Line> {
            self.0.get(index as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{set_ref, testing::One};
    use crate::abi::SetRef;

    #[test]
    fn rule_set_elements_are_packed_low_half_first() {
        let mut lines = [[0u64; 8]; 2];
        lines[0][0] = 0x2222_2222_1111_1111;
        lines[0][7] = 0x4444_4444_3333_3333;
        lines[1][0] = 5;
        let lines = One(&lines);
        assert_eq!(set_ref(&lines, 0), Some(SetRef(0x1111_1111)));
        assert_eq!(set_ref(&lines, 1), Some(SetRef(0x2222_2222)));
        assert_eq!(set_ref(&lines, 15), Some(SetRef(0x4444_4444)));
        assert_eq!(set_ref(&lines, 16), Some(SetRef(5)));
        assert_eq!(set_ref(&lines, 32), None);
        assert_eq!(set_ref(&lines, u32::MAX), None);
    }
}
