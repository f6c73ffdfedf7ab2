//! Generations in a real kernel: installing, swapping, putting back. Needs root and a
//! mounted bpffs.

mod support;

use std::path::PathBuf;

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use filter_common::abi::{Action, Config, Rule, Table, feature};
use filter_user::{
    compile::{Compiled, Meta, MetaRule},
    datapath::{DatapathError, InstallError, Installed, Mode, Private, Probe, Root},
    policy::model::{AttachMode, InterfaceConfig},
};
use support::{in_namespace, mount_bpffs, sh};

/// A generation with nothing to block: no features, empty tables, one rule in slot 0.
fn compiled(rule_id: &str, slot_version: u32) -> Compiled {
    // SAFETY: integers only, every bit pattern is valid.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.abi = filter_common::abi::ABI_VERSION;
    Compiled {
        config,
        tables: std::array::from_fn(|_| vec![[0; 8]]),
        rules: vec![Rule::new(Action::Drop, 0, slot_version)],
        ports: Box::new([0; 65_536]),
        redirect_interfaces: Vec::new(),
        next_hops: Vec::new(),
        next_hop_devices: Vec::new(),
        local_proxies: None,
        meta: Meta {
            rules: vec![MetaRule {
                slot_version,
                id: rule_id.to_owned(),
                ..MetaRule::default()
            }],
            ..Meta::default()
        },
    }
}

fn on(name: &str, mode: AttachMode) -> InterfaceConfig {
    InterfaceConfig {
        name: name.to_owned(),
        mode,
    }
}

fn install(
    root: &Root,
    compiled: Compiled,
    interfaces: &[InterfaceConfig],
) -> Result<Installed, InstallError> {
    let lock = root.lock().unwrap();
    root.install(&lock, compiled, interfaces, &[])
}

/// The namespace's directory of pins.
fn pins(root: &Root) -> PathBuf {
    PathBuf::from(format!(
        "/sys/fs/bpf/edgefilter/netns-{}",
        root.netns_inode()
    ))
}

/// Names of the pins under a directory, sorted; empty if it does not exist.
fn list(directory: impl Into<PathBuf>) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory.into()) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A probe that no generation of these tests satisfies: ARP is never blocked.
fn impossible() -> Probe {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    Probe {
        description: "an impossible probe".to_owned(),
        frame,
        blocked: true,
    }
}

/// The map that says which ABI version and which namespace the pins belong to.
fn identity(root: &Root) -> Array<MapData, u64> {
    let path = pins(root).join("shared/ABI");
    Map::from_map_data(MapData::from_pin(path).unwrap())
        .unwrap()
        .try_into()
        .unwrap()
}

#[test]
fn an_install_attaches_in_native_mode_and_is_read_back_from_the_pins() {
    in_namespace(|root| {
        let mut generation = compiled("first", 1);
        generation.tables[Table::V6Buckets as usize] = vec![[7; 8]; 3];
        let installed = install(root, generation, &[on("edge0", AttachMode::Auto)]).unwrap();
        assert_eq!(installed.generation, 1);
        assert!(installed.interfaces[0].attached_now);

        let enforced = root.enforced().unwrap();
        assert_eq!(enforced.len(), 1);
        assert_eq!(enforced[0].interface, "edge0");
        assert_eq!(enforced[0].mode, Some(Mode::Native));
        assert_eq!(enforced[0].generation, Some(1));
        assert!(!enforced[0].defunct && enforced[0].since.is_some());

        use filter_common::tables::Lines as _;
        let live = root.generation().unwrap();
        assert_eq!(live.meta.rules[0].id, "first");
        assert_eq!(live.config.generation, 1);
        assert_eq!(live.line(Table::V6Buckets, 2), Some(&[7; 8]));
        assert_eq!(live.line(Table::V6Buckets, 3), None);
        assert_eq!(live.rule(0), Some(&Rule::new(Action::Drop, 0, 1)));
        let cost = root.cost().unwrap();
        assert!(cost.map_bytes > 65_536 && cost.verified_instructions.is_some());
    });
}

#[test]
fn a_swap_keeps_the_link_takes_over_equal_tables_and_retires_the_old_generation() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Native)];
        install(root, compiled("first", 1), &interfaces).unwrap();
        let before = root.enforced().unwrap();
        let mut second = compiled("second", 2);
        second.tables[Table::NameBuckets as usize] = vec![[1; 8]];
        let installed = install(root, second, &interfaces).unwrap();

        assert_eq!(installed.generation, 2);
        assert!(!installed.interfaces[0].attached_now);
        assert_eq!(installed.reused_tables.len(), Table::ALL.len() - 1);
        assert!(!installed.reused_tables.contains(&Table::NameBuckets.name()));
        let after = root.enforced().unwrap();
        assert_eq!(after[0].generation, Some(2));
        assert_eq!(after[0].since, before[0].since);
        assert_ne!(after[0].program_id, before[0].program_id);
        assert_eq!(list(pins(root)), ["gen-2", "links", "shared"]);
    });
}

#[test]
fn generic_mode_is_obtained_when_asked_for_and_never_mistaken_for_native() {
    in_namespace(|root| {
        let installed = install(
            root,
            compiled("first", 1),
            &[on("edge0", AttachMode::Generic)],
        )
        .unwrap();
        assert_eq!(installed.interfaces[0].mode, Mode::Generic);
        assert_eq!(root.enforced().unwrap()[0].mode, Some(Mode::Generic));
        let again = install(
            root,
            compiled("first", 1),
            &[on("edge0", AttachMode::Native)],
        )
        .unwrap();
        assert_eq!(again.interfaces[0].mode, Mode::Generic);
        assert_eq!(again.warnings.len(), 1, "{:?}", again.warnings);
    });
}

#[test]
fn auto_falls_back_to_generic_with_the_reason_where_the_driver_has_no_xdp() {
    in_namespace(|root| {
        sh("ip link add br0 type bridge && ip link set br0 up");
        let refused =
            install(root, compiled("first", 1), &[on("br0", AttachMode::Native)]).unwrap_err();
        assert!(
            matches!(*refused.source, DatapathError::Mode { .. }),
            "{refused}"
        );
        assert_eq!(refused.exit_code(), 5);
        assert_eq!(list(pins(root)), [""; 0]);

        let installed =
            install(root, compiled("first", 1), &[on("br0", AttachMode::Auto)]).unwrap();
        assert_eq!(installed.interfaces[0].mode, Mode::Generic);
        let enforced = root.enforced().unwrap();
        assert_eq!(enforced[0].mode, Some(Mode::Generic));
        assert!(enforced[0].fallback.is_some());
    });
}

#[test]
fn a_failed_self_check_leaves_the_old_generation_enforcing() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto)];
        install(root, compiled("first", 1), &interfaces).unwrap();
        let before = root.enforced().unwrap();
        let lock = root.lock().unwrap();
        let error = root
            .install(&lock, compiled("second", 2), &interfaces, &[impossible()])
            .unwrap_err();
        assert!(
            matches!(*error.source, DatapathError::SelfCheck { .. }),
            "{error}"
        );
        assert!(error.undo_problems.is_empty());
        assert_eq!(root.enforced().unwrap(), before);
        assert_eq!(list(pins(root)), ["gen-1", "links", "shared"]);
    });
}

#[test]
fn a_self_check_moves_no_counter() {
    in_namespace(|root| {
        install(root, compiled("first", 1), &[on("edge0", AttachMode::Auto)]).unwrap();
        sh("ip link set edge0 down && ip link set peer0 down");
        let before = root.reason_counters().unwrap();
        install(
            root,
            compiled("second", 2),
            &[on("edge0", AttachMode::Auto)],
        )
        .unwrap();
        assert_eq!(root.reason_counters().unwrap(), before);
    });
}

#[test]
fn a_failed_first_install_leaves_nothing() {
    in_namespace(|root| {
        let lock = root.lock().unwrap();
        let interfaces = [on("edge0", AttachMode::Auto)];
        root.install(&lock, compiled("first", 1), &interfaces, &[impossible()])
            .unwrap_err();
        assert_eq!(list(pins(root)), [""; 0]);
        assert!(!sh("ip link show edge0").contains("xdp"));
    });
}

#[test]
fn a_missing_interface_and_an_oversize_policy_are_refused_before_anything_changes() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto), on("eth9", AttachMode::Auto)];
        let error = install(root, compiled("first", 1), &interfaces).unwrap_err();
        assert!(matches!(&*error.source, DatapathError::NoInterface { name } if name == "eth9"));
        assert_eq!(error.exit_code(), 5);

        let mut oversize = compiled("first", 1);
        oversize.rules = vec![oversize.rules[0]; filter_common::limits::RULES_MAX + 1];
        let error = install(root, oversize, &interfaces[..1]).unwrap_err();
        assert!(
            matches!(*error.source, DatapathError::Unfit { .. }),
            "{error}"
        );
        let mut redirect = compiled("first", 1);
        redirect.redirect_interfaces = vec!["eth9".to_owned()];
        let error = install(root, redirect, &interfaces[..1]).unwrap_err();
        assert!(matches!(&*error.source, DatapathError::NoInterface { name } if name == "eth9"));
        assert_eq!(list(pins(root)), [""; 0]);
    });
}

#[test]
fn a_foreign_program_is_named_and_left_alone_and_the_other_interface_is_put_back() {
    in_namespace(|root| {
        install(root, compiled("first", 1), &[on("peer0", AttachMode::Auto)]).unwrap();
        let before = root.enforced().unwrap();
        // A program of somebody else: our own object, attached by iproute2 without a link.
        let pinned = pins(root).join("gen-1/program");
        sh(&format!(
            "ip link set dev edge0 xdpdrv pinned {}",
            pinned.display()
        ));

        let interfaces = [on("peer0", AttachMode::Auto), on("edge0", AttachMode::Auto)];
        let error = install(root, compiled("second", 2), &interfaces).unwrap_err();
        let DatapathError::Busy {
            interface,
            program_id,
            program_name,
        } = &*error.source
        else {
            panic!("{error}");
        };
        assert_eq!(
            (interface.as_str(), program_name.as_str()),
            ("edge0", "edgefilter")
        );
        assert_ne!(*program_id, 0);
        assert_eq!(error.exit_code(), 6);
        assert_eq!(root.enforced().unwrap(), before);
        assert!(sh("ip link show edge0").contains("prog/xdp"));
        sh("ip link set dev edge0 xdpdrv off");
    });
}

#[test]
fn a_swap_that_fails_halfway_puts_the_first_interface_back() {
    in_namespace(|root| {
        install(root, compiled("first", 1), &[on("edge0", AttachMode::Auto)]).unwrap();
        let before = root.enforced().unwrap();
        // A bridge refuses native mode, after edge0 has been swapped.
        sh("ip link add br0 type bridge && ip link set br0 up");
        let interfaces = [on("edge0", AttachMode::Auto), on("br0", AttachMode::Native)];
        let error = install(root, compiled("second", 2), &interfaces).unwrap_err();
        assert!(
            matches!(*error.source, DatapathError::Mode { .. }),
            "{error}"
        );
        assert!(error.undo_problems.is_empty(), "{error}");
        assert_eq!(root.enforced().unwrap(), before);
        assert_eq!(list(pins(root)), ["gen-1", "links", "shared"]);
    });
}

#[test]
fn an_interface_left_out_of_the_configuration_stays_enforced_and_is_swapped_too() {
    in_namespace(|root| {
        let both = [on("edge0", AttachMode::Auto), on("peer0", AttachMode::Auto)];
        install(root, compiled("first", 1), &both).unwrap();
        let installed = install(root, compiled("second", 2), &both[..1]).unwrap();
        assert_eq!(installed.interfaces.len(), 2);
        let enforced = root.enforced().unwrap();
        assert!(
            enforced.iter().all(|link| link.generation == Some(2)),
            "{enforced:?}"
        );
    });
}

#[test]
fn an_interface_that_vanished_is_reported_and_attached_again_when_it_returns() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto)];
        install(root, compiled("first", 1), &interfaces).unwrap();
        sh("ip link del edge0");
        let enforced = root.enforced().unwrap();
        assert!(
            enforced[0].defunct && enforced[0].mode.is_none(),
            "{enforced:?}"
        );
        sh("ip link add edge0 type veth peer name peer0");
        assert!(
            root.enforced().unwrap()[0].defunct,
            "a new interface of the same name"
        );
        let installed = install(root, compiled("first", 1), &interfaces).unwrap();
        assert!(installed.interfaces[0].attached_now);
        let enforced = root.enforced().unwrap();
        assert!(
            !enforced[0].defunct && enforced[0].mode == Some(Mode::Native),
            "{enforced:?}"
        );
    });
}

#[test]
fn leftovers_of_a_process_that_died_in_the_middle_are_swept() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto)];
        install(root, compiled("first", 1), &interfaces).unwrap();
        std::fs::create_dir(pins(root).join("new-2")).unwrap();
        sh(&format!("mkdir {}/gen-7", pins(root).display()));
        assert_eq!(root.enforced().unwrap()[0].generation, Some(1));
        install(root, compiled("second", 2), &interfaces).unwrap();
        assert_eq!(list(pins(root)), ["gen-2", "links", "shared"]);
    });
}

#[test]
fn counters_live_on_over_a_swap_and_only_new_slots_begin_at_zero() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto)];
        let two = |version| {
            let mut generation = compiled("kept", 1);
            generation.rules.push(Rule::new(Action::Drop, 1, version));
            generation.meta.rules.push(MetaRule {
                slot: 1,
                slot_version: version,
                id: format!("rule {version}"),
                ..MetaRule::default()
            });
            generation
        };
        install(root, two(1), &interfaces).unwrap();
        let path = pins(root).join("shared/RULE_COUNTERS");
        let map = Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap();
        let mut counters: PerCpuArray<_, [u64; 2]> = map.try_into().unwrap();
        for slot in 0..2 {
            let values = vec![[1, 2]; aya::util::nr_cpus().unwrap()];
            counters
                .set(slot, PerCpuValues::try_from(values).unwrap(), 0)
                .unwrap();
        }
        let before = root.rule_counters([0, 1]).unwrap();
        assert!(before[0].packets > 0 && before[0] == before[1]);
        install(root, two(2), &interfaces).unwrap();
        let after = root.rule_counters([0, 1]).unwrap();
        assert_eq!(after[0], before[0]);
        assert_eq!((after[1].packets, after[1].bytes), (0, 0));
    });
}

#[test]
fn detaching_one_interface_keeps_the_other_and_the_last_removes_every_pin() {
    in_namespace(|root| {
        sh("ip link add link0.5 type veth peer name link1");
        let both = [
            on("edge0", AttachMode::Auto),
            on("link0.5", AttachMode::Auto),
        ];
        install(root, compiled("first", 1), &both).unwrap();
        let lock = root.lock().unwrap();
        assert_eq!(root.detach(&lock, Some("link0.5")).unwrap(), ["link0.5"]);
        assert_eq!(root.enforced().unwrap().len(), 1);
        assert_eq!(
            root.detach(&lock, Some("link0.5")).unwrap(),
            [""; 0],
            "it is detached already"
        );
        assert!(matches!(
            root.detach(&lock, Some("absent0")),
            Err(DatapathError::NoInterface { .. })
        ));
        assert_eq!(root.detach(&lock, None).unwrap(), ["edge0"]);
        assert_eq!(list(pins(root)), [""; 0]);
        assert!(matches!(
            root.generation(),
            Err(DatapathError::NothingEnforced)
        ));
        assert!(!sh("ip link show edge0").contains("xdp"));
    });
}

#[test]
fn two_controllers_exclude_each_other_and_the_second_learns_the_pid() {
    in_namespace(|root| {
        let first = root.controller_lock().unwrap();
        let error = root.controller_lock().unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(&error, DatapathError::ControllerRunning { pid } if *pid == own.to_string())
        );
        assert_eq!(error.exit_code(), 7);
        assert_eq!(root.controller_pid(), Some(own));
        drop(first);
        assert_eq!(root.controller_pid(), None);
        root.controller_lock().unwrap();
    });
}

#[test]
fn pins_of_a_namespace_that_is_gone_are_not_taken_for_this_ones() {
    in_namespace(|root| {
        install(root, compiled("first", 1), &[on("edge0", AttachMode::Auto)]).unwrap();
        identity(root).set(1, u64::MAX, 0).unwrap();
        let again = Root::open().unwrap();
        assert_eq!(list(pins(&again)), [""; 0]);
        assert_eq!(again.meta().unwrap(), None);
    });
}

#[test]
fn pins_of_another_abi_version_are_refused_by_name_but_can_be_detached() {
    in_namespace(|root| {
        let interfaces = [on("edge0", AttachMode::Auto)];
        install(root, compiled("first", 1), &interfaces).unwrap();
        let mut version = identity(root);
        version.set(0, 99, 0).unwrap();
        let error = install(root, compiled("second", 2), &interfaces).unwrap_err();
        assert!(
            matches!(*error.source, DatapathError::Abi { pinned: 99, .. }),
            "{error}"
        );
        assert!(matches!(root.enforced(), Err(DatapathError::Abi { .. })));
        let lock = root.lock().unwrap();
        assert_eq!(root.detach(&lock, None).unwrap(), ["edge0"]);
    });
}

#[test]
fn a_private_instance_runs_frames_of_any_length_without_an_interface() {
    mount_bpffs();
    let mut generation = compiled("first", 1);
    generation.config.features |= feature::TRACE;
    let mut private = Private::load(&generation).unwrap();
    for length in [0, 13] {
        let (action, outcome) = private.run(&vec![0; length]).unwrap();
        assert_eq!(
            (action, outcome.reason),
            (2, filter_common::reason::Reason::Truncated as u8)
        );
    }
    for length in [14, 60, 1514, 9014, 65_535] {
        let (action, _) = private.run(&vec![0; length]).unwrap();
        assert_eq!(action, 2, "{length}");
    }
    assert!(private.run_repeat(&[0; 60], 100).is_ok());
    assert!(private.map_bytes() > 0 && private.verified_instructions().is_some());
}
