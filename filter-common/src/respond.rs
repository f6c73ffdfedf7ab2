//! Answers to what is blocked: the frames that tell a client, and the way to the block page.
//!
//! For a packet that is refused [`plan`] says which answer it gets, if any, and [`compose`] makes it of the
//! frame: a TLS alert, a short HTTP answer, a reset, an ICMP error or QUIC's Version Negotiation. Nothing
//! answers a connection that was not verified, but a reset to a SYN (never larger than the SYN) and what is
//! rate-limited; so nobody can have a third party sent more than was sent here. What each answer may be
//! larger by than what it answers is a limit with a name.

mod budget;
mod compose;
pub mod counted;
mod describe;
mod draft;
mod follow;
mod icmp;
mod page;
mod plan;
mod quic;
mod request;
mod tcp;
#[cfg(test)]
mod tests;

use crate::{
    abi::{Action, Config, feature},
    hit::Hit,
};

pub use self::{
    budget::Budget,
    compose::compose,
    describe::describe,
    draft::{DRAFT_BYTES, Draft, REPLY_BYTES_MAX, Reply},
    follow::follow,
    page::{Way, way},
    plan::{Cause, Occasion, Refusal, plan},
    request::{ICMP, ICMPV6, LongHeader, Request},
    tcp::{ALERT, UNAVAILABLE},
};

/// Whether what this rule hits is answered. One that redirects to a device is not, which does not matter
/// for what is asked here.
#[inline(always)]
pub(crate) const fn answers(config: &Config, hit: Hit) -> bool {
    config.features & feature::RESPOND != 0 && hit.action() as u8 >= Action::Refuse as u8
}
