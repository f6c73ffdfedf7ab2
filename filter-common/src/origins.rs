//! Origin prefixes: the longest prefix with a rule in force that matches wins.

use crate::{
    abi::{SetRef, Table, served},
    env::Rules,
    hit::{Hit, Listed, Qualifiers, listed},
    tables::{
        set_ref,
        v4::{self, Kinds},
        v6,
    },
};

/// Which prefixes may list an IPv4 address. Nearly every packet ends here, with one load of one bit.
#[inline(always)]
pub fn kinds_v4<R: Rules>(rules: &R, addr: u32) -> Kinds {
    v4::kinds(rules, Table::V4Summary, &rules.config().v4, addr)
}

/// Whether a prefix touches the cell of an IPv4 address.
#[inline(always)]
pub fn touches_v4<R: Rules>(rules: &R, addr: u32) -> bool {
    v4::touches_cell(rules, Table::V4Summary, &rules.config().v4, addr)
}

/// Whether an IPv6 address may be listed: one line of a Bloom filter.
#[inline(always)]
pub fn maybe_v6<R: Rules>(rules: &R, addr: [u64; 2]) -> bool {
    v6::maybe_near(rules, Table::V6Summary, &rules.config().v6, addr)
}

/// The deciding rule for an IPv4 address (host byte order) that [`touches_v4`].
#[inline(always)]
pub fn search_v4<R: Rules>(rules: &R, addr: u32, qualifiers: Qualifiers) -> Hit {
    let params = &rules.config().v4;
    let kinds = kinds_v4(rules, addr);
    for position in 0..v4::LENGTHS {
        if position >= params.length_count as usize {
            break;
        }
        let length = params.lengths[position];
        if !kinds.has(length) {
            continue;
        }
        let Some(set) = v4::probe(rules, Table::V4Buckets, params, addr, length) else {
            continue;
        };
        match listed(rules, set, SetRef::SUBTREE, u16::from(length), qualifiers) {
            Listed::Decided(hit) => return hit,
            Listed::Nothing => {}
        }
    }
    Hit::NONE
}

/// The rule that decides about an IPv4 address, if that is the first one listed under the longest prefix
/// and has no conditions that take a closer look; [`Hit::NONE`] says nothing. Rules are not counted.
#[inline(always)]
pub fn first_v4<R: Rules>(rules: &R, addr: u32, kinds: Kinds) -> Hit {
    let params = &rules.config().v4;
    let mut found = NOT_FOUND;
    let mut length = 0;
    for position in 0..v4::LENGTHS {
        if position >= params.length_count as usize {
            break;
        }
        length = params.lengths[position];
        if !kinds.has(length) {
            continue;
        }
        if let Some(set) = v4::probe(rules, Table::V4Buckets, params, addr, length) {
            found = set;
            break;
        }
    }
    first_listed(rules, found, u16::from(length))
}

/// No index of a rule set.
const NOT_FOUND: u32 = u32::MAX;

/// See [`first_v4`].
#[inline(always)]
fn first_listed<R: Rules>(rules: &R, set: u32, specificity: u16) -> Hit {
    let Some(set_ref) = set_ref(rules, set) else {
        return Hit::NONE;
    };
    if !set_ref.has(SetRef::SUBTREE) || set_ref.has(SetRef::PROTECT) {
        return Hit::NONE;
    }
    match rules.rule(set_ref.slot()) {
        Some(rule) if rule.is_plain() => Hit::new(rule, set_ref.slot(), specificity),
        _ => Hit::NONE,
    }
}

/// The deciding rule for an IPv6 address (host byte order, most significant half first) that is
/// [`maybe_v6`].
#[inline(always)]
pub fn search_v6<R: Rules>(rules: &R, addr: [u64; 2], qualifiers: Qualifiers) -> Hit {
    let params = &rules.config().v6;
    for position in 0..v6::LENGTHS {
        if position >= params.length_count as usize {
            break;
        }
        let length = params.lengths[position];
        if !v6::maybe(rules, Table::V6Summary, params, addr, length) {
            continue;
        }
        match rules.listed_v6(addr, length, qualifiers) {
            Listed::Decided(hit) => return hit,
            Listed::Nothing => {}
        }
    }
    Hit::NONE
}

/// What the rules listed under the prefix of `addr` of exactly this length say.
#[inline(always)]
pub fn listed_v6<R: Rules>(
    rules: &R,
    addr: [u64; 2],
    length: u8,
    qualifiers: Qualifiers,
) -> Listed {
    let params = &rules.config().v6;
    match v6::probe(rules, Table::V6Buckets, params, addr, length) {
        Some(set) => listed(rules, set, SetRef::SUBTREE, u16::from(length), qualifiers),
        None => Listed::Nothing,
    }
}

/// Whether names are read on connections to an IPv4 address: one of [`served`].
#[inline(always)]
pub fn serves_v4<R: Rules>(rules: &R, addr: u32) -> u32 {
    let params = &rules.config().served_v4;
    v4::longest(
        rules,
        Table::ServedV4Summary,
        Table::ServedV4Buckets,
        params,
        addr,
    )
    .map_or(served::NO, |(_, value)| value)
}

/// Whether names are read on connections to an IPv6 address: one of [`served`].
#[inline(always)]
pub fn serves_v6<R: Rules>(rules: &R, addr: [u64; 2]) -> u32 {
    let params = &rules.config().served_v6;
    v6::longest(
        rules,
        Table::ServedV6Summary,
        Table::ServedV6Buckets,
        params,
        addr,
    )
    .map_or(served::NO, |(_, value)| value)
}
