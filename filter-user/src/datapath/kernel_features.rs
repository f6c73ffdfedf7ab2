//! What the running kernel lacks of what the filter can use, and what is done instead. What it cannot
//! do without is not here: Linux 6.1 has it, and loading fails on older ones with the verifier's words.

use std::fs;

use serde::Serialize;

use super::{SinkMethod, kernel_fields, netdev};

const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// What it lacks.
    pub lacks: Vec<Lacking>,
}

/// Something that newer or differently configured kernels have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lacking {
    /// What is missing.
    pub feature: &'static str,
    /// The Linux version that brought it, as `major.minor`.
    pub since: &'static str,
    /// What the filter does without it.
    pub instead: &'static str,
}

const SOCKETS: Lacking = Lacking {
    feature: "type information (BTF)",
    since: "5.4",
    instead: "the host's sockets are not asked: streams are followed by what passes by alone, in server role too",
};

const REDIRECT_SUPPORT: Lacking = Lacking {
    feature: "what a driver can do with XDP (netlink family netdev)",
    since: "6.3",
    instead: "no warning if a redirect rule's interface does not take frames",
};

const HAND_OVER: Lacking = Lacking {
    feature: "handing a connection to a listening socket (bpf_sk_assign_tcp_reqsk)",
    since: "6.9",
    instead: "a process makes the sockets of connections to the block page (TCP_REPAIR)",
};

/// Asks the running kernel.
pub fn kernel() -> Kernel {
    let there = [
        (SOCKETS, kernel_fields::socket_offsets().is_some()),
        (REDIRECT_SUPPORT, netdev::tells_features()),
        (HAND_OVER, SinkMethod::of_kernel() == SinkMethod::Kfunc),
    ];
    Kernel {
        release: fs::read_to_string(RELEASE)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        lacks: there
            .iter()
            .filter(|(_, there)| !there)
            .map(|(lacking, _)| *lacking)
            .collect(),
    }
}
