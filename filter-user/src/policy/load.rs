//! From the files of a policy to the policy.

use std::{
    collections::HashMap,
    fs, io, panic,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use filter_common::limits::RULES_MAX;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    conflict::check_conflicts,
    diagnostics::{Finding, Findings, PolicyError, quoted},
    digest::{FileDigest, Inputs, KeyDigests, key_digests, policy_digest, rule_digest},
    fields::{Fields, Scalar},
    keys::{Key, KeyReader, sort},
    limits::{KEYS_MAX, LIST_FILE_BYTES_MAX, POLICY_DIRECTORY_FILES_MAX, POLICY_FILE_BYTES_MAX},
    model::{Lists, Outline, Outlined, Policy, Rule},
    rule::{Draft, Keys, Listed, Overrides, parse_rule},
    source::{Located, SourceId, Sources, Span, digest_file},
};

/// Name of the directory beside the policy file whose `*.toml` files add rules.
const POLICY_DIRECTORY: &str = "policy.d";

/// Threads that hash list files.
const THREADS_MAX: usize = 4;

/// The only `version` of the format.
const FORMAT_VERSION: Scalar = Scalar::Integer(1);

/// Reads a policy file, the list files that it names, and `policy.d/*.toml` beside it.
///
/// # Errors
///
/// Everything that is wrong with the policy, with file, line and column; nothing is half loaded.
pub fn load_policy(path: &Path) -> Result<Policy, PolicyError> {
    load_outline(path, &Known::new()).map(all_read)
}

/// What is known of lists, by the rule's id.
pub type Known<'a> = HashMap<&'a str, &'a Lists>;

/// As [`load_policy`], without reading lists that are `known` and whose bytes are the same. Whether such
/// a list and one that is read contradict each other is not looked at.
///
/// # Errors
///
/// As [`load_policy`].
pub fn load_outline(path: &Path, known: &Known<'_>) -> Result<Outline, PolicyError> {
    let mut loader = Loader::new(Timestamp::now(), known);
    loader.files.push(path.into());
    match loader.sources.read(path, POLICY_FILE_BYTES_MAX) {
        Ok(id) => loader.parse_file(id, directory_of(path)),
        Err(error) => loader.findings.error(Finding::unreadable(path, &error)),
    }
    loader.read_directory(&directory_of(path).join(POLICY_DIRECTORY));
    loader.finish()
}

/// The policy of a loader that knew nothing.
fn all_read(outline: Outline) -> Policy {
    // Not reached: what is not known was read.
    outline.into_policy().unwrap_or_default()
}

/// Parses a policy that is not in a file of its own. `name` stands for it in messages; list files
/// are relative to `base_dir`. No `policy.d` is read.
///
/// # Errors
///
/// As [`load_policy`].
pub fn parse_policy(text: &str, name: &Path, base_dir: &Path) -> Result<Policy, PolicyError> {
    parse_policy_at(text, name, base_dir, Timestamp::now())
}

/// [`parse_policy`] at a given moment, which decides about warnings only.
pub(super) fn parse_policy_at(
    text: &str,
    name: &Path,
    base_dir: &Path,
    now: Timestamp,
) -> Result<Policy, PolicyError> {
    let known = Known::new();
    let mut loader = Loader::new(now, &known);
    match loader.sources.add(name, text.into(), POLICY_FILE_BYTES_MAX) {
        Ok(id) => loader.parse_file(id, base_dir),
        Err(error) => loader.findings.error(Finding::unreadable(name, &error)),
    }
    loader.finish().map(all_read)
}

/// The directory that relative paths in a file are relative to.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

struct Loader<'a> {
    now: Timestamp,
    known: &'a Known<'a>,
    sources: Sources,
    findings: Findings,
    files: Vec<PathBuf>,
    drafts: Vec<Draft>,
    keys: KeyReader,
}

impl<'a> Loader<'a> {
    fn new(now: Timestamp, known: &'a Known<'a>) -> Self {
        Self {
            now,
            known,
            sources: Sources::default(),
            findings: Findings::default(),
            files: Vec::new(),
            drafts: Vec::new(),
            keys: KeyReader::new(KEYS_MAX),
        }
    }

    /// Reads `policy.d`, if there is one.
    fn read_directory(&mut self, directory: &Path) {
        self.files.push(directory.into());
        let paths = match list_directory(directory) {
            Ok(paths) => paths,
            Err(error) => {
                self.findings
                    .error(Finding::unreadable(directory, &error.into()));
                return;
            }
        };
        for path in paths {
            self.files.push(path.clone());
            match self.sources.read(&path, POLICY_FILE_BYTES_MAX) {
                Ok(id) => self.parse_file(id, directory),
                Err(error) => self.findings.error(Finding::unreadable(&path, &error)),
            }
        }
    }

    /// Adds the rules of one file.
    fn parse_file(&mut self, id: SourceId, base_dir: &Path) {
        let parsed = self.parse_document(id);
        let digests = self.digests(&parsed, base_dir);
        for (draft, listed) in parsed {
            match self.same(&draft, &listed, base_dir, &digests) {
                Some(lists) => self.pass_over(draft, &listed, lists.clone(), base_dir),
                None => self.complete(draft, listed, base_dir),
            }
        }
    }

    /// Digests of the list files of rules whose lists are known; what cannot be read is left out.
    fn digests(&self, parsed: &[(Draft, Listed)], base_dir: &Path) -> HashMap<PathBuf, FileDigest> {
        let known = parsed
            .iter()
            .filter(|(draft, _)| self.known.contains_key(draft.rule.id.as_str()));
        let mut paths: Vec<PathBuf> = known
            .flat_map(|(_, listed)| listed.kinds().map(|keys| &keys.file))
            .flatten()
            .map(|file| base_dir.join(&file.value))
            .collect();
        paths.sort_unstable();
        paths.dedup();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut made = Vec::new();
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Ok(digest) = digest_file(path, LIST_FILE_BYTES_MAX) {
                    made.push((path.clone(), digest));
                }
            }
            made
        };
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(paths.len()).min(THREADS_MAX))
                .map(|_| scope.spawn(work))
                .collect();
            let mut digests: HashMap<_, _> = work().into_iter().collect();
            for thread in others {
                let made = thread.join();
                digests.extend(made.unwrap_or_else(|panic| panic::resume_unwind(panic)));
            }
            digests
        })
    }

    /// What is known of a rule's lists, if they are read from the same bytes.
    fn same(
        &mut self,
        draft: &Draft,
        listed: &Listed,
        base_dir: &Path,
        digests: &HashMap<PathBuf, FileDigest>,
    ) -> Option<&'a Lists> {
        let known = *self.known.get(draft.rule.id.as_str())?;
        let mut inputs = listed.inputs();
        for keys in listed.kinds() {
            let file = match &keys.file {
                Some(file) => Some(digests.get(&base_dir.join(&file.value))?),
                None => None,
            };
            inputs.add(keys.entries(), file);
        }
        (inputs.finish() == known.inputs && self.keys.skip(known.entries)).then_some(known)
    }

    /// Keeps a rule whose lists are known.
    fn pass_over(&mut self, mut draft: Draft, listed: &Listed, lists: Lists, base_dir: &Path) {
        let files = listed
            .kinds()
            .into_iter()
            .filter_map(|keys| keys.file.as_ref());
        self.files
            .extend(files.map(|file| base_dir.join(&file.value)));
        draft.lists = lists;
        self.drafts.push(draft);
    }

    fn parse_document(&mut self, id: SourceId) -> Vec<(Draft, Listed)> {
        let text = self.sources.source(id).text.as_str();
        let findings = &mut self.findings;
        let Some(mut fields) = Fields::parse(text, id, findings) else {
            return Vec::new();
        };
        if fields.is_empty() {
            findings.error(
                Finding::at(fields.span, "this policy file is empty")
                    .help("write `version = 1`, then `[[rule]]` for each rule"),
            );
            return Vec::new();
        }
        check_version(&mut fields, findings);
        let rules = fields.take_array("rule", findings).unwrap_or_default();
        fields.finish(findings);
        let mut parsed = Vec::with_capacity(rules.len());
        for rule in rules {
            let Some(rule) = Fields::of(rule, id, findings) else {
                continue;
            };
            if self.drafts.len() + parsed.len() >= RULES_MAX {
                findings.error(
                    Finding::at(rule.span, format!("more than {RULES_MAX} rules")).help(
                        "put names and prefixes that are treated alike into one rule's list files",
                    ),
                );
                break;
            }
            parsed.push(parse_rule(rule, self.now, findings));
        }
        parsed
    }

    /// Reads what a rule lists, and keeps it.
    fn complete(&mut self, mut draft: Draft, listed: Listed, base_dir: &Path) {
        let mut inputs = listed.inputs();
        let Listed {
            hosts,
            domains,
            origins,
            overrides,
        } = listed;
        let was_sound = !self.findings.has_errors();
        let (room, warnings) = (self.keys.room(), self.findings.warning_count());
        let id = draft.rule.id.clone();
        draft.hosts = self.read_keys(hosts, overrides, base_dir, &id, &mut inputs);
        draft.domains = self.read_keys(domains, overrides, base_dir, &id, &mut inputs);
        draft.origins = self.read_keys(origins, overrides, base_dir, &id, &mut inputs);
        draft.is_read = true;
        draft.warnings = warnings..self.findings.warning_count();
        draft.lists = Lists {
            inputs: inputs.finish(),
            keys: String::new(),
            names: String::new(),
            entries: room - self.keys.room(),
            hosts: draft.hosts.len(),
            domains: draft.domains.len(),
            origins: draft.origins.len(),
            warnings: Vec::new(),
        };
        let count = draft.hosts.len() + draft.domains.len() + draft.origins.len();
        if count == 0 && was_sound && !self.findings.has_errors() {
            self.findings.error(
                Finding::at(
                    draft.span,
                    "this rule's list files list nothing, so it would never hit",
                )
                .help("add entries to them, or remove the rule"),
            );
        }
        self.drafts.push(draft);
    }

    fn read_keys<K: Key>(
        &mut self,
        keys: Keys,
        overrides: Overrides,
        base_dir: &Path,
        rule: &str,
        inputs: &mut Inputs,
    ) -> Vec<Located<K>> {
        let mut read = Vec::with_capacity(keys.inline.len());
        let mut digest = None;
        for Located { value, span } in &keys.inline {
            if !self
                .keys
                .push(value, *span, overrides, &mut read, &mut self.findings)
            {
                break;
            }
        }
        if let Some(file) = &keys.file {
            let path = base_dir.join(&file.value);
            self.files.push(path.clone());
            match self.sources.read(&path, LIST_FILE_BYTES_MAX) {
                Ok(id) => {
                    let (findings, sources) = (&mut self.findings, &self.sources);
                    let reader = &mut self.keys;
                    digest = Some(thread::scope(|scope| {
                        let digest = scope.spawn(|| Sha256::digest(&sources.source(id).text));
                        reader.read_list(id, sources, overrides, &mut read, findings);
                        let digest = digest.join();
                        digest
                            .unwrap_or_else(|panic| panic::resume_unwind(panic))
                            .into()
                    }));
                }
                Err(error) => {
                    let finding = Finding::unreadable(&path, &error);
                    self.findings
                        .error(finding.related(file.span, "named here"));
                }
            }
        }
        inputs.add(keys.entries(), digest.as_ref());
        sort(read, rule, &mut self.findings)
    }

    fn finish(mut self) -> Result<Outline, PolicyError> {
        check_ids(&self.drafts, &mut self.findings);
        check_conflicts(&self.drafts, &mut self.findings);
        if self.findings.has_errors() {
            return Err(PolicyError {
                report: self.findings.report(&self.sources),
                files: self.files,
            });
        }
        let mut warnings = self.findings.warnings(&self.sources);
        let mut rules: Vec<Outlined> = Vec::with_capacity(self.drafts.len());
        let mut remembered = Vec::new();
        for draft in self.drafts {
            let of_lists = warnings.get(draft.warnings.clone()).map(<[String]>::to_vec);
            let mut outlined = outlined(draft);
            if outlined.is_read {
                outlined.lists.warnings = of_lists.unwrap_or_default();
            } else {
                remembered.extend(outlined.lists.warnings.iter().cloned());
            }
            rules.push(outlined);
        }
        warnings.extend(remembered);
        if rules.is_empty() {
            warnings.push("the policy has no rules: nothing is blocked".into());
        }
        rules.sort_unstable_by(|a, b| a.rule.id.cmp(&b.rule.id));
        let digests: Vec<String> = rules
            .iter()
            .map(|outlined| rule_digest(&outlined.rule, &outlined.lists.keys))
            .collect();
        Ok(Outline {
            digest: policy_digest(digests.iter().map(String::as_str)),
            rules,
            warnings,
            files: self.files,
        })
    }
}

fn check_version(fields: &mut Fields<'_>, findings: &mut Findings) {
    const HELP: &str = "write `version = 1`, the only version there is";
    if !fields.has("version") {
        findings.error(Finding::at(fields.span, "this policy file has no `version`").help(HELP));
    }
    let version: Option<Located<Scalar>> = fields.take("version", findings);
    if let Some(version) = version
        && version.value != FORMAT_VERSION
    {
        let message = format!("version {} of the format is not known", version.value);
        findings.error(Finding::at(version.span, message).help(HELP));
    }
}

/// The policy files in `policy.d`, by name. Names that begin with a dot are editors' own files.
fn list_directory(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".") || !name.ends_with(b".toml") {
            continue;
        }
        if paths.len() == POLICY_DIRECTORY_FILES_MAX {
            let message = format!("there are more than {POLICY_DIRECTORY_FILES_MAX} files in it");
            return Err(io::Error::other(message));
        }
        paths.push(path);
    }
    paths.sort_unstable();
    Ok(paths)
}

fn check_ids(drafts: &[Draft], findings: &mut Findings) {
    let mut seen: HashMap<&str, Span> = HashMap::with_capacity(drafts.len());
    for draft in drafts.iter().filter(|draft| !draft.rule.id.is_empty()) {
        let id = draft.rule.id.as_str();
        if let Some(&first) = seen.get(id) {
            findings.error_with(|| {
                Finding::at(draft.span, format!("two rules have the id {}", quoted(id)))
                    .related(first, "first used here")
                    .help("give each rule its own id; counters and logs tell rules apart by it")
            });
            continue;
        }
        seen.insert(id, draft.span);
    }
}

fn outlined(draft: Draft) -> Outlined {
    fn values<K>(keys: Vec<Located<K>>) -> Vec<K> {
        keys.into_iter().map(|key| key.value).collect()
    }
    let rule = Rule {
        hosts: values(draft.hosts),
        domains: values(draft.domains),
        origins: values(draft.origins),
        ..draft.rule
    };
    let mut lists = draft.lists;
    if draft.is_read {
        let KeyDigests { names, keys } = key_digests(&rule.hosts, &rule.domains, &rule.origins);
        (lists.names, lists.keys) = (names, keys);
    }
    Outlined {
        rule,
        lists,
        is_read: draft.is_read,
    }
}
