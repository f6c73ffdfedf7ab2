//! Each way of not starting has its own exit code and message, and leaves nothing half attached.

use std::{fs, time::Duration};

use filter_tests::{
    edge::{Edge, Ended, binary, exit},
    foreign::ForeignProgram,
    net::Direct,
    process::Process,
};

const POLICY: &str =
    "version = 1\n[[rule]]\nid = \"x\"\norigins = [\"192.0.2.9\"]\naction = \"drop\"\n";

/// Waits for a controller that must not come up.
fn refused(mut controller: Process) -> (i32, String) {
    let status = controller
        .wait(Duration::from_secs(10))
        .expect("edgefilter run gives up");
    (status.code().unwrap_or(-1), controller.stderr())
}

#[test]
fn a_second_controller_is_refused() {
    let net = Direct::new();
    let mut edge = Edge::enforcing(&net.edge, &[Direct::EDGE_IF], POLICY);
    let (code, message) = refused(edge.spawn());
    assert_eq!(code, exit::LOCKED, "{message}");
    let pid = edge.controller().pid().to_string();
    assert!(
        message.contains(&pid),
        "names the other process {pid}: {message}"
    );
    assert!(edge.controller().is_running());
    assert_eq!(edge.run(&["status"]).code, exit::OK);
}

#[test]
fn a_foreign_program_is_left_alone() {
    let net = Direct::new();
    let foreign = ForeignProgram::attach(&net.edge, Direct::EDGE_IF);
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let (code, message) = refused(edge.spawn());
    assert_eq!(code, exit::BUSY, "{message}");
    assert!(message.contains(Direct::EDGE_IF), "{message}");
    drop(foreign);
    edge.start();
}

#[test]
fn a_missing_interface_attaches_nothing() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF, "absent0"], POLICY);
    let (code, message) = refused(edge.spawn());
    assert_eq!(code, exit::UNSUPPORTED, "{message}");
    assert!(message.contains("absent0"), "{message}");
    let links = net
        .edge
        .command("ip")
        .args(["link", "show", Direct::EDGE_IF])
        .output();
    let links = String::from_utf8(links.expect("ip runs").stdout).expect("text");
    assert!(!links.contains("xdp"), "nothing is half attached: {links}");
    assert_eq!(edge.run(&["status"]).code, exit::DIFFERS);
}

#[test]
fn other_users_are_refused() {
    const NOBODY: u32 = 65_534;
    let net = Direct::new();
    // Neither the build folder nor the temporary folders need be open to others.
    let dir = tempfile::Builder::new()
        .prefix("eft-")
        .tempdir_in("/tmp")
        .expect("a folder");
    let copy = dir.path().join("edgefilter");
    fs::copy(binary(), &copy).expect("a copied binary");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, POLICY).expect("a policy file");
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), None).expect("a folder given away");
    // `setpriv` changes the user after the namespace is entered, which only root may do.
    let mut command = net.edge.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy);
    command
        .args(["run", "--interface", Direct::EDGE_IF, "--policy"])
        .arg(&policy);
    let (code, message) = refused(Process::spawn("edgefilter run as nobody", command));
    assert_eq!(code, exit::NOT_PERMITTED, "{message}");
    assert!(message.contains("root"), "{message}");
}

#[test]
fn a_machine_without_bpffs_is_told_what_to_mount() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    // A mount namespace of its own, private by default: nobody else loses the file system.
    let mut command = net.edge.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "umount -l /sys/fs/bpf && exec \"$@\"",
        "sh",
    ]);
    command
        .arg(binary())
        .arg("run")
        .arg("--config")
        .arg(edge.config_path());
    let (code, message) = refused(Process::spawn("edgefilter run without bpffs", command));
    assert_eq!(code, exit::UNSUPPORTED, "{message}");
    assert!(message.contains("mount"), "the next step: {message}");
}

#[test]
fn bad_files_and_command_lines_are_refused_before_anything_is_attached() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], "version = 1\nrules = 3\n");
    let (code, message) = refused(edge.spawn());
    assert_eq!(code, exit::REFUSED, "{message}");
    assert!(
        message.contains("policy.toml:2"),
        "file and line: {message}"
    );

    edge.write_policy(POLICY);
    edge.configure(&[Direct::EDGE_IF], "colour = \"blue\"\n");
    let (code, message) = refused(edge.spawn());
    assert_eq!(code, exit::REFUSED, "{message}");
    assert!(message.contains("colour"), "{message}");
    assert_eq!(edge.run(&["run", "--no-such-flag"]).code, exit::USAGE);
    assert_eq!(edge.run(&["no-such-command"]).code, exit::USAGE);
    assert!(!net.edge.pin_dir().exists());
}

#[test]
fn check_never_needs_the_kernel() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &["absent0"], POLICY);
    let policy = edge.policy_path();
    let path = policy.to_str().expect("a path in UTF-8");
    let check = || -> Ended { edge.run(&["check", path]) };
    assert_eq!(check().code, exit::OK, "{:?}", check());
    edge.write_policy(
        "version = 1\n[[rule]]\nid = \"x\"\nhosts = [\"a b.example\"]\naction = \"drop\"\n",
    );
    let ended = check();
    assert_eq!(ended.code, exit::REFUSED, "{ended:?}");
    assert!(ended.stderr.contains("policy.toml:4"), "{ended:?}");
    assert!(!net.edge.pin_dir().exists());
}

#[test]
fn status_differs_when_nothing_is_enforced() {
    let net = Direct::new();
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::DIFFERS, "{status:?}");
    assert_eq!(
        edge.run(&["detach"]).code,
        exit::OK,
        "detaching nothing is no error"
    );
}
