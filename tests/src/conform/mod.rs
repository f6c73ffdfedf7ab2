//! Conformance: what real stacks and servers accept, tried with and without the filter.
//!
//! A raw client ([`station`], [`connection`]) sends what no ordinary client does; the tables
//! ([`host`]) name each trick after its line in the measured truth. Two properties are asked of
//! every row: no server obtains a blocked name through the filter, and what a server accepts for
//! an allowed name without the filter it also gets with it, if the client repeats what is lost.

pub mod connection;
pub mod cut;
pub mod host;
pub mod host_run;
pub mod http;
pub mod http_run;
pub mod known;
mod listener;
pub mod recorder;
pub mod report;
pub mod rustls_server;
pub mod scene;
pub mod servers;
pub mod station;
pub mod tls;
pub mod tls_run;

use std::{
    sync::Mutex,
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The name that the filter blocks, with everything under it.
pub const BLOCKED: &str = "blocked.example";
/// A name that no rule hits, as long as the blocked one.
pub const ALLOWED: &str = "allowed.example";
/// Another one.
pub const NEUTRAL: &str = "decoyed.example";

/// The policy behind every table.
pub const POLICY: &str = r#"
version = 1
[[rule]]
id = "blocked"
domains = ["blocked.example"]
action = "drop"
"#;

/// Connections that are tried at the same time: most of them only wait.
const TOGETHER_MAX: usize = 64;

/// Whether the long tests are asked for.
pub fn all() -> bool {
    std::env::var_os("EDGEFILTER_TEST_ALL").is_some_and(|value| value == "1")
}

/// Whether a program that only the long tests need is there; they fail without it.
///
/// # Panics
/// If it is missing in the long tests.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    assert!(
        found || !all(),
        "{program} is missing: `cargo xtask setup` installs it"
    );
    found
}

/// Does `work` for every item, many at a time; the results in the items' order.
pub fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..TOGETHER_MAX.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else {
                        return;
                    };
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
