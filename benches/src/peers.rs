//! Other filters with a list of addresses: nftables at the interface's ingress, and ipset in the
//! raw table.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use filter_tests::net::Namespace;

use crate::{
    lists::Lists,
    loads::{Ran, timed},
};

/// Debian packages whose versions belong to a report.
const PACKAGES: [&str; 6] = [
    "xdp-tools",
    "nftables",
    "ipset",
    "iptables",
    "haproxy",
    "libnginx-mod-stream",
];

/// A filter that is fed by a command of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A named set with the flag `interval`, in the hook `ingress`.
    Nftables,
    /// A set of the type `hash:net`, in `PREROUTING` of the table `raw`.
    Ipset,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::Nftables, Self::Ipset];

    /// The stable word in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Ipset => "ipset",
        }
    }

    /// Drops on this interface what comes from the prefixes; what its command took to load them.
    pub(crate) fn load(
        self,
        namespace: &Namespace,
        interface: &str,
        lists: &Lists,
        folder: &Path,
    ) -> Result<Ran> {
        let file = folder.join(format!("{}-{}", self.name(), lists.entries));
        match self {
            Self::Nftables => {
                write(&file, &ruleset(interface, lists))?;
                timed(namespace.command("nft").arg("-f").arg(&file))
            }
            Self::Ipset => {
                write(&file, &set(lists))?;
                let ran = timed(
                    namespace
                        .command("ipset")
                        .arg("restore")
                        .arg("-f")
                        .arg(&file),
                )?;
                // The older interface: a rule of it runs no more than the match that it is.
                let rule = "-w -t raw -A PREROUTING -m set --match-set blocked src -j DROP";
                timed(namespace.command("iptables-legacy").args(rule.split(' ')))?;
                Ok(ran)
            }
        }
    }
}

/// Names and versions of what is compared with; what is not known is left out.
pub(crate) fn versions() -> Vec<String> {
    let version = |package: &&str| {
        let output = Command::new("dpkg-query")
            .args(["--show", "--showformat=${Package} ${Version}", package])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(text)
    };
    PACKAGES.iter().filter_map(version).collect()
}

fn write(file: &PathBuf, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn ruleset(interface: &str, lists: &Lists) -> String {
    let mut text = String::from(
        "table netdev bench {\n set blocked {\n  type ipv4_addr; flags interval;\n  elements = { ",
    );
    for (address, length) in lists.apart() {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{address}/{length}, ");
    }
    let _ = write!(
        text,
        "}}\n }}\n chain ingress {{\n  type filter hook ingress device \"{interface}\" priority 0; \
         policy accept;\n  ip saddr @blocked drop\n }}\n}}\n"
    );
    text
}

fn set(lists: &Lists) -> String {
    let entries = lists.entries;
    let hash_size = entries.next_power_of_two();
    let mut text =
        format!("create blocked hash:net family inet hashsize {hash_size} maxelem {entries}\n");
    for line in lists.v4.text().lines() {
        let _ = writeln!(text, "add blocked {line}");
    }
    text
}
