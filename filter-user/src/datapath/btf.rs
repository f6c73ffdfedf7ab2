//! The kernel's type information (Documentation/bpf/btf.rst), as far as the places of fields need it: one
//! walk over the types without allocating for each of them.

/// A blob of type information in the byte order of this machine.
pub(super) struct Btf {
    bytes: Vec<u8>,
    /// Where each type is, by id; id 0 is `void`.
    types: Vec<u32>,
    /// Where the strings are.
    strings: usize,
}

/// A structure or union.
#[derive(Clone, Copy)]
pub(super) struct Struct {
    /// Where its members are.
    members: usize,
    count: usize,
    /// Whether offsets share their word with the size of a bit field.
    has_bit_fields: bool,
}

/// Structures inside structures, named or not, that a field is looked for in.
const NESTING_MAX: usize = 8;

/// Typedefs and qualifiers between a field and its type.
const QUALIFIERS_MAX: usize = 16;

const MAGIC: u32 = 0xeb9f;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;

/// `BTF_KIND_*` of linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

impl Btf {
    /// Finds the types in a blob; `None` if it is none, or has kinds that are not known.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let header_len = word(&bytes, 4)? as usize;
        if word(&bytes, 0)? & 0xffff != MAGIC || header_len < HEADER_LEN {
            return None;
        }
        let mut at = header_len.checked_add(word(&bytes, 8)? as usize)?;
        let end = at.checked_add(word(&bytes, 12)? as usize)?;
        let strings = header_len.checked_add(word(&bytes, 16)? as usize)?;
        let mut types = vec![0];
        while at < end {
            types.push(u32::try_from(at).ok()?);
            let info = word(&bytes, at + 4)?;
            let count = (info & 0xffff) as usize;
            let more = match kind_of(info) {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION => count * MEMBER_LEN,
                kind::DATASEC | kind::ENUM64 => count * 12,
                kind::ENUM | kind::FUNC_PROTO => count * 8,
                2..=kind::TYPE_TAG => 0,
                _ => return None,
            };
            at += TYPE_LEN + more;
        }
        Some(Self {
            bytes,
            types,
            strings,
        })
    }

    /// Id of the function of that name.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let position = self.types[1..].iter().position(|&at| {
            let at = at as usize;
            let is_function =
                word(&self.bytes, at + 4).is_some_and(|info| kind_of(info) == kind::FUNC);
            is_function && word(&self.bytes, at).is_some_and(|name_at| self.is_named(name_at, name))
        })?;
        u32::try_from(position + 1).ok()
    }

    /// The first structure of that name.
    pub(super) fn structure(&self, name: &str) -> Option<Struct> {
        self.types[1..].iter().find_map(|&at| {
            let at = at as usize;
            let is_it = || self.is_named(word(&self.bytes, at)?, name).then_some(());
            let found = self.structure_at(at)?;
            is_it().map(|()| found)
        })
    }

    /// Offset in bytes of the field at the end of `path`.
    pub(super) fn offset(&self, structure: Struct, path: &[&str]) -> Option<u32> {
        let (name, rest) = path.split_first()?;
        let (at, field) = self.field(structure, name, NESTING_MAX)?;
        if rest.is_empty() {
            return Some(at);
        }
        Some(at + self.offset(field?, rest)?)
    }

    /// Offset in bytes of a field, and its structure if it is one. Fields of unnamed structures and
    /// unions belong to what they lie in.
    fn field(&self, structure: Struct, name: &str, depth: usize) -> Option<(u32, Option<Struct>)> {
        let depth = depth.checked_sub(1)?;
        for member in 0..structure.count {
            let at = structure.members + member * MEMBER_LEN;
            let (name_at, of_type, offset) = (
                word(&self.bytes, at)?,
                word(&self.bytes, at + 4)?,
                word(&self.bytes, at + 8)?,
            );
            let bits = match structure.has_bit_fields {
                true => offset & 0xff_ffff,
                false => offset,
            };
            let inner = || self.structure_of(of_type);
            if self.is_named(name_at, name) {
                return Some((bits / 8, inner()));
            }
            if self.is_named(name_at, "")
                && let Some((inside, field)) =
                    inner().and_then(|unnamed| self.field(unnamed, name, depth))
            {
                return Some((bits / 8 + inside, field));
            }
        }
        None
    }

    /// The structure that a type is, behind typedefs and qualifiers.
    fn structure_of(&self, id: u32) -> Option<Struct> {
        let mut at = *self.types.get(id as usize)? as usize;
        for _ in 0..QUALIFIERS_MAX {
            match kind_of(word(&self.bytes, at + 4)?) {
                kind::TYPEDEF..=kind::RESTRICT | kind::TYPE_TAG => {
                    let id = word(&self.bytes, at + 8)?;
                    at = *self.types.get(id as usize)? as usize;
                }
                _ => break,
            }
        }
        self.structure_at(at)
    }

    fn structure_at(&self, at: usize) -> Option<Struct> {
        let info = word(&self.bytes, at + 4)?;
        matches!(kind_of(info), kind::STRUCT | kind::UNION).then_some(Struct {
            members: at + TYPE_LEN,
            count: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 != 0,
        })
    }

    /// Whether the string at `at` is exactly this.
    fn is_named(&self, at: u32, name: &str) -> bool {
        let text = self.bytes.get(self.strings + at as usize..);
        let rest = text.and_then(|text| text.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Btf;

    /// A blob with these types and strings.
    fn blob(types: &[u32], strings: &str) -> Vec<u8> {
        let len = types.len() as u32 * 4;
        let header = [0x1_eb9f, 24, 0, len, len, strings.len() as u32];
        let words = header
            .iter()
            .chain(types)
            .flat_map(|word| word.to_ne_bytes());
        words.chain(strings.bytes()).collect()
    }

    const INT: u32 = 1 << 24;
    const STRUCT: u32 = 4 << 24;
    const UNION: u32 = 5 << 24;
    const TYPEDEF: u32 = 8 << 24;
    const BIT_FIELDS: u32 = 1 << 31;

    #[test]
    fn fields_are_found_behind_typedefs_in_unnamed_unions_and_beside_bit_fields() {
        // 0 "", 1 "int", 5 "outer", 11 "flag", 16 "inner", 22 "x", 24 "alias"
        let strings = "\0int\0outer\0flag\0inner\0x\0alias\0";
        #[rustfmt::skip]
        let types = [
            1, INT, 4, 32,                                  // 1: int
            0, STRUCT | 1, 4, /**/ 22, 1, 32,               // 2: struct { int x at 4 }
            24, TYPEDEF, 2,                                 // 3: alias
            0, UNION | 1, 8, /**/ 16, 3, 0,                 // 4: union { alias inner }
            5, STRUCT | 2 | BIT_FIELDS, 16,                 // 5: struct outer
                /**/ 11, 1, 3 << 24 | 8,                    //    int flag : 3 at bit 8
                /**/ 0, 4, 64,                              //    the union at 8
        ];
        let btf = Btf::parse(blob(&types, strings)).unwrap();
        let outer = btf.structure("outer").unwrap();
        assert_eq!(btf.offset(outer, &["flag"]), Some(1));
        assert_eq!(btf.offset(outer, &["inner"]), Some(8));
        assert_eq!(btf.offset(outer, &["inner", "x"]), Some(12));
        assert_eq!(btf.offset(outer, &["x"]), None);
        assert_eq!(btf.offset(outer, &["flag", "x"]), None);
        assert!(btf.structure("alias").is_none() && btf.structure("oute").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            types in prop::collection::vec(0u32..0x2000_0000, 0..40),
            cut in 0usize..200,
        ) {
            let mut bytes = blob(&types, "\0a\0b\0");
            bytes.truncate(cut);
            if let Some(btf) = Btf::parse(bytes)
                && let Some(structure) = btf.structure("a")
            {
                btf.offset(structure, &["b", "a"]);
            }
        }
    }
}
