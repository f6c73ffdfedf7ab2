//! What the program that answers does with what is refused.

use filter_common::{
    abi::{Response, Taken, Verdict, rule_flag, taken as state},
    env::{Env as _, Rules as _},
    flow,
    pipeline::Decision,
    reason::Reason,
    respond::{self, Budget, Cause, Draft, Occasion, Refusal, Request, compose, plan},
    wire::{self, Packet},
};

use super::{env::HostEnv, xdp};

/// Memory of the program that answers.
pub(super) struct Responder {
    draft: Draft,
    budget: Budget,
}

/// What becomes of a refused frame.
pub(super) struct Answered {
    /// The program's return code.
    pub(super) action: u32,
    /// What leaves in the frame's place.
    pub(super) frame: Option<Vec<u8>>,
}

impl Answered {
    const SILENT: Self = Self {
        action: xdp::DROP,
        frame: None,
    };
}

impl Responder {
    pub(super) const fn new() -> Self {
        Self {
            draft: Draft::EMPTY,
            budget: Budget { spent_until_ns: 0 },
        }
    }

    /// Answers a frame that is refused.
    pub(super) fn refuse(
        &mut self,
        env: &mut HostEnv<'_>,
        packet: &Packet,
        decision: Decision,
    ) -> Answered {
        let mut response = Response {
            slot: decision.hit.slot(),
            verdict: Verdict::Refuse as u8,
            reason: decision.reason as u8,
            protocol: decision.protocol as u8,
            ..Response::default()
        };
        complete(env, packet, &mut response);
        let mut request = Request::EMPTY;
        request.read(env, packet);
        let before = match decision.reason {
            Reason::Taken => env.taken(&response.key),
            _ => None,
        };
        let occasion = Occasion::of(&response, before.as_ref());
        let refusal = plan(&occasion, &request);
        if refusal.is_rationed() && !self.budget.take(env.now_tai_ns()) {
            return Answered::SILENT;
        }
        let frame = env.frame();
        let copy = |draft: &mut Draft, from: u32, len: u32, at: u32| {
            let bytes = frame
                .get(from as usize..)
                .and_then(|rest| rest.get(..len as usize));
            let room = draft
                .bytes
                .get_mut(at as usize..)
                .and_then(|rest| rest.get_mut(..len as usize));
            match (bytes, room) {
                (Some(bytes), Some(room)) if len != 0 => {
                    room.copy_from_slice(bytes);
                    true
                }
                _ => false,
            }
        };
        let next = before.map_or(0, |taken| taken.next);
        let Some(reply) = compose(&mut self.draft, &request, refusal, next, copy) else {
            return Answered::SILENT;
        };
        let mut left = frame[..request.network as usize].to_vec();
        if reply.goes_back {
            left[..12].rotate_left(6);
        }
        left.extend_from_slice(
            &self.draft.bytes[reply.at as usize..(reply.at + reply.len) as usize],
        );
        remember(env, &response, &occasion, refusal, before);
        Answered {
            action: if reply.goes_back { xdp::TX } else { xdp::PASS },
            frame: Some(left),
        }
    }
}

/// Fills in what the packet, its rule and the working area tell.
fn complete(env: &mut HostEnv<'_>, packet: &Packet, response: &mut Response) {
    let ports = packet.ports(env);
    response.key = flow::key(packet.src, packet.dst, ports.src, ports.dst);
    response.key.protocol = packet.protocol;
    let by_rule = env
        .rule(response.slot)
        .map(|rule| (rule.slot_version, rule.flags));
    let (slot_version, flags) = by_rule.unwrap_or_default();
    response.slot_version = slot_version;
    if flags & rule_flag::QUIC != 0 || response.reason == Reason::QuicRefused as u8 {
        response.flags |= Response::QUIC;
    }
    if packet.protocol == wire::TCP
        && ports.shown
        && let Ok(segment) = packet.segment(env, ports.dst, 0)
        && let Some(work) = env.work()
    {
        respond::describe(response, work, segment);
        if response.has(Response::NAMED) && !response.has(Response::VERIFIED) {
            // What cannot be answered yet is read again when it comes again.
            env.blocked_delete();
        }
    }
}

/// What the connection's next segments need to know.
fn remember(
    env: &mut HostEnv<'_>,
    response: &Response,
    occasion: &Occasion,
    refusal: Refusal,
    before: Option<Taken>,
) {
    let stage = refusal.stage();
    match before {
        Some(mut taken) => {
            taken.flags |= stage;
            env.take(response.key, taken);
        }
        None if occasion.cause == Cause::Name && response.has(Response::NAMED) => {
            let mut taken = Taken::of(response, state::REFUSED, 0);
            taken.flags |= stage;
            env.take(response.key, taken);
        }
        None => {}
    }
}
