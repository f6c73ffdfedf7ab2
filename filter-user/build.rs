//! Finds the object file of the kernel program, which the binary embeds.

use std::{env, path::PathBuf};

/// Names another object file to embed, for packagers and experiments.
const OVERRIDE: &str = "EDGEFILTER_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let object = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/edgefilter.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) => println!("cargo::rustc-env=EDGEFILTER_OBJECT={}", path.display()),
        Err(error) => println!(
            "cargo::error=the kernel program {} cannot be read ({error}); run `cargo xtask build` first, \
             or name an object file in {OVERRIDE}",
            object.display()
        ),
    }
}
