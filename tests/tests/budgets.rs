//! Budgets that do not depend on the machine's speed: verified instructions and map memory.

use std::{fmt::Write as _, path::Path};

use filter_user::{
    compile::{HostFacts, Role, compile},
    datapath::{Private, kernel_fields},
    policy::{
        model::{HostConfig, InspectPorts, Outcome},
        parse_policy,
    },
};

/// The kernel's limit is 1,000,000; the room is for kernels whose verifier walks more.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 500_000;

/// For three rules with origins: counters and the event ring, which all generations share, and the
/// working areas, 64 KiB and a little for each possible CPU.
const SMALL_POLICY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Served: the host's own addresses, and others behind it.
fn load(policy: &str) -> Private {
    let policy = parse_policy(policy, Path::new("policy.toml"), Path::new("."))
        .unwrap_or_else(|e| panic!("{e}"));
    let facts = HostFacts {
        own_addresses: vec![
            "198.51.100.1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ],
        sockets: kernel_fields::socket_offsets(),
        partial_checksums: true,
        interfaces: 2,
        ..HostFacts::default()
    };
    assert!(facts.sockets.is_some(), "the kernel has type information");
    let host = HostConfig {
        proxy_protocol: InspectPorts::Any,
        no_sni: Outcome::Drop,
        http2: Outcome::Drop,
        serves: Some(
            [
                "198.51.100.1/32",
                "2001:db8::1/128",
                "203.0.113.0/24",
                "2001:db8:2::/64",
            ]
            .map(|prefix| prefix.parse().unwrap())
            .to_vec(),
        ),
        ..HostConfig::default()
    };
    let compiled = compile(&policy, &host, &facts, Role::Live, None).expect("a small policy");
    Private::load(&compiled).expect("the kernel takes the program")
}

#[test]
fn the_program_with_everything_on_stays_far_below_the_verifiers_limit() {
    let mut origins = String::new();
    for length in 0..=32 {
        let _ = write!(origins, "\"{}/{length}\", ", first(u32::MAX, length));
    }
    for length in 0..=128 {
        let address = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        let _ = write!(
            origins,
            "\"{}/{length}\", ",
            std::net::Ipv6Addr::from(address)
        );
    }
    let mut program = load(&format!(
        r#"
        version = 1
        [[rule]]
        id = "origins"
        action = "drop"
        origins = [{origins}]
        ports = [443, "8000-8010"]
        until = 2100-01-01T00:00:00Z
        allow_wide = true
        [[rule]]
        id = "names"
        action = "drop"
        domains = ["blocked.example"]
        [[rule]]
        id = "watched"
        action = "observe"
        hosts = ["watched.example"]
        [[rule]]
        id = "elsewhere"
        action = "redirect"
        redirect = {{ interface = "lo" }}
        origins = ["203.0.113.0/24"]
        protocol = "udp"
        "#
    ));
    let verified = program
        .verified_instructions()
        .expect("a kernel that counts");
    assert!(
        verified <= VERIFIED_INSTRUCTIONS_MAX,
        "{verified} verified instructions"
    );
}

/// The first address of the longest run of ones of this length.
fn first(ones: u32, length: u32) -> std::net::Ipv4Addr {
    ones.checked_shl(32 - length).unwrap_or(0).into()
}

#[test]
fn three_rules_without_names_cost_little_memory() {
    let program = load(
        r#"
        version = 1
        [[rule]]
        id = "a"
        action = "drop"
        origins = ["192.0.2.0/24"]
        [[rule]]
        id = "b"
        action = "drop"
        origins = ["2001:db8:bad::/48"]
        [[rule]]
        id = "c"
        action = "observe"
        origins = ["203.0.113.7"]
        "#,
    );
    let bytes = program.map_bytes();
    assert!(bytes <= SMALL_POLICY_BYTES_MAX, "{bytes} bytes of maps");
}
