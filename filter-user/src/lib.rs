//! edgefilter's user space as a library: policy, compiler, data path control,
//! replay and the commands of the binary.

#![warn(missing_docs)]

pub mod cli;
pub mod compile;
pub mod controller;
pub mod datapath;
pub mod host;
pub mod metrics;
pub mod netlink;
pub mod policy;
mod prefetch;
pub mod replay;
pub mod sink;
