//! The controller: applies the policy, follows its files, and keeps what is enforced
//! equal to what is wanted. It is not needed for enforcing.

mod announce;
mod apply;
mod cut;
mod desired;
mod error;
pub mod events;
mod facts;
pub mod lookup;
mod next_hop;
mod notify;
mod page;
mod probes;
mod pulse;
mod run;
mod run_state;
mod watch;

pub use apply::{Applied, Cause, apply, compile_desired};
pub use cut::{Cut, CutFor, CutList, CutPlan};
pub use desired::{Desired, Sources, Wanted};
pub use error::CommandError;
pub use facts::{gather as gather_facts, ssh_session};
pub(crate) use page::{dismiss as dismiss_page, warnings as page_warnings};
pub use run::{Surroundings, run};
pub use run_state::{RunState, WantedInterface};
