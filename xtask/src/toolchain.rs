//! Finds a Rust compiler that can build `core` for BPF and a bpf-linker that reads its bitcode.
//!
//! `bpfel-unknown-none` has no precompiled `core`, so the compiler needs the standard library's
//! source of its own version, and the linker's LLVM must be at least the compiler's. Whether a
//! pair fits is found out by linking something, not by comparing version strings.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, shell};

/// The target of the kernel program.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The release that `setup` builds when no linker fits.
const LINKER_VERSION: &str = "0.13.0";

/// What Debian's compiler and its linker are made of.
const DEBIAN_PACKAGES: [&str; 9] = [
    "rustc-web",
    "rust-web-src",
    "rust-web-clippy",
    "cargo-web",
    "llvm-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "gcc",
    "libc6-dev",
];

/// Prefix of the LLVM that [`DEBIAN_PACKAGES`] bring.
const DEBIAN_LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Where Debian puts its compiler.
const DEBIAN_BIN: &str = "/usr/bin";

/// What is compiled to see whether a pair fits: attributes, a loop, and the calls of `memset` and
/// `memcpy` on which mismatched LLVMs are known to stumble.
const PROBE: &str = r#"#![no_std]
#[unsafe(no_mangle)]
pub fn probe(to: &mut [u8; 4096], from: &[u8; 4096], zero: &mut [u64; 512]) -> u64 {
    *to = *from;
    *zero = [0; 512];
    to.iter().fold(0, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(*byte))
}
"#;

/// A compiler and a linker that work together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo of the same release.
    pub cargo: PathBuf,
    /// The linker.
    pub linker: PathBuf,
}

/// A compiler with the source of its standard library.
struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Toolchain {
    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        format!("{} with {}", self.rustc.display(), self.linker.display())
    }

    /// The chosen cargo, told to use the chosen compiler. Nightly features are on with any release.
    pub(crate) fn cargo(&self) -> Command {
        self.prepare(shell::toolchain_command(&self.cargo))
    }

    /// As [`Self::cargo`], for its clippy, called directly: `cargo clippy` would find rustup's.
    pub(crate) fn clippy(&self) -> Command {
        let program = self.rustc.with_file_name("cargo-clippy");
        let mut command = self.prepare(shell::toolchain_command(program));
        command.env("CARGO", &self.cargo);
        command
    }

    fn prepare(&self, mut command: Command) -> Command {
        command
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Whether this is Debian's compiler.
    pub(crate) fn is_debian(&self) -> bool {
        self.rustc.parent() == Some(Path::new(DEBIAN_BIN))
    }

    /// Whether the clippy of the same release is installed.
    pub(crate) fn has_clippy(&self) -> bool {
        ["cargo-clippy", "clippy-driver"]
            .iter()
            .all(|name| self.rustc.with_file_name(name).is_file())
    }
}

/// The pair to use: the one found earlier if nothing about it has changed, else the first that
/// fits. `None` if there is none; `report` gets a line for everything that was looked at.
pub(crate) fn find(report: &mut dyn FnMut(String)) -> Result<Option<Toolchain>> {
    let compilers = compilers();
    let linkers = linkers();
    let remembered = fs::read_to_string(memory_path()).unwrap_or_default();
    if let Some(toolchain) =
        pairs(&compilers, &linkers).find(|pair| fingerprint(pair) == Some(remembered.clone()))
    {
        return Ok(Some(toolchain));
    }
    if compilers.is_empty() {
        report("no Rust compiler with the source of its standard library".to_owned());
    }
    if linkers.is_empty() {
        report("no bpf-linker in PATH or .toolchain/bin".to_owned());
    }
    for pair in pairs(&compilers, &linkers) {
        match probe(&pair) {
            Ok(()) => {
                remember(&pair)?;
                return Ok(Some(pair));
            }
            Err(error) => report(format!("does not fit: {}: {error:#}", pair.describe())),
        }
    }
    Ok(None)
}

/// The pair to use; an error that says what to install if there is none.
pub(crate) fn require() -> Result<Toolchain> {
    find(&mut |line| eprintln!("toolchain: {line}"))?
        .context("no usable BPF toolchain: run `cargo xtask setup`")
}

/// Installs Debian's compiler and builds a linker for it into `.toolchain/`.
pub(crate) fn install() -> Result<()> {
    if !packages::is_debian() {
        bail!(
            "no usable BPF toolchain, and its packages are known for Debian only. Install one:\n  \
             rustup toolchain install nightly --component rust-src\n  \
             cargo install bpf-linker   # for the LLVM of that nightly, see `rustc +nightly -vV`"
        );
    }
    let bin = Path::new(DEBIAN_BIN);
    let complete = compiler_in(bin).is_some()
        && Path::new(DEBIAN_LLVM_PREFIX)
            .join("bin/llvm-config")
            .is_file()
        && Path::new("/usr/include/zstd.h").is_file()
        && Path::new("/usr/include/zlib.h").is_file()
        && shell::which("cc").is_some();
    if !complete {
        packages::install(&DEBIAN_PACKAGES)?;
    }
    let folder = shell::root().join(".toolchain");
    println!("setup: building bpf-linker {LINKER_VERSION} into .toolchain/ (one to two minutes)");
    let mut cargo = shell::toolchain_command(bin.join("cargo"));
    shell::run(
        cargo
            .args([
                "install",
                "--quiet",
                "--force",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
            ])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(&folder)
            .arg("--target-dir")
            .arg(folder.join("build"))
            .env("RUSTC", bin.join("rustc"))
            .env("LLVM_PREFIX", DEBIAN_LLVM_PREFIX),
    )?;
    fs::remove_dir_all(folder.join("build")).context("cannot remove .toolchain/build")
}

/// Compilers with their standard library's source: rustup's, nightlies first, then Debian's.
fn compilers() -> Vec<Compiler> {
    let mut folders: Vec<PathBuf> = rustup_toolchains();
    folders.sort_by_key(|folder| {
        (
            !folder.to_string_lossy().contains("nightly"),
            folder.clone(),
        )
    });
    folders
        .iter()
        .map(|folder| folder.join("bin"))
        .chain([PathBuf::from(DEBIAN_BIN)])
        .filter_map(|bin| compiler_in(&bin))
        .collect()
}

fn compiler_in(bin: &Path) -> Option<Compiler> {
    let source = bin
        .parent()?
        .join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let compiler = Compiler {
        rustc: bin.join("rustc"),
        cargo: bin.join("cargo"),
    };
    let complete = source.is_file() && compiler.rustc.is_file() && compiler.cargo.is_file();
    complete.then_some(compiler)
}

fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let entries = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn linkers() -> Vec<PathBuf> {
    let own = shell::root().join(".toolchain/bin/bpf-linker");
    shell::which("bpf-linker")
        .into_iter()
        .chain(own.is_file().then_some(own))
        .collect()
}

fn pairs(compilers: &[Compiler], linkers: &[PathBuf]) -> impl Iterator<Item = Toolchain> {
    compilers.iter().flat_map(move |compiler| {
        linkers.iter().map(move |linker| Toolchain {
            rustc: compiler.rustc.clone(),
            cargo: compiler.cargo.clone(),
            linker: linker.clone(),
        })
    })
}

/// Compiles [`PROBE`] to bitcode for the host, which needs no BPF `core`, and links it for BPF.
fn probe(pair: &Toolchain) -> Result<()> {
    let folder = shell::target_dir().join("bpf-probe");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (source, bitcode) = (folder.join("probe.rs"), folder.join("probe.bc"));
    let object = folder.join("probe.o");
    fs::write(&source, PROBE).with_context(|| format!("cannot write {}", source.display()))?;
    shell::read(
        shell::toolchain_command(&pair.rustc)
            .args([
                "--crate-type=lib",
                "--edition=2024",
                "--emit=llvm-bc",
                "-Copt-level=3",
                "-o",
            ])
            .arg(&bitcode)
            .arg(&source),
    )?;
    let said = shell::output(
        shell::toolchain_command(&pair.linker)
            .args(["--target=bpfel", "--cpu=v3", "--emit=obj", "-o"])
            .args([&object, &bitcode]),
    )?;
    let complaint = String::from_utf8_lossy(&said.stderr);
    if !said.status.success() || complaint.contains("error") {
        let first = complaint.lines().next().unwrap_or("no message");
        bail!("the linker does not accept the compiler's bitcode: {first}");
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Where the pair found last is remembered.
fn memory_path() -> PathBuf {
    shell::root().join(".toolchain/chosen")
}

fn remember(pair: &Toolchain) -> Result<()> {
    let path = memory_path();
    let Some(content) = fingerprint(pair) else {
        return Ok(());
    };
    fs::create_dir_all(shell::root().join(".toolchain"))
        .and_then(|()| fs::write(&path, content))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Changes whenever one of the programs is replaced.
fn fingerprint(pair: &Toolchain) -> Option<String> {
    let mut text = String::new();
    for path in [&pair.rustc, &pair.cargo, &pair.linker] {
        let data = fs::metadata(path).ok()?;
        text += &format!(
            "{} {} {} {}\n",
            path.display(),
            data.len(),
            data.mtime(),
            data.ino()
        );
    }
    Some(text)
}
