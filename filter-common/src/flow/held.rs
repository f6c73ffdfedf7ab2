//! What the working area holds of a stream, and its place in the tables.

use super::{Entry, Flow, Peer, known, mark, state};
use crate::{abi::feature, env::Env, work::Variable as _};

/// What the host knows of the connection.
#[inline(always)]
pub(super) fn host<E: Env>(env: &mut E) -> Peer {
    match env.work() {
        Some(work) => work.peer,
        None => Peer::default(),
    }
}

/// The entry just loaded.
#[inline(always)]
pub(super) fn flow<E: Env>(env: &mut E) -> Flow {
    match env.work() {
        Some(work) => work.entry.flow,
        None => Flow::default(),
    }
}

/// `false` if the table does not take it.
#[inline(always)]
pub(super) fn store<E: Env>(env: &mut E, flow: Flow) -> bool {
    if let Some(work) = env.work() {
        work.entry.flow = flow;
        work.known.set(work.known.get() | known::ENTRY);
    }
    env.flow_store()
}

#[inline(always)]
pub(super) fn forget<E: Env>(env: &mut E) {
    env.forget();
}

/// Forgets the stream, also if its connection has made requests.
#[inline(always)]
pub(super) fn forget_connection<E: Env>(env: &mut E) {
    if let Some(work) = env.work() {
        let flow = &mut work.entry.flow;
        flow.marks &= !mark::ASKED;
        flow.certain = 1;
    }
    forget(env);
}

/// Forgets the stream, as far as the tables have anything of it; one that is read beside its entry leaves
/// that alone. Of a connection that has made requests, what both directions have shown is kept: its next
/// one can be answered then.
#[inline(always)]
pub fn forget_known<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    if work.entry.flow.state == state::BESIDE {
        return;
    }
    let known = work.known.get();
    work.known.set(0);
    let listed = known & known::ENTRY != 0;
    let unanswered = work.entry.flow.reopened != 0 && work.entry.answers.seen == 0;
    let directions = env.config().features & (feature::ANSWERS | feature::ONE_SIDED);
    if listed && unanswered && directions == feature::ANSWERS {
        // The answer to a SYN may be on the way, and finds its entry.
        await_answer(env);
    } else if listed && may_ask_on(env) {
        keep_connection(env);
    } else {
        clear(env);
        if listed {
            env.flow_delete();
        }
    }
    if known & known::HELLO != 0 {
        env.hello_delete();
    }
}

/// Whether the connection has made a request, and both directions of it were seen.
#[inline(always)]
fn may_ask_on<E: Env>(env: &mut E) -> bool {
    let Some(work) = env.work() else { return false };
    let Entry { flow, answers } = &work.entry;
    // What is not certain, of such a connection, is a later request.
    answers.seen != 0 && (flow.marks & mark::ASKED != 0 || flow.certain == 0)
}

/// Leaves of a stream only what both directions have shown. Field by field, as in [`clear`].
#[inline(always)]
fn keep_connection<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    let zero = work.known.get();
    let flow = &mut work.entry.flow;
    flow.state = state::KNOWN;
    flow.certain = zero as u16;
    flow.marks = zero as u16;
    flow.kept = zero;
    flow.beyond = zero;
    flow.reopened = zero;
    // Nobody checks timestamps of what is judged by itself.
    flow.ts_recent = zero;
    let _in_place = env.flow_store();
}

/// Empties the entry: what is read of one without a state, and what a new one takes from it. Field by field,
/// and with a zero that the compiler does not know: all at once is a call, for which the stack is too short.
#[inline(always)]
fn clear<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    let zero = work.known.get();
    let Entry { flow, answers } = &mut work.entry;
    flow.state = zero;
    flow.certain = zero as u16;
    flow.marks = zero as u16;
    flow.kept = zero;
    flow.beyond = zero;
    flow.interface = zero;
    flow.ts_recent = zero;
    flow.reopened = zero;
    answers.seen = zero;
}

/// Leaves of a stream only that a SYN was seen. In place: the stack is short.
#[inline(always)]
fn await_answer<E: Env>(env: &mut E) {
    let Some(work) = env.work() else { return };
    let flow = &mut work.entry.flow;
    let next = flow.reopened_at;
    flow.state = state::OPENED;
    flow.start = next;
    flow.connection = next;
    flow.next = next;
    flow.ack = 0;
    flow.kept = 0;
    flow.reopened = 1;
    flow.certain = 1;
    flow.marks = 0;
    flow.ts_recent = 0;
    flow.beyond = 0;
    let _in_place = env.flow_store();
}

/// Loads the entry of the working area's flow into the working area; `false` if there is none.
#[inline(always)]
pub(super) fn load<E: Env>(env: &mut E) -> bool {
    let found = env.flow_load();
    if let Some(work) = env.work() {
        let kept = found && work.entry.flow.kept != 0;
        let known = [0, known::ENTRY, known::ENTRY | known::HELLO];
        work.known.set(known[found as usize + kept as usize]);
    }
    found
}
