//! Connections: whatever a client does, a host obtains no blocked name through the filter, and whatever
//! a network does to an honest client, it gets through.

mod attack;
mod cuts;
mod honest;
mod host;
mod link;
mod segment;

use filter_common::abi::feature;
use filter_tests::{
    adapter::compiled,
    fixtures::{Host, SERVER_V4},
};
use filter_user::{compile::Role, host::HostRunner};

pub(crate) use self::cuts::{Cuts, same_at_every_cut};
use crate::input::Input;

const POLICY: &str = r#"
version = 1
[[rule]]
id = "names"
domains = ["blocked.example"]
action = "drop"
[[rule]]
id = "origins"
origins = ["198.51.100.0/24", "2001:db8:bad::/48"]
action = "drop"
"#;

/// The host build with rules for names under `blocked.example` and for the origins 198.51.100.0/24 and
/// 2001:db8:bad::/48.
pub(crate) fn runner(role: Role) -> HostRunner {
    HostRunner::new(compiled(POLICY, &Host::default(), role), 0)
}

/// As [`runner`] on a live interface, with exactly these of the features that hosts differ in.
fn runner_of_host(features: u32) -> HostRunner {
    let own = match features & feature::SOCKETS {
        0 => Vec::new(),
        _ => vec![SERVER_V4],
    };
    let host = Host {
        own,
        ..Host::default()
    };
    let mut compiled = compiled(POLICY, &host, Role::Live);
    let all = feature::CHECKSUM_PARTIAL
        | feature::FAST_OPEN
        | feature::SOCKETS
        | feature::ANSWERS
        | feature::ANSWERS_ANYWHERE
        | feature::ONE_SIDED;
    compiled.config.features = (compiled.config.features & !all) | (features & all);
    HostRunner::new(compiled, 0)
}

/// What a connection is like, from the first bytes of an input.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Whether the filter asks the host's socket; else it sees both directions pass.
    server: bool,
    /// Whether only the client's direction comes by the filter, which knows that.
    one_sided: bool,
    /// Whether the hello is a request.
    http: bool,
    timestamps: bool,
    /// Whether the host answers SYNs with cookies.
    cookies: bool,
    /// Whether the filter takes checksums that a device is still to complete.
    partial: bool,
    /// Whether the host takes payload in a SYN.
    fast_open: bool,
    /// Which of two bytes at one place, both beyond a gap, the host keeps.
    last_wins: bool,
    /// Bytes of the hello in a record; 0 for one record.
    record_len: usize,
    /// Bytes of padding in the hello.
    padding: usize,
    /// Sequence number of the client's SYN.
    isn: u32,
}

impl Setup {
    fn choose(input: &mut Input<'_>) -> (bool, Self) {
        let bits = input.byte();
        let bit = |number: u8| bits >> number & 1 != 0;
        let (shape, isn) = (input.byte(), input.byte());
        let server = bit(1);
        let setup = Self {
            server,
            one_sided: !server && bit(4),
            http: bit(2),
            timestamps: bit(3),
            cookies: server && bit(4),
            partial: bit(5),
            fast_open: bit(6),
            last_wins: bit(7),
            record_len: usize::from(shape & 0x0f) * 5,
            padding: usize::from(shape >> 4) * 10,
            isn: u32::from(isn).wrapping_mul(3).wrapping_sub(400),
        };
        (bit(0), setup)
    }

    const fn port(self) -> u16 {
        if self.http { 80 } else { 443 }
    }
}

/// Input: who the client is, what the connection is like, and what happens on it.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let (honest, setup) = Setup::choose(&mut input);
    if honest {
        honest::check(setup, input);
    } else {
        // With one direction alone it cannot be told what the host refuses.
        let setup = Setup {
            one_sided: false,
            ..setup
        };
        attack::check(setup, input);
    }
}
