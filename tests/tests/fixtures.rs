//! The fixture table through both builds of the data path.

use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures,
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

/// Runs every row and reports all that differ, not only the first.
fn run_all(load: impl Fn(&Compiled) -> Box<dyn Judge>) {
    let (mut rows, mut wrong) = (0, Vec::new());
    for group in fixtures::all() {
        let compiled = compiled(&group.policy, &group.host, Role::Live);
        let mut judge = load(&compiled);
        let mut counters = judge.counters();
        for row in &group.rows {
            rows += 1;
            if let Some(difference) = check(row, judge.as_mut(), &mut counters) {
                wrong.push(format!("{}: {}{difference}", group.title, row.title));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{rows} rows");
}
