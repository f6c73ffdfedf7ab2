//! `edgefilter replay` takes any file.

use std::{cell::RefCell, io::Cursor};

use filter_user::{
    compile::{Meta, Role},
    host::HostRunner,
    replay::{Session, capture::Capture, json_lines, table},
};

thread_local! {
    static RUNNER: RefCell<HostRunner> = RefCell::new(crate::tcp_flow::runner(Role::Replay { checksums: false }));
}

/// Input: a capture file.
pub(crate) fn check(data: &[u8]) {
    RUNNER.with_borrow_mut(|runner| {
        runner.restart(0);
        let mut session = Session::new(runner, false);
        let Ok(mut capture) = Capture::new(Box::new(Cursor::new(data.to_vec()))) else {
            return;
        };
        let mut frames = 0u64;
        while let Ok(Some(frame)) = capture.next_frame() {
            frames += 1;
            session
                .frame(frame)
                .unwrap_or_else(|error| panic!("frame {frames}: {error}"));
        }
        let findings = session.finish();
        assert_eq!(findings.summary.frames, frames);
        let reasons: u64 = findings.summary.reasons.values().sum();
        assert_eq!(reasons, frames, "each frame counts once");
        assert!(findings.summary.named <= findings.summary.flows);
        let mut text = Vec::new();
        json_lines(&mut text, &findings, &Meta::default()).expect("writing to memory");
        table(&mut text, &findings, &Meta::default()).expect("writing to memory");
    });
}
