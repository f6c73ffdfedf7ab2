//! The binary as an operator meets it: commands, exit codes, following the policy. Needs root and
//! a mounted bpffs.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{in_namespace, sh};

const POLICY: &str = r#"version = 1
[[rule]]
id = "origin"
origins = ["192.0.2.128/25", "2001:db8:bad::/48"]
action = "drop"
[[rule]]
id = "forum"
hosts = ["forum.example"]
domains = ["bad.example"]
ports = [443]
action = "drop"
"#;

/// A policy file in a directory of its own, and the flags that name it.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        site.write(POLICY);
        site
    }

    fn policy(&self) -> PathBuf {
        self.directory.path().join("policy.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.policy(), text).unwrap();
    }

    /// As an editor does: write beside, then rename.
    fn replace(&self, text: &str) {
        let temporary = self.directory.path().join(".policy.toml.swp");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.policy()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgefilter"));
        command.args(arguments).arg("--policy").arg(self.policy());
        command
            .env_remove("SSH_CONNECTION")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{arguments:?}: {error}: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    fn controller(&self, interface: &str) -> Controller {
        let mut child = self
            .command(&["run", "--interface", interface])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Controller { child, ready: line }
    }
}

struct Controller {
    child: Child,
    ready: String,
}

impl Controller {
    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{what} did not come about"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn rule_ids(site: &Site) -> Vec<String> {
    let rules = site.json(&["rules"]);
    let ids = rules.as_array().unwrap().iter();
    ids.map(|rule| rule["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn check_needs_no_privileges_and_tells_counts_or_what_is_wrong() {
    let site = Site::new();
    fs::set_permissions(
        site.directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let binary = site.directory.path().join("edgefilter");
    fs::copy(env!("CARGO_BIN_EXE_edgefilter"), &binary).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).uid(65_534).gid(65_534);
        command.output().unwrap()
    };
    let policy = site.policy().display().to_string();
    let good = nobody(&["check", "--json", &policy]);
    assert_eq!(code(&good), 0, "{}", stderr(&good));
    let checked: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(
        (checked["rules"].as_u64(), checked["origins"].as_u64()),
        (Some(2), Some(2))
    );

    site.write(&POLICY.replace("action", "acton"));
    let bad = nobody(&["check", "--json", &policy]);
    let failure: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(failure["exit_code"], 3);
    assert!(
        failure["report"]["diagnostics"][0]["line"].is_u64(),
        "{failure}"
    );
    let bad = nobody(&["check", &policy]);
    assert_eq!(code(&bad), 3);
    assert!(stderr(&bad).contains("acton"), "{}", stderr(&bad));

    let status = nobody(&["status"]);
    assert_eq!(code(&status), 4, "{}", stderr(&status));
    assert!(
        stderr(&status).contains("not permitted"),
        "{}",
        stderr(&status)
    );
}

#[test]
fn apply_status_explain_and_detach_answer_from_the_kernel_with_their_exit_codes() {
    in_namespace(|_| {
        let site = Site::new();
        assert_eq!(code(&site.run(&["status"])), 8);
        let rules = site.run(&["rules"]);
        assert_eq!(code(&rules), 8, "{}", stderr(&rules));
        assert_eq!(code(&site.run(&["apply"])), 2, "no interface is named");
        assert_eq!(code(&site.run(&["apply", "--interface", "eth9"])), 5);

        let applied = site.json(&["apply", "--interface", "edge0"]);
        assert_eq!(applied["added"], serde_json::json!(["forum", "origin"]));
        assert_eq!(applied["interfaces"][0]["mode"], "native");
        let again = site.json(&["apply", "--interface", "edge0"]);
        assert_eq!(
            (&again["unchanged"], &again["generation"]),
            (&true.into(), &1.into())
        );
        assert_eq!(code(&site.run(&["status", "--interface", "edge0"])), 0);
        assert_eq!(code(&site.run(&["status", "--interface", "peer0"])), 8);

        let live = |what: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_edgefilter"));
            let output = command.args(["explain", "--json", what]).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        for (what, rule) in [
            ("192.0.2.200", Some("origin")),
            ("192.0.2.1", None),
            ("2001:db8:bad::9", Some("origin")),
            ("FORUM.example.", Some("forum")),
            ("x.forum.example", None),
            ("x.bad.example", Some("forum")),
            ("xbad.example", None),
        ] {
            let explained = live(what);
            assert_eq!(explained["decides"].as_str(), rule, "{what}: {explained}");
            assert_eq!(explained["live"], true);
        }
        assert_eq!(live("forum.example")["only"], "port 443");
        assert_eq!(code(&site.run(&["explain", "not a name"])), 2);

        site.write(&POLICY.replace("\"forum\"", "\"renamed\""));
        assert_eq!(code(&site.run(&["status"])), 8, "written, not applied");
        let applied = site.json(&["apply"]);
        assert_eq!(applied["removed"], serde_json::json!(["forum"]));
        site.write("version = 2");
        let refused = site.run(&["apply"]);
        assert_eq!(code(&refused), 3, "{}", stderr(&refused));
        assert_eq!(rule_ids(&site), ["origin", "renamed"]);

        let detached = site.json(&["detach"]);
        assert_eq!(detached["detached"], serde_json::json!(["edge0"]));
        assert!(!sh("ip link show edge0").contains("xdp"));
    });
}

#[test]
fn the_controller_follows_the_file_keeps_the_last_good_policy_and_goes_without_detaching() {
    in_namespace(|_| {
        let site = Site::new();
        let mut controller = site.controller("edge0");
        assert!(
            controller
                .ready
                .starts_with("enforcing generation 1 on edge0 (native), 2 rules"),
            "{:?}",
            controller.ready
        );
        let second = site.run(&["run", "--interface", "edge0"]);
        assert_eq!(code(&second), 7);
        assert!(stderr(&second).contains(&controller.child.id().to_string()));

        site.write(&POLICY.replace("\"forum\"", "\"written\""));
        eventually("following a written file", || {
            rule_ids(&site) == ["origin", "written"]
        });
        site.replace(&POLICY.replace("\"forum\"", "\"replaced\""));
        eventually("following a replaced file", || {
            rule_ids(&site) == ["origin", "replaced"]
        });
        fs::create_dir(site.directory.path().join("policy.d")).unwrap();
        let more =
            "version = 1\n[[rule]]\nid = \"more\"\nhosts = [\"more.example\"]\naction = \"drop\"\n";
        fs::write(site.directory.path().join("policy.d/more.toml"), more).unwrap();
        eventually("following policy.d", || {
            rule_ids(&site) == ["more", "origin", "replaced"]
        });

        site.replace("version = 1\nnonsense = true\n");
        eventually("reporting a bad file", || {
            site.json(&["status"])["last_error"].is_string()
        });
        assert_eq!(rule_ids(&site), ["more", "origin", "replaced"]);
        assert_eq!(code(&site.run(&["status"])), 8);
        site.replace(POLICY);
        eventually("mending", || code(&site.run(&["status"])) == 0);

        controller.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(controller.child.wait().unwrap().success());
        assert!(sh("ip link show edge0").contains("xdp"));
        assert_eq!(code(&site.run(&["status", "--interface", "edge0"])), 0);

        let generation = site.json(&["status"])["generation"].clone();
        let next = site.controller("edge0");
        assert!(next.ready.contains("in place already"), "{:?}", next.ready);
        assert_eq!(site.json(&["status"])["generation"], generation);
    });
}

#[test]
fn the_filter_survives_a_killed_controller_and_the_next_one_takes_over() {
    in_namespace(|_| {
        let site = Site::new();
        let mut controller = site.controller("edge0");
        controller.child.kill().unwrap();
        controller.child.wait().unwrap();
        assert!(sh("ip link show edge0").contains("xdp"));
        let status = site.json(&["status", "--interface", "edge0"]);
        assert_eq!(
            (&status["in_sync"], &status["controller"]),
            (&true.into(), &Value::Null)
        );
        let next = site.controller("edge0");
        assert!(next.ready.contains("in place already"), "{:?}", next.ready);
    });
}

#[test]
fn an_interface_that_returns_is_attached_again_by_the_controller() {
    in_namespace(|_| {
        let site = Site::new();
        let _controller = site.controller("edge0");
        sh("ip link del edge0");
        eventually("noticing", || code(&site.run(&["status"])) == 8);
        sh("ip link add edge0 type veth peer name peer0 && ip link set edge0 up");
        eventually("attaching again", || code(&site.run(&["status"])) == 0);
    });
}

#[test]
fn events_arrive_with_and_without_a_controller() {
    in_namespace(|_| {
        let site = Site::new();
        let collect = || {
            let mut child = site
                .command(&["events", "--json", "--count", "1", "--timeout", "10"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(300));
            let mut socket = RawSocket::open("peer0");
            for _ in 0..3 {
                socket.send(&blocked_frame());
            }
            let mut text = String::new();
            std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
            assert!(child.wait().unwrap().success());
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .find(|line| line["verdict"].is_string())
                .unwrap_or_else(|| panic!("no packet in {text:?}"))
        };
        assert_eq!(code(&site.run(&["apply", "--interface", "edge0"])), 0);
        let expect = |line: &Value| {
            assert_eq!(line["rule"], "origin", "{line}");
            assert_eq!(line["src"], "192.0.2.200");
            assert_eq!(
                (&line["verdict"], &line["reason"]),
                (&"drop".into(), &"origin_source".into())
            );
        };
        expect(&collect());
        let _controller = site.controller("edge0");
        expect(&collect());
    });
}

/// An IPv4 frame from a blocked origin.
fn blocked_frame() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let header = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 200, 203, 0, 113, 1,
    ];
    frame[14..34].copy_from_slice(&header);
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// A packet socket bound to one interface.
struct RawSocket {
    fd: std::os::fd::OwnedFd,
    ifindex: i32,
}

impl RawSocket {
    fn open(interface: &str) -> Self {
        use std::os::fd::FromRawFd as _;
        let ifindex = nix::net::if_::if_nametoindex(interface).unwrap() as i32;
        // SAFETY: plain system call; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
        Self { fd, ifindex }
    }

    fn send(&mut self, frame: &[u8]) {
        use std::os::fd::AsRawFd as _;
        // SAFETY: every field is an integer, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = self.ifindex;
        // SAFETY: frame and address are valid for their lengths.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(
            sent,
            frame.len() as isize,
            "{}",
            std::io::Error::last_os_error()
        );
    }
}
