//! [`Env`] over plain memory.

use std::cell::{Cell, RefCell};

use filter_common::{
    abi::{Config, FlowKey, Line, Rule, Table, Taken, taken},
    checksum,
    env::{Env, Rules, Window},
    flow::{self, Blocked, Comparison, Course, Entry, Options, Peer, Reading, Segment},
    hello::Progress,
    hit::{self, Hit, Listed, Qualifiers},
    hostname, http, limits,
    limits::{NAME_CANDIDATES_MAX, NAMES_PER_HELLO_MAX, STREAM_BYTES_MAX},
    origins,
    proxy::{self, Header},
    reason::Reason,
    respond,
    tables::Lines,
    tls::{self, Message, Shape, Step},
    wire::{self, Chain, Tags},
    work::{BYTES, HANDSHAKE_AT, Memory, Span, Variable, Work},
};

use super::state::Streams;
use crate::compile::Compiled;

/// Index of `lo`.
const LOOPBACK: u32 = 1;

/// Memory of the process.
#[derive(Default)]
pub(super) struct HostMemory;

/// A variable in it.
#[derive(Default)]
pub(super) struct HostVariable(Cell<u32>);

impl Variable for HostVariable {
    fn get(&self) -> u32 {
        self.0.get()
    }

    fn set(&self, value: u32) {
        self.0.set(value);
    }
}

impl Memory for HostMemory {
    type Var = HostVariable;

    fn copy(bytes: &mut [u8; BYTES], from: u32, to: u32, len: u32) {
        let (from, to, len) = (from as usize, to as usize, len as usize);
        bytes.copy_within(from..from + len, to);
    }
}

/// The working area of the host build.
pub(super) type HostWork = Work<HostMemory>;

/// An empty working area.
pub(super) fn working_area() -> Box<HostWork> {
    Box::new(Work {
        bytes: [0; BYTES],
        names: [Span::default(); NAMES_PER_HELLO_MAX],
        name_count: HostVariable::default(),
        name_reported: HostVariable::default(),
        candidates: [0; NAME_CANDIDATES_MAX],
        candidate_lens: [0; NAME_CANDIDATES_MAX],
        candidate_count: HostVariable::default(),
        odd_name: HostVariable::default(),
        literal_name: HostVariable::default(),
        ech: HostVariable::default(),
        begins: HostVariable::default(),
        suffixes: Default::default(),
        records: tls::Records::default(),
        extensions: tls::Extensions::default(),
        head: http::Head::default(),
        key: FlowKey::default(),
        peer: Peer::default(),
        planned: [0; 3],
        before: HostVariable::default(),
        reads: HostVariable::default(),
        served: 0,
        entry: Entry::default(),
        options: flow::OptionWalk::default(),
        known: HostVariable::default(),
        queued: HostVariable::default(),
        comparison: Comparison::default(),
    })
}

/// The tables and rules of a generation, at a fixed moment, and the rules that observed.
pub(super) struct HostRules<'a> {
    compiled: &'a Compiled,
    now_tai_ns: u64,
    observed: RefCell<Vec<(u16, Reason)>>,
}

impl<'a> HostRules<'a> {
    pub(super) fn new(compiled: &'a Compiled, now_tai_ns: u64) -> Self {
        Self {
            compiled,
            now_tai_ns,
            observed: RefCell::default(),
        }
    }
}

impl Lines for HostRules<'_> {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        self.compiled.tables[table as usize].get(index as usize)
    }
}

impl Rules for HostRules<'_> {
    fn config(&self) -> &Config {
        &self.compiled.config
    }

    fn rule(&self, slot: u16) -> Option<&Rule> {
        self.compiled.rules.get(usize::from(slot))
    }

    fn now_tai_ns(&self) -> u64 {
        self.now_tai_ns
    }

    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
        hit::apply(self, slot, specificity, qualifiers)
    }

    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed {
        origins::listed_v6(self, addr, length, qualifiers)
    }

    fn observe(&self, slot: u16, reason: Reason) {
        self.observed.borrow_mut().push((slot, reason));
    }
}

/// Bytes of the frame.
#[derive(Clone, Copy)]
pub(super) struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Window<N> for Bytes<N> {
    fn u8<const O: usize>(self) -> u8 {
        self.0[O]
    }

    fn be16<const O: usize>(self) -> u16 {
        u16::from_be_bytes(self.array::<O, 2>())
    }

    fn be32<const O: usize>(self) -> u32 {
        u32::from_be_bytes(self.array::<O, 4>())
    }

    fn be64<const O: usize>(self) -> u64 {
        u64::from_be_bytes(self.array::<O, 8>())
    }
}

impl<const N: usize> Bytes<N> {
    /// `L` bytes at `O`: a constant offset inside the window, as the program's code has it.
    fn array<const O: usize, const L: usize>(self) -> [u8; L] {
        const { assert!(O + L <= N, "a read beyond the window") };
        std::array::from_fn(|i| self.0[O + i])
    }
}

/// One frame, and what the kernel knows beside it.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The frame.
    pub(super) frame: &'a [u8],
    /// Bytes of it in its first buffer, if it has more.
    pub(super) linear: usize,
    /// What the host's socket says.
    pub(super) peer: Peer,
}

/// [`Env`] for one frame.
pub(super) struct HostEnv<'a> {
    rules: HostRules<'a>,
    around: Surroundings<'a>,
    work: &'a mut HostWork,
    streams: &'a mut Streams,
}

impl<'a> HostEnv<'a> {
    pub(super) fn new(
        rules: HostRules<'a>,
        around: Surroundings<'a>,
        work: &'a mut HostWork,
        streams: &'a mut Streams,
    ) -> Self {
        Self {
            rules,
            around,
            work,
            streams,
        }
    }

    /// The rules that observed and what they hit, in order.
    pub(super) fn into_observed(self) -> Vec<(u16, Reason)> {
        self.rules.observed.into_inner()
    }
}

impl HostEnv<'_> {
    /// The frame.
    pub(super) fn frame(&self) -> &[u8] {
        self.around.frame
    }

    /// The entry of a connection that was answered before.
    pub(super) fn taken(&mut self, key: &FlowKey) -> Option<Taken> {
        self.streams.taken.load(key).copied()
    }

    /// Remembers a connection that is answered.
    pub(super) fn take(&mut self, key: FlowKey, taken: Taken) {
        self.streams.taken_ports.insert(key.src_port);
        self.streams.taken.store(key, taken);
    }

    /// Copies `len` bytes of the frame at `offset` to `at` in the working area.
    fn copy(&mut self, offset: u32, len: u32, at: u32) -> bool {
        let (offset, len, at) = (offset as usize, len as usize, at as usize);
        if len == 0 {
            return false;
        }
        let frame = self.around.frame;
        let Some(bytes) = frame.get(offset..).and_then(|rest| rest.get(..len)) else {
            return false;
        };
        let Some(area) = self
            .work
            .bytes
            .get_mut(at..)
            .and_then(|rest| rest.get_mut(..len))
        else {
            return false;
        };
        area.copy_from_slice(bytes);
        true
    }

    /// The deciding rule for the name at `index`.
    fn search_name(&mut self, index: u32, qualifiers: Qualifiers) -> Hit {
        let rules = &self.rules;
        if hostname::begin(rules, self.work, index) {
            for _ in 0..hostname::STEPS_MAX {
                let step = hostname::step(rules, self.work, |work, lanes, len_and_whole| {
                    hostname::collect_suffix(rules, work, lanes, len_and_whole);
                });
                if step == Step::Done {
                    break;
                }
            }
            hostname::finish(self.work);
        }
        hostname::try_candidates(self.work, |set, kinds, specificity| {
            hit::listed(rules, set, kinds, specificity, qualifiers)
        })
    }
}

impl Lines for HostEnv<'_> {
    fn line(&self, table: Table, index: u32) -> Option<&Line> {
        self.rules.line(table, index)
    }
}

impl Rules for HostEnv<'_> {
    fn config(&self) -> &Config {
        self.rules.config()
    }

    fn rule(&self, slot: u16) -> Option<&Rule> {
        self.rules.rule(slot)
    }

    fn now_tai_ns(&self) -> u64 {
        self.rules.now_tai_ns()
    }

    fn apply(&self, slot: u16, specificity: u16, qualifiers: Qualifiers) -> Hit {
        self.rules.apply(slot, specificity, qualifiers)
    }

    fn listed_v6(&self, addr: [u64; 2], length: u8, qualifiers: Qualifiers) -> Listed {
        self.rules.listed_v6(addr, length, qualifiers)
    }

    fn observe(&self, slot: u16, reason: Reason) {
        self.rules.observe(slot, reason);
    }
}

impl Env for HostEnv<'_> {
    type Window<const N: usize> = Bytes<N>;
    type Memory = HostMemory;

    fn contains(&self, len: u32) -> bool {
        len as usize <= self.around.frame.len()
    }

    fn window<const N: usize>(&self, offset: u32) -> Option<Bytes<N>> {
        if offset > limits::HEADER_OFFSET_MAX {
            return None;
        }
        let frame = self.around.frame;
        frame[..frame.len().min(self.around.linear)]
            .get(offset as usize..)?
            .first_chunk()
            .map(|bytes| Bytes(*bytes))
    }

    fn port_class(&self, port: u16) -> u8 {
        self.rules.compiled.ports[usize::from(port)]
    }

    fn serves_v4(&self, addr: u32) -> u32 {
        origins::serves_v4(&self.rules, addr)
    }

    fn serves_v6(&self, addr: [u64; 2]) -> u32 {
        origins::serves_v6(&self.rules, addr)
    }

    fn fetch(&mut self, offset: u32, len: u32, at: u32) -> bool {
        let fits = at
            .checked_add(len)
            .is_some_and(|end| end as usize <= STREAM_BYTES_MAX);
        fits && self.copy(offset, len, at)
    }

    fn fetch_aside(&mut self, offset: u32, len: u32) -> bool {
        len as usize <= STREAM_BYTES_MAX && self.copy(offset, len, HANDSHAKE_AT)
    }

    fn sum(&mut self, offset: u32, len: u32, start: u32) -> u32 {
        if !self.fetch_aside(offset, len) {
            return 0;
        }
        let at = HANDSHAKE_AT as usize;
        checksum::sum(&self.work.bytes[at..at + len as usize], start)
    }

    fn look_up_peer(&mut self, _segment: Segment) {
        self.work.peer = self.around.peer;
    }

    fn options(&mut self, offset: u32, len: u32) -> Options {
        flow::options_at(self, offset, len)
    }

    fn compare(&mut self, at: u32, len: u32) -> bool {
        flow::begin_comparison(self.work, at, len);
        repeat(flow::COMPARE_STEPS_MAX, || flow::compare_step(self.work));
        flow::finish_comparison(self.work)
    }

    fn plan(&mut self, segment: Segment) -> Reading {
        flow::plan(self, segment)
    }

    fn judge(&mut self) -> Reading {
        flow::judge(self)
    }

    fn watch(&mut self, segment: Segment) {
        flow::watch(self, segment);
    }

    fn course(&mut self, segment: Segment) -> Course {
        flow::course(self, segment)
    }

    fn between(&mut self, segment: Segment) -> Course {
        flow::between(self, segment)
    }

    fn settle(&mut self, state: u32, next: u32, kept: u32) -> bool {
        flow::settle(self, state, next, kept)
    }

    /// As the kernel's test run has it: that of `lo`, for every frame.
    fn interface(&self) -> u32 {
        LOOPBACK
    }

    fn count_connection(&mut self, answered: bool) {
        if answered {
            self.streams.directions.answered += 1;
        } else {
            self.streams.directions.unanswered += 1;
        }
    }

    fn flow_load(&mut self) -> bool {
        let Some(flow) = self.streams.flows.load(&self.work.key) else {
            return false;
        };
        self.work.entry = *flow;
        true
    }

    fn flow_store(&mut self) -> bool {
        let entry = self.work.entry;
        if let Some(stored) = self.streams.flows.load_mut(&self.work.key) {
            stored.flow = entry.flow;
            return true;
        }
        self.streams.flows.store(self.work.key, entry)
    }

    fn answers_store(&mut self) {
        if let Some(entry) = self.streams.flows.load_mut(&self.work.key) {
            entry.answers = self.work.entry.answers;
        }
    }

    fn forget(&mut self) {
        flow::forget_known(self);
    }

    fn flow_delete(&mut self) {
        self.streams.flows.delete(&self.work.key);
    }

    fn hello_load(&mut self, len: u32) -> bool {
        if len == 0 {
            return true;
        }
        let Some(kept) = self.streams.hello(&self.work.key, len) else {
            return false;
        };
        self.work.bytes[..kept.len()].copy_from_slice(kept);
        true
    }

    fn hello_store(&mut self, len: u32) -> bool {
        let kept = &self.work.bytes[..(len as usize).min(STREAM_BYTES_MAX)];
        self.streams.keep_hello(self.work.key, kept)
    }

    fn hello_delete(&mut self) {
        self.streams.forget_hello(&self.work.key);
    }

    fn blocked_load(&mut self) -> Option<Blocked> {
        self.streams.blocked.load(&self.work.key).copied()
    }

    fn blocked_store(&mut self, blocked: Blocked) {
        self.streams.blocked.store(self.work.key, blocked);
    }

    fn blocked_delete(&mut self) {
        self.streams.blocked.delete(&self.work.key);
    }

    fn port_taken(&self, port: u16) -> bool {
        self.streams.taken_ports.contains(&port)
    }

    fn follow(&mut self, segment: Segment) -> Reading {
        respond::follow(self, segment)
    }

    fn taken_load(&mut self) -> Option<Taken> {
        self.streams.taken.load(&self.work.key).copied()
    }

    fn taken_reopen(&mut self, at: u32) {
        if let Some(entry) = self.streams.taken.load_mut(&self.work.key) {
            entry.reopened_at = at;
            entry.flags |= taken::flag::REOPENED;
        }
    }

    fn taken_delete(&mut self) {
        self.streams.taken.delete(&self.work.key);
    }

    fn work(&mut self) -> Option<&mut HostWork> {
        Some(self.work)
    }

    fn skip_tags(&self, ethertype: u16) -> Option<Tags> {
        wire::skip_tags(self, ethertype)
    }

    fn walk_extensions(&self, protocol: u8, at: u32, end: u32) -> Chain {
        wire::walk_extensions(self, protocol, at, end)
    }

    fn search_v4(&self, addr: u32, qualifiers: Qualifiers) -> Hit {
        origins::search_v4(&self.rules, addr, qualifiers)
    }

    fn search_v6(&self, addr: [u64; 2], qualifiers: Qualifiers) -> Hit {
        origins::search_v6(&self.rules, addr, qualifiers)
    }

    fn read_proxy(&mut self, len: u32) -> Header {
        proxy::read(self.work, len)
    }

    fn read_tls(&mut self, len: u32) -> Progress {
        read_tls(self.work, len)
    }

    fn read_http(&mut self, len: u32, certain: bool) -> Progress {
        read_http(self.work, len, certain)
    }

    fn search_names(&mut self, qualifiers: Qualifiers) -> Hit {
        let mut best = Hit::NONE;
        for index in 0..NAMES_PER_HELLO_MAX as u32 {
            if index >= self.work.name_count.get() {
                break;
            }
            let hit = self.search_name(index, qualifiers);
            if hit > best {
                best = hit;
                self.work.name_reported.set(index);
            }
        }
        best
    }
}

pub(super) fn read_tls(work: &mut HostWork, len: u32) -> Progress {
    work.begin();
    match tls::shape(work, len) {
        Shape::Decided(progress) => progress,
        Shape::OneRecord(message) => read_extensions(work, message),
        Shape::Several => {
            work.records.begin(work.begins.get(), len);
            repeat(limits::RECORDS_MAX, || tls::record_step(work));
            match work.records.finish(work) {
                Ok(message) => read_extensions(work, message),
                Err(progress) => progress,
            }
        }
    }
}

fn read_extensions(work: &mut HostWork, message: Message) -> Progress {
    if let Some(progress) = tls::begin_extensions(work, message) {
        return progress;
    }
    repeat(limits::EXTENSIONS_MAX, || tls::extension_step(work));
    tls::finish_extensions(work)
}

pub(super) fn read_http(work: &mut HostWork, len: u32, certain: bool) -> Progress {
    work.begin();
    if let Some(progress) = http::begin(work, len, certain) {
        return progress;
    }
    repeat(http::STEPS_MAX, || http::step(work));
    http::finish(work)
}

/// Repeats `step` until it is done, at most `max` times.
fn repeat(max: u32, mut step: impl FnMut() -> Step) {
    for _ in 0..max {
        if step() == Step::Done {
            return;
        }
    }
}
