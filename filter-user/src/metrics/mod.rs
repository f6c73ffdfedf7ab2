//! What monitoring is told, in the text format of OpenMetrics: the numbers of `status` and `counters`.
//!
//! Names of visitors' connections are never part of it: labels are what the operator wrote (rules,
//! interfaces, names in certificates and rules) and words of this program.

mod endpoint;
mod gather;
mod text;

use serde::Serialize;

pub(crate) use self::endpoint::Endpoint;
pub use self::{gather::gather, text::openmetrics};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only grows, until the maps of the filter, or the process that counts, are made anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal [$($label:literal)*] $help:literal,)+) => {
        /// Something that is measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Metric {
            $(#[doc = $help] $variant,)+
        }

        impl Metric {
            /// Every one.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name without the `_total` that counters have behind it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether it only grows.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }

            /// Names of its labels.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)+ }
            }

            /// What it says, in one line.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

metrics! {
    Build Gauge "edgefilter_build_info" ["version" "kernel"]
        "Always 1: version of edgefilter and release of the kernel",
    Enforcing Gauge "edgefilter_enforcing" []
        "1 if the program is attached to an interface at least, else 0: nothing is filtered",
    AsWanted Gauge "edgefilter_as_wanted" []
        "1 if what is wanted is what is enforced, as the exit code of status says, else 0",
    Differences Gauge "edgefilter_differences" []
        "Ways in which wanted and enforced differ; status says them in words",
    ControllerRunning Gauge "edgefilter_controller_running" []
        "1 if a controller follows the policy, else 0; the filter does not need it",
    ApplyFailed Gauge "edgefilter_last_apply_failed" []
        "1 if the controller could not apply the policy as it is written now, else 0",
    ApplyTime Gauge "edgefilter_last_apply_timestamp_seconds" []
        "When a policy was put or found in place without error last, in Unix time",
    ApplyAge Gauge "edgefilter_last_apply_age_seconds" []
        "Seconds since then",
    Generation Gauge "edgefilter_generation" []
        "Number of the generation in place",
    CompiledTime Gauge "edgefilter_compiled_timestamp_seconds" []
        "When that was compiled, in Unix time",
    Rules Gauge "edgefilter_rules" ["term"]
        "Rules in place by whether they are in_force, not_yet or no_longer",
    NextEnd Gauge "edgefilter_next_end_timestamp_seconds" []
        "When the next rule ends that is in force or to come, in Unix time",
    NextReview Gauge "edgefilter_next_review_timestamp_seconds" []
        "The earliest review date of the rules that are not over, also one that has passed, in Unix time",
    Warnings Gauge "edgefilter_policy_warnings" []
        "Findings about the policy in place; status says them in words",
    VerifiedInstructions Gauge "edgefilter_program_verified_instructions" []
        "Instructions that the kernel's verifier went through",
    LoadTime Gauge "edgefilter_program_load_seconds" []
        "How long verification and translation of the program took",
    MapBytes Gauge "edgefilter_map_bytes" []
        "Kernel memory of all maps",
    Attached Gauge "edgefilter_interface_attached" ["interface" "mode"]
        "1 if the program is attached to the interface, in this mode, else 0",
    Weak Gauge "edgefilter_interface_weak" ["interface"]
        "1 if connections were judged there without the server's answers, else 0",
    Connections Counter "edgefilter_connections" ["interface" "answers"]
        "Connections that pass through, by whether the server's answers were seen or unseen",
    Packets Counter "edgefilter_packets" ["reason"]
        "Packets by what decided about them; one of the flow tables' losses is state_lost",
    RulePackets Counter "edgefilter_rule_packets" ["rule" "action"]
        "Packets that a rule decided, or observed",
    RuleBytes Counter "edgefilter_rule_bytes" ["rule" "action"]
        "Bytes of these frames",
    Answers Counter "edgefilter_answers" ["answer"]
        "What became of packets that were to be answered",
    EventsDropped Counter "edgefilter_events_dropped" ["cause"]
        "Events not emitted: beyond the rate_limit, or since the ring_buffer was full",
    LocalAttached Gauge "edgefilter_local_proxies_attached" []
        "1 if connections of the configured control group are decided about, else 0; absent if none is configured",
    PageUp Gauge "edgefilter_page_up" []
        "1 if what leads to the block page gets there, else 0: it is refused; absent if no rule leads there",
    PageMethod Gauge "edgefilter_page_method" ["method"]
        "Always 1: how established connections are handed to the block page",
    PageStart Gauge "edgefilter_page_start_timestamp_seconds" []
        "When the block page's process started, in Unix time; its counts begin there",
    PageOpen Gauge "edgefilter_page_open_connections" []
        "Connections to the block page that are open",
    PageEvents Counter "edgefilter_page_events" ["event"]
        "What the block page's server counted, under the names in the statistics of the server",
    PageServed Counter "edgefilter_page_served" ["rule" "language"]
        "Pages served, by rule and language",
    PageProblems Gauge "edgefilter_page_problems" []
        "Files of the block page that cannot be used; status says which",
    CertificateEnd Gauge "edgefilter_certificate_expiry_timestamp_seconds" ["file" "name"]
        "When a certificate of the block page ends, in Unix time, by its file and first name",
    Uncovered Gauge "edgefilter_names_without_certificate" ["rule"]
        "Names of a rule whose visitors are refused over TLS for lack of a usable certificate",
    UncoveredName Gauge "edgefilter_name_without_certificate" ["rule" "name"]
        "Always 1: such a name, the first three of each rule",
}

impl Metric {
    /// Its name as it is exposed.
    pub fn exposed(self) -> String {
        match self.kind() {
            Kind::Counter => format!("{}_total", self.name()),
            Kind::Gauge => self.name().to_owned(),
        }
    }
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// Seconds.
    Seconds(f64),
}

/// One number and what it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Values of the labels, in the order of [`Metric::labels`].
    pub labels: Vec<String>,
    /// The number.
    pub value: Value,
}

/// A metric with its numbers, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    /// Its name as it is exposed.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Names of the labels.
    pub label_names: &'static [&'static str],
    /// The numbers.
    pub samples: Vec<Sample>,
    #[serde(skip)]
    metric: Metric,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_what_the_format_demands() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len(), "two metrics share a name");
        let is_word = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        };
        for metric in Metric::ALL {
            assert!(is_word(metric.name()), "{}", metric.name());
            assert!(metric.labels().iter().all(|label| is_word(label)));
            assert!(!metric.name().ends_with("_total"), "it is put there");
            assert!(!metric.help().contains(['\n', '\\', '"']));
        }
    }
}
