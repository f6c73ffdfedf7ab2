//! The builders and lookups against naive models.

mod large;

use std::collections::{BTreeMap, HashMap};

use filter_common::{
    abi::Table,
    tables::{
        VALUE_MAX,
        names::{self, NameHash, NameParams},
        v4::{self, V4Params},
        v6::{self, V6Params},
    },
};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use super::{Pair, rng};
use crate::compile::build::{
    BuildError, Built, NameEntry, V4Entry, V6Entry, build_names, build_v4, build_v6,
};

impl<P> Built<P> {
    fn lines(&self) -> Pair<'_> {
        Pair {
            summary: &self.summary,
            buckets: &self.buckets,
        }
    }

    fn bytes(&self) -> (usize, usize) {
        (
            size_of_val(self.summary.as_slice()),
            size_of_val(self.buckets.as_slice()),
        )
    }
}

impl Built<V4Params> {
    fn maybe(&self, addr: u32) -> bool {
        !v4::kinds(&self.lines(), Table::V4Summary, &self.params, addr).is_none()
    }

    fn probe(&self, addr: u32, length: u8) -> Option<u32> {
        v4::probe(&self.lines(), Table::V4Buckets, &self.params, addr, length)
    }

    fn longest(&self, addr: u32) -> Option<(u8, u32)> {
        v4::longest(
            &self.lines(),
            Table::V4Summary,
            Table::V4Buckets,
            &self.params,
            addr,
        )
    }
}

impl Built<V6Params> {
    fn maybe(&self, addr: u128, length: u8) -> bool {
        v6::maybe(
            &self.lines(),
            Table::V6Summary,
            &self.params,
            halves(addr),
            length,
        )
    }

    fn maybe_near(&self, addr: u128) -> bool {
        let addr = halves(addr);
        v6::maybe_near(&self.lines(), Table::V6Summary, &self.params, addr)
    }

    fn probe(&self, addr: u128, length: u8) -> Option<u32> {
        v6::probe(
            &self.lines(),
            Table::V6Buckets,
            &self.params,
            halves(addr),
            length,
        )
    }

    fn longest(&self, addr: u128) -> Option<(u8, u32)> {
        let addr = halves(addr);
        v6::longest(
            &self.lines(),
            Table::V6Summary,
            Table::V6Buckets,
            &self.params,
            addr,
        )
    }
}

impl Built<NameParams> {
    fn lookup(&self, name: &[u8]) -> Option<u32> {
        let fingerprint = NameHash::of(&self.params, name);
        let value = names::probe(&self.lines(), Table::NameBuckets, &self.params, fingerprint);
        let is_maybe = self.maybe(name);
        assert!(is_maybe || value.is_none(), "the filter hides a key");
        value
    }

    fn maybe(&self, name: &[u8]) -> bool {
        let fingerprint = NameHash::of(&self.params, name);
        names::maybe(&self.lines(), Table::NameSummary, &self.params, fingerprint)
    }
}

fn halves(addr: u128) -> [u64; 2] {
    [(addr >> 64) as u64, addr as u64]
}

/// Host bits of a prefix of `width`-bit addresses.
fn host_mask(length: u8, width: u8) -> u128 {
    if length == width {
        0
    } else {
        u128::MAX >> (128 - width + length)
    }
}

type Model = BTreeMap<(u128, u8), u32>;

/// Prefixes without host bits, numbered.
fn model(prefixes: &[(u128, u8)], width: u8) -> Model {
    let mut model = Model::new();
    for (addr, length) in prefixes {
        let value = model.len() as u32;
        model
            .entry((addr & !host_mask(*length, width), *length))
            .or_insert(value);
    }
    model
}

/// Addresses at and beside both ends of every prefix.
fn boundaries(model: &Model, width: u8) -> Vec<u128> {
    let all = host_mask(0, width);
    let ends = model.keys().flat_map(|(first, length)| {
        let last = first | host_mask(*length, width);
        [
            first.wrapping_sub(1) & all,
            *first,
            last,
            last.wrapping_add(1) & all,
        ]
    });
    ends.collect()
}

fn naive_longest(model: &Model, addr: u128, width: u8) -> Option<(u8, u32)> {
    (0..=width).rev().find_map(|length| {
        let value = model.get(&(addr & !host_mask(length, width), length))?;
        Some((length, *value))
    })
}

fn check_v4(model: &Model, others: &[u32]) {
    let entries: Vec<V4Entry> = model
        .iter()
        .map(|((addr, length), value)| V4Entry {
            addr: *addr as u32,
            length: *length,
            value: *value,
        })
        .collect();
    let built = build_v4(&entries, &mut rng()).unwrap();
    for addr in boundaries(model, 32)
        .into_iter()
        .chain(others.iter().map(|a| u128::from(*a)))
    {
        for length in 0..=32 {
            let expected = model.get(&(addr & !host_mask(length, 32), length)).copied();
            assert_eq!(
                built.probe(addr as u32, length),
                expected,
                "{addr:08x}/{length}"
            );
        }
        let expected = naive_longest(model, addr, 32);
        assert_eq!(built.longest(addr as u32), expected, "{addr:08x}");
        assert!(expected.is_none() || built.maybe(addr as u32));
    }
}

fn check_v6(model: &Model, others: &[u128]) {
    let entries: Vec<V6Entry> = model
        .iter()
        .map(|((addr, length), value)| V6Entry {
            addr: halves(*addr),
            length: *length,
            value: *value,
        })
        .collect();
    let built = build_v6(&entries, &mut rng()).unwrap();
    for addr in boundaries(model, 128)
        .into_iter()
        .chain(others.iter().copied())
    {
        for length in 0..=128 {
            let expected = model
                .get(&(addr & !host_mask(length, 128), length))
                .copied();
            assert_eq!(built.probe(addr, length), expected, "{addr:032x}/{length}");
            assert!(expected.is_none() || built.maybe(addr, length));
            assert!(expected.is_none() || built.maybe_near(addr));
        }
        assert_eq!(
            built.longest(addr),
            naive_longest(model, addr, 128),
            "{addr:032x}"
        );
    }
}

/// Addresses that share many leading bits, so that prefixes nest.
fn crowded(width: u8) -> impl Strategy<Value = u128> {
    let all = host_mask(0, width);
    let base = 0xC000_0201_u128 << (width - 32);
    prop_oneof![
        any::<u128>().prop_map(move |addr| addr & all),
        (0..width, any::<u8>())
            .prop_map(move |(shift, bits)| (base ^ u128::from(bits) << shift) & all),
        Just(0),
        Just(all),
    ]
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]{1,2}", 1 => "[a-z0-9_-]{1,63}", 1 => "[x]{63}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn v4_agrees_with_a_naive_model(
        prefixes in prop::collection::vec((crowded(32), 0u8..=32), 0..60),
        others in prop::collection::vec(any::<u32>(), 8),
    ) {
        check_v4(&model(&prefixes, 32), &others);
    }

    #[test]
    fn v6_agrees_with_a_naive_model(
        prefixes in prop::collection::vec((crowded(128), 0u8..=128), 0..30),
        others in prop::collection::vec(any::<u128>(), 4),
    ) {
        check_v6(&model(&prefixes, 128), &others);
    }

    #[test]
    fn names_agree_with_a_naive_model(
        listed in prop::collection::hash_set(
            prop::collection::vec(label(), 1..6).prop_map(|labels| labels.join(".")), 0..60),
        others in prop::collection::vec(label(), 4),
    ) {
        let listed: HashMap<String, u32> = listed.into_iter().zip(0..).collect();
        let entries: Vec<NameEntry<'_>> =
            listed.iter().map(|(name, value)| NameEntry { name, value: *value }).collect();
        let built = build_names(&entries, &mut rng()).unwrap();
        for name in listed.keys().chain(&others) {
            for other in [name.clone(), format!("not{name}"), format!("www.{name}"), format!("{name}a")] {
                // Every suffix, with and without a label boundary before it.
                let mut hash = NameHash::new(&built.params);
                for start in (0..other.len()).rev() {
                    hash.push(other.as_bytes()[start]);
                    let found = names::probe(
                        &built.lines(), Table::NameBuckets, &built.params, hash.finish());
                    assert_eq!(found, listed.get(&other[start..]).copied(), "{}", &other[start..]);
                    assert_eq!(built.lookup(&other.as_bytes()[start..]), found);
                }
            }
        }
    }
}

#[test]
fn prefixes_of_all_lengths_nest() {
    for addr in [0u128, 0xC000_0201, 0xFFFF_FFFF] {
        let nested: Vec<(u128, u8)> = (0..=32).map(|length| (addr, length)).collect();
        check_v4(&model(&nested, 32), &[]);
    }
    for addr in [0u128, 0x2001_0DB8_0000_0000_8000_0000_0000_0001, u128::MAX] {
        let nested: Vec<(u128, u8)> = (0..=128).map(|length| (addr, length)).collect();
        check_v6(&model(&nested, 128), &[]);
    }
}

#[test]
fn a_default_route_covers_everything_and_only_as_length_zero() {
    check_v4(&model(&[(0, 0)], 32), &[0, 1, 0x8000_0000, u32::MAX]);
    check_v6(&model(&[(0, 0)], 128), &[0, 1, 1 << 127, u128::MAX]);
}

#[test]
fn an_empty_table_hits_nothing_and_takes_one_line_for_each_part() {
    check_v4(&Model::new(), &[0, u32::MAX]);
    check_v6(&Model::new(), &[0, u128::MAX]);
    let names = build_names(&[], &mut rng()).unwrap();
    assert_eq!(names.lookup(b""), None);
    assert_eq!(names.bytes(), (64, 64));
    assert_eq!(build_v4(&[], &mut rng()).unwrap().bytes(), (3 * 64, 64));
    assert_eq!(build_v6(&[], &mut rng()).unwrap().bytes(), (2 * 64, 64));
}

#[test]
fn three_prefixes_cost_a_few_kib() {
    let entries = [1u32, 2, 3].map(|i| V4Entry {
        addr: i << 24,
        length: 24,
        value: 0,
    });
    let (summary, buckets) = build_v4(&entries, &mut rng()).unwrap().bytes();
    assert_eq!((summary, buckets), (2 * 8_192 + 64, 4_096));
    let entries = [1u64, 2, 3].map(|i| V6Entry {
        addr: [i << 48, 0],
        length: 48,
        value: 0,
    });
    let (summary, buckets) = build_v6(&entries, &mut rng()).unwrap().bytes();
    assert!(summary <= 1_024 + 2_048, "{summary}");
    assert_eq!(buckets, 4_096);
}

#[test]
fn areas_are_few_however_short_a_prefix_is() {
    for length in 0..=128 {
        let entry = V6Entry {
            addr: [1 << 63, 0],
            length,
            value: 0,
        };
        let built = build_v6(&[entry], &mut rng()).unwrap();
        assert!(built.bytes().0 <= 1_024 + 2_048, "/{length}");
        let area_length = built.params.area_length;
        assert_eq!(area_length, (u32::from(length) + 10).min(64), "/{length}");
    }
}

#[test]
fn the_longest_names_and_labels_are_told_from_their_neighbours() {
    let label = "l".repeat(63);
    let name = [label.as_str(), &label, &label, &label[..61]].join(".");
    assert_eq!(name.len(), 253);
    let built = build_names(
        &[NameEntry {
            name: &name,
            value: VALUE_MAX,
        }],
        &mut rng(),
    )
    .unwrap();
    assert_eq!(built.lookup(name.as_bytes()), Some(VALUE_MAX));
    assert_eq!(built.lookup(&name.as_bytes()[1..]), None);
    for i in 0..name.len() {
        let mut other = name.clone().into_bytes();
        other[i] ^= 1;
        assert_eq!(built.lookup(&other), None, "byte {i}");
    }
}

#[test]
fn duplicates_beyond_two_buckets_and_oversize_values_are_refused() {
    let same = V4Entry {
        addr: 0,
        length: 8,
        value: 0,
    };
    let error = build_v4(&[same; 17], &mut rng()).unwrap_err();
    assert_eq!(
        error,
        BuildError::Unplaced {
            table: "IPv4",
            entries: 17
        }
    );
    let large = V4Entry {
        value: VALUE_MAX + 1,
        ..same
    };
    let error = build_v4(&[large], &mut rng()).unwrap_err();
    assert_eq!(
        error,
        BuildError::Value {
            table: "IPv4",
            value: VALUE_MAX + 1
        }
    );
}
