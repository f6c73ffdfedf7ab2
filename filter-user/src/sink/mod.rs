//! The block page's sink: where connections end up that a rule leads to the page.
//!
//! The controller makes a network namespace ([`place`]) and starts this program again in it ([`serve`]),
//! which hands visitors' connections to [`filter_page`]; where the kernel makes no sockets of connections that
//! were taken over, another one does (`handover`). The process outlives the controller, and is
//! adopted by the next one, or replaced ([`process`]).

mod error;
pub mod files;
mod handover;
pub mod place;
mod privileges;
pub mod process;
pub mod report;
mod serve;
pub mod spec;

pub use error::SinkError;
pub use handover::make_sockets;
pub use serve::serve;

/// The hidden command that serves.
pub const COMMAND: &str = "sink";

/// The hidden command that makes sockets.
pub const HANDOVER_COMMAND: &str = "sink-handover";
