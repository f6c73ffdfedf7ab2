//! Origin prefixes: the longest prefix with a rule in force that matches wins.

use crate::{
    abi::{SetRef, Table, served},
    env::Rules,
    hit::{Hit, Listed, Qualifiers, listed},
    tables::{v4, v6},
};

/// Whether an IPv4 address may be listed: one load of one bit. Nearly every packet ends here.
#[inline(always)]
pub fn maybe_v4<R: Rules>(rules: &R, addr: u32) -> bool {
    v4::maybe(rules, Table::V4Summary, &rules.config().v4, addr)
}

/// The deciding rule for an IPv4 address (host byte order).
#[inline(always)]
pub fn search_v4<R: Rules>(rules: &R, addr: u32, qualifiers: Qualifiers) -> Hit {
    let params = &rules.config().v4;
    for position in 0..v4::LENGTHS {
        if position >= params.length_count as usize {
            break;
        }
        let length = params.lengths[position];
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

/// The deciding rule for an IPv6 address (host byte order, most significant half first).
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
