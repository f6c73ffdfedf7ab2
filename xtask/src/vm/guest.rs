//! The virtual machine: what is in it, and running it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::{interrupt, shell};

/// First process of the machine.
const INIT: &str = include_str!("init.sh");

/// Where test binaries lie, as under `target/`: they look for the product's binary beside them.
const TESTS: &str = "target/debug/deps";
const PRODUCT: &str = "target/debug/edgefilter";

/// What the tests need that is not built into Debian's kernels.
const MODULES: [&str; 3] = ["cls_bpf", "sch_ingress", "veth"];

/// Memory in MiB and processors of the machine.
const MEMORY: &str = "2048";
const PROCESSORS: &str = "2";

/// Longest time that a machine may run; on an idle host it takes a few minutes.
const TIME_MAX: Duration = Duration::from_secs(20 * 60);

/// Lines of the console shown when a machine does not come to its end.
const CONSOLE_LINES_SHOWN: usize = 20;

/// A test binary and how it is run.
pub(crate) struct Test {
    /// What it is called in the results.
    pub name: &'static str,
    /// The binary.
    pub binary: PathBuf,
    /// Further arguments.
    pub arguments: &'static [&'static str],
}

/// Packs the file system of a machine: the tests, the product's `binary`, and what they load and
/// call. The file's path.
pub(crate) fn pack(
    kernel: &Kernel,
    tests: &[Test],
    product: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    for name in [
        "bin", "sbin", "proc", "sys", "dev", "tmp", "run", "modules", "etc", TESTS,
    ] {
        let path = root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let mut libraries = BTreeSet::new();
    add(&program("busybox")?, &root, "bin/busybox", &mut libraries)?;
    add(&program("ip")?, &root, "sbin/ip", &mut libraries)?;
    add(product, &root, PRODUCT, &mut libraries)?;
    let mut lines = String::new();
    for Test {
        name,
        binary,
        arguments,
    } in tests
    {
        let place = format!("{TESTS}/{name}");
        add(binary, &root, &place, &mut libraries)?;
        let arguments = arguments.join(" ");
        lines.push_str(&format!(
            "{name} /{place} --nocapture --test-threads 1 {arguments}\n"
        ));
    }
    for library in libraries {
        let place = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &root.join(place))?;
    }
    for module in MODULES {
        write(
            &root.join(format!("modules/{module}.ko")),
            &kernel.module(module)?,
        )?;
    }
    write(&root.join("tests"), lines.as_bytes())?;
    let init = root.join("init");
    write(&init, INIT.as_bytes())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", init.display()))?;
    let packed = folder.join("initrd");
    let line = "find . | busybox cpio -o -H newc >\"$0\"";
    shell::read(
        shell::command("sh")
            .current_dir(&root)
            .args(["-c", line])
            .arg(&packed),
    )
    .context("cannot pack the machine's file system")?;
    Ok(packed)
}

/// Runs a machine to its end; what its tests printed.
pub(crate) fn run(kernel: &Kernel, initrd: &Path, folder: &Path) -> Result<String> {
    let (console, results) = (folder.join("console.log"), folder.join("results.log"));
    let mut command = shell::command("qemu-system-x86_64");
    command
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-machine",
            "q35",
        ])
        .args(["-m", MEMORY, "-smp", PROCESSORS, "-no-reboot"])
        .args(["-nodefaults", "-display", "none"])
        // Emulated on a busy machine the timer is late for the kernel's check of it, which panics then.
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check",
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd);
    for log in [&console, &results] {
        command
            .arg("-serial")
            .arg(format!("file:{}", log.display()));
    }
    let line = shell::line(&command);
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let ended = Machine(child).wait();
    let read = |log: &Path| {
        let bytes = fs::read(log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    };
    ended.with_context(|| {
        let console = read(&console);
        let lines: Vec<_> = console.lines().collect();
        let from = lines.len().saturating_sub(CONSOLE_LINES_SHOWN);
        format!("its console, at the end:\n{}", lines[from..].join("\n"))
    })?;
    Ok(read(&results))
}

/// A running emulator, which does not outlive this value.
struct Machine(Child);

impl Machine {
    fn wait(mut self) -> Result<()> {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            interrupt::check()?;
            if let Some(status) = self.0.try_wait().context("cannot wait for qemu")? {
                if !status.success() {
                    bail!("qemu ended with {status}");
                }
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the machine did not end within {} s", TIME_MAX.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It may end by itself in between, which is what is wanted.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn program(name: &str) -> Result<PathBuf> {
    shell::which(name).with_context(|| format!("no program `{name}`: run `cargo xtask setup`"))
}

/// Copies a binary without its debug information, and notes what it loads.
fn add(binary: &Path, root: &Path, place: &str, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
    let to = root.join(place);
    shell::read(
        shell::command("objcopy")
            .arg("--strip-debug")
            .arg(binary)
            .arg(&to),
    )?;
    let output = shell::output(shell::command("ldd").arg(binary))?;
    // A static program has none, and ldd says so with an error.
    let listing = String::from_utf8_lossy(&output.stdout);
    let words = listing.lines().flat_map(str::split_whitespace);
    libraries.extend(
        words
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from),
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
