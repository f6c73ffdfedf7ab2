//! The kernels, from Debian's archive by way of the machine's own mirror.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::mirror::{self, Mirror};
use crate::shell;

/// Word for the newest kernel that Debian has.
pub(crate) const NEWEST: &str = "newest";

/// A kernel whose package is pinned by name and content.
struct Pinned {
    /// What it is called on the command line.
    series: &'static str,
    /// Path below the mirror, of the archive or the security archive.
    path: &'static str,
    sha256: &'static str,
}

/// The oldest supported kernel, and the long-term ones after it.
const PINNED: [Pinned; 3] = [
    Pinned {
        series: "6.1",
        path: "pool/updates/main/l/linux-signed-amd64/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb",
        sha256: "e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee",
    },
    Pinned {
        series: "6.12",
        path: "pool/updates/main/l/linux-signed-amd64/linux-image-6.12.117+deb13-cloud-amd64_6.12.117-1_amd64.deb",
        sha256: "e9893e5295d0549b8852611f12a4b8b5f6cc4b8128dcc2086b9847793b904ab7",
    },
    Pinned {
        series: "6.18",
        path: "pool/main/l/linux-signed-amd64/linux-image-6.18.15+deb13-cloud-amd64_6.18.15-1~bpo13+1_amd64.deb",
        sha256: "5a507681ea8c978d02265a7fec2f02c9588fb48b54b7f71edc1059e86007f3ec",
    },
];

/// Metapackage of the newest kernel, and the suites that may have it.
const NEWEST_PACKAGE: &str = "linux-image-cloud-amd64";
const NEWEST_SUITES: [&str; 2] = ["unstable", "stable-backports"];

/// What a metapackage's dependencies are followed through, and what of them is needed.
const FOLLOWED: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// A kernel's files, unpacked.
pub(crate) struct Kernel {
    /// The image that boots.
    pub image: PathBuf,
    root: PathBuf,
}

/// Names of all kernels, as on the command line.
pub(crate) fn names() -> Vec<String> {
    PINNED
        .iter()
        .map(|pinned| pinned.series)
        .chain([NEWEST])
        .map(str::to_owned)
        .collect()
}

/// Fetches the kernel called `name` and unpacks it into `folder`, which is emptied first.
pub(crate) fn unpack(name: &str, folder: &Path) -> Result<Kernel> {
    let packages = if name == NEWEST {
        newest()?
    } else {
        let pinned = PINNED.iter().find(|pinned| pinned.series == name);
        let pinned = pinned
            .with_context(|| format!("no kernel `{name}`: there are {}", names().join(", ")))?;
        vec![pinned.fetch()?]
    };
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for package in packages {
        shell::run(
            shell::command("dpkg-deb")
                .arg("--extract")
                .arg(&package)
                .arg(folder),
        )?;
    }
    let image = find(folder, &|name| name.starts_with("vmlinuz"))
        .with_context(|| format!("the package of kernel {name} has no image"))?;
    Ok(Kernel {
        image,
        root: folder.to_owned(),
    })
}

impl Kernel {
    /// The content of a module, without its compression.
    pub(crate) fn module(&self, name: &str) -> Result<Vec<u8>> {
        let (plain, xz) = (format!("{name}.ko"), format!("{name}.ko.xz"));
        let path = find(&self.root, &|file| file == plain || file == xz)
            .with_context(|| format!("the kernel's package has no {plain} and no {xz}"))?;
        if path.extension() == Some(OsStr::new("ko")) {
            return fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
        }
        let output = shell::output(shell::command("busybox").arg("xzcat").arg(&path))?;
        if !output.status.success() {
            bail!("cannot decompress {}: {}", path.display(), output.status);
        }
        Ok(output.stdout)
    }
}

impl Pinned {
    /// The package, from the cache or the mirror; its content is always compared.
    fn fetch(&self) -> Result<PathBuf> {
        let file = self.path.rsplit('/').next().unwrap_or(self.path);
        let cached = cache()?.join(file);
        if is(&cached, self.sha256)? {
            return Ok(cached);
        }
        println!("vm: fetching {file}");
        let bases = mirror::bases()?;
        let mut said = Vec::new();
        for base in &bases {
            match mirror::download(&format!("{base}{}", self.path), &cached, self.sha256) {
                Ok(()) => return Ok(cached),
                Err(error) => said.push(error.to_string()),
            }
        }
        bail!(
            "cannot fetch {file} (kernel {}), pinned in {}:\n{}\nIf the mirror has replaced it, pin the version that \
             it has now, by name and sha256; or put the file with sha256 {} into {}",
            self.series,
            file!(),
            said.join("\n"),
            self.sha256,
            cached.parent().unwrap_or(&cached).display()
        )
    }
}

/// Packages of the newest kernel; apt compares their content with the signed index.
fn newest() -> Result<Vec<PathBuf>> {
    let mirror = Mirror::update(&NEWEST_SUITES)?;
    let version = mirror.newest_version(NEWEST_PACKAGE)?;
    let mut wanted = vec![NEWEST_PACKAGE.to_owned()];
    let mut seen = BTreeSet::new();
    let mut packages = Vec::new();
    while let Some(package) = wanted.pop() {
        if !seen.insert(package.clone()) {
            continue;
        }
        let depends = mirror.depends(&package, &version)?;
        wanted.extend(
            depends
                .into_iter()
                .filter(|name| FOLLOWED.iter().any(|prefix| name.starts_with(prefix))),
        );
        if package != NEWEST_PACKAGE {
            packages.push(mirror.fetch(&package, &version, &cache()?)?);
        }
    }
    Ok(packages)
}

/// Where packages are kept between runs.
fn cache() -> Result<PathBuf> {
    let folder = shell::root().join(".toolchain/kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Whether the file is there with this content.
fn is(file: &Path, sha256: &str) -> Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    let sum = shell::read(shell::command("sha256sum").arg(file))?;
    Ok(sum.split_whitespace().next() == Some(sha256))
}

/// The first file below `folder` whose name is `wanted`.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().ok()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(wanted) {
                return Some(entry.path());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_a_package_of_their_series_and_a_whole_hash() {
        for Pinned {
            series,
            path,
            sha256,
        } in &PINNED
        {
            assert!(path.contains(&format!("linux-image-{series}.")), "{path}");
            assert!(path.ends_with("_amd64.deb"), "{path}");
            assert_eq!(sha256.len(), 64, "{series}");
            assert!(sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn an_unknown_kernel_is_refused_with_the_known_ones() {
        let error = unpack("5.10", Path::new("nowhere")).err().unwrap();
        assert!(error.to_string().contains("6.1, 6.12, 6.18, newest"));
    }
}
