//! The two builds of the data path as [`Judge`]s: the program in the kernel and the host build.

use std::path::Path;

use filter_common::{
    abi::{Outcome, Protocol, RuleCounters, Verdict, feature},
    flow::Peer,
    reason::Reason,
};
use filter_user::{
    compile::{Compiled, HostFacts, MetaRule, Role, compile},
    datapath::Private,
    host::{HostRunner, StreamTable},
    policy::{parse_host_config, parse_policy},
    replay::Runner as _,
};

use crate::{
    fixtures::Host,
    runner::{Counters, Judge, Seen},
};

/// Compiles a policy's text for a host, with outcomes traced.
///
/// # Panics
/// If policy or host are refused, with the reasons.
pub fn compiled(policy: &str, host: &Host, role: Role) -> Compiled {
    let here = Path::new(".");
    let policy = parse_policy(policy, Path::new("policy.toml"), here)
        .unwrap_or_else(|e| panic!("the fixture's policy is refused: {e}\n{policy}"));
    let config = host_config(host);
    let own = host.own.iter();
    let host = parse_host_config(&config, Path::new("edgefilter.toml"), here)
        .unwrap_or_else(|e| panic!("the fixture's host is refused: {e}\n{config}"));
    let facts = HostFacts {
        tai_offset_s: tai_offset_s(),
        // As on a veth, where the end to end tests run.
        partial_checksums: true,
        own_addresses: own
            .map(|address| address.parse().expect("an address"))
            .collect(),
        ..HostFacts::default()
    };
    let mut compiled = compile(&policy, &host, &facts, role, None)
        .unwrap_or_else(|e| panic!("the fixture does not compile: {e}"));
    compiled.config.features |= feature::TRACE;
    compiled
}

fn host_config(host: &Host) -> String {
    let over_tcp = |ports: &[u16]| {
        let ports = ports.iter().map(|port| match host.proxied.contains(port) {
            true => format!("{{ port = {port}, proxy_protocol = true }}"),
            false => port.to_string(),
        });
        ports.collect::<Vec<_>>().join(", ")
    };
    format!(
        "[inspect]\nserves = {:?}\ntls = [{}]\nhttp = [{}]\nquic = {:?}\n{}\n\
         [protect]\nself = false\nprefixes = {:?}\nnames = {:?}\ndomains = {:?}\n",
        host.serves,
        over_tcp(&host.tls),
        over_tcp(&host.http),
        host.quic,
        host.inspect,
        host.protect_prefixes,
        host.protect_names,
        host.protect_domains,
    )
}

fn clock(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value that the call fills in.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(
        result,
        0,
        "clock {clock}: {}",
        std::io::Error::last_os_error()
    );
    time
}

/// The kernel's offset of CLOCK_TAI from UTC in seconds.
fn tai_offset_s() -> i64 {
    let (tai, utc) = (clock(libc::CLOCK_TAI), clock(libc::CLOCK_REALTIME));
    let nanoseconds = (tai.tv_sec - utc.tv_sec) * 1_000_000_000 + tai.tv_nsec - utc.tv_nsec;
    (nanoseconds + 500_000_000).div_euclid(1_000_000_000)
}

fn tai_now_ns() -> u64 {
    let now = clock(libc::CLOCK_TAI);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The program in the kernel, by test run.
#[derive(Debug)]
pub struct InKernel {
    program: Private,
    rules: Vec<MetaRule>,
}

impl InKernel {
    /// Loads it.
    ///
    /// # Panics
    /// If the kernel refuses it.
    pub fn load(compiled: &Compiled) -> Self {
        let program =
            Private::load(compiled).unwrap_or_else(|e| panic!("the program does not load: {e:?}"));
        Self::with(compiled, program)
    }

    /// As [`InKernel::load`]; these tables of streams take no connection.
    ///
    /// # Panics
    /// As [`InKernel::load`].
    pub fn load_full(compiled: &Compiled, full: &[StreamTable]) -> Self {
        let program = Private::load_full(compiled, full)
            .unwrap_or_else(|e| panic!("the program does not load: {e:?}"));
        Self::with(compiled, program)
    }

    fn with(compiled: &Compiled, program: Private) -> Self {
        Self {
            program,
            rules: compiled.meta.rules.clone(),
        }
    }
}

impl Judge for InKernel {
    fn judge(&mut self, frame: &[u8]) -> Seen {
        let (ran, left) = self
            .program
            .run_frame(frame)
            .unwrap_or_else(|e| panic!("{} bytes: {e}", frame.len()));
        seen(ran.action, &ran.outcome, &self.rules, left)
    }

    fn counters(&self) -> Counters {
        let reasons = self.program.counters().expect("reason counters");
        let rule = |slot| self.program.rule_counters(slot).expect("a rule's counters");
        counters(|reason| reasons.of(reason), rule, &self.rules)
    }
}

/// The host build.
pub struct OnHost {
    runner: HostRunner,
    rules: Vec<MetaRule>,
}

impl OnHost {
    /// Prepares it, with the clock at now.
    pub fn load(compiled: &Compiled) -> Self {
        let runner = HostRunner::new(compiled.clone(), tai_now_ns());
        Self {
            runner,
            rules: compiled.meta.rules.clone(),
        }
    }

    /// [`HostRunner::set_full`].
    pub fn set_full(&mut self, table: StreamTable, full: bool) {
        self.runner.set_full(table, full);
    }

    /// [`HostRunner::set_peer`].
    pub fn set_peer(&mut self, peer: Peer) {
        self.runner.set_peer(peer);
    }
}

impl Judge for OnHost {
    fn judge(&mut self, frame: &[u8]) -> Seen {
        let ran = self
            .runner
            .run(frame)
            .unwrap_or_else(|e| panic!("{} bytes: {e}", frame.len()));
        let left = self.runner.left().unwrap_or(frame).to_vec();
        seen(ran.action, &ran.outcome, &self.rules, left)
    }

    fn counters(&self) -> Counters {
        let reasons = self.runner.reason_counters();
        let rules = self.runner.rule_counters();
        counters(
            |reason| reasons[reason as usize],
            |slot| rules[usize::from(slot)],
            &self.rules,
        )
    }
}

fn seen(action: u32, outcome: &Outcome, rules: &[MetaRule], frame: Vec<u8>) -> Seen {
    let rule = rules.iter().find(|rule| rule.slot == outcome.slot);
    let name = outcome
        .name
        .get(..usize::from(outcome.name_len))
        .unwrap_or(&outcome.name);
    Seen {
        action,
        verdict: Verdict::from_u8(outcome.verdict),
        reason: Reason::from_u8(outcome.reason),
        rule: rule.map(|rule| rule.id.clone()),
        protocol: Protocol::from_u8(outcome.protocol),
        name: name.to_vec(),
        frame,
    }
}

fn counters(
    reason: impl Fn(Reason) -> u64,
    rule: impl Fn(u16) -> RuleCounters,
    rules: &[MetaRule],
) -> Counters {
    let reasons = Reason::ALL
        .iter()
        .map(|&which| (which.as_str(), reason(which)));
    let rules = rules.iter().map(|meta| {
        let RuleCounters { packets, bytes } = rule(meta.slot);
        (meta.id.clone(), (packets, bytes))
    });
    Counters {
        reasons: reasons.filter(|&(_, count)| count > 0).collect(),
        rules: rules.filter(|&(_, (packets, _))| packets > 0).collect(),
    }
}
