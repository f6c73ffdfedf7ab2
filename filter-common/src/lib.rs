//! The pure logic of edgefilter, compiled once for the kernel program and once
//! for the host: wire formats, hellos, names, tables, verdicts, limits and the ABI.
//!
//! No dependencies, no allocation, no `unsafe`, no panics on any input. Side
//! effects and raw memory come in through [`env::Env`].
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod checksum;
pub mod env;
pub mod fast;
pub mod flow;
pub mod hello;
pub mod hit;
pub mod hostname;
pub mod http;
pub mod limits;
pub mod origins;
pub mod pipeline;
pub mod proxy;
pub mod reason;
pub mod respond;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod wire;
pub mod work;
