//! The repository's own rules: invariants that no compiler checks.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Lines of a source file beyond which `lint` warns, and beyond which it fails.
const LINES_WARN: usize = 500;
const LINES_MAX: usize = 700;

/// The only files of the kernel programs that touch packet memory: one of the filter, and the
/// benchmark's programs, which are not shipped.
const PACKET_ACCESS: [&str; 2] = ["filter-ebpf/src/packet.rs", "filter-ebpf/src/bench.rs"];

/// What touching packet memory looks like.
const PACKET_WORDS: [&str; 2] = ["data_end", "data_meta"];

/// The only folder whose code makes BPF system calls.
const DATAPATH: &str = "filter-user/src/datapath";

/// What making BPF system calls looks like.
const BPF_WORDS: [&str; 4] = ["SYS_bpf", "aya", "aya_log", "aya_obj"];

/// What belongs to one machine and not into a repository. Split, so that this file does not
/// break its own rule.
const MACHINE_TEXTS: [&str; 6] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp", "/wt"),
    concat!("sparse", "+http"),
    concat!("index.", "crates.io"),
    concat!("deb.", "debian.org"),
];

/// One broken rule.
struct Finding {
    path: PathBuf,
    /// Counted from 1; 0 for the file as a whole.
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            0 => write!(f, "{path}: {}", self.rule),
            line => write!(f, "{path}:{line}: {}", self.rule),
        }
    }
}

/// Checks every file that git tracks or would track.
pub(crate) fn check() -> Result<()> {
    let listing = shell::read(shell::command("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("cannot list the files of the repository")?;
    let mut findings = Vec::new();
    for path in listing.lines().map(Path::new) {
        // A file that was deleted but not yet committed, or is not text.
        let Ok(text) = fs::read_to_string(shell::root().join(path)) else {
            continue;
        };
        findings.extend(check_file(path, &text));
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} broken rules of this repository (above)", findings.len());
    }
    Ok(())
}

fn check_file(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = machine_texts(path, text);
    if path.ends_with("filter-common/Cargo.toml") {
        findings.extend(dependencies(path, text));
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return findings;
    }
    findings.extend(length(path, text));
    if path.starts_with("filter-common/src") {
        findings.extend(words(
            path,
            text,
            &["unsafe"],
            "filter-common has no `unsafe`",
        ));
    }
    let may_touch_packets = PACKET_ACCESS.iter().any(|file| path == Path::new(file));
    if path.starts_with("filter-ebpf/src") && !may_touch_packets {
        let rule = format!(
            "packet memory is touched in {} only",
            PACKET_ACCESS.join(", ")
        );
        findings.extend(words(path, text, &PACKET_WORDS, &rule));
    }
    if path.starts_with("filter-user/src") && !path.starts_with(DATAPATH) {
        let rule = format!("BPF system calls are made in {DATAPATH} only");
        findings.extend(words(path, text, &BPF_WORDS, &rule));
    }
    findings
}

fn machine_texts(path: &Path, text: &str) -> Vec<Finding> {
    let broken = |line: &str| MACHINE_TEXTS.iter().find(|needle| line.contains(**needle));
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let rule = format!("`{}` belongs to one machine", broken(line)?);
            Some(Finding {
                path: path.to_owned(),
                line: index + 1,
                rule,
            })
        })
        .collect()
}

/// Entries of any `[dependencies]` section; development dependencies are fine.
fn dependencies(path: &Path, manifest: &str) -> Vec<Finding> {
    let mut inside = false;
    let mut findings = Vec::new();
    for (index, line) in manifest.lines().map(str::trim).enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies" || section.ends_with(".dependencies");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let rule = "filter-common has no dependencies".to_owned();
            findings.push(Finding {
                path: path.to_owned(),
                line: index + 1,
                rule,
            });
        }
    }
    findings
}

fn length(path: &Path, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let rule = format!("{lines} lines, at most {LINES_MAX}: split it by responsibility");
        return Some(Finding {
            path: path.to_owned(),
            line: 0,
            rule,
        });
    }
    if lines > LINES_WARN {
        eprintln!(
            "warning: {}: {lines} lines, better below {LINES_WARN}",
            path.display()
        );
    }
    None
}

/// Lines whose code, comments aside, has one of `forbidden` as a whole word.
fn words(path: &Path, text: &str, forbidden: &[&str], rule: &str) -> Vec<Finding> {
    let has_word = |code: &str| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| forbidden.contains(&word))
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| has_word(line.split("//").next().unwrap_or_default()))
        .map(|(index, _)| Finding {
            path: path.to_owned(),
            line: index + 1,
            rule: rule.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<String> {
        check_file(Path::new(path), text)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn unsafe_in_filter_common_is_found_but_not_in_comments_or_lint_names() {
        let text = "#![forbid(unsafe_code)]\n// unsafe\nunsafe { x() }\n";
        assert_eq!(
            broken("filter-common/src/x.rs", text),
            ["filter-common/src/x.rs:3: filter-common has no `unsafe`"]
        );
        assert!(broken("filter-user/src/datapath/x.rs", text).is_empty());
    }

    #[test]
    fn dependencies_of_filter_common_are_found_and_development_ones_are_not() {
        let text = "[dependencies]\nlibc = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(broken("filter-common/Cargo.toml", text).len(), 1);
    }

    #[test]
    fn bpf_calls_outside_the_datapath_are_found() {
        let text = "use aya::Ebpf;\n";
        assert_eq!(broken("filter-user/src/cli/run.rs", text).len(), 1);
        assert!(broken("filter-user/src/datapath/load.rs", text).is_empty());
    }

    #[test]
    fn packet_access_outside_its_file_is_found() {
        let text = "let end = ctx.data_end();\n";
        assert_eq!(broken("filter-ebpf/src/main.rs", text).len(), 1);
        assert!(broken(PACKET_ACCESS[0], text).is_empty());
    }

    #[test]
    fn a_machines_paths_are_found_in_any_file() {
        let text = concat!("see /ro", "ot/x\n");
        assert_eq!(broken("README.md", text).len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(
            broken("tests/src/x.rs", &"\n".repeat(LINES_MAX + 1)).len(),
            1
        );
        assert!(broken("tests/src/x.rs", &"\n".repeat(LINES_MAX)).is_empty());
    }
}
