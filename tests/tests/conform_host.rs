//! Every trick against the host's TCP/IP, with a real ClientHello cut in two, in both roles.
//!
//! Known failures are listed by row in `conform::known`; a row that holds must leave its list.

use std::net::TcpListener;

use filter_tests::conform::{
    all,
    host_run::{Rows, run},
    known::{Checksums, of},
    report::{Row, Table, conclude},
    scene::Scene,
};

#[test]
fn no_trick_takes_a_blocked_name_to_the_host_itself() {
    judge(&Scene::server(Checksums::Partial));
}

#[test]
fn no_trick_takes_a_blocked_name_to_the_host_itself_with_strict_checksums() {
    judge(&Scene::server(Checksums::Strict));
}

#[test]
fn no_trick_takes_a_blocked_name_to_a_host_that_uses_syn_cookies() {
    judge(&Scene::with_syn_cookies(Checksums::Partial));
    if all() {
        judge(&Scene::with_syn_cookies(Checksums::Strict));
    }
}

/// The router serves on the same port itself, on every address: its listener is not the one that
/// connections which pass through are for.
#[test]
fn no_trick_takes_a_blocked_name_through_a_router() {
    judge_with_listener(&Scene::router(Checksums::Partial));
    if all() {
        judge_with_listener(&Scene::router(Checksums::Strict));
    }
}

fn judge_with_listener(scene: &Scene) {
    let _own = scene
        .edge()
        .run(|| TcpListener::bind("[::]:443"))
        .expect("a listener on every address");
    judge(scene);
}

#[test]
fn no_trick_takes_a_blocked_name_through_a_router_that_sees_one_direction() {
    judge(&Scene::one_sided(Checksums::Partial));
    if all() {
        judge(&Scene::one_sided(Checksums::Strict));
    }
}

fn judge(scene: &Scene) {
    let Rows {
        opened_behind,
        opened_before,
    } = run(scene);
    let mut played = vec![(scene.table("host", ""), opened_behind)];
    // With the cookie in the data there is no connection before.
    if !scene.uses_cookies() {
        played.push((scene.table("host", "-late"), opened_before));
    }
    conclude_all(&played);
}

fn conclude_all(played: &[(String, Vec<Row>)]) {
    let expected: Vec<_> = played.iter().map(|(name, _)| of(name)).collect();
    let tables: Vec<_> = played
        .iter()
        .zip(&expected)
        .map(|((name, rows), expected)| Table {
            name,
            rows,
            expected,
            complete: true,
        })
        .collect();
    conclude(&tables);
}
