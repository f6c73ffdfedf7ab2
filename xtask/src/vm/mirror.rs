//! Debian's archive as this machine reaches it: whatever mirror and proxy its apt uses.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Downloads one file and compares its hash, with all of apt's own settings.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Keys of the archive, the newer name first.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// Addresses that apt fetches Debian's packages from, each with a slash at its end.
pub(crate) fn bases() -> Result<Vec<String>> {
    let mut bases = known_bases()?;
    if bases.is_empty() {
        // Whose mirror an address is, only an index tells.
        shell::read(shell::command("apt-get").args(["--quiet=2", "update"]))?;
        bases = known_bases()?;
    }
    if bases.is_empty() {
        bail!("apt knows no mirror of Debian: add one to /etc/apt/sources.list.d");
    }
    Ok(bases.into_iter().collect())
}

fn known_bases() -> Result<BTreeSet<String>> {
    let listing = shell::read(shell::command("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN)",
        "Created-By: Packages",
    ]))
    .context("cannot ask apt for its mirrors")?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, origin)| *origin == "Debian")
        .map(|(base, _)| base.to_owned())
        .collect())
}

/// Downloads `address` to `file`, which is there only with the right content.
pub(crate) fn download(address: &str, file: &Path, sha256: &str) -> Result<()> {
    let partial = file.with_extension("partial");
    let hash = format!("SHA256:{sha256}");
    let arguments = ["-o", "APT::Sandbox::User=root", "download-file", address];
    shell::read(
        shell::command(HELPER)
            .args(arguments)
            .arg(&partial)
            .arg(hash),
    )?;
    fs::rename(&partial, file).with_context(|| format!("cannot rename {}", partial.display()))
}

/// Indexes of some suites beside those that apt uses, in a folder of their own.
pub(crate) struct Mirror {
    options: Vec<String>,
}

impl Mirror {
    /// Reads the indexes anew.
    pub(crate) fn update(suites: &[&str]) -> Result<Self> {
        let folder = shell::root().join("target/vm/apt");
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let base = bases()?
            .into_iter()
            .find(|base| !base.contains("security"))
            .context("apt has Debian's security archive only: add the archive itself")?;
        let keyring = KEYRINGS
            .iter()
            .find(|keyring| Path::new(keyring).exists())
            .context("no keys of Debian's archive: install debian-archive-keyring")?;
        let sources = folder.join("sources.list");
        let lines = suites
            .iter()
            .map(|suite| format!("deb [signed-by={keyring}] {base} {suite} main\n"));
        fs::write(&sources, lines.collect::<String>())
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let folder = folder.display();
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let mirror = Self {
            options: options
                .into_iter()
                .flat_map(|option| ["-o".to_owned(), option])
                .collect(),
        };
        shell::read(
            shell::command("apt-get")
                .args(&mirror.options)
                .args(["--quiet=2", "update"]),
        )?;
        Ok(mirror)
    }

    /// Options that have apt read these indexes.
    pub(crate) fn options(&self) -> &[String] {
        &self.options
    }

    /// The highest version of a package in all suites.
    pub(crate) fn newest_version(&self, package: &str) -> Result<String> {
        let listing = self.cache(&["madison", package])?;
        let mut newest: Option<&str> = None;
        for version in listing.lines().filter_map(|line| line.split('|').nth(1)) {
            let version = version.trim();
            let is_newer = match newest {
                Some(newest) => is_newer(version, newest)?,
                None => true,
            };
            if is_newer {
                newest = Some(version);
            }
        }
        newest
            .map(str::to_owned)
            .with_context(|| format!("the mirror has no package {package}"))
    }

    /// First words of the dependencies of one version of a package.
    pub(crate) fn depends(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let text = self.cache(&["show", &format!("{package}={version}")])?;
        let fields = text
            .lines()
            .filter_map(|line| line.strip_prefix("Depends:"));
        Ok(fields
            .flat_map(|field| field.split([',', '|']))
            .filter_map(|item| item.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads one version of a package into `folder`, unless it is there.
    pub(crate) fn fetch(&self, package: &str, version: &str, folder: &Path) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        let suffix = format!("{}_amd64.deb", version.replace(':', "%3a"));
        let downloaded = || -> Result<Option<PathBuf>> {
            let listing = fs::read_dir(folder)
                .with_context(|| format!("cannot read {}", folder.display()))?;
            Ok(listing.flatten().map(|entry| entry.path()).find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(&suffix)
            }))
        };
        // Even what is there: apt compares its hash and leaves it, or fetches it again.
        shell::read(
            shell::command("apt-get")
                .current_dir(folder)
                .args(&self.options)
                .args(["--quiet=2", "download", &format!("{package}={version}")]),
        )?;
        downloaded()?.with_context(|| format!("apt downloaded {package}, but not as {suffix}"))
    }

    fn cache(&self, arguments: &[&str]) -> Result<String> {
        shell::read(
            shell::command("apt-cache")
                .args(&self.options)
                .args(arguments),
        )
    }
}

/// Whether version `a` is higher than `b`, as dpkg orders them.
fn is_newer(a: &str, b: &str) -> Result<bool> {
    let mut command = shell::command("dpkg");
    let output = shell::output(command.args(["--compare-versions", a, "gt", b]))?;
    Ok(output.status.success())
}
