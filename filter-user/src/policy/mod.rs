//! Policy and host configuration.

pub mod diagnostics;
pub mod limits;
pub mod model;
mod name;
mod prefix;
mod source;

pub use name::NameError;
pub use prefix::{PrefixError, parse_prefix};
