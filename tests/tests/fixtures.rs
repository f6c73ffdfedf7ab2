//! The fixture table through both builds of the data path.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures::{self, Group, Row},
    runner::{Judge, check},
};
use filter_user::compile::{Compiled, Role};

#[test]
fn the_program_in_the_kernel_does_what_every_row_says() {
    run_all(|compiled| Box::new(InKernel::load(compiled)));
}

#[test]
fn the_host_build_does_what_every_row_says() {
    run_all(|compiled| Box::new(OnHost::load(compiled)));
}

/// Runs every row and reports all that differ, not only the first. Several groups at a time: most of
/// the time goes into loading the program, once for each group.
fn run_all(load: impl Fn(&Compiled) -> Box<dyn Judge> + Sync) {
    let groups = fixtures::all();
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let next = AtomicUsize::new(0);
    let run_some = || {
        let mut wrong = Vec::new();
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = compiled(&group.policy, &group.host, Role::Live);
            wrong.extend(run_group(group, load(&compiled).as_mut()));
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run_some)).collect();
        running
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(wrong) => wrong,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{rows} rows");
}

fn run_group(group: &Group, judge: &mut dyn Judge) -> Vec<String> {
    let mut counters = judge.counters();
    let differs = |row: &Row| {
        let difference = check(row, judge, &mut counters)?;
        Some(format!("{}: {}{difference}", group.title, row.title))
    };
    group.rows.iter().filter_map(differs).collect()
}
