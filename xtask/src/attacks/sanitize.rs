//! The tests under sanitizers: what the compiler's own instruments see.

use super::tests;
use crate::step::{Step, target};
use crate::tally::Tally;
use crate::tool::{self, cargo_of};
use anyhow::Result;
use clap::{Args, ValueEnum};

/// Which instruments to use.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this one
    #[arg(value_enum)]
    only: Option<Instrument>,
}

/// An instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Instrument {
    /// Memory that is used after or beyond its life
    Address,
    /// Data races
    Thread,
    /// Undefined behaviour, by interpretation: the core alone, which calls no kernel
    Miri,
}

/// What runs: the parts with unsafe code or threads, and what they stand on.
const PARTS: &str = "--package xen-eventfd-core --package xen-eventfd-host \
                     --package xen-eventfd-model --package xen-eventfd --lib --tests";
const MACHINE: &str = "x86_64-unknown-linux-gnu";

/// Runs the tests under each instrument.
pub(crate) fn sanitize(arguments: &Arguments) -> Result<Tally> {
    let Some(nightly) = tool::toolchain("nightly") else {
        println!("  skipped: sanitizers, as no nightly toolchain is installed");
        return Ok(Tally::default());
    };
    let mut tally = Tally::default();
    for instrument in Instrument::value_variants().iter().copied() {
        if arguments.only.is_none_or(|only| only == instrument) {
            tally += match instrument {
                Instrument::Address => tests(instrumented(&nightly, "address"))?,
                Instrument::Thread => tests(instrumented(&nightly, "thread"))?,
                Instrument::Miri => miri(&nightly)?,
            };
        }
    }
    Ok(tally)
}

/// Everything but the standard library is built with the instrument: to build that one too, its
/// source would have to be installed.
fn instrumented(nightly: &str, sanitizer: &str) -> Step {
    let flags = format!("-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer");
    let suppressions = crate::step::root().join("xtask/src/attacks/tsan.txt");
    cargo_of(nightly)
        .words("test --locked --no-fail-fast")
        .words(PARTS)
        .words("--target")
        .arg(MACHINE)
        .arg("--target-dir")
        .arg(target().join(sanitizer))
        .env("RUSTFLAGS", &flags)
        .env("TSAN_OPTIONS", &format!("suppressions={}", suppressions.display()))
}

fn miri(nightly: &str) -> Result<Tally> {
    if !cargo_of(nightly).words("miri --version").quietly()?.ok {
        println!(
            "  skipped: Miri, whose component is not installed (`rustup +nightly component add miri rust-src`)"
        );
        return Ok(Tally::default());
    }
    // Proptest wants a clock and files, and the exhaustive tests would take days.
    let step = cargo_of(nightly).words("miri test --locked --package xen-eventfd-core --lib");
    tests(step.arg("--target-dir").arg(target().join("miri")))
}
