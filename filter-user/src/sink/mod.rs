//! The block page's sink: where connections end up that a rule leads to the page.

mod error;
pub mod place;

pub use error::SinkError;
