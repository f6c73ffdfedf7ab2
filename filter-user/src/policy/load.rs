//! From the files of a policy to the policy.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use filter_common::limits::RULES_MAX;
use jiff::Timestamp;

use super::{
    conflict::check_conflicts,
    diagnostics::{Finding, Findings, PolicyError, quoted},
    digest::digest,
    fields::{Fields, Scalar},
    keys::{Key, KeyReader, sort},
    limits::{KEYS_MAX, LIST_FILE_BYTES_MAX, POLICY_DIRECTORY_FILES_MAX, POLICY_FILE_BYTES_MAX},
    model::{Policy, Rule},
    rule::{Draft, Keys, Listed, Overrides, parse_rule},
    source::{Located, SourceId, Sources, Span},
};

/// Name of the directory beside the policy file whose `*.toml` files add rules.
const POLICY_DIRECTORY: &str = "policy.d";

/// The only `version` of the format.
const FORMAT_VERSION: Scalar = Scalar::Integer(1);

/// Reads a policy file, the list files that it names, and `policy.d/*.toml` beside it.
///
/// # Errors
///
/// Everything that is wrong with the policy, with file, line and column; nothing is half loaded.
pub fn load_policy(path: &Path) -> Result<Policy, PolicyError> {
    let mut loader = Loader::new(Timestamp::now());
    loader.files.push(path.into());
    match loader.sources.read(path, POLICY_FILE_BYTES_MAX) {
        Ok(id) => loader.parse_file(id, directory_of(path)),
        Err(error) => loader.findings.error(Finding::unreadable(path, &error)),
    }
    loader.read_directory(&directory_of(path).join(POLICY_DIRECTORY));
    loader.finish()
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
    let mut loader = Loader::new(now);
    match loader.sources.add(name, text.into(), POLICY_FILE_BYTES_MAX) {
        Ok(id) => loader.parse_file(id, base_dir),
        Err(error) => loader.findings.error(Finding::unreadable(name, &error)),
    }
    loader.finish()
}

/// The directory that relative paths in a file are relative to.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

struct Loader {
    now: Timestamp,
    sources: Sources,
    findings: Findings,
    files: Vec<PathBuf>,
    drafts: Vec<Draft>,
    keys: KeyReader,
}

impl Loader {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
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
        for (draft, listed) in self.parse_document(id) {
            self.complete(draft, listed, base_dir);
        }
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
        let Listed {
            hosts,
            domains,
            origins,
            overrides,
        } = listed;
        let was_sound = !self.findings.has_errors();
        let id = draft.rule.id.clone();
        draft.hosts = self.read_keys(hosts, overrides, base_dir, &id);
        draft.domains = self.read_keys(domains, overrides, base_dir, &id);
        draft.origins = self.read_keys(origins, overrides, base_dir, &id);
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
    ) -> Vec<Located<K>> {
        let mut read = Vec::with_capacity(keys.inline.len());
        for Located { value, span } in keys.inline {
            if !self
                .keys
                .push(&value, span, overrides, &mut read, &mut self.findings)
            {
                break;
            }
        }
        if let Some(file) = keys.file {
            let path = base_dir.join(&file.value);
            self.files.push(path.clone());
            match self.sources.read(&path, LIST_FILE_BYTES_MAX) {
                Ok(id) => {
                    let findings = &mut self.findings;
                    self.keys
                        .read_list(id, &self.sources, overrides, &mut read, findings);
                }
                Err(error) => {
                    let finding = Finding::unreadable(&path, &error);
                    self.findings
                        .error(finding.related(file.span, "named here"));
                }
            }
        }
        sort(read, rule, &mut self.findings)
    }

    fn finish(mut self) -> Result<Policy, PolicyError> {
        check_ids(&self.drafts, &mut self.findings);
        check_conflicts(&self.drafts, &mut self.findings);
        if self.findings.has_errors() {
            return Err(PolicyError {
                report: self.findings.report(&self.sources),
                files: self.files,
            });
        }
        let mut warnings = self.findings.warnings(&self.sources);
        if self.drafts.is_empty() {
            warnings.push("the policy has no rules: nothing is blocked".into());
        }
        let mut rules: Vec<Rule> = self.drafts.into_iter().map(into_rule).collect();
        rules.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(Policy {
            digest: digest(&rules),
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

fn into_rule(draft: Draft) -> Rule {
    fn values<K>(keys: Vec<Located<K>>) -> Vec<K> {
        keys.into_iter().map(|key| key.value).collect()
    }
    Rule {
        hosts: values(draft.hosts),
        domains: values(draft.domains),
        origins: values(draft.origins),
        ..draft.rule
    }
}
