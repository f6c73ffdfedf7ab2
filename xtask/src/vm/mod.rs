//! `cargo xtask vm`: the program, the fixtures and the commands on other kernels, in virtual
//! machines under software emulation.

mod guest;
mod kernels;
pub(crate) mod mirror;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use self::{guest::Test, kernels::NEWEST, report::Outcome};
use crate::{bpf_build, interrupt, packages, setup, shell};

/// What runs in a machine: its name in the report, the test binary, and which of its tests.
const TESTS: [(&str, &str, &[&str]); 3] = [
    ("variants", "budgets", &[]),
    (
        "fixtures",
        "fixtures",
        &["the_program_in_the_kernel_does_what_every_row_says"],
    ),
    ("smoke", "smoke", &[]),
];

/// Runs the tests on these kernels, all if none is named; writes `target/vm/report.json`.
pub(crate) fn run(kernels: &[String]) -> Result<()> {
    let known = kernels::names();
    if let Some(unknown) = kernels.iter().find(|name| !known.contains(name)) {
        bail!("no kernel `{unknown}`: there are {}", known.join(", "));
    }
    let kernels = if kernels.is_empty() { &known } else { kernels };
    interrupt::install()?;
    setup::ensure_programs()?;
    packages::ensure_programs(&packages::VM_PROGRAMS)?;
    bpf_build::object(&setup::ensure_toolchain()?)?;
    shell::run(shell::cargo().args(["build", "--quiet"]))?;
    let binaries = test_binaries()?;

    let folder = shell::root().join("target/vm");
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for name in kernels {
        let gating = name != NEWEST;
        println!("vm: {name}");
        let begin = Instant::now();
        let result = on_kernel(name, &binaries, &folder.join(name));
        interrupt::check()?;
        let seconds = begin.elapsed().as_secs();
        let good = print(name, seconds, &result);
        rows.push(row(name, gating, good, seconds, &result));
        if gating && !good {
            failed.push(name.as_str());
        }
    }
    let report = folder.join("report.json");
    let text = serde_json::to_string_pretty(&json!({ "kernels": rows }))
        .context("cannot write the report as JSON")?;
    fs::write(&report, text + "\n")
        .with_context(|| format!("cannot write {}", report.display()))?;
    if !failed.is_empty() {
        bail!("failed on kernel {}", failed.join(", "));
    }
    Ok(())
}

fn on_kernel(name: &str, binaries: &BTreeMap<String, PathBuf>, folder: &Path) -> Result<Outcome> {
    let kernel = kernels::unpack(name, &folder.join("kernel"))?;
    let tests = TESTS
        .iter()
        .map(|&(name, binary, arguments)| {
            let binary = binaries.get(binary);
            let binary = binary.with_context(|| format!("cargo built no test {name}"))?;
            Ok(Test {
                name,
                binary: binary.clone(),
                arguments,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let product = shell::target_dir().join("debug/edgefilter");
    let initrd = guest::pack(&kernel, &tests, &product, folder)?;
    let results = guest::run(&kernel, &initrd, folder)?;
    Ok(Outcome::parse(&results))
}

/// Executables of the workspace's integration tests by name. Built as `cargo xtask test` builds
/// them, so that nothing is built twice.
fn test_binaries() -> Result<BTreeMap<String, PathBuf>> {
    let messages =
        shell::read(shell::cargo().args(["test", "--quiet", "--no-run", "--message-format=json"]))
            .context("cannot build the tests")?;
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(artifacts
        .filter(|artifact| artifact["target"]["kind"][0] == "test")
        .filter_map(|artifact| {
            let name = artifact["target"]["name"].as_str()?.to_owned();
            Some((name, artifact["executable"].as_str()?.into()))
        })
        .collect())
}

/// Tells what a kernel came to; whether all is well.
fn print(name: &str, seconds: u64, result: &Result<Outcome>) -> bool {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            println!("  FAILED    {error:#}");
            return false;
        }
    };
    println!("  kernel    {} ({name}), {seconds} s", outcome.release);
    print!("{}", outcome.text());
    for run in outcome.failed() {
        println!("--- {}:\n{}---", run.name, run.output);
    }
    outcome.is_good(TESTS.len())
}

fn row(name: &str, gating: bool, good: bool, seconds: u64, result: &Result<Outcome>) -> Value {
    let mut row = match result {
        Ok(outcome) => outcome.json(),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    row["kernel"] = json!(name);
    row["gating"] = json!(gating);
    row["good"] = json!(good);
    row["seconds"] = json!(seconds);
    row
}
