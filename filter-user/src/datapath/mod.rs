//! The only place that makes BPF system calls: generations, links, counters, events.
//!
//! # Pins
//!
//! ```text
//! /sys/fs/bpf/edgefilter/netns-<inode>/
//!     shared/   ABI, and the maps that outlive a generation (counters, events, flows)
//!     gen-<N>/  the tables, RULES, LIVE, PORT_CLASS, REDIRECT, META-<number> and the program of one
//!               generation, and of those that were switched to under the same program
//!     new-<N>/  the same, under construction
//!     sink/     the links of the programs on the way to the block page
//!     links/    one link per interface ("." in a name is written %2e)
//! /run/edgefilter/netns-<inode>/
//!     lock, controller.lock, links/<interface> (when and how it was attached), detached/<interface>
//! ```
//!
//! # Guarantees
//!
//! - A generation is complete and checked before any link points at it, and each link changes with one
//!   system call; or it is switched to by one store, under a program that runs already.
//! - A change that fails puts back what it changed; a process that dies in the middle leaves every
//!   interface with one complete generation, and the next change sweeps up.
//! - Nothing but [`Root::detach`] stops enforcing.

mod alter;
mod attach;
mod btf;
mod check;
mod connections;
mod counters;
mod error;
mod full;
mod install;
mod kernel_features;
pub mod kernel_fields;
mod kernel_log;
mod kfunc;
mod late_reset;
mod local;
mod mapped;
pub mod netdev;
mod object;
mod page;
mod pin_name;
mod pod;
mod private;
mod repair;
mod ring;
mod root;
mod sink;
mod state;
mod stored;
mod sys;
mod taken;

pub use check::Probe;
pub use connections::{Connection, Connections};
pub use counters::{Cost, EventLosses, ReasonCounters};
pub use error::{DatapathError, InstallError, Mode};
pub use install::{Installed, InstalledOn};
pub use kernel_features::{Kernel, Lacking, kernel};
pub use kernel_log::follow_kernel_log;
pub use object::digest as object_digest;
pub use page::Resolved;
pub use private::{FRAME_BYTES_MIN, Private};
pub use repair::{HandoverRing, forget_socket, make_socket};
pub use ring::EventRing;
pub use root::{ControllerLock, Lock, Root};
pub use sink::{SinkMethod, SinkPlace, SinkStatus};
pub use state::{Enforced, Generation};
pub use taken::Sweep;
