//! The tests under sanitizers: what the compiler's own instruments see.

use crate::counts;
use crate::step::{Step, target};
use crate::tool::{self, cargo_of};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;

use std::path::{Path, PathBuf};
use xen_eventfd_lab::{STD_SOURCE, StdSource};
use xen_eventfd_lab_runs::Tally;

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
}

/// What runs: the parts with unsafe code or threads, and what they stand on.
const PARTS: &str = "--package xen-eventfd-core --package xen-eventfd-host --package xen-eventfd-ioreq \
                     --package xen-eventfd-model --package xen-eventfd --lib --tests";
const MACHINE: &str = "x86_64-unknown-linux-gnu";
/// A program with a race.
const RACE: &str = "xtask/src/attacks/race.rs";

/// Runs the tests under each instrument.
pub(crate) fn sanitize(arguments: &Arguments) -> Result<Tally> {
    let mut tally = Tally::default();
    for instrument in Instrument::value_variants().iter().copied() {
        if arguments.only.is_none_or(|only| only == instrument) {
            tally += match instrument {
                Instrument::Address => address()?,
                Instrument::Thread => thread()?,
            };
        }
    }
    Ok(tally)
}

/// Everything but the standard library is built with the instrument.
fn address() -> Result<Tally> {
    let Some(nightly) = tool::toolchain("nightly") else {
        println!("  skipped: AddressSanitizer, as no nightly toolchain is installed");
        return Ok(Tally::default());
    };
    counts::run(tests(cargo_of(&nightly), "address"))
}

fn tests(cargo: Step, sanitizer: &str) -> Step {
    cargo
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

/// With the standard library built alike: otherwise ThreadSanitizer does not see the slow paths of
/// its locks and the fences of its reference counts, and finds races where none are.
///
/// The compiler is the one that builds everything else. It has the options of a nightly
/// compiler if `RUSTC_BOOTSTRAP` is set.
fn thread() -> Result<Tally> {
    let compiler = match Compiler::with_std_source() {
        Ok(compiler) => compiler,
        Err(error) => {
            println!(
                "  skipped: ThreadSanitizer, as the standard library's source cannot be had \
                 (`rustup component add rust-src`): {error:#}"
            );
            return Ok(Tally::default());
        }
    };
    let mut tally = Tally::default();
    tally.judge("thread", "the race of a program that has one is found", compiler.race_is_found());
    if tally.failed == 0 {
        let cargo = Step::cargo("").env("RUSTC", &compiler.program.display().to_string());
        let step = tests(cargo.env("RUSTC_BOOTSTRAP", "1"), "thread");
        tally += counts::run(step.words("-Zbuild-std"))?;
    }
    Ok(tally)
}

/// The machine's compiler, as it would be if the source of its standard library were installed.
struct Compiler {
    program: PathBuf,
    folder: PathBuf,
    _source: Option<StdSource>,
}

impl Compiler {
    fn with_std_source() -> Result<Self> {
        let folder = target().join("thread/compiler");
        let rustc = || Step::new("rustc");
        let sysroot = rustc().words("--print sysroot").quietly()?.stdout;
        let sysroot = Path::new(sysroot.trim());
        if sysroot.join(STD_SOURCE).is_dir() {
            return Ok(Self { program: "rustc".into(), folder, _source: None });
        }
        let said = rustc().words("-vV").quietly()?.stdout;
        let version = said.lines().find_map(|line| line.strip_prefix("release: "));
        let source = StdSource::prepare(version.context("rustc does not say its version")?)?;
        let program = source.compiler(sysroot, &folder)?;
        Ok(Self { program, folder, _source: Some(source) })
    }

    /// The instrument sees what it is there for.
    fn race_is_found(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let program = self.folder.join("race");
        let rustc = Step::new(&self.program).words("--edition 2024").words(&flags("thread"));
        let built =
            rustc.env("RUSTC_BOOTSTRAP", "1").arg("-o").arg(&program).arg(RACE).quietly()?;
        ensure!(built.ok, "{RACE} cannot be built: {}", built.all.trim_end());
        let done = Step::new(program).quietly()?;
        let found = !done.ok && done.all.contains("WARNING: ThreadSanitizer: data race");
        ensure!(found, "it says {:?}", done.all.trim_end());
        Ok(())
    }
}
