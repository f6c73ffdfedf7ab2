//! `cargo xtask demo`: the filter between real clients and servers.
//!
//! ```text
//!  visitor                     edge                            origin
//!  eth0 198.51.100.2 ───── eth0 198.51.100.1
//!                          nginx: blocked.example,
//!                                 neighbour.example, …
//!                          eth1 203.0.113.1 ──────────── eth0 203.0.113.10, .200
//!                                                        nginx
//! ```
//! The edge serves all hostnames on one address (server role) and forwards to the origin (router
//! role). The same with IPv6. In the end blocked visitors see the block page, and `--browser` leaves
//! a picture of it.

mod attempt;
mod browser;
mod controller;
mod table;
mod world;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_build, interrupt, setup, shell};

use self::{
    attempt::{Attempt, Client, Seen},
    controller::Controller,
    table::Table,
    world::{EDGE_V4, EDGE_V6, World},
};

/// The policy that is shown.
const POLICY: &str = "examples/policy.toml";

/// What that policy blocks, and neighbours that it must not touch.
const BLOCKED_NAME: &str = "blocked.example";
const BLOCKED_UNDER_DOMAIN: &str = "www.blocked-domain.example";
const OBSERVED_NAME: &str = "watched.example";
const NEIGHBOUR_NAME: &str = "neighbour.example";
const NAMES: [&str; 4] = [
    BLOCKED_NAME,
    BLOCKED_UNDER_DOMAIN,
    OBSERVED_NAME,
    NEIGHBOUR_NAME,
];
const BLOCKED_ORIGIN_V4: &str = "203.0.113.10";
const NEIGHBOUR_ORIGIN_V4: &str = "203.0.113.200";
const BLOCKED_ORIGIN_V6: &str = "2001:db8:bad::10";
const NEIGHBOUR_ORIGIN_V6: &str = "2001:db8:113::200";

/// A policy whose rule leads to the page that says why.
const PAGE_POLICY: &str = r#"
version = 1
[[rule]]
id = "page"
hosts = ["blocked.example"]
action = "redirect"
title = "This site has been blocked"
reason = "Immediate threat to human life"
statement = "https://provider.example/statements/1"
review_by = 2099-01-01T00:00:00Z
"#;

/// What the page says of it.
const PAGE_REASON: &str = "Immediate threat to human life";

/// A changed policy file must be in force within this time.
const RELOAD_MAX: Duration = Duration::from_secs(1);
const RELOAD_GIVE_UP: Duration = Duration::from_secs(10);

/// How long a single try waits for an answer meanwhile, and how long after it the next one starts.
const RELOAD_PATIENCE: Duration = Duration::from_millis(200);
const RELOAD_PAUSE: Duration = Duration::from_millis(50);

/// Shows the filter at work; an error if anything differs from what is expected.
///
/// With `browser`, Chromium's picture of the block page stays in the current directory.
pub(crate) fn run(browser: bool) -> Result<()> {
    if !shell::is_root() {
        bail!("not root: the demo makes network namespaces and loads the program into the kernel");
    }
    interrupt::install()?;
    setup::ensure_programs()?;
    let picture = browser.then(browser::picture).transpose()?;
    bpf_build::object(&setup::ensure_toolchain()?)?;
    shell::run(shell::cargo().args(["build", "--quiet", "--package", "filter-user"]))?;

    let world = World::new()?;
    let mut table = Table::new();
    let shown = show(&world, &mut table, picture.as_deref());
    let removed = world.remove();
    shown?;
    removed?;
    table.finish()?;
    if let Some(picture) = picture {
        println!("the block page as Chromium shows it: {}", picture.display());
    }
    Ok(())
}

/// `picture`: where a browser's picture of the block page goes, if one is wanted.
fn show(world: &World, table: &mut Table, picture: Option<&Path>) -> Result<()> {
    table.part("Without the filter");
    tried(
        table,
        world,
        &[https(BLOCKED_NAME, EDGE_V4), http(BLOCKED_ORIGIN_V4)],
        Seen::Served,
    );

    let policy = fs::read_to_string(shell::root().join(POLICY))
        .with_context(|| format!("cannot read {POLICY}"))?;
    let mut controller = Controller::start(world, &policy)?;
    table.part("Names on one address, filter attached, controller running");
    expect_names_blocked(table, world);
    table.part("Origins behind the edge");
    expect_origins_blocked(table, world);
    table.row(
        "edgefilter status",
        "exit code 0",
        &controller.run_command(&["status"])?.code(),
    );
    interrupt::check()?;

    table.part("The policy file is edited: the name is taken out");
    controller.write_policy(&policy.replace(BLOCKED_NAME, "unrelated.example"))?;
    expect_soon(table, world, &https(BLOCKED_NAME, EDGE_V4), Seen::Served);
    tried(table, world, &[http(BLOCKED_ORIGIN_V4)], Seen::NoAnswer);
    interrupt::check()?;

    table.part("The name is put back");
    controller.write_policy(&policy)?;
    expect_soon(table, world, &https(BLOCKED_NAME, EDGE_V4), Seen::NoAnswer);
    interrupt::check()?;

    controller.kill()?;
    table.part("The controller was killed with SIGKILL");
    expect_names_blocked(table, world);
    expect_origins_blocked(table, world);
    table.counters(&controller.counters()?);
    interrupt::check()?;

    table.part("After `edgefilter detach`");
    table.row(
        "edgefilter detach",
        "exit code 0",
        &controller.run_command(&["detach"])?.code(),
    );
    tried(
        table,
        world,
        &[https(BLOCKED_NAME, EDGE_V4), http(BLOCKED_ORIGIN_V4)],
        Seen::Served,
    );
    interrupt::check()?;

    let controller = Controller::start(world, PAGE_POLICY)?;
    table.part("Another policy: the rule leads to the block page");
    let page = [
        https(BLOCKED_NAME, EDGE_V4),
        http_host(BLOCKED_NAME, EDGE_V4),
        https(BLOCKED_NAME, EDGE_V6),
        http_host(BLOCKED_NAME, EDGE_V6),
    ];
    tried(table, world, &page, Seen::Page);
    tried(
        table,
        world,
        &[
            https(NEIGHBOUR_NAME, EDGE_V4),
            https(NEIGHBOUR_NAME, EDGE_V6),
        ],
        Seen::Served,
    );
    interrupt::check()?;
    if let Some(picture) = picture {
        let seen = browser::seen(world, BLOCKED_NAME, EDGE_V4, PAGE_REASON, picture)?;
        table.row(
            &format!("chromium --screenshot https://{BLOCKED_NAME}/"),
            &Seen::Page.to_string(),
            &seen.to_string(),
        );
    }
    table.row(
        "edgefilter detach",
        "exit code 0",
        &controller.run_command(&["detach"])?.code(),
    );
    Ok(())
}

fn expect_names_blocked(table: &mut Table, world: &World) {
    let with = |name: &'static str| {
        [
            https(name, EDGE_V4),
            handshake(name, EDGE_V4),
            http_host(name, EDGE_V4),
            https(name, EDGE_V6),
            http_host(name, EDGE_V6),
        ]
    };
    tried(table, world, &with(BLOCKED_NAME), Seen::NoAnswer);
    tried(table, world, &with(NEIGHBOUR_NAME), Seen::Served);
    tried(
        table,
        world,
        &[https(BLOCKED_UNDER_DOMAIN, EDGE_V4)],
        Seen::NoAnswer,
    );
    tried(table, world, &[https(OBSERVED_NAME, EDGE_V4)], Seen::Served);
}

fn expect_origins_blocked(table: &mut Table, world: &World) {
    tried(
        table,
        world,
        &[BLOCKED_ORIGIN_V4, BLOCKED_ORIGIN_V6].map(http),
        Seen::NoAnswer,
    );
    tried(
        table,
        world,
        &[NEIGHBOUR_ORIGIN_V4, NEIGHBOUR_ORIGIN_V6].map(http),
        Seen::Served,
    );
}

/// Makes the attempts side by side and adds a row for each.
fn tried(table: &mut Table, world: &World, attempts: &[Attempt], expected: Seen) {
    let seen: Vec<Seen> = thread::scope(|scope| {
        let running: Vec<_> = attempts
            .iter()
            .map(|attempt| scope.spawn(|| attempt.make(world)))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Seen::Other("the attempt panicked".to_owned()))
            })
            .collect()
    });
    for (attempt, seen) in attempts.iter().zip(seen) {
        table.row(
            &attempt.to_string(),
            &expected.to_string(),
            &seen.to_string(),
        );
    }
}

/// Tries again and again until it is as expected, and says whether that came in time. Waits longer
/// than it should take, so that a late reload spoils one row and not all that follow.
fn expect_soon(table: &mut Table, world: &World, attempt: &Attempt, expected: Seen) {
    let start = Instant::now();
    let (seen, tried_after) = loop {
        let tried_after = start.elapsed();
        let mut seen = attempt.make_within(world, RELOAD_PATIENCE);
        if seen == expected {
            // A busy machine may be too slow to answer a hasty try: asked again with patience.
            seen = attempt.make(world);
        }
        if seen == expected || tried_after > RELOAD_GIVE_UP || interrupt::requested() {
            break (seen, tried_after);
        }
        thread::sleep(RELOAD_PAUSE);
    };
    let in_time = tried_after <= RELOAD_MAX;
    let seen = if in_time {
        seen.to_string()
    } else {
        format!("{seen} after {} ms", tried_after.as_millis())
    };
    let what = format!("{attempt}, within {} s of the edit", RELOAD_MAX.as_secs());
    table.row(&what, &expected.to_string(), &seen);
    if in_time {
        table.note(&format!(
            "at the latest {} ms after the edit",
            tried_after.as_millis()
        ));
    }
}

fn https(name: &'static str, address: &'static str) -> Attempt {
    Attempt {
        client: Client::CurlTls,
        name,
        address,
    }
}

fn handshake(name: &'static str, address: &'static str) -> Attempt {
    Attempt {
        client: Client::OpensslTls,
        name,
        address,
    }
}

fn http_host(name: &'static str, address: &'static str) -> Attempt {
    Attempt {
        client: Client::CurlPlain,
        name,
        address,
    }
}

/// An origin is asked by its address.
fn http(address: &'static str) -> Attempt {
    Attempt {
        client: Client::CurlPlain,
        name: address,
        address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_filter_everything_is_served_and_nothing_is_left_behind() {
        let world = World::new().unwrap();
        let folder = world.folder().to_owned();
        let edge = world.edge.path();
        for attempt in [
            https(BLOCKED_NAME, EDGE_V4),
            https(NEIGHBOUR_NAME, EDGE_V6),
            handshake(BLOCKED_NAME, EDGE_V4),
            http_host(NEIGHBOUR_NAME, EDGE_V4),
            http(BLOCKED_ORIGIN_V4),
            http(NEIGHBOUR_ORIGIN_V6),
        ] {
            assert_eq!(attempt.make(&world), Seen::Served, "{attempt}");
        }
        world.remove().unwrap();
        assert!(!Path::new(&folder).exists());
        assert!(!edge.exists());
    }

    #[test]
    fn a_server_that_does_not_answer_is_seen_as_no_answer() {
        let world = World::new().unwrap();
        world.stop_servers();
        let attempts = [
            https(BLOCKED_NAME, EDGE_V4),
            handshake(BLOCKED_NAME, EDGE_V4),
            http(BLOCKED_ORIGIN_V4),
        ];
        for attempt in attempts {
            let seen = attempt.make_within(&world, Duration::from_millis(500));
            assert_eq!(seen, Seen::NoAnswer, "{attempt}");
        }
    }
}
