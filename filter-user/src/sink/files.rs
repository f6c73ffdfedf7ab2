//! What the page's process reads: the rules with a page, and copies of the certificates.
//!
//! The process owns none of it and cannot write it. Keys are copied, since where the operator keeps them
//! only root may read, and the process is not root.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use filter_common::abi::local_page_address;
use filter_page::decisions::Text;
use serde::{Deserialize, Serialize};

use super::{
    error::{SinkError, file},
    process::replace,
    spec::Files,
};
use crate::{
    compile::Meta,
    policy::model::{BlockPage, HostConfig, HostName, Outlined, Rule, RuleText, Target},
};

/// Files of certificates that are copied at most; the page's process reads no more pairs.
const COPIES_MAX: usize = 2 * filter_page::certificates::PAIRS_MAX;

/// The document of [`filter_page::decisions`], with what is needed to write the next one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    generation: u64,
    #[serde(default)]
    mark: u64,
    rules: Vec<Decided>,
    contact: Option<String>,
    languages: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Decided {
    #[serde(flatten)]
    rule: filter_page::decisions::Rule,
    /// Digest of its lists, see [`crate::policy::model::Lists::keys`].
    #[serde(default)]
    keys: String,
}

/// Makes the directories, which only root and the process's group may enter.
///
/// # Errors
///
/// Of the file system.
pub fn prepare(files: &Files, group: u32) -> Result<(), SinkError> {
    for directory in [files.directory().to_owned(), files.certificates()] {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .and_then(|()| std::os::unix::fs::chown(&directory, None, Some(group)))
            .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)));
        made.map_err(file("make", &directory))?;
    }
    Ok(())
}

/// Writes the rules that come for the page's process, beside those in force. `false`, and nothing is written,
/// if they cannot be told without reading lists that were not read.
///
/// `mark` is what the process shows once it knows them.
///
/// # Errors
///
/// Of the file system.
pub fn write_coming<'a>(
    files: &Files,
    group: u32,
    meta: &Meta,
    generation: u64,
    mark: u64,
    rules: impl Iterator<Item = Listed<'a>> + Clone,
    host: &HostConfig,
) -> Result<bool, SinkError> {
    let before = read_decisions(files);
    let Some(mut decided) = decide(&before, rules, host) else {
        return Ok(false);
    };
    if meta.local_page {
        let slots = meta.rules.iter().map(|rule| (rule.id.as_str(), rule.slot));
        let slots: HashMap<&str, u16> = slots.collect();
        for Decided { rule, .. } in decided.iter_mut().filter(|it| it.rule.redirects) {
            let slot = slots.get(rule.id.as_str());
            rule.local = slot.map(|slot| Ipv4Addr::from_bits(local_page_address(*slot)));
        }
    }
    let BlockPage {
        contact, languages, ..
    } = &host.block_page;
    let document = Document {
        generation,
        mark,
        rules: decided,
        contact: contact.clone(),
        languages: languages.clone(),
    };
    let path = files.coming();
    let bytes =
        serde_json::to_vec(&document).map_err(|error| file("write", &path)(error.into()))?;
    replace(&path, 0o640, Some(group), &bytes).map_err(file("write", &path))?;
    Ok(true)
}

/// The rules that were written last are in force from now on.
///
/// # Errors
///
/// Of the file system.
pub fn bring_into_force(files: &Files) -> Result<(), SinkError> {
    fs::rename(files.coming(), files.decisions()).map_err(file("replace", files.decisions()))
}

/// The rules that were written last do not come into force.
///
/// # Errors
///
/// Of the file system.
pub fn withdraw_coming(files: &Files) -> Result<(), SinkError> {
    match fs::remove_file(files.coming()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file("remove", files.coming())(error))
        }
        _ => Ok(()),
    }
}

/// A rule, and whether its lists were read.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Digest of its lists.
    pub keys: &'a str,
    /// Whether the rule has them.
    pub is_read: bool,
}

impl<'a> From<&'a Outlined> for Listed<'a> {
    fn from(outlined: &'a Outlined) -> Self {
        Self {
            rule: &outlined.rule,
            keys: &outlined.lists.keys,
            is_read: outlined.is_read,
        }
    }
}

fn read_decisions(files: &Files) -> Document {
    fs::read(files.decisions())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// The rules that the page's process was told.
pub(super) fn told(files: &Files) -> Vec<filter_page::decisions::Rule> {
    let rules = read_decisions(files).rules.into_iter();
    rules.map(|decided| decided.rule).collect()
}

/// The rules with a page, and of others what they say about names under these.
fn decide<'a>(
    before: &Document,
    rules: impl Iterator<Item = Listed<'a>> + Clone,
    host: &HostConfig,
) -> Option<Vec<Decided>> {
    let known: HashMap<(&str, &str), &Decided> = before
        .rules
        .iter()
        .map(|decided| ((decided.rule.id.as_str(), decided.keys.as_str()), decided))
        .collect();
    let mut decided = Vec::new();
    let mut domains: BTreeSet<String> = BTreeSet::new();
    let mut is_new = false;
    for listed in rules.clone().filter(|listed| has_page(listed.rule)) {
        let lists = match (listed.is_read, known.get(&(&listed.rule.id, listed.keys))) {
            (true, present) => {
                is_new |= present.is_none();
                Lists::of(listed.rule, |_| true)
            }
            (false, Some(present)) => Lists::again(&present.rule),
            (false, None) => return None,
        };
        domains.extend(lists.hosts.iter().chain(&lists.domains).cloned());
        decided.push(lists.decided(listed, true));
    }
    let concerns = |name: &str| suffixes(name).any(|suffix| domains.contains(suffix));
    for listed in rules.filter(|listed| !has_page(listed.rule)) {
        let has_names =
            |decided: &&Decided| !decided.rule.hosts.is_empty() || !decided.rule.domains.is_empty();
        let lists = match (listed.is_read, known.get(&(&listed.rule.id, listed.keys))) {
            (true, _) => Lists::of(listed.rule, concerns),
            // What it says of the names of a page that is new is not known.
            (false, _) if is_new => return None,
            (false, Some(present)) if has_names(present) => Lists::again(&present.rule),
            (false, _) => continue,
        };
        if !lists.hosts.is_empty() || !lists.domains.is_empty() {
            decided.push(lists.decided(listed, false));
        }
    }
    let protected = Lists {
        hosts: texts(&host.protect_names, concerns),
        domains: texts(&host.protect_domains, concerns),
        origins: Vec::new(),
    };
    decided.push(Decided {
        rule: filter_page::decisions::Rule {
            hosts: protected.hosts,
            domains: protected.domains,
            ..filter_page::decisions::Rule::default()
        },
        keys: String::new(),
    });
    Some(decided)
}

fn has_page(rule: &Rule) -> bool {
    rule.target == Some(Target::Page)
}

/// What a rule lists, as text.
struct Lists {
    hosts: Vec<String>,
    domains: Vec<String>,
    origins: Vec<String>,
}

impl Lists {
    fn of(rule: &Rule, concerns: impl Fn(&str) -> bool) -> Self {
        Self {
            hosts: texts(&rule.hosts, &concerns),
            domains: texts(&rule.domains, &concerns),
            origins: match has_page(rule) {
                true => rule.origins.iter().map(ToString::to_string).collect(),
                // The kernel judges each packet by its addresses.
                false => Vec::new(),
            },
        }
    }

    fn again(rule: &filter_page::decisions::Rule) -> Self {
        Self {
            hosts: rule.hosts.clone(),
            domains: rule.domains.clone(),
            origins: rule.origins.clone(),
        }
    }

    fn decided(self, Listed { rule, keys, .. }: Listed<'_>, redirects: bool) -> Decided {
        let text = |text: &RuleText| Text {
            title: text.title.clone(),
            reason: text.reason.clone(),
        };
        let text: BTreeMap<String, Text> = rule
            .text
            .iter()
            .map(|(language, words)| (language.clone(), text(words)))
            .collect();
        Decided {
            rule: filter_page::decisions::Rule {
                id: rule.id.clone(),
                hosts: self.hosts,
                domains: self.domains,
                origins: self.origins,
                ports: rule
                    .ports
                    .iter()
                    .map(|range| (range.first, range.last))
                    .collect(),
                title: rule.title.clone(),
                reason: rule.reason.clone(),
                text,
                authority: rule.authority.clone(),
                reference: rule.reference.clone(),
                statement: rule.statement.clone(),
                from: rule.from,
                until: rule.until,
                review_by: rule.review_by,
                redirects,
                local: None,
            },
            keys: keys.to_owned(),
        }
    }
}

fn texts(names: &[HostName], concerns: impl Fn(&str) -> bool) -> Vec<String> {
    let names = names.iter().map(HostName::as_str);
    names
        .filter(|name| concerns(name))
        .map(str::to_owned)
        .collect()
}

/// The name, its parent domain, and so on to the top.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| {
        name.split_once('.').map(|(_, parent)| parent)
    })
}

/// Copies of certificates and keys, as they were when they were last looked at.
#[derive(Debug, Default)]
pub struct Copies {
    /// By path below the directory: what tells that a file was changed.
    known: BTreeMap<PathBuf, Stamp>,
}

type Stamp = (u64, u64, u64, i64, i64);

impl Copies {
    /// Copies what changed since, and removes what is gone. Whether anything did.
    ///
    /// # Errors
    ///
    /// Of the file system. What was copied before stays.
    pub fn follow(
        &mut self,
        source: Option<&Path>,
        files: &Files,
        group: u32,
    ) -> Result<bool, SinkError> {
        let target = files.certificates();
        let found = match source {
            Some(source) => pairs(source).map_err(file("list", source))?,
            None => BTreeMap::new(),
        };
        let mut changed = false;
        for (name, (path, stamp)) in &found {
            if self.known.get(name) == Some(stamp) {
                continue;
            }
            copy(path, &target, name, group).map_err(file("copy", path))?;
            changed = true;
        }
        for gone in present(&target).map_err(file("list", &target))? {
            if !found.contains_key(&gone) {
                let path = target.join(gone);
                fs::remove_file(&path).map_err(file("remove", path))?;
                changed = true;
            }
        }
        self.known = found
            .into_iter()
            .map(|(name, (_, stamp))| (name, stamp))
            .collect();
        Ok(changed)
    }
}

/// The files that may be certificates and keys, by name, flat or one directory deep.
fn pairs(directory: &Path) -> io::Result<BTreeMap<PathBuf, (PathBuf, Stamp)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
        if path.is_dir() {
            for part in ["fullchain.pem", "privkey.pem"] {
                note(&mut found, name.join(part), path.join(part));
            }
        } else if name.extension().is_some_and(|extension| {
            ["pem", "crt", "key"]
                .iter()
                .any(|known| extension == *known)
        }) {
            note(&mut found, name, path);
        }
        if found.len() >= COPIES_MAX {
            break;
        }
    }
    Ok(found)
}

fn note(found: &mut BTreeMap<PathBuf, (PathBuf, Stamp)>, name: PathBuf, path: PathBuf) {
    let usable = fs::metadata(&path).ok().filter(|metadata| {
        metadata.is_file() && metadata.len() <= filter_page::certificates::FILE_BYTES_MAX
    });
    if let Some(metadata) = usable {
        let stamp = (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        found.insert(name, (path, stamp));
    }
}

/// Names of the files that were copied.
fn present(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = PathBuf::from(entry.file_name());
        match entry.path().is_dir() {
            true => {
                let inner = fs::read_dir(entry.path())?.flatten();
                names.extend(inner.map(|inner| name.join(inner.file_name())));
            }
            false => names.push(name),
        }
    }
    Ok(names)
}

fn copy(path: &Path, target: &Path, name: &Path, group: u32) -> io::Result<()> {
    let to = target.join(name);
    if let Some(parent) = name
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let parent = target.join(parent);
        if !parent.exists() {
            fs::DirBuilder::new().mode(0o700).create(&parent)?;
            std::os::unix::fs::chown(&parent, None, Some(group))?;
            fs::set_permissions(&parent, fs::Permissions::from_mode(0o750))?;
        }
    }
    replace(&to, 0o640, Some(group), &fs::read(path)?)
}

#[cfg(test)]
mod tests {
    use filter_common::abi::Action;

    use super::*;
    use crate::policy::parse_policy;

    fn rules(text: &str) -> Vec<Rule> {
        let text = format!("version = 1\n{text}");
        parse_policy(&text, Path::new("policy.toml"), Path::new(""))
            .unwrap()
            .rules
    }

    fn read(rule: &Rule) -> Listed<'_> {
        Listed {
            rule,
            keys: &rule.id,
            is_read: true,
        }
    }

    fn unread(rule: &Rule) -> Listed<'_> {
        Listed {
            is_read: false,
            ..read(rule)
        }
    }

    const POLICY: &str = "\
[[rule]]
id = \"page\"
domains = [\"blocked.example\"]
origins = [\"192.0.2.0/24\"]
action = \"redirect\"
title = \"t\"
[rule.text.de]
title = \"T\"
[[rule]]
id = \"watched\"
hosts = [\"a.blocked.example\", \"elsewhere.example\"]
action = \"observe\"
[[rule]]
id = \"other\"
hosts = [\"other.example\"]
action = \"drop\"
";

    #[test]
    fn the_page_is_told_its_rules_and_what_others_say_of_names_under_them() {
        let rules = rules(POLICY);
        let host = HostConfig {
            protect_names: vec![
                HostName::canonical("good.blocked.example"),
                HostName::canonical("good.example"),
            ],
            ..HostConfig::default()
        };
        let decided = decide(&Document::default(), rules.iter().map(read), &host).unwrap();
        let told: Vec<_> = decided
            .iter()
            .map(|decided| {
                let rule = &decided.rule;
                let names = rule.hosts.iter().chain(&rule.domains).cloned();
                (rule.id.as_str(), rule.redirects, names.collect::<Vec<_>>())
            })
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            told,
            [
                ("page", true, names(&["blocked.example"])),
                ("watched", false, names(&["a.blocked.example"])),
                ("", false, names(&["good.blocked.example"])),
            ]
        );
        assert_eq!(decided[0].rule.origins, ["192.0.2.0/24"]);
        assert_eq!(decided[0].rule.text["de"].title.as_deref(), Some("T"));
        assert_eq!(rules[1].action, Action::Redirect);
    }

    #[test]
    fn lists_that_were_not_read_are_as_they_were_or_asked_for() {
        let rules = rules(POLICY);
        let host = HostConfig::default();
        assert!(decide(&Document::default(), rules.iter().map(unread), &host).is_none());
        let before = Document {
            rules: decide(&Document::default(), rules.iter().map(read), &host).unwrap(),
            ..Document::default()
        };
        let again = decide(&before, rules.iter().map(unread), &host).unwrap();
        assert_eq!(again.len(), before.rules.len());
        for (one, other) in again.iter().zip(&before.rules) {
            assert_eq!(one.rule, other.rule);
        }
    }

    #[test]
    fn copies_follow_what_they_are_copies_of() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::create_dir_all(source.join("acme")).unwrap();
        let files = Files::of(directory.path());
        let group = nix::unistd::Gid::current().as_raw();
        prepare(&files, group).unwrap();
        fs::write(source.join("a.pem"), "chain").unwrap();
        fs::write(source.join("a.key"), "key").unwrap();
        fs::write(source.join("README"), "no").unwrap();
        fs::write(source.join("acme/privkey.pem"), "key").unwrap();
        let mut copies = Copies::default();
        assert!(copies.follow(Some(&source), &files, group).unwrap());
        assert!(!copies.follow(Some(&source), &files, group).unwrap());
        let read = |name: &str| fs::read_to_string(files.certificates().join(name)).ok();
        assert_eq!(read("a.key").as_deref(), Some("key"));
        assert_eq!(read("acme/privkey.pem").as_deref(), Some("key"));
        assert_eq!(read("README"), None);
        let mode = fs::metadata(files.certificates().join("a.key")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o640);

        fs::write(source.join("a.pem"), "another chain").unwrap();
        fs::remove_file(source.join("acme/privkey.pem")).unwrap();
        assert!(copies.follow(Some(&source), &files, group).unwrap());
        assert_eq!(read("a.pem").as_deref(), Some("another chain"));
        assert_eq!(read("acme/privkey.pem"), None);
        assert!(copies.follow(None, &files, group).unwrap());
        assert_eq!(read("a.pem"), None);
    }
}
