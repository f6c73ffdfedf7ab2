//! Reading hellos in the process's memory, for the tests of the walks.

use core::cell::Cell;
use std::{boxed::Box, string::String, vec::Vec};

use crate::{
    abi::FlowKey,
    flow::{Comparison, Entry, OptionWalk, Peer},
    hello::Progress,
    http,
    limits::{EXTENSIONS_MAX, NAME_CANDIDATES_MAX, NAMES_PER_HELLO_MAX, RECORDS_MAX},
    tls::{self, Shape, Step},
    work::{BYTES, Memory, Span, Variable, Work},
};

#[derive(Default)]
pub(crate) struct TestMemory;

#[derive(Default)]
pub(crate) struct TestVariable(Cell<u32>);

impl Variable for TestVariable {
    fn get(&self) -> u32 {
        self.0.get()
    }

    fn set(&self, value: u32) {
        self.0.set(value);
    }
}

impl Memory for TestMemory {
    type Var = TestVariable;

    fn copy(bytes: &mut [u8; BYTES], from: u32, to: u32, len: u32) {
        bytes.copy_within(from as usize..(from + len) as usize, to as usize);
    }
}

/// A working area whose stream starts with `stream`, and rubbish behind it.
pub(crate) fn work(stream: &[u8]) -> Box<Work<TestMemory>> {
    let mut work = Box::new(Work {
        bytes: [0xa5; BYTES],
        names: [Span::default(); NAMES_PER_HELLO_MAX],
        name_count: TestVariable::default(),
        name_reported: TestVariable::default(),
        candidates: [0; NAME_CANDIDATES_MAX],
        candidate_lens: [0; NAME_CANDIDATES_MAX],
        candidate_count: TestVariable::default(),
        odd_name: TestVariable::default(),
        literal_name: TestVariable::default(),
        ech: TestVariable::default(),
        begins: TestVariable::default(),
        key: FlowKey::default(),
        peer: Peer::default(),
        planned: [0; 3],
        before: TestVariable::default(),
        reads: TestVariable::default(),
        served: 0,
        entry: Entry::default(),
        options: OptionWalk::default(),
        known: TestVariable::default(),
        queued: TestVariable::default(),
        comparison: Comparison::default(),
        suffixes: Default::default(),
        records: tls::Records::default(),
        extensions: tls::Extensions::default(),
        head: http::Head::default(),
    });
    work.bytes[..stream.len()].copy_from_slice(stream);
    work.begin();
    work
}

/// The names found, as sent.
pub(crate) fn names(work: &Work<TestMemory>) -> Vec<String> {
    (0..work.name_count.get())
        .map(|index| {
            let span = work.name(index);
            let bytes = &work.bytes[span.at as usize..(span.at + span.len) as usize];
            String::from_utf8_lossy(bytes).into_owned()
        })
        .collect()
}

/// Reads a ClientHello as the kernel does.
pub(crate) fn read_tls(stream: &[u8]) -> (Progress, Vec<String>) {
    let mut work = work(stream);
    let progress = drive_tls(&mut work, stream.len() as u32);
    (progress, names(&work))
}

fn drive_tls(work: &mut Work<TestMemory>, len: u32) -> Progress {
    let message = match tls::shape(work, len) {
        Shape::Decided(progress) => return progress,
        Shape::OneRecord(message) => message,
        Shape::Several => {
            work.records.begin(work.begins.get(), len);
            repeat(RECORDS_MAX, || tls::record_step(work));
            match work.records.finish(work) {
                Ok(message) => message,
                Err(progress) => return progress,
            }
        }
    };
    if let Some(progress) = tls::begin_extensions(work, message) {
        return progress;
    }
    repeat(EXTENSIONS_MAX, || tls::extension_step(work));
    tls::finish_extensions(work)
}

/// Reads a request head as the kernel does.
pub(crate) fn read_http(stream: &[u8], certain: bool) -> (Progress, Vec<String>) {
    let mut work = work(stream);
    let progress = walk_http(&mut work, stream.len() as u32, certain);
    (progress, names(&work))
}

/// The walk over a request head.
pub(crate) fn walk_http(work: &mut Work<TestMemory>, len: u32, certain: bool) -> Progress {
    if let Some(progress) = http::begin(work, len, certain) {
        return progress;
    }
    repeat(http::STEPS_MAX, || http::step(work));
    http::finish(work)
}

fn repeat(turns: u32, mut turn: impl FnMut() -> Step) {
    for _ in 0..turns {
        if turn() == Step::Done {
            return;
        }
    }
}
