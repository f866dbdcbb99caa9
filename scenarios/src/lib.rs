//! The scenarios that must hold on the model and on real Xen.
//!
//! A scenario is a function that takes a [`TestContext`]: it creates guests with scripts, opens Xen
//! through the library, checks its conditions, and records in the [`Trace`] what must be equal in every
//! environment. [`ALL`] lists them. To add one, write such a function beside the others and list it.

pub mod control;
pub mod engine;
pub mod environment;
pub mod link;
pub mod lists;
mod need;
mod privcmd_abi;
pub mod report_lines;
pub mod roles;
mod run;
mod scenarios;
pub mod soak;
pub mod test_context;
mod trace;

pub use engine::Engine;
pub use need::Need;
pub use run::{Outcome, Unsupported, run};
pub use scenarios::{ALL, call_irq};
pub use test_context::TestContext;
pub use trace::Trace;

use anyhow::Result;
use std::time::Duration;
use xen_eventfd_core::irq::Arch;

/// The time limit of every wait. Emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A condition to test.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The condition, in a sentence.
    pub about: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    /// Runs it.
    pub body: fn(&mut TestContext<'_>) -> Result<()>,
}

impl Scenario {
    /// Whether it is about what happens at once.
    #[must_use]
    pub fn is_race(&self) -> bool {
        self.needs.contains(&Need::Race)
    }

    /// What it needs and guests of an architecture do not have.
    #[must_use]
    pub fn unmet(&self, arch: Arch) -> Option<Need> {
        self.needs.iter().copied().find(|need| !need.is_met(arch))
    }
}
