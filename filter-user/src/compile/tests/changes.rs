//! Changes under a running program against full compilations.

use std::cell::RefCell;

use filter_common::{
    abi::{self, Action, Config, Line, Rule as KernelRule, SetRef, Table},
    env::Rules,
    hit::{self, Hit, Listed, Qualifiers},
    origins,
    reason::Reason,
    tables::{
        Lines,
        names::{self, NameHash},
    },
};
use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    super::{Change, Meta, Rebuild, Stage, Standing, Store, change},
    *,
};
use crate::policy::{
    KeyDigests, key_digests,
    model::{Lists, Outline, Outlined, Target},
    policy_digest, rule_digest,
};

/// Moments at which rules begin and end, and at which they are looked at, in seconds.
const MOMENTS: [i64; 3] = [1_000, 2_000, 3_000];

/// What a program reads, in the memory of the test.
#[derive(Clone)]
struct World {
    config: Config,
    tables: [Vec<Line>; Table::ALL.len()],
    rules: Vec<KernelRule>,
    meta: Meta,
}

impl World {
    fn of(compiled: Compiled) -> Self {
        Self {
            config: compiled.config,
            tables: compiled.tables,
            rules: compiled.rules,
            meta: compiled.meta,
        }
    }

    fn standing(&self) -> Standing<'_> {
        Standing {
            meta: &self.meta,
            config: &self.config,
            tables: Table::ALL.map(|table| self.tables[table as usize].as_slice()),
            rules: &self.rules,
        }
    }

    fn store(&mut self, store: &Store) {
        self.tables[store.table as usize][store.line as usize][store.word] = store.value;
    }

    fn switch(&mut self, Stage { rules, meta }: Stage) {
        self.rules = rules;
        self.meta = meta;
    }

    /// What becomes of every packet that is tried: the rule that decides, its strength, how specific the
    /// key is, and the rules that observe.
    fn judge(&self) -> Vec<Judgement> {
        let mut judged = Vec::new();
        for second in MOMENTS.map(|moment| moment - 1) {
            for port in [80, 443] {
                for address in ADDRESSES_V4 {
                    let view = View::new(self, second);
                    let hit = origins::search_v4(&view, address, qualifiers(port));
                    let kinds = origins::kinds_v4(&view, address);
                    let first = origins::first_v4(&view, address, kinds);
                    assert!(first.is_none() || first == hit, "the short way");
                    judged.push(view.judgement(hit));
                }
                for address in ADDRESSES_V6 {
                    let view = View::new(self, second);
                    let near = origins::maybe_v6(&view, address);
                    judged.push(view.judgement(match near {
                        true => origins::search_v6(&view, address, qualifiers(port)),
                        false => Hit::NONE,
                    }));
                }
                for name in NAMES {
                    let view = View::new(self, second);
                    judged.push(view.judgement(view.search_name(name, qualifiers(port))));
                }
            }
        }
        judged
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Judgement {
    rule: Option<String>,
    strength: u8,
    specificity: u16,
    observed: Vec<String>,
}

/// The tables at one moment.
struct View<'a> {
    world: &'a World,
    now_tai_ns: u64,
    observed: RefCell<Vec<u16>>,
}

impl<'a> View<'a> {
    fn new(world: &'a World, second: i64) -> Self {
        Self {
            world,
            now_tai_ns: (second + facts().tai_offset_s) as u64 * 1_000_000_000,
            observed: RefCell::default(),
        }
    }

    fn judgement(&self, hit: Hit) -> Judgement {
        let id = |slot: u16| {
            let rules = &self.world.meta.rules;
            let rule = rules.iter().find(|rule| rule.slot == slot);
            rule.expect("what hits is in the policy").id.clone()
        };
        Judgement {
            rule: (!hit.is_none()).then(|| id(hit.slot())),
            strength: hit.strength(),
            specificity: hit.specificity(),
            observed: self
                .observed
                .borrow()
                .iter()
                .map(|slot| id(*slot))
                .collect(),
        }
    }

    fn search_name(&self, name: &str, qualifiers: Qualifiers) -> Hit {
        let params = &self.world.config.names;
        let mut suffix = Some(name);
        while let Some(key) = suffix {
            let fingerprint = NameHash::of(params, key.as_bytes());
            let set = names::maybe(self, Table::NameSummary, params, fingerprint)
                .then(|| names::probe(self, Table::NameBuckets, params, fingerprint))
                .flatten();
            let kinds = match key == name {
                true => SetRef::EXACT | SetRef::SUBTREE,
                false => SetRef::SUBTREE,
            };
            if let Some(set) = set
                && let Listed::Decided(hit) =
                    hit::listed(self, set, kinds, key.len() as u16, qualifiers)
            {
                return hit;
            }
            suffix = key.split_once('.').map(|(_, parent)| parent);
        }
        Hit::NONE
    }
}

impl Lines for View<'_> {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        self.world.tables[table as usize].get(index as usize)
    }
}

impl Rules for View<'_> {
    fn config(&self) -> &Config {
        &self.world.config
    }

    fn rule(&self, slot: u16) -> Option<&abi::Rule> {
        self.world.rules.get(usize::from(slot))
    }

    fn now_tai_ns(&self) -> u64 {
        self.now_tai_ns
    }

    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
        hit::apply(self, slot, specificity, qualifiers)
    }

    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed {
        origins::listed_v6(self, addr, length, qualifiers)
    }

    fn observe(&self, slot: u16, _: Reason) {
        self.observed.borrow_mut().push(slot);
    }
}

fn qualifiers(port: u16) -> Qualifiers {
    Qualifiers {
        protocol: 6,
        port,
        port_shown: true,
        reason: Reason::Hostname,
    }
}

const ADDRESSES_V4: [u32; 4] = [0xC000_0201, 0xC000_0202, 0xC000_0301, 0xCB00_7101];
const ADDRESSES_V6: [[u64; 2]; 2] = [[0x2001_0db8_0000_0001, 1], [0x2001_0db8_0000_0002, 1]];
const NAMES: [&str; 5] = [
    "example",
    "a.example",
    "b.a.example",
    "c.b.a.example",
    "a.test",
];
const PREFIXES: [&str; 8] = [
    "192.0.2.0/24",
    "192.0.2.1/32",
    "192.0.2.2/32",
    "192.0.3.0/24",
    "192.0.2.0/23",
    "2001:db8:0:1::/64",
    "2001:db8:0:1::1/128",
    "2001:db8:0:2::/64",
];

/// A rule that has every length, and makes the program one with everything.
fn anchor() -> Rule {
    Rule {
        origins: nets(&[
            "10.0.0.0/23",
            "10.1.0.0/24",
            "10.2.0.1/32",
            "fd00::/64",
            "fd00:1::1/128",
        ]),
        hosts: names_of(&["anchor.test"]),
        action: Action::Drop,
        from: Some(Timestamp::from_second(1).unwrap()),
        ..rule("anchor")
    }
}

fn observer() -> Rule {
    Rule {
        origins: nets(&["10.3.0.1/32"]),
        action: Action::Observe,
        ..rule("anchor-observes")
    }
}

/// Some of everything that a rule may say.
fn random_rule(id: &str, random: &mut StdRng) -> Rule {
    let mut pick = |all: &[&'static str], most: usize| -> Vec<&'static str> {
        let count = random.random_range(0..=most);
        let mut picked: Vec<_> = all.choose_multiple(random, count).copied().collect();
        picked.sort_unstable();
        picked
    };
    let (origins, hosts, domains) = (pick(&PREFIXES, 2), pick(&NAMES, 2), pick(&NAMES, 1));
    let mut origins = nets(&origins);
    origins.sort_unstable();
    let mut rule = Rule {
        origins,
        hosts: names_of(&hosts),
        domains: names_of(&domains),
        ports: match random.random_range(0..4) {
            0 => vec![abi::PortRange {
                first: 443,
                last: 443,
            }],
            _ => Vec::new(),
        },
        ..rule(id)
    };
    redraw(&mut rule, random);
    rule
}

/// Another action, other times.
fn redraw(rule: &mut Rule, random: &mut StdRng) {
    rule.action = match random.random_range(0..4) {
        0 => Action::Observe,
        _ => Action::Drop,
    };
    if random.random_range(0..4) == 0 {
        let mut moment = || {
            let moment = MOMENTS.choose(random).copied();
            moment.map(|moment| Timestamp::from_second(moment).unwrap())
        };
        (rule.from, rule.until) = (moment(), moment());
    }
}

fn lists(rule: &Rule) -> Lists {
    let KeyDigests { names, keys } = key_digests(&rule.hosts, &rule.domains, &rule.origins);
    Lists {
        inputs: "inputs".to_owned(),
        keys,
        names,
        entries: rule.hosts.len() + rule.domains.len() + rule.origins.len(),
        hosts: rule.hosts.len(),
        domains: rule.domains.len(),
        origins: rule.origins.len(),
        warnings: Vec::new(),
    }
}

/// As the files are read while `meta` is in place: what it lists already is not read.
fn outline(rules: &[Rule], meta: &Meta) -> Outline {
    let mut rules: Vec<Outlined> = rules
        .iter()
        .map(|rule| {
            let lists = lists(rule);
            let known = meta
                .rules
                .iter()
                .any(|before| before.id == rule.id && before.lists == lists);
            let mut rule = rule.clone();
            if known {
                (rule.hosts, rule.domains, rule.origins) = Default::default();
            }
            Outlined {
                rule,
                lists,
                is_read: !known,
            }
        })
        .collect();
    rules.sort_unstable_by(|a, b| a.rule.id.cmp(&b.rule.id));
    let digests: Vec<String> = rules
        .iter()
        .map(|outlined| rule_digest(&outlined.rule, &outlined.lists.keys))
        .collect();
    Outline {
        digest: policy_digest(digests.iter().map(String::as_str)),
        rules,
        ..Outline::default()
    }
}

fn full(rules: &[Rule]) -> World {
    let mut rules = rules.to_vec();
    rules.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let lists = rules.iter().map(lists).collect();
    World::of(compiled(
        &Policy {
            lists,
            ..policy(rules)
        },
        &protecting(),
    ))
}

/// Protects something inside what rules list.
fn protecting() -> HostConfig {
    HostConfig {
        protect_prefixes: nets(&["203.0.113.0/24"]),
        ..host()
    }
}

fn try_change(world: &World, rules: &[Rule]) -> Result<Change, Rebuild> {
    change(
        world.standing(),
        &outline(rules, &world.meta),
        &protecting(),
        &facts(),
    )
}

#[test]
fn whatever_changes_in_place_ends_as_a_full_compilation_and_shows_nothing_before() {
    let mut random = StdRng::seed_from_u64(7);
    let (mut changed, mut rebuilt, mut in_two) = (0, 0, 0);
    for _ in 0..600 {
        let mut rules: Vec<Rule> = (0..random.random_range(0..4))
            .map(|i| random_rule(&format!("r{i}"), &mut random))
            .chain([anchor(), observer()])
            .collect();
        let mut world = full(&rules);
        for turn in 0..3 {
            // Each comes, goes, or changes what it does.
            for i in 0..6 {
                let id = format!("r{i}");
                match random.random_range(0..6) {
                    0 => rules.retain(|rule| rule.id != id),
                    1 if !rules.iter().any(|rule| rule.id == id) => {
                        rules.push(random_rule(&id, &mut random));
                    }
                    2 => rules
                        .iter_mut()
                        .filter(|rule| rule.id == id)
                        .for_each(|rule| redraw(rule, &mut random)),
                    _ => {}
                }
            }
            let before = world.judge();
            let Ok(Change {
                taken,
                stores,
                stages,
            }) = try_change(&world, &rules)
            else {
                rebuilt += 1;
                world = full(&rules);
                continue;
            };
            changed += 1;
            for (slot, rule) in taken {
                world.rules[usize::from(slot)] = rule;
            }
            for store in &stores {
                world.store(store);
                assert_eq!(
                    world.judge(),
                    before,
                    "in the middle of turn {turn}: {store:?}"
                );
            }
            let after = full(&rules).judge();
            if let [union, _] = stages.as_slice() {
                in_two += 1;
                let mut both = world.clone();
                both.switch(union.clone());
                for ((old, new), both) in before.iter().zip(&after).zip(both.judge()) {
                    assert!(both.strength >= 1 || old.strength.max(new.strength) == 0);
                }
            }
            for stage in stages {
                world.switch(stage);
            }
            assert_eq!(world.judge(), after, "after turn {turn}: {rules:?}");
            assert_eq!(
                world.meta.policy_digest,
                outline(&rules, &world.meta).digest
            );
        }
    }
    assert!(
        changed > 400 && rebuilt > 50 && in_two > 50,
        "{changed} {rebuilt} {in_two}"
    );
}

#[test]
fn what_the_program_was_not_loaded_for_is_a_rebuild() {
    let one = |rule: Rule| try_change(&full(&[drop_one()]), &[drop_one(), rule]).map(|_| ());
    let missing = |what| Err(Rebuild::Feature { what });
    let at = |prefix: &str| Rule {
        origins: nets(&[prefix]),
        ..rule("new")
    };
    assert_eq!(one(at("192.0.2.9/32")), Ok(()));
    assert_eq!(one(at("192.0.2.0/24")), missing("prefixes of this length"));
    assert_eq!(one(at("2001:db8::/64")), missing("origins of this family"));
    let named = Rule {
        hosts: names_of(&["a.example"]),
        ..rule("new")
    };
    assert_eq!(one(named), missing("names"));
    let timed = Rule {
        until: Some(Timestamp::from_second(9).unwrap()),
        ..at("192.0.2.9/32")
    };
    assert_eq!(one(timed), missing("the times of rules"));
    let observing = Rule {
        action: Action::Observe,
        ..at("192.0.2.9/32")
    };
    assert_eq!(one(observing), missing("rules that observe"));
    let redirecting = Rule {
        action: Action::Redirect,
        target: Some(Target::Interface("eth1".to_owned())),
        ..at("192.0.2.9/32")
    };
    assert_eq!(one(redirecting), missing("what a rule redirects to"));
    let refusing = Rule {
        action: Action::Refuse,
        ..at("192.0.2.9/32")
    };
    assert_eq!(
        one(refusing),
        missing("the answers of rules that refuse or lead to the block page")
    );
    let protected = at("203.0.113.7/32");
    assert_eq!(
        one(protected),
        Err(Rebuild::Protection {
            rule: "new".to_owned()
        })
    );
}

fn drop_one() -> Rule {
    Rule {
        origins: nets(&["192.0.2.1/32"]),
        ..rule("one")
    }
}

#[test]
fn rules_that_say_something_else_about_the_same_key_are_left_to_the_full_check() {
    let observing = Rule {
        action: Action::Observe,
        ..drop_one()
    };
    let world = full(&[drop_one(), observer()]);
    let contrary = Rule {
        id: "two".to_owned(),
        ..observing.clone()
    };
    let rules = [drop_one(), observer(), contrary.clone()];
    let error = try_change(&world, &rules).unwrap_err();
    assert!(matches!(error, Rebuild::Shared { .. }), "{error}");
    // Two that agree are added to the same key; then one of them changes.
    let agreeing = Rule {
        action: Action::Drop,
        ..contrary.clone()
    };
    let world = full(&[drop_one(), observer(), agreeing]);
    let error = try_change(&world, &rules).unwrap_err();
    assert!(matches!(error, Rebuild::Shared { .. }), "{error}");
}

#[test]
fn a_slot_that_a_broken_off_change_has_used_is_not_given_away() {
    let mut world = full(&[drop_one()]);
    let new = |id: &str, prefix: &str| Rule {
        origins: nets(&[prefix]),
        ..rule(id)
    };
    // It died before it switched.
    let broken = try_change(&world, &[drop_one(), new("lost", "192.0.2.66/32")]).unwrap();
    for (slot, rule) in &broken.taken {
        world.rules[usize::from(*slot)] = *rule;
    }
    broken.stores.iter().for_each(|store| world.store(store));
    let next = try_change(&world, &[drop_one(), new("next", "192.0.2.67/32")]).unwrap();
    assert_ne!(next.taken[0].0, broken.taken[0].0);
    next.stores.iter().for_each(|store| world.store(store));
    next.stages
        .into_iter()
        .for_each(|stage| world.switch(stage));
    let hit = |address| {
        let view = View::new(&world, 0);
        view.judgement(origins::search_v4(&view, address, qualifiers(80)))
            .rule
    };
    assert_eq!(hit(0xC000_0243), Some("next".to_owned()));
    assert_eq!(hit(0xC000_0242), None);
    // A compilation from scratch lets the slot rest once more.
    assert!(world.meta.burnt_slots.contains(&broken.taken[0].0));
}

#[test]
fn tables_are_made_anew_when_too_much_was_added_to_them() {
    let mut rules = vec![drop_one()];
    let mut world = full(&rules);
    let reason = loop {
        let i = rules.len();
        rules.push(Rule {
            origins: (0..100u32)
                .map(|j| {
                    IpNet::new(std::net::Ipv4Addr::from(i as u32 * 100 + j).into(), 32).unwrap()
                })
                .collect(),
            ..rule(&format!("r{i}"))
        });
        match try_change(&world, &rules) {
            Ok(change) => {
                change.stores.iter().for_each(|store| world.store(store));
                change
                    .stages
                    .into_iter()
                    .for_each(|stage| world.switch(stage));
            }
            Err(reason) => break reason,
        }
    };
    assert!(matches!(reason, Rebuild::Room { .. }), "{reason}");
    // Of 64 buckets with eight places each; the first that is full ends it.
    assert!(
        (100..512).contains(&world.meta.added_keys),
        "{}",
        world.meta.added_keys
    );
}

#[test]
fn short_prefixes_do_not_fill_the_filter_of_areas() {
    let with = |count: u16| {
        let origins = (0..count).map(|i| format!("2001:{i:x}::/54"));
        let origins: Vec<String> = origins.collect();
        let origins: Vec<&str> = origins.iter().map(String::as_str).collect();
        [Rule {
            origins: nets(&origins),
            ..rule("many")
        }]
    };
    let first = Rule {
        origins: nets(&["fd00::/54"]),
        ..rule("first")
    };
    let world = full(std::slice::from_ref(&first));
    let added = |count| {
        let rules = [[first.clone()], with(count)].concat();
        try_change(&world, &rules)
    };
    // Each is 1,024 areas, and there is room for a few thousand.
    assert!(added(1).is_ok());
    assert!(matches!(added(10), Err(Rebuild::Room { .. })));
}

#[test]
fn short_ranges_of_addresses_do_not_fill_the_narrow_part() {
    let range = |i: u32| IpNet::new(std::net::Ipv4Addr::from(i << 8).into(), 27).unwrap();
    let first = Rule {
        origins: vec![range(1 << 20)],
        ..rule("first")
    };
    let world = full(std::slice::from_ref(&first));
    let added = |count| {
        let many = Rule {
            origins: (1..=count).map(range).collect(),
            ..rule("many")
        };
        try_change(&world, &[first.clone(), many])
    };
    assert!(added(30).is_ok());
    assert!(matches!(added(100), Err(Rebuild::Room { .. })));
}
