//! The scenarios that hold on the model and on real Xen alike.
//!
//! A scenario is a function that takes a [`TestContext`]: it makes guests with script, opens Xen through
//! the library, checks what must hold, and notes in the [`Trace`] what must be the same everywhere.
//! [`ALL`] lists them. To add one, write such a function beside the others and list it.

pub mod environment;
pub mod link;
pub mod lists;
pub mod report_lines;
pub mod roles;
mod run;
mod scenarios;
pub mod soak;
pub mod test_context;
mod trace;

pub use run::{Outcome, run};
pub use scenarios::ALL;
pub use test_context::TestContext;
pub use trace::Trace;

use anyhow::Result;
use std::time::Duration;

/// How long anything may take before it counts as never. Emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Something that must hold.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What must hold, in a sentence.
    pub about: &'static str,
    /// Whether it is about things that happen at once, and worth playing on several CPUs.
    pub race: bool,
    /// Plays it.
    pub body: fn(&mut TestContext<'_>) -> Result<()>,
}
