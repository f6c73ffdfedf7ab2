//! Policy and host configuration: from files to the validated [`model`].
//!
//! What is blocked and why is in `policy.toml`, its list files and `policy.d/`, the same on every
//! host of a fleet ([`load_policy`]); what this host is, in `edgefilter.toml` ([`load_host_config`]).
//! Nothing here makes a system call beyond reading files, and nothing reads more than
//! [`limits`] allow. `docs/POLICY.md` is the reference for people.

pub mod diagnostics;
pub mod limits;
pub mod model;

mod action;
mod block_page;
mod conflict;
mod digest;
mod fields;
mod host;
mod inspected;
mod keys;
mod load;
mod metrics;
mod name;
mod ports;
mod prefix;
mod rule;
mod source;
mod times;

#[cfg(test)]
mod tests;

pub(crate) use conflict::contradict;
pub use diagnostics::{ConfigError, PolicyError};
pub use digest::{KeyDigests, key_digests, names_digest, policy_digest, rule_digest};
pub use host::{load_host_config, parse_host_config};
pub use load::{Known, load_outline, load_policy, parse_policy};
pub use name::NameError;
pub use prefix::{PrefixError, parse_prefix};
