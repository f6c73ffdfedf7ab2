//! The names and prefixes of a rule: parsed, held against the guardrails, sorted.

use std::{ops::Range, panic, thread};

use ipnet::IpNet;

use super::{
    diagnostics::{Finding, Findings, quoted},
    limits::{IPV4_PREFIX_LEN_MIN, IPV6_PREFIX_LEN_MIN},
    model::HostName,
    name::NameError,
    prefix::{PrefixError, parse_prefix},
    rule::Overrides,
    source::{BOM, Located, SourceId, Sources, Span},
};

/// What a rule lists: a name or a prefix.
pub(super) trait Key: Sized + Ord + Send + Sync {
    /// Parses one entry and holds it against the guardrails.
    fn parse(text: &str, overrides: Overrides) -> Result<Self, KeyError>;

    /// A number that orders keys like `Ord`, except that different keys may share it: comparing
    /// integers beside each other beats following two pointers.
    fn rank(&self) -> u128;

    /// For messages.
    fn show(&self) -> String;
}

/// Why a rule may not list something.
pub(super) enum KeyError {
    Name(NameError),
    PublicSuffix,
    Prefix(PrefixError),
    Wide { length_min: u8 },
}

impl KeyError {
    fn finding(&self, text: &str, span: Span) -> Finding {
        let text = quoted(text);
        match self {
            Self::Name(error) => Finding::at(span, format!("{text}: {error}")).help(error.help()),
            Self::PublicSuffix => Finding::at(
                span,
                format!("{text} is a public suffix: names of many owners are under it"),
            )
            .help("list the names that are meant, or add `allow_public_suffix = true` to the rule"),
            Self::Prefix(error) => Finding::at(span, format!("{text}: {error}")).help(error.help()),
            Self::Wide { length_min } => {
                Finding::at(span, format!("{text} is wider than a /{length_min}")).help(
                    "list the prefixes that are meant, or add `allow_wide = true` to the rule",
                )
            }
        }
    }
}

impl Key for HostName {
    fn parse(text: &str, overrides: Overrides) -> Result<Self, KeyError> {
        let name = HostName::parse(text).map_err(KeyError::Name)?;
        if !overrides.public_suffix && name.is_public_suffix() {
            return Err(KeyError::PublicSuffix);
        }
        Ok(name)
    }

    fn rank(&self) -> u128 {
        let bytes = self.as_str().as_bytes();
        let mut first = [0; 16];
        let count = bytes.len().min(first.len());
        first[..count].copy_from_slice(&bytes[..count]);
        u128::from_be_bytes(first)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Key for IpNet {
    fn parse(text: &str, overrides: Overrides) -> Result<Self, KeyError> {
        let net = parse_prefix(text).map_err(KeyError::Prefix)?;
        let length_min = match net {
            Self::V4(_) => IPV4_PREFIX_LEN_MIN,
            Self::V6(_) => IPV6_PREFIX_LEN_MIN,
        };
        if !overrides.wide && net.prefix_len() < length_min {
            return Err(KeyError::Wide { length_min });
        }
        Ok(net)
    }

    fn rank(&self) -> u128 {
        // IPv4 before IPv6, as `Ord` has it.
        match self {
            Self::V4(net) => u128::from(net.addr().to_bits()),
            Self::V6(net) => net.addr().to_bits() >> 1 | 1 << 127,
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Reads entries into lists, as many as the policy has room for.
#[derive(Debug)]
pub(super) struct KeyReader {
    room: usize,
    is_full: bool,
}

impl KeyReader {
    /// A reader for this many entries, usually [`super::limits::KEYS_MAX`].
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            is_full: false,
        }
    }

    /// Counts entries that need not be read again; `false` if there is no room for them.
    pub(super) fn skip(&mut self, entries: usize) -> bool {
        let room = self.room.checked_sub(entries);
        self.room = room.unwrap_or(self.room);
        room.is_some()
    }

    /// Room for entries that is left.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Parses one entry into `keys`. `false` when the policy is full and reading must end; that is
    /// noted once.
    pub(super) fn push<K: Key>(
        &mut self,
        text: &str,
        span: Span,
        overrides: Overrides,
        keys: &mut Vec<Located<K>>,
        findings: &mut Findings,
    ) -> bool {
        let Some(room) = self.room.checked_sub(1) else {
            if !self.is_full {
                self.is_full = true;
                findings.error(
                    Finding::at(span, "the policy has no room for more names and prefixes")
                        .help("shorten the lists; docs/POLICY.md has the limits"),
                );
            }
            return false;
        };
        self.room = room;
        match K::parse(text, overrides) {
            Ok(value) => keys.push(Located { value, span }),
            Err(error) => findings.error_with(|| error.finding(text, span)),
        }
        true
    }

    /// Reads a list file: one entry a line, `#` begins a comment, blank lines are skipped; a byte
    /// order mark and carriage returns are no part of entries.
    pub(super) fn read_list<K: Key>(
        &mut self,
        id: SourceId,
        sources: &Sources,
        overrides: Overrides,
        keys: &mut Vec<Located<K>>,
        findings: &mut Findings,
    ) {
        let text = sources.source(id).text.as_str();
        if text.len() >= PARALLEL_BYTES_MIN
            && let Some(good) = parse_all(id, text, overrides)
            && let Some(room) = self.room.checked_sub(good.iter().map(Vec::len).sum())
        {
            self.room = room;
            keys.reserve(good.iter().map(Vec::len).sum());
            good.into_iter().for_each(|chunk| keys.extend(chunk));
            return;
        }
        for (start, entry) in entries(text) {
            let span = id.span(start..start + entry.len());
            if !self.push(entry, span, overrides, keys, findings) || findings.is_hopeless() {
                return;
            }
        }
    }
}

/// Lists of at least so many bytes are worth the threads.
const PARALLEL_BYTES_MIN: usize = 1 << 20;

/// Threads that read one list.
const THREADS_MAX: usize = 4;

/// Entries of a list, and where they start.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut line_start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = line_start;
        line_start += line.len();
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry);
        let indented = entry.trim_start_matches(|c: char| c.is_whitespace() || c == BOM);
        let start = start + (entry.len() - indented.len());
        let entry = indented.trim_end();
        (!entry.is_empty()).then_some((start, entry))
    })
}

/// All entries of a long list, in order, by several threads; `None` if any of them is wrong: what
/// is wrong is told by reading the list from the start.
fn parse_all<K: Key>(
    id: SourceId,
    text: &str,
    overrides: Overrides,
) -> Option<Vec<Vec<Located<K>>>> {
    let count = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    let mut chunks = Vec::with_capacity(count);
    let mut start = 0;
    for left in (1..=count).rev() {
        let rest = &text.as_bytes()[start..];
        let about = rest.len() / left;
        let line_end = rest[about..].iter().position(|&byte| byte == b'\n');
        let end = line_end.map_or(text.len(), |line_end| start + about + line_end + 1);
        chunks.push(start..end);
        start = end;
    }
    let parse = |chunk: Range<usize>| {
        let at = chunk.start;
        let text = &text[chunk];
        let mut keys = Vec::with_capacity(text.bytes().filter(|&byte| byte == b'\n').count() + 1);
        for (start, entry) in entries(text) {
            let span = id.span(at + start..at + start + entry.len());
            let value = K::parse(entry, overrides).ok()?;
            keys.push(Located { value, span });
        }
        Some(keys)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = chunks
            .into_iter()
            .map(|chunk| scope.spawn(|| parse(chunk)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// Sorts a rule's list and takes out what it says twice, with one warning.
pub(super) fn sort<K: Key>(
    keys: Vec<Located<K>>,
    rule: &str,
    findings: &mut Findings,
) -> Vec<Located<K>> {
    let mut keys = in_order(keys);
    let count = keys.len();
    let mut first_twice = None;
    keys.dedup_by(|later, earlier| {
        let is_same = later.value == earlier.value;
        if is_same && first_twice.is_none() {
            first_twice = Some((later.span, later.value.show()));
        }
        is_same
    });
    if let Some((span, shown)) = first_twice {
        let others = match count - keys.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} others"),
        };
        let message = format!("rule {} lists {shown} more than once{others}", quoted(rule));
        findings
            .warning(Finding::at(span, message).help("the repetition has no effect; remove it"));
    }
    keys
}

/// Lists of at least so many keys are worth a thread.
const PARALLEL_KEYS_MIN: usize = 1 << 16;

/// By key, equal ones by place. Lists are often sorted already; else a million strings are sorted by
/// their first bytes, which are side by side, and not by following two million pointers.
fn in_order<K: Key>(keys: Vec<Located<K>>) -> Vec<Located<K>> {
    if keys.is_sorted_by(|a, b| a.value <= b.value) {
        return keys;
    }
    let mut order: Vec<(u128, u32)> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| (key.value.rank(), at as u32))
        .collect();
    let key = |at: u32| &keys[at as usize];
    let compare = |&(rank_a, a): &(u128, u32), &(rank_b, b): &(u128, u32)| {
        let by_key = || key(a).value.cmp(&key(b).value);
        rank_a
            .cmp(&rank_b)
            .then_with(by_key)
            .then_with(|| a.cmp(&b))
    };
    if order.len() >= PARALLEL_KEYS_MIN {
        let middle = order.len() / 2;
        let (one, other) = order.split_at_mut(middle);
        thread::scope(|scope| {
            scope.spawn(|| one.sort_unstable_by(compare));
            other.sort_unstable_by(compare);
        });
        // Stable, since it recognises the two halves and merges them.
        order.sort_by(compare);
    } else {
        order.sort_unstable_by(compare);
    }
    let mut keys: Vec<Option<Located<K>>> = keys.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|(_, at)| keys[at as usize].take())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn read<K: Key>(text: &str, room: usize) -> (Vec<Located<K>>, Option<String>) {
        let mut sources = Sources::default();
        let mut findings = Findings::default();
        let id = sources
            .add(Path::new("list.txt"), text.into(), u64::MAX)
            .unwrap();
        let mut keys = Vec::new();
        KeyReader::new(room).read_list(
            id,
            &sources,
            Overrides::default(),
            &mut keys,
            &mut findings,
        );
        let problem = findings
            .has_errors()
            .then(|| findings.report(&sources).to_string());
        (keys, problem)
    }

    #[test]
    fn a_full_policy_is_said_once() {
        let text = "a.example\nb.example\nc.example\nd.example\n";
        assert_eq!(read::<HostName>(text, 4).1, None);
        let (keys, problem) = read::<HostName>(text, 2);
        assert_eq!(keys.len(), 2);
        let expected = "\
error: the policy has no room for more names and prefixes
 --> list.txt:3:1
  |
3 | c.example
  | ^^^^^^^^^
  |
  = help: shorten the lists; docs/POLICY.md has the limits";
        assert_eq!(problem.as_deref(), Some(expected));
    }

    #[test]
    fn a_file_that_is_no_list_is_not_read_to_the_end() {
        let (_, problem) = read::<HostName>(&"!\n".repeat(50_000), 100_000);
        assert!(problem.unwrap().ends_with("error: and at least 10000 more"));
    }

    #[test]
    fn a_long_list_is_read_by_threads_as_by_one() {
        let mut text: String = (0..100_000)
            .map(|i| format!("  n{i}.example # {i}\r\n\n"))
            .collect();
        assert!(text.len() >= PARALLEL_BYTES_MIN);
        let (keys, problem) = read::<HostName>(&text, 100_000);
        assert_eq!(problem, None);
        let expected: Vec<_> = entries(&text).collect();
        assert_eq!(keys.len(), expected.len());
        for (key, (start, entry)) in keys.iter().zip(expected) {
            assert_eq!(key.value.as_str(), entry);
            assert_eq!(key.span.start as usize, start);
        }
        assert!(read::<HostName>(&text, 99_999).1.is_some());
        text.push_str("a b\n");
        let (_, problem) = read::<HostName>(&text, 200_000);
        assert!(problem.unwrap().contains("list.txt:200001:1"));
    }

    proptest! {
        #[test]
        fn any_list_is_read_without_a_panic(text in "(?s)[a-z0-9.:/#\r\n\u{feff} é]{0,200}") {
            read::<HostName>(&text, 100);
            read::<IpNet>(&text, 100);
        }

        #[test]
        fn names_are_sorted_by_rank_as_by_name(names in prop::collection::vec("[a-c-]{1,12}\\.example", 0..50)) {
            let (keys, problem) = read::<HostName>(&names.join("\n"), 100);
            prop_assert_eq!(problem, None);
            let sorted = in_order(keys);
            prop_assert!(sorted.is_sorted_by(|a, b| (&a.value, a.span) <= (&b.value, b.span)));
            prop_assert_eq!(sorted.len(), names.len());
        }

        #[test]
        fn prefixes_are_sorted_by_rank_as_by_prefix(
            v4 in prop::collection::vec((any::<u32>(), 16u8..=32), 0..20),
            v6 in prop::collection::vec((any::<u128>(), 32u8..=128), 0..20),
        ) {
            let v4 = v4.into_iter().map(|(bits, len)| IpNet::new_assert(std::net::Ipv4Addr::from(bits).into(), len));
            let v6 = v6.into_iter().map(|(bits, len)| IpNet::new_assert(std::net::Ipv6Addr::from(bits).into(), len));
            let text: Vec<_> = v6.chain(v4).map(|net| net.trunc().to_string()).collect();
            let sorted = in_order(read::<IpNet>(&text.join("\n"), 100).0);
            prop_assert!(sorted.is_sorted_by(|a, b| a.value <= b.value));
        }
    }
}
