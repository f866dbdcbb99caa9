//! Attacks on our own code: all orders of its threads, random bytes for all that is parsed, sanitizers;
//! and how much of it the tests reach. `docs/attacks.md` says what each is good for.
//!
//! What cannot be had on a machine is skipped, and said to be.

mod coverage;
mod fuzz;
mod sanitize;

pub(crate) use coverage::{Coverage, as_compiler, coverage, reached, tests};
pub(crate) use fuzz::{Arguments as Fuzz, fuzz, fuzz_a_little};
pub(crate) use sanitize::{Arguments as Sanitize, sanitize};

use crate::counts;
use crate::step::{Step, target};
use anyhow::Result;
use xen_eventfd_lab_runs::Tally;

/// Explores the engine with loom: `library/src/engine/userspace/loom_tests`.
pub(crate) fn loom() -> Result<Tally> {
    // Apart, as all is built anew for it.
    let step = Step::cargo("test --locked --profile loom --package xen-eventfd --lib loom_tests::")
        .arg("--target-dir")
        .arg(target().join("loom"))
        .env("RUSTFLAGS", "--cfg loom");
    counts::run(step)
}
