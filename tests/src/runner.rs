//! A row of the fixture table against something that judges frames.

use std::{collections::BTreeMap, fmt::Write as _};

use filter_common::{
    abi::{Protocol, Verdict},
    reason::Reason,
};

use crate::fixtures::{Row, Sends};

/// `XDP_DROP` of `linux/bpf.h`.
const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
const XDP_PASS: u32 = 2;
/// `XDP_TX`.
const XDP_TX: u32 = 3;
/// `XDP_REDIRECT`.
const XDP_REDIRECT: u32 = 4;

/// What became of a frame, with the rule by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Return code of the program.
    pub action: u32,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// The reason.
    pub reason: Option<Reason>,
    /// The rule that is reported.
    pub rule: Option<String>,
    /// What the payload was recognised as.
    pub protocol: Option<Protocol>,
    /// The name that is reported.
    pub name: Vec<u8>,
    /// The frame as it was left.
    pub frame: Vec<u8>,
}

/// All counters: those that do not appear are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Packets and bytes by rule id.
    pub rules: BTreeMap<String, (u64, u64)>,
}

impl Counters {
    /// What moved since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let moved = |(&reason, &now): (&&'static str, &u64)| {
            let then = before.reasons.get(reason).copied().unwrap_or(0);
            (now != then).then(|| (reason, now - then))
        };
        let moved_rule = |(id, &(packets, bytes)): (&String, &(u64, u64))| {
            let (then, then_bytes) = before.rules.get(id).copied().unwrap_or((0, 0));
            (packets != then).then(|| (id.clone(), (packets - then, bytes - then_bytes)))
        };
        Self {
            reasons: self.reasons.iter().filter_map(moved).collect(),
            rules: self.rules.iter().filter_map(moved_rule).collect(),
        }
    }
}

/// Something that judges frames under one policy and counts.
pub trait Judge {
    /// Judges a frame.
    fn judge(&mut self, frame: &[u8]) -> Seen;
    /// The counters as they stand.
    fn counters(&self) -> Counters;
}

/// Runs a row. `None` if everything is as it must be, else what is not, ready to print. `counters`
/// are those before the row, and afterwards those behind it.
pub fn check(row: &Row, judge: &mut dyn Judge, counters: &mut Counters) -> Option<String> {
    let seen = judge.judge(&row.frame);
    let now = judge.counters();
    let moved = now.since(counters);
    *counters = now;
    let mut wrong = differences(row, &seen);
    let mut expected = Counters::default();
    // A wrong reason is reported once, and not again by its counter.
    if let Some(reason) = seen.reason {
        expected.reasons.insert(reason.as_str(), 1);
    }
    let decided = match row.expect.verdict {
        Verdict::Pass | Verdict::Observe => None,
        Verdict::Drop | Verdict::Refuse | Verdict::Redirect => row.expect.rule,
    };
    for id in row.expect.observed.iter().copied().chain(decided) {
        expected
            .rules
            .insert(id.to_owned(), (1, row.frame.len() as u64));
    }
    if moved != expected {
        let _ = write!(
            wrong,
            "\n    counters moved: {moved:?}\n    expected:       {expected:?}"
        );
    }
    (!wrong.is_empty()).then_some(wrong)
}

fn differences(row: &Row, seen: &Seen) -> String {
    let expect = &row.expect;
    let mut wrong = String::new();
    let mut note = |what: &str, seen: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        let _ = write!(wrong, "\n    {what}: {seen:?}, expected {expected:?}");
    };
    let (action, frame) = match (expect.verdict, &expect.sends) {
        (_, Sends::Back(frame)) => (XDP_TX, frame),
        (_, Sends::Onward(frame)) => (XDP_PASS, frame),
        (Verdict::Pass | Verdict::Observe, Sends::Nothing) => (XDP_PASS, &row.frame),
        (Verdict::Drop | Verdict::Refuse, Sends::Nothing) => (XDP_DROP, &row.frame),
        (Verdict::Redirect, Sends::Nothing) => (XDP_REDIRECT, &row.frame),
    };
    if seen.action != action {
        note("action", &seen.action, &action);
    } else if seen.frame != *frame {
        note("frame", &Hex(&seen.frame), &Hex(frame));
    }
    if seen.verdict != Some(expect.verdict) {
        note("verdict", &seen.verdict, &expect.verdict);
    }
    if !seen
        .reason
        .is_some_and(|reason| expect.reasons.contains(&reason))
    {
        note("reason", &seen.reason, &expect.reasons);
    }
    if seen.rule.as_deref() != expect.rule {
        note("rule", &seen.rule, &expect.rule);
    }
    if seen.protocol != Some(expect.protocol) {
        note("protocol", &seen.protocol, &expect.protocol);
    }
    if let Some(name) = &expect.name
        && seen.name != name.as_bytes()
    {
        note("name", &String::from_utf8_lossy(&seen.name), name);
    }
    wrong
}

/// Bytes as two digits each.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Expect;

    /// Gives one prepared answer and counts as told.
    struct Scripted {
        seen: Seen,
        counters: Counters,
        then: Counters,
    }

    impl Judge for Scripted {
        fn judge(&mut self, _frame: &[u8]) -> Seen {
            self.counters = self.then.clone();
            self.seen.clone()
        }

        fn counters(&self) -> Counters {
            self.counters.clone()
        }
    }

    fn passes() -> Scripted {
        Scripted {
            seen: Seen {
                action: XDP_PASS,
                verdict: Some(Verdict::Pass),
                reason: Some(Reason::NoMatch),
                rule: None,
                protocol: Some(Protocol::None),
                name: Vec::new(),
                frame: vec![0; 60],
            },
            counters: Counters::default(),
            then: Counters {
                reasons: [("no_match", 1)].into(),
                rules: BTreeMap::new(),
            },
        }
    }

    fn row() -> Row {
        Row {
            title: "row".into(),
            frame: vec![0; 60],
            expect: Expect::pass(Reason::NoMatch),
        }
    }

    #[test]
    fn agreement_is_silent() {
        assert_eq!(check(&row(), &mut passes(), &mut Counters::default()), None);
    }

    #[test]
    fn any_other_field_is_reported() {
        type Change = fn(&mut Seen);
        let changes: [(&str, Change); 7] = [
            ("action", |seen| seen.action = XDP_DROP),
            ("verdict", |seen| seen.verdict = Some(Verdict::Drop)),
            ("reason", |seen| seen.reason = Some(Reason::NotIp)),
            ("rule", |seen| seen.rule = Some("x".into())),
            ("protocol", |seen| seen.protocol = Some(Protocol::Tls)),
            ("name", |seen| seen.name = b"x".to_vec()),
            ("frame", |seen| seen.frame[59] = 1),
        ];
        for (field, change) in changes {
            let mut judge = passes();
            change(&mut judge.seen);
            let wrong = check(&row(), &mut judge, &mut Counters::default()).expect("a difference");
            assert!(wrong.contains(field), "{field}: {wrong}");
        }
    }

    #[test]
    fn a_counter_that_moves_beside_is_reported() {
        let mut judge = passes();
        judge.then.rules.insert("other".into(), (1, 60));
        assert!(
            check(&row(), &mut judge, &mut Counters::default())
                .expect("a difference")
                .contains("other")
        );
        let mut judge = passes();
        judge.then.reasons.insert("not_ip", 1);
        assert!(
            check(&row(), &mut judge, &mut Counters::default())
                .expect("a difference")
                .contains("not_ip")
        );
    }
}
