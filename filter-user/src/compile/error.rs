//! Why a policy could not be compiled.

use filter_common::limits::{
    NAME_CANDIDATES_MAX, PORT_RANGES_PER_RULE, REDIRECT_TARGETS_MAX, RULES_MAX, RULES_PER_KEY_MAX,
};

use super::build::BuildError;

/// Why a policy could not be compiled: a limit of the data path, or an
/// inconsistent rule. The generation in place is not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules than slots.
    #[error(
        "the policy has {count} rules, at most {RULES_MAX} are possible; \
         put long lists into the files of one rule"
    )]
    TooManyRules {
        /// How many there are.
        count: usize,
    },
    /// Enough slots, but not yet: some rest for one generation.
    #[error(
        "no free slot for all of the policy's {count} rules: {retired} slots of rules removed \
         now become free with the next generation; apply the removals first, then the new rules"
    )]
    NoFreeSlot {
        /// How many rules there are.
        count: usize,
        /// How many slots are resting.
        retired: usize,
    },
    /// Two rules of one id.
    #[error("two rules have the id \"{id}\"; ids label the counters, so give each its own")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// More port ranges than a rule holds.
    #[error(
        "rule \"{rule}\" has {count} port ranges, at most {PORT_RANGES_PER_RULE} are possible; \
         join neighbouring ports to ranges or split the rule"
    )]
    TooManyPortRanges {
        /// Id of the rule.
        rule: String,
        /// How many there are.
        count: usize,
    },
    /// A redirect without target.
    #[error("rule \"{rule}\" redirects, but does not say where to; give it a target")]
    NoTarget {
        /// Id of the rule.
        rule: String,
    },
    /// More redirect targets than the redirect map holds.
    #[error(
        "rule \"{rule}\" redirects to {target}, one more than the {REDIRECT_TARGETS_MAX} \
         different interfaces and next hops that are possible"
    )]
    TooManyTargets {
        /// Id of the rule.
        rule: String,
        /// The interface or next hop.
        target: String,
    },
    /// One key is listed by more rules than are searched on a hit.
    #[error(
        "{key} is listed {} times, at most {RULES_PER_KEY_MAX} are searched; \
         remove it from some of the rules {}",
        rules.len(), rules.join(", ")
    )]
    TooManyRulesPerKey {
        /// The prefix or name.
        key: String,
        /// Ids of the rules, once per listing.
        rules: Vec<String>,
    },
    /// More listed names above each other than one lookup keeps.
    #[error(
        "{name} has {} listed names on the way to the top, at most {NAME_CANDIDATES_MAX} are \
         searched; remove some of {}",
        chain.len(), chain.join(", ")
    )]
    NamesTooDeep {
        /// The lowest name.
        name: String,
        /// The listed names, the lowest first.
        chain: Vec<String>,
    },
    /// The rule sets exceed what a key can refer to.
    #[error(
        "the policy combines its rules in too many different ways under its keys; \
         merge rules that list the same prefixes or names"
    )]
    TooManySets,
    /// A table could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}
