//! The tests under sanitizers: what the compiler's own instruments see.

use crate::counts;
use crate::step::{Step, target};
use crate::tally::Tally;
use crate::tool::{self, cargo_of};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::Path;

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
/// A program without a race.
const CONTROL: &str = "xtask/src/attacks/no_race.rs";

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
                Instrument::Address => counts::run(instrumented(&nightly, "address"))?,
                Instrument::Thread => thread(&nightly)?,
                Instrument::Miri => miri(&nightly)?,
            };
        }
    }
    Ok(tally)
}

/// Everything but the standard library is built with the instrument.
fn instrumented(nightly: &str, sanitizer: &str) -> Step {
    cargo_of(nightly)
        .words("test --locked --no-fail-fast")
        .words(PARTS)
        .words("--target")
        .arg(MACHINE)
        .arg("--target-dir")
        .arg(target().join(sanitizer))
        .env("RUSTFLAGS", &flags(sanitizer))
}

fn flags(sanitizer: &str) -> String {
    format!("-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer")
}

/// With the standard library too, if its source is there. Otherwise only if ThreadSanitizer finds
/// nothing where nothing is.
fn thread(nightly: &str) -> Result<Tally> {
    let sysroot = Step::new("rustup").words("run").arg(nightly).words("rustc --print sysroot");
    let source = Path::new(sysroot.quietly()?.stdout.trim()).join("lib/rustlib/src/rust/library");
    if source.is_dir() {
        return counts::run(instrumented(nightly, "thread").words("-Zbuild-std"));
    }
    if !clean_control(nightly)? {
        println!(
            "  skipped: ThreadSanitizer, which finds a race in {CONTROL}, where none is: it does not \
             see into the standard library, whose source is not installed \
             (`rustup +nightly component add rust-src`)"
        );
        return Ok(Tally::default());
    }
    counts::run(instrumented(nightly, "thread"))
}

/// Whether the instrument is silent about a program without races.
fn clean_control(nightly: &str) -> Result<bool> {
    let folder = target().join("thread");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let program = folder.join("no_race");
    let rustc = Step::new("rustup").words("run").arg(nightly).words("rustc --edition 2024");
    let built = rustc.words(&flags("thread")).arg("-o").arg(&program).arg(CONTROL).quietly()?;
    ensure!(built.ok, "{CONTROL} cannot be built: {}", built.all.trim_end());
    Ok(Step::new(program).quietly()?.ok)
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
    counts::run(step.arg("--target-dir").arg(target().join("miri")))
}
