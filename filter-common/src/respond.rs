//! Answers to what is blocked: the frames that tell a client, and the way to the block page.

pub mod counted;
mod describe;
mod follow;
mod page;

use crate::{
    abi::{Action, Config, feature},
    hit::Hit,
};

pub use self::{
    describe::describe,
    follow::follow,
    page::{Way, way},
};

/// Whether what this rule hits is answered. One that redirects to a device is not, which does not matter
/// for what is asked here.
#[inline(always)]
pub(crate) const fn answers(config: &Config, hit: Hit) -> bool {
    config.features & feature::RESPOND != 0 && hit.action() as u8 >= Action::Refuse as u8
}
