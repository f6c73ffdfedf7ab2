//! The block page's sink: where connections end up that a rule leads to the page.
//!
//! The controller makes a network namespace ([`place`]) and starts this program again in it ([`serve`]),
//! which hands visitors' connections to [`filter_page`]. The process outlives the controller, and is
//! adopted by the next one, or replaced ([`process`]).

mod error;
pub mod files;
pub mod place;
pub mod process;
pub mod report;
mod serve;
pub mod spec;

pub use error::SinkError;
pub use serve::serve;

/// The hidden command that serves.
pub const COMMAND: &str = "sink";
