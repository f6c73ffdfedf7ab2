//! What the tests stand on: namespaces, child processes, real servers and clients, frames
//! built byte by byte, and the fixture table.
//!
//! Everything that touches the machine is a guard whose drop removes it, also on panic, and
//! reports every clean-up error.

pub mod adapter;
pub mod browser;
pub mod captures;
pub mod certificate;
pub mod client;
pub mod conform;
pub mod dialer;
pub mod echo;
pub mod edge;
pub mod fixtures;
pub mod foreign;
pub mod frames;
pub mod kernel;
pub mod live;
pub mod lossy;
pub mod mutate;
pub mod net;
pub mod openmetrics;
pub mod packet;
pub mod page;
pub mod path;
pub mod probe;
pub mod process;
pub mod runner;
pub mod site;
pub mod variants;
pub mod witness;
