//! The block page: who makes it, what runs it, and what becomes of it when something ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use filter_tests::{
    edge::{Edge, exit},
    net::{Direct, Namespace},
    process::wait_for,
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tempfile::TempDir;

const BLOCKED: &str = "blocked.example";

const POLICY: &str = r#"
version = 1
[[rule]]
id = "page"
domains = ["blocked.example"]
action = "redirect"
title = "This site has been blocked"
reason = "Immediate threat to human life"
statement = "https://provider.example/statements/1"
until = 2099-01-01T00:00:00Z
review_by = 2098-01-01T00:00:00Z
"#;

const WITHOUT: &str = r#"
version = 1
[[rule]]
id = "other"
domains = ["blocked.example"]
action = "drop"
"#;

/// How long the page may take to come, to come back and to go.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// The certificates of one host.
struct Certificates(TempDir);

impl Certificates {
    fn none() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn of(names: &[&str]) -> Self {
        let certificates = Self::none();
        certificates.add("site", names);
        certificates
    }

    fn add(&self, file: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a self-signed certificate");
        let at = |extension: &str| self.0.path().join(file).with_extension(extension);
        fs::write(at("key"), signing_key.serialize_pem()).expect("a key file");
        fs::write(at("pem"), cert.pem()).expect("a certificate file");
    }

    /// For `edgefilter.toml`.
    fn config(&self) -> String {
        format!("[block_page]\ncertificates = {:?}\n", self.0.path())
    }
}

/// An edge with the page.
fn serving<'n>(namespace: &'n Namespace, certificates: &Certificates) -> Edge<'n> {
    let mut edge = Edge::new(namespace, &[Direct::EDGE_IF], POLICY);
    edge.configure(&[Direct::EDGE_IF], &certificates.config());
    edge.start();
    edge
}

/// Process id of the page's process, if it is there and reached.
fn page_pid(edge: &Edge<'_>) -> Option<i32> {
    let status = edge.json("status");
    let page = &status["page"];
    let pid = page["pid"].as_i64().filter(|_| page["is_up"] == true)?;
    i32::try_from(pid).ok()
}

/// Starts a controller where something is enforced already, and waits until it has done its part.
fn start_again(edge: &mut Edge<'_>) {
    edge.start();
    wait_for("the controller is ready", CHANGE_MAX, || {
        edge.controller().stdout().contains("enforcing generation")
    });
}

/// Whether it has ended; one that nobody has reaped yet has no command line.
fn is_gone(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
        || kill(Pid::from_raw(pid), None).is_err()
}

/// The host's interfaces that belong to a page.
fn interfaces(namespace: &Namespace) -> Vec<String> {
    namespace.run(|| {
        let all = nix::net::if_::if_nameindex().expect("a list of interfaces");
        let names = all
            .iter()
            .map(|it| it.name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("efs")).collect()
    })
}

/// What a server in the page's namespace answers to a request for a host.
fn ask_inside(pid: i32, host: &str) -> String {
    let inside = std::thread::spawn({
        let host = host.to_owned();
        move || {
            let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("entered");
            let mut stream = TcpStream::connect("127.0.0.1:80").expect("a listener");
            write!(
                stream,
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            )
            .expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer
        }
    });
    inside.join().expect("no panic")
}

#[test]
fn a_policy_with_a_page_starts_a_process_without_privileges_and_detach_leaves_nothing() {
    let net = Direct::new();
    let edge = serving(&net.edge, &Certificates::of(&[BLOCKED]));
    let pid = page_pid(&edge).expect("a page");

    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}"))
            .trim()
            .to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Groups:"), "");
    for ids in ["Uid:", "Gid:"] {
        assert!(!field(ids).split_whitespace().any(|id| id == "0"), "{ids}");
    }
    assert_eq!(interfaces(&net.edge).len(), 1);

    let answer = ask_inside(pid, "www.blocked.example");
    assert!(answer.starts_with("HTTP/1.1 451 "), "{answer}");
    assert!(
        answer.contains("Immediate threat to human life"),
        "{answer}"
    );
    assert!(ask_inside(pid, "neighbour.example").starts_with("HTTP/1.1 421 "));

    let run_dir = net.edge.run_dir();
    drop(edge);
    wait_for("the process ends", CHANGE_MAX, || is_gone(pid));
    assert_eq!(interfaces(&net.edge), Vec::<String>::new());
    assert!(!Path::new(&run_dir).join("page").exists());
}

#[test]
fn the_page_outlives_its_controller_and_the_next_one_takes_it_over() {
    let net = Direct::new();
    let certificates = Certificates::of(&[BLOCKED]);
    let mut edge = serving(&net.edge, &certificates);
    let pid = page_pid(&edge).expect("a page");
    edge.kill_controller();
    assert_eq!(page_pid(&edge), Some(pid));
    assert!(ask_inside(pid, BLOCKED).starts_with("HTTP/1.1 451 "));
    start_again(&mut edge);
    assert_eq!(page_pid(&edge), Some(pid));
    assert_eq!(edge.stop_controller(), Some(exit::OK));
    assert_eq!(page_pid(&edge), Some(pid));

    // Another configuration is another process.
    let more = format!("{}ports = [80, 443, 8443]\n", certificates.config());
    edge.configure(&[Direct::EDGE_IF], &more);
    start_again(&mut edge);
    let other = page_pid(&edge).expect("a page");
    assert_ne!(other, pid);
    assert!(is_gone(pid));
    assert_eq!(interfaces(&net.edge).len(), 1);
}

#[test]
fn a_process_that_ends_is_started_again_and_status_says_so_meanwhile() {
    let net = Direct::new();
    let edge = serving(&net.edge, &Certificates::of(&[BLOCKED]));
    let pid = page_pid(&edge).expect("a page");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("a process");
    wait_for("status tells", CHANGE_MAX, || {
        let ended = edge.run(&["status"]);
        ended.code == exit::DIFFERS && ended.stdout.contains("the block page is not served")
    });
    wait_for("it is served again", CHANGE_MAX, || {
        page_pid(&edge).is_some()
    });
    assert_ne!(page_pid(&edge), Some(pid));
    assert_eq!(edge.run(&["status"]).code, exit::OK);
    assert_eq!(interfaces(&net.edge).len(), 1);
}

/// The process that makes sockets for the page's process.
fn socket_maker(page: i32) -> Option<i32> {
    let parent = format!("PPid:\t{page}");
    let processes = fs::read_dir("/proc")
        .expect("a list of processes")
        .flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id: &i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}"));
        read("status").is_ok_and(|status| status.lines().any(|line| line == parent))
            && read("cmdline").is_ok_and(|line| line.contains("sink-handover"))
    })
}

#[test]
fn what_makes_sockets_for_the_page_has_two_capabilities_and_neither_process_goes_on_alone() {
    let net = Direct::new();
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let page = "[block_page]\ntakeover = \"repair\"\n";
    edge.configure(&[Direct::EDGE_IF], page);
    edge.start();
    let status = edge.json("status");
    assert_eq!(status["page"]["method"], "repair", "{status}");
    assert!(edge.run(&["status"]).stdout.contains("TCP_REPAIR"));
    let pid = page_pid(&edge).expect("a page");
    let maker = socket_maker(pid).expect("a process that makes sockets");

    let told = fs::read_to_string(format!("/proc/{maker}/status")).expect("a process");
    // CAP_NET_BIND_SERVICE and CAP_NET_ADMIN.
    for set in ["CapPrm:\t0000000000001400", "CapEff:\t0000000000001400"] {
        assert!(told.contains(set), "{set} in {told}");
    }
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        assert!(told.contains(&none), "{none} in {told}");
    }
    assert!(told.contains("NoNewPrivs:\t1"), "{told}");
    assert!(!told.contains("Uid:\t0"), "{told}");

    kill(Pid::from_raw(maker), Signal::SIGKILL).expect("a process");
    wait_for("the page's process ends as well", CHANGE_MAX, || {
        is_gone(pid)
    });
    wait_for("it is served again", CHANGE_MAX, || {
        page_pid(&edge).is_some_and(|now| now != pid)
    });
    let pid = page_pid(&edge).expect("a page");
    let maker = socket_maker(pid).expect("a process that makes sockets");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("a process");
    wait_for("it ends as well", CHANGE_MAX, || is_gone(maker));
    wait_for("it is served again", CHANGE_MAX, || {
        page_pid(&edge).is_some_and(|now| now != pid)
    });

    edge.kill_controller();
    let pid = page_pid(&edge).expect("a page without a controller");
    let maker = socket_maker(pid).expect("a process that makes sockets");
    drop(edge);
    wait_for("both end", CHANGE_MAX, || is_gone(pid) && is_gone(maker));
    assert_eq!(interfaces(&net.edge), Vec::<String>::new());
}

#[test]
fn a_policy_without_a_page_removes_it_and_one_with_it_brings_it_back() {
    let net = Direct::new();
    let edge = serving(&net.edge, &Certificates::none());
    let pid = page_pid(&edge).expect("a page");
    edge.write_policy(WITHOUT);
    wait_for("the process ends", CHANGE_MAX, || is_gone(pid));
    wait_for("the interfaces are gone", CHANGE_MAX, || {
        interfaces(&net.edge).is_empty()
    });
    assert_eq!(edge.json("status")["page"], Value::Null);
    edge.write_policy(POLICY);
    wait_for("it is served again", CHANGE_MAX, || {
        page_pid(&edge).is_some()
    });
}

#[test]
fn rules_certificates_and_their_end_reach_the_process_without_another_start() {
    let net = Direct::new();
    let certificates = Certificates::none();
    let edge = serving(&net.edge, &certificates);
    let pid = page_pid(&edge).expect("a page");
    let checked = edge.run(&["check"]);
    let missing = "no usable certificate for blocked.example";
    assert!(checked.stdout.contains(missing), "{checked:?}");
    let status = edge.run(&["status"]);
    assert!(status.stdout.contains(missing), "{status:?}");

    certificates.add("late", &[BLOCKED, "*.blocked.example"]);
    wait_for("the certificate is in use", CHANGE_MAX, || {
        let status = edge.json("status");
        let known = &status["page"]["served"]["certificates"];
        known.as_array().is_some_and(|known| known.len() == 1)
    });
    let status = edge.run(&["status"]);
    assert!(!status.stdout.contains(missing), "{status:?}");
    assert!(status.stdout.contains("valid, until"), "{status:?}");

    edge.write_policy(&POLICY.replace("Immediate threat", "Another threat"));
    wait_for("the rule's words are other ones", CHANGE_MAX, || {
        ask_inside(pid, BLOCKED).contains("Another threat")
    });
    assert_eq!(page_pid(&edge), Some(pid));
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    let net = Direct::new();
    let name = format!("efs{:08x}", net.edge.inode() as u32);
    net.edge.ip(&[
        "link", "add", &name, "type", "veth", "peer", "name", "other",
    ]);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let controller = edge.spawn();
    wait_for("the controller says so", CHANGE_MAX, || {
        let status = edge.run(&["status"]);
        status.code == exit::DIFFERS && status.stdout.contains("that edgefilter did not make")
    });
    drop(controller);
    assert_eq!(interfaces(&net.edge), std::slice::from_ref(&name));
    net.edge.ip(&["link", "del", &name]);
    edge.start();
    assert!(page_pid(&edge).is_some());
}
