//! The policies and hosts that make every shape of the program that the product loads: which
//! features are on decides what the verifier walks.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use filter_user::{
    compile::{Compiled, HostFacts, Role, compile},
    datapath::kernel_fields,
    policy::{parse_host_config, parse_policy},
};

/// One shape of the program.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What is on.
    pub name: &'static str,
    policy: String,
    host: &'static str,
    role: Role,
    /// Whether the host's sockets are consulted.
    sockets: bool,
    /// Interfaces that it is attached to.
    interfaces: usize,
    /// Whether interfaces deliver unfinished checksums, and the host takes payload in a SYN.
    lenient: bool,
}

impl Variant {
    fn live(name: &'static str, rules: impl Into<String>) -> Self {
        Self {
            name,
            policy: format!("version = 1\n{}", rules.into()),
            host: "",
            role: Role::Live,
            sockets: true,
            interfaces: 1,
            lenient: true,
        }
    }

    /// What the datapath is given for it.
    ///
    /// # Panics
    /// If policy or host are refused, with the reasons.
    pub fn compiled(&self) -> Compiled {
        let here = Path::new(".");
        let refused = |what: &str, why: &dyn std::fmt::Display| -> ! {
            panic!("{}: {what} refused: {why}", self.name)
        };
        let policy = parse_policy(&self.policy, Path::new("policy.toml"), here)
            .unwrap_or_else(|e| refused("policy", &e));
        let host = parse_host_config(self.host, Path::new("edgefilter.toml"), here)
            .unwrap_or_else(|e| refused("host", &e));
        let own = ["198.51.100.1", "2001:db8::1"];
        let facts = HostFacts {
            own_addresses: own.map(|it| it.parse().expect("an address")).to_vec(),
            sockets: kernel_fields::socket_offsets().filter(|_| self.sockets),
            interfaces: self.interfaces,
            partial_checksums: self.lenient,
            fast_open: self.lenient,
            ..HostFacts::default()
        };
        compile(&policy, &host, &facts, self.role, None)
            .unwrap_or_else(|e| refused("compilation", &e))
    }
}

const NAMES: &str = r#"
[[rule]]
id = "names"
action = "drop"
domains = ["blocked.example"]
"#;

/// Three rules with origins: the smallest program.
pub fn three_rules() -> Variant {
    Variant::live(
        "three rules",
        r#"
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
    )
}

/// Everything that can be on at once: the largest program.
pub fn everything() -> Variant {
    let rules = format!(
        r#"
        [[rule]]
        id = "origins"
        action = "drop"
        origins = [{}]
        ports = [443, "8000-8010"]
        until = 2100-01-01T00:00:00Z
        allow_wide = true
        {NAMES}
        [[rule]]
        id = "watched"
        action = "observe"
        hosts = ["watched.example"]
        [[rule]]
        id = "page"
        action = "redirect"
        domains = ["page.example"]
        origins = ["198.51.100.77", "2001:db8::77"]
        [[rule]]
        id = "told"
        action = "refuse"
        domains = ["told.example"]
        origins = ["198.51.100.78", "2001:db8::78"]
        [[rule]]
        id = "elsewhere"
        action = "redirect"
        redirect = {{ interface = "lo" }}
        origins = ["203.0.113.0/24"]
        protocol = "udp"
        "#,
        every_length()
    );
    Variant {
        host: "debug = true\n[block_page]\ncertificates = \"/nowhere\"\n\
               [inspect]\nquic_refuse = true\nno_sni = \"drop\"\nhttp2 = \"drop\"\n\
               tls = [{ port = 443, proxy_protocol = true }]\n\
               http = [{ port = 80, proxy_protocol = true }]\n\
               serves = [\"198.51.100.1\", \"2001:db8::1\", \"203.0.113.0/24\", \"2001:db8:2::/64\"]\n",
        interfaces: 2,
        ..Variant::live("everything", rules)
    }
}

/// Every variant, the smallest first.
pub fn all() -> Vec<Variant> {
    vec![
        three_rules(),
        Variant::live(
            "origins of every length",
            format!(
                "[[rule]]\nid = \"origins\"\naction = \"drop\"\nallow_wide = true\norigins = [{}]\n",
                every_length()
            ),
        ),
        Variant::live("names", NAMES),
        Variant {
            host: "[inspect]\nserves = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n",
            interfaces: 2,
            ..Variant::live("names, router role", NAMES)
        },
        Variant::live(
            "names, refused",
            "[[rule]]\nid = \"told\"\naction = \"refuse\"\ndomains = [\"told.example\"]\n",
        ),
        Variant {
            lenient: false,
            ..Variant::live("names, strict checksums", NAMES)
        },
        Variant {
            sockets: false,
            ..Variant::live("names without the host's sockets", NAMES)
        },
        Variant {
            host: "[inspect]\nunparsed = \"pass\"\nfragments = \"pass\"\nno_sni = \"drop\"\nhttp2 = \"drop\"\n\
                   [events]\nper_window = 0\n",
            ..Variant::live("names, the other outcomes, no events", NAMES)
        },
        Variant {
            role: Role::Replay { checksums: true },
            ..Variant::live("replay", NAMES)
        },
        everything(),
    ]
}

/// The first prefix of each length of both families, as items of a TOML array.
fn every_length() -> String {
    let mut origins = String::new();
    for length in 0..=32 {
        let address = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let _ = write!(origins, "\"{}/{length}\", ", Ipv4Addr::from(address));
    }
    for length in 0..=128 {
        let address = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        let _ = write!(origins, "\"{}/{length}\", ", Ipv6Addr::from(address));
    }
    origins
}
