//! `cargo xtask test`: all checks there are, stage by stage, and a table at the end.
//!
//! A stage that fails does not stop the others. What a passing stage says is cut to a line for
//! each of its steps; a failing step is shown whole.

mod deny;
mod packaged;
mod repo_rules;
mod stages;

use crate::step::target;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use rustix::fs::statvfs;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use xen_eventfd_lab_runs::Tally;

/// Which stages to run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this stage; may be repeated
    #[arg(long, value_enum, value_name = "STAGE", conflicts_with = "skip")]
    only: Vec<Stage>,
    /// All but this stage; may be repeated
    #[arg(long, value_enum, value_name = "STAGE")]
    skip: Vec<Stage>,
    /// What only repeats, too: races that run on four CPUs of a PV dom0, in a PVH dom0, and those of the userspace engine
    /// on arm64; a million accesses of a hostile driver to a device
    #[arg(long)]
    long: bool,
}

/// The stages. What fails soonest comes first, then what goes into machines is built; the machines run
/// beside all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// The sources look as rustfmt leaves them
    Format,
    /// Rules of this repository that no other tool knows
    RepoRules,
    /// Clippy finds nothing, in the workspace and in the guest; the core keeps to its old Rust
    Lints,
    /// The kernel module builds without a warning for each kernel, under clippy too
    Kmod,
    /// The scenarios on the model; builds what goes into the lab
    Model,
    /// The demo on the model loses nothing
    Demo,
    /// Unit tests, integration tests, and the examples of the documentation
    Tests,
    /// How much of the code the tests reach, against floors
    Coverage,
    /// The engine's threads, in every order in which they can meet
    Loom,
    /// Every fuzz target, for some seconds
    Fuzz,
    /// The documentation builds without a warning
    Docs,
    /// Dependencies: licences, sources, bans, and known vulnerabilities
    Deny,
    /// What `cargo add` and `cargo install` would give builds from the packages alone
    Crates,
    /// The scenarios on real Xen, PV and PVH dom0 and arm64, with the userspace engine; traces as on the model
    Userspace,
    /// The same with the kernel engine
    Kernel,
    /// The same by the ABI of the patch, as far as that can express them
    Privcmd,
    /// The kernel module's own tests on real Xen, and those of the privcmd ABI
    Module,
    /// Linux's vhost-net in both kinds of dom0, as a network card's backend
    Vhost,
    /// Stock Linux guests with a disk, files, network cards and random bytes, in both kinds of dom0
    Devices,
    /// Debian's packages: built twice, checked, installed, and loaded in both kinds of dom0; those for arm64 loaded there
    Packages,
}

impl Stage {
    /// Whether it runs while machines do: it needs none, and they need nothing of it.
    fn is_beside(self) -> bool {
        (Self::Tests..=Self::Crates).contains(&self)
    }

    /// Whether it plays in emulated machines, several at once.
    fn boots(self) -> bool {
        self >= Self::Userspace
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn about(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

/// How a stage went.
struct Verdict {
    stage: Stage,
    tally: Tally,
    time: Duration,
}

impl Arguments {
    fn wants(&self, stage: Stage) -> bool {
        (self.only.is_empty() || self.only.contains(&stage)) && !self.skip.contains(&stage)
    }
}

/// Nothing is said after the sum: it is the last line, whatever came of it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    if arguments.only.is_empty()
        && let Ok(disk) = statvfs(target())
        && let Some(note) = too_little_room(disk.f_bavail.saturating_mul(disk.f_frsize))
    {
        println!("{note}\n");
    }
    let mut stages = stages::Stages::new(arguments.long);
    let wanted = Stage::value_variants().iter().copied().filter(|stage| arguments.wants(*stage));
    let (boots, others): (Vec<Stage>, Vec<Stage>) = wanted.partition(|stage| stage.boots());
    let (beside, first): (Vec<Stage>, Vec<Stage>) =
        others.into_iter().partition(|stage| stage.is_beside());
    let mut verdicts = stages.run_all(&first);
    verdicts.extend(stages.boot(&boots, &beside));
    ensure!(!verdicts.is_empty(), "no stage is left; `cargo xtask test --help` lists them");
    Ok(table(&verdicts, began.elapsed()).exit())
}

/// What all stages take on a machine where nothing is built, in bytes: the target folder, the cache and cargo's.
const ROOM: u64 = 10 << 30;

/// What to say where so many bytes are free. No error: where the stages ran before, what they take is there.
fn too_little_room(free: u64) -> Option<String> {
    let mebibytes = |bytes: u64| bytes >> 20;
    (free < ROOM).then(|| {
        format!(
            "note: {} MiB of disk are free, and a first run takes {} MiB; if it fails for want of them, empty {} or \
             leave stages out with --skip",
            mebibytes(free),
            mebibytes(ROOM),
            target().display()
        )
    })
}

/// Prints the table; returns the sum.
fn table(verdicts: &[Verdict], by_the_clock: Duration) -> Tally {
    let mut total = Tally::default();
    println!("stage       passed  failed     time");
    for Verdict { stage, tally, time } in verdicts {
        let mark = if tally.failed == 0 { "" } else { "  FAILED" };
        let (name, Tally { passed, failed, .. }) = (stage.name(), tally);
        println!("{name:10} {passed:7} {failed:7} {:>8}{mark}", clock(*time));
        total += tally.clone();
    }
    let time: Duration = verdicts.iter().map(|verdict| verdict.time).sum();
    println!("{:26} {:>8}, of machines that ran side by side", "in all", clock(time));
    println!("{:26} {:>8}\n", "by the clock", clock(by_the_clock));
    total
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(only: &[Stage], skip: &[Stage]) -> Arguments {
        Arguments { only: only.to_vec(), skip: skip.to_vec(), long: false }
    }

    #[test]
    fn every_stage_unless_told() {
        assert!(Stage::value_variants().iter().all(|stage| arguments(&[], &[]).wants(*stage)));
        assert!(!arguments(&[Stage::Demo], &[]).wants(Stage::Kernel));
        assert!(!arguments(&[], &[Stage::Kernel]).wants(Stage::Kernel));
    }

    #[test]
    fn too_little_room_is_said() {
        assert_eq!(too_little_room(ROOM), None);
        assert!(
            too_little_room(287 << 20)
                .is_some_and(|note| note.contains("287 MiB of disk are free"))
        );
    }

    #[test]
    fn every_stage_says_what_it_checks() {
        assert!(Stage::value_variants().iter().all(|stage| stage.about().len() > 10));
    }

    #[test]
    fn the_sum_is_over_all_stages() {
        let verdict = |passed, failed| Verdict {
            stage: Stage::Docs,
            tally: Tally::counted("docs", passed, failed),
            time: Duration::from_secs(61),
        };
        let total = table(&[verdict(3, 0), verdict(4, 2)], Duration::ZERO);
        assert_eq!(total.to_string(), "7 passed, 2 failed");
        assert_eq!(clock(Duration::from_secs(61)), "1:01");
    }
}
