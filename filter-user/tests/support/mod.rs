//! A fresh network namespace per test, on a thread of its own, cleaned up also when
//! the test fails.

use std::{
    panic::{self, AssertUnwindSafe},
    process::Command,
    sync::Once,
    thread,
};

use filter_user::datapath::Root;
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a network namespace of its own, with the veth pair `edge0`/`peer0`.
pub(crate) fn in_namespace(test: impl FnOnce(&Root) + Send + 'static) {
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        sh("ip link set lo up");
        sh("ip link add edge0 type veth peer name peer0");
        // An address that the kernel adds once it notices the carrier, up to a second later, would
        // be one of the host's: a new generation in the middle of a test.
        sh("ip link set edge0 addrgenmode none && ip link set peer0 addrgenmode none");
        sh("ip link set edge0 up && ip link set peer0 up");
        mount_bpffs();
        let root = Root::open().expect("root and a mounted bpffs");
        let guard = Guard(root.clone());
        let result = panic::catch_unwind(AssertUnwindSafe(|| test(&root)));
        drop(guard);
        result
    })
    .join()
    .expect("the thread of the namespace");
    if let Err(panic) = result {
        panic::resume_unwind(panic);
    }
}

/// Mounts the BPF file system if it is not.
pub(crate) fn mount_bpffs() {
    static MOUNT: Once = Once::new();
    MOUNT.call_once(|| {
        sh("mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf");
    });
}

/// Runs a shell command in the calling thread's namespace.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", command])
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "`{command}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Guard(Root);

impl Drop for Guard {
    fn drop(&mut self) {
        let detached = self.0.lock().and_then(|lock| self.0.detach(&lock, None));
        let _ = std::fs::remove_dir_all(self.0.run_dir());
        if let Err(error) = detached
            && !thread::panicking()
        {
            panic!("the namespace's pins could not be removed: {error}");
        }
    }
}
