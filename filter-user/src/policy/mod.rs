//! Policy and host configuration.

pub mod model;
