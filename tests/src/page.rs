//! A namespace that plays the block page's: what the controller makes, without the controller.

use filter_common::{
    abi::{Action, feature, redirect},
    respond::counted::Answer,
};
use filter_user::{
    compile::{Compiled, HostFacts, Role, compile},
    datapath::{Root, SinkPlace, SinkStatus, Sweep, kernel_fields},
    policy::{
        model::{AttachMode, InterfaceConfig},
        parse_host_config, parse_policy,
    },
};
use std::{fs::File, os::fd::AsFd as _, path::Path, time::Duration};

use crate::net::{Namespace, Offload, mac_of, set_offload};

/// The edge's end of the pair.
const EDGE_END: &str = "sink0";
/// The page's end.
const PAGE_END: &str = "eth0";

/// The page's namespace, attached to an edge that enforces.
#[derive(Debug)]
pub struct PageSpace {
    /// Where the page's server runs.
    pub namespace: Namespace,
}

impl PageSpace {
    /// Makes the namespace and the pair that joins it to the edge.
    pub fn new(edge: &Namespace) -> Self {
        let namespace = Namespace::new("page");
        edge.veth(EDGE_END, &namespace, PAGE_END);
        // Native redirect into a veth needs NAPI on the other end.
        set_offload(&namespace, PAGE_END, Offload::ReceiveAggregation, true);
        let edge_mac = mac_of(edge, EDGE_END)
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        for (family, gateway) in [("-4", "169.254.77.1"), ("-6", "fe80::77:1")] {
            let neighbour = [family, "neigh", "replace", gateway, "lladdr", &edge_mac];
            namespace.ip(&[&neighbour[..], &["dev", PAGE_END, "nud", "permanent"]].concat());
            let local = ["route", "add", "local", "default", "dev", "lo"];
            namespace.ip(&[&[family][..], &local, &["table", "100"]].concat());
            namespace.ip(&[
                family, "rule", "add", "pref", "10", "iif", PAGE_END, "lookup", "100",
            ]);
        }
        namespace.address(PAGE_END, "169.254.77.2/30");
        namespace.ip(&[
            "route",
            "add",
            "default",
            "via",
            "169.254.77.1",
            "dev",
            PAGE_END,
        ]);
        namespace.ip(&[
            "-6",
            "route",
            "add",
            "default",
            "via",
            "fe80::77:1",
            "dev",
            PAGE_END,
        ]);
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/eth0/rp_filter", "0"),
            ("ipv4/tcp_syncookies", "1"),
            ("ipv4/tcp_max_tw_buckets", "0"),
        ] {
            namespace.sysctl(&format!("net/{key}"), value);
        }
        Self { namespace }
    }

    /// Attaches the programs on both ends, and says that the page is served.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn attach(&self, edge: &Namespace) -> SinkStatus {
        let path = Path::new("/run/netns").join(self.namespace.name());
        let inside = File::open(&path).expect("the page's namespace");
        edge.run(|| {
            let root = Root::open().expect("a root");
            let lock = root.lock().expect("the lock");
            let place = SinkPlace {
                edge_interface: EDGE_END,
                namespace: inside.as_fd(),
                sink_interface: PAGE_END,
            };
            root.attach_sink(&lock, place)
                .unwrap_or_else(|e| panic!("attach the page: {e}"));
            root.set_sink(true).expect("a map of the sink");
            root.sink_status().expect("a sink")
        })
    }
}

/// What the program that answers knows of the page.
///
/// # Panics
/// If it was never attached.
pub fn status(edge: &Namespace) -> SinkStatus {
    edge.run(|| Root::open().expect("a root").sink_status().expect("a sink"))
}

/// Says whether the page is served.
///
/// # Panics
/// If it was never attached.
pub fn set_up(edge: &Namespace, up: bool) {
    edge.run(|| Root::open().expect("a root").set_sink(up).expect("a sink"));
}

/// Forgets what was idle for a second.
///
/// # Panics
/// If nothing is answered.
pub fn sweep(edge: &Namespace) -> Sweep {
    let idle_max = Duration::from_secs(1);
    edge.run(|| {
        Root::open()
            .expect("a root")
            .sweep_taken(idle_max)
            .expect("a sweep")
    })
}

/// Puts a policy whose rules drop in place, with every rule leading to the page.
///
/// # Panics
/// If the policy or the kernel refuse.
pub fn enforce(edge: &Namespace, interfaces: &[&str], host: &str, policy: &str) {
    edge.run(|| {
        let mut compiled = compiled(host, policy, interfaces.len());
        lead_to_page(&mut compiled);
        let root = Root::open().expect("a root");
        let lock = root.lock().expect("the lock");
        let interfaces: Vec<InterfaceConfig> = interfaces
            .iter()
            .map(|name| InterfaceConfig {
                name: (*name).to_owned(),
                mode: AttachMode::Native,
            })
            .collect();
        root.install(&lock, compiled, &interfaces, &[])
            .unwrap_or_else(|e| panic!("install: {e}"));
    });
}

fn compiled(host: &str, policy: &str, interfaces: usize) -> Compiled {
    let here = Path::new(".");
    let policy = parse_policy(policy, Path::new("policy.toml"), here).expect("a policy");
    let host = parse_host_config(host, Path::new("edgefilter.toml"), here).expect("a host");
    let own = ["198.51.100.1", "2001:db8:1::1"];
    let facts = HostFacts {
        own_addresses: own.map(|it| it.parse().expect("an address")).to_vec(),
        sockets: kernel_fields::socket_offsets(),
        interfaces,
        partial_checksums: true,
        ..HostFacts::default()
    };
    compile(&policy, &host, &facts, Role::Live, None).expect("a generation")
}

fn lead_to_page(compiled: &mut Compiled) {
    compiled.config.features |= feature::RESPOND;
    if compiled.config.features & feature::NAMES != 0 {
        compiled.config.name_action_max = Action::Redirect as u32;
    }
    for rule in &mut compiled.rules {
        if rule.action == Action::Drop as u8 {
            rule.action = Action::Redirect as u8;
            rule.redirect_index = redirect::PAGE;
        }
    }
}

/// How many frames were answered in this way.
pub fn answered(edge: &Namespace, answer: Answer) -> u64 {
    answers(edge)
        .into_iter()
        .find_map(|(known, count)| (known == answer).then_some(count))
        .unwrap_or_default()
}

/// All answers so far that there were.
pub fn answers(edge: &Namespace) -> Vec<(Answer, u64)> {
    let all = edge.run(|| Root::open().expect("a root").answers().expect("answers"));
    all.into_iter().filter(|(_, count)| *count != 0).collect()
}
