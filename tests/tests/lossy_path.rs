//! Over a path that loses one frame in ten and reorders one in four every allowed connection
//! succeeds and no blocked one does.

use std::time::Duration;

use filter_tests::{
    conform::all,
    lossy::{Place, Scale, compare},
};

/// What the long tests ask for.
const LONG: Scale = Scale {
    of_each: 50,
    allowed_max: Duration::from_secs(60),
    blocked_max: Duration::from_secs(60),
};
const SHORT: Scale = Scale {
    of_each: 5,
    blocked_max: Duration::from_secs(6),
    ..LONG
};

fn scale() -> Scale {
    if all() { LONG } else { SHORT }
}

#[test]
fn a_bad_path_to_a_server_hides_no_blocked_name_and_costs_no_allowed_connection() {
    compare(Place::BeforeServer, scale());
}

#[test]
fn a_bad_path_to_a_router_hides_no_blocked_name_and_costs_no_allowed_connection() {
    compare(Place::BeforeRouter, scale());
}

#[test]
fn a_bad_path_behind_a_router_hides_no_blocked_name_and_costs_no_allowed_connection() {
    compare(Place::BehindRouter, scale());
}
