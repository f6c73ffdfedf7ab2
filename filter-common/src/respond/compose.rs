//! Writing an answer.

use super::{Draft, Refusal, Reply, Request, icmp, quic, tcp};

/// Writes an answer into `draft`. `next` is the byte that the server expects next, for
/// [`Refusal::ResetServer`]; `copy` copies a number of bytes at an offset of the frame to a place in the
/// draft, and says whether it could. `None` if nothing is to be sent.
#[inline(always)]
pub fn compose(
    draft: &mut Draft,
    request: &Request,
    refusal: Refusal,
    next: u32,
    copy: impl FnMut(&mut Draft, u32, u32, u32) -> bool,
) -> Option<Reply> {
    draft.clear();
    match refusal {
        Refusal::Silent | Refusal::Unverified => None,
        Refusal::Alert => Some(tcp::alert(draft, request)),
        Refusal::Unavailable => Some(tcp::unavailable(draft, request)),
        Refusal::ResetClient | Refusal::RefuseSyn => Some(tcp::reset_back(draft, request)),
        Refusal::ResetServer => Some(tcp::reset_onward(draft, request, next)),
        Refusal::ResetOnward => Some(tcp::reset_onward(draft, request, request.seq)),
        Refusal::Prohibited => icmp::prohibited(draft, request, copy),
        Refusal::Negotiate => quic::negotiate(draft, request, copy),
    }
}
