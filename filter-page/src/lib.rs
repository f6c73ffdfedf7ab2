//! The server behind the block page: what visitors of a blocked site see.
//!
//! It is an ordinary HTTP/1.1 and TLS server with two peculiarities. Its listening sockets accept
//! connections to *any* address, so a connection's local address is the one the visitor asked for;
//! and it answers only for what the rules block: everything else gets `421 Misdirected Request`.
//! There is nothing of the kernel side in here: sockets come in bound, rules come as a JSON file
//! ([`decisions::Decisions`]), certificates from a directory ([`certificates`]), and what happened
//! goes out as [`stats::Snapshot`].
//!
//! ```no_run
//! # fn main() -> Result<(), filter_page::Error> {
//! use std::net::TcpListener;
//! use filter_page::{Config, Listeners, Server};
//!
//! let config = Config::new("/etc/edgefilter/certs", "/run/edgefilter/decisions.json");
//! let listeners = Listeners {
//!     visitors: vec![TcpListener::bind("[::]:443").expect("the port is free")],
//!     stats: None,
//!     handed: None,
//! };
//! let server = Server::new(config, listeners)?;
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
//! runtime.block_on(server.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod certificates;
mod config;
mod connection;
pub mod decisions;
mod error;
mod linger;
mod page;
mod reload;
mod request;
mod server;
mod service;
mod socket;
pub mod stats;
mod tls;
mod visitors;

pub use config::{Config, Handed, Limits, Listeners};
pub use error::Error;
pub use server::Server;

/// The languages that a page can be in, and whether the theme is usable: for checking a
/// configuration without a server.
///
/// # Errors
/// If a file of the theme cannot be read or used.
pub fn languages(theme: Option<&std::path::Path>) -> Result<Vec<String>, Error> {
    Ok(page::Theme::load(theme)?.languages())
}
