//! A namespace that plays the block page's: what the controller makes, without the controller.

use filter_common::{
    abi::{Action, feature, redirect},
    respond::counted::Answer,
};
use filter_user::{
    compile::{Compiled, HostFacts, Role, compile},
    datapath::{
        HandoverRing, Root, SinkMethod, SinkPlace, SinkStatus, Sweep, kernel_fields, make_socket,
    },
    policy::{
        model::{AttachMode, InterfaceConfig},
        parse_host_config, parse_policy,
    },
};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::ErrorKind,
    net::TcpStream,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    net::{Namespace, Offload, mac_of, set_offload},
    witness::Witness,
};

/// How often new connections are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

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
        assert!(self.attach_only(SinkMethod::of_kernel(), edge).is_none());
        status(edge)
    }

    /// As [`PageSpace::attach`], by this method; where the kernel makes no sockets, what does it for the
    /// page's server.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn attach_by(
        &self,
        method: SinkMethod,
        edge: &Namespace,
        page: &Witness,
    ) -> Option<SocketMaker> {
        let ring = self.attach_only(method, edge)?;
        let ring = HandoverRing::new(ring).expect("a ring buffer");
        Some(SocketMaker::start(&self.namespace, ring, page.handed()))
    }

    fn attach_only(&self, method: SinkMethod, edge: &Namespace) -> Option<OwnedFd> {
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
            let ring = root
                .attach_sink(&lock, place, method)
                .unwrap_or_else(|e| panic!("attach the page: {e}"));
            root.set_sink(true).expect("a map of the sink");
            ring
        })
    }
}

/// Makes sockets in the page's namespace, as the process does that the page's process starts. Dropping it
/// ends it.
#[derive(Debug)]
pub struct SocketMaker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SocketMaker {
    fn start(namespace: &Namespace, mut ring: HandoverRing, page: Sender<TcpStream>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let path = Path::new("/run/netns").join(namespace.name());
        let inside = File::open(&path).expect("the page's namespace");
        let thread = thread::spawn(move || {
            setns(inside, CloneFlags::CLONE_NEWNET).expect("entered");
            while !stopped.load(Ordering::Relaxed) {
                while let Some(handover) = ring.next_handover() {
                    match make_socket(&handover) {
                        // Without a page nobody takes it.
                        Ok(socket) => drop(page.send(socket)),
                        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                        Err(error) => panic!("no socket of {:?}: {error}", handover.key),
                    }
                }
                thread::sleep(LOOK_EVERY);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for SocketMaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            crate::net::report("socket maker", &["its thread panicked".to_owned()]);
        }
    }
}

/// What the program that answers knows of the page.
///
/// # Panics
/// If it was never attached.
pub fn status(edge: &Namespace) -> SinkStatus {
    edge.run(|| Root::open().expect("a root").sink_status().expect("a sink"))
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
    enforce_in(AttachMode::Native, edge, interfaces, host, policy);
}

/// As [`enforce`], attached in this mode.
///
/// # Panics
/// As there.
pub fn enforce_in(
    mode: AttachMode,
    edge: &Namespace,
    interfaces: &[&str],
    host: &str,
    policy: &str,
) {
    edge.run(|| {
        let mut compiled = compiled(host, policy, interfaces.len());
        lead_to_page(&mut compiled);
        let root = Root::open().expect("a root");
        let lock = root.lock().expect("the lock");
        let interfaces: Vec<InterfaceConfig> = interfaces
            .iter()
            .map(|name| InterfaceConfig {
                name: (*name).to_owned(),
                mode,
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
