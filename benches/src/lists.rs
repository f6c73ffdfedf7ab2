//! Lists of several sizes, the same for every filter that is flooded.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::sources::{Family, Prefixes, Random, Source, names};

/// What the namespaces of the benchmark use themselves: no list blocks it.
const OWN: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(203, 0, 113, 0),
];
const OWN_LENGTH: u8 = 24;

/// Blocked IPv4 prefixes, and a policy of them and of as many names.
pub(crate) struct Lists {
    pub(crate) entries: usize,
    pub(crate) v4: Prefixes,
    /// The policy's file.
    pub(crate) policy: PathBuf,
}

impl Lists {
    /// Makes them, in a new folder within this one.
    pub(crate) fn new(entries: usize, within: &Path, random: &mut Random) -> Result<Self> {
        let folder = within.join(format!("flood-{entries}"));
        let mut v4 = Prefixes::new(Family::V4, entries, random);
        v4.all.retain(|&(address, length)| !is_own(address, length));
        let policy = folder.join("policy.toml");
        let mut write = || {
            fs::create_dir(&folder)?;
            fs::write(folder.join("origins.txt"), v4.text())?;
            fs::write(folder.join("names.txt"), names(entries, random))?;
            fs::write(
                &policy,
                "version = 1\n\
                 [[rule]]\nid = \"origins\"\norigins_file = \"origins.txt\"\naction = \"drop\"\n\
                 [[rule]]\nid = \"names\"\ndomains_file = \"names.txt\"\naction = \"drop\"\n",
            )
        };
        write().with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(Self {
            entries,
            v4,
            policy,
        })
    }

    /// The prefixes that lie in no other one, sorted: not every filter takes nested ones.
    pub(crate) fn apart(&self) -> Vec<(Ipv4Addr, u8)> {
        let mut sorted = self.v4.all.clone();
        // A wider one comes before those that begin where it does.
        sorted.sort_unstable();
        let mut beyond = 0;
        sorted.retain(|&(address, length)| {
            let apart = address >= beyond;
            if apart {
                beyond = address.saturating_add(1 << (128 - u32::from(length)));
            }
            apart
        });
        let short = |(address, length): (u128, u8)| {
            let bits = (address >> 96) as u32;
            (Ipv4Addr::from_bits(bits), length)
        };
        sorted.into_iter().map(short).collect()
    }
}

/// Whether a prefix has an address of [`OWN`] in it.
fn is_own(address: u128, length: u8) -> bool {
    let shift = 128 - u32::from(length.min(OWN_LENGTH));
    OWN.iter()
        .any(|own| (u128::from(own.to_bits()) << 96) >> shift == address >> shift)
}

/// Only the sources that a host answers: no multicast, loopback or reserved ones, which every
/// stack drops on its own. As many as before.
pub(crate) fn unicast(sources: Vec<Source>) -> Vec<Source> {
    let count = sources.len();
    let is_unicast = |source: &&Source| match source[0].to_ne_bytes()[0] {
        0 | 127 | 224.. => false,
        1..127 | 128..224 => true,
    };
    let kept: Vec<_> = sources.iter().filter(is_unicast).copied().collect();
    kept.iter().cycle().take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_apart_cover_what_all_do_and_never_twice() {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists::new(20_000, folder.path(), &mut Random(5)).unwrap();
        let range = |address: u32, length: u8| {
            let first = u64::from(address);
            first..first + (1 << (32 - length))
        };
        let apart: Vec<_> = lists
            .apart()
            .into_iter()
            .map(|(address, length)| range(address.to_bits(), length))
            .collect();
        assert!(apart.is_sorted_by(|one, next| one.end <= next.start));
        assert!(apart.len() < lists.v4.all.len(), "some are nested");
        for &(address, length) in &lists.v4.all {
            let one = range((address >> 96) as u32, length);
            let at = apart.partition_point(|apart| apart.end <= one.start);
            assert!(apart[at].start <= one.start && one.end <= apart[at].end);
        }
    }

    #[test]
    fn what_covers_the_benchmark_s_own_addresses_is_told() {
        let of = |text: &str| u128::from(text.parse::<Ipv4Addr>().unwrap().to_bits()) << 96;
        assert!(is_own(of("198.51.0.0"), 16));
        assert!(is_own(of("203.0.113.66"), 32));
        assert!(!is_own(of("203.0.112.0"), 24));
        assert!(!is_own(of("198.51.101.1"), 32));
    }
}
