//! What each stage does.

use super::{Stage, Verdict, clock, deny, packaged, repo_rules};
use crate::step::{self, Step, target};
use crate::{attacks, tool};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use xen_eventfd_lab::{Platform, build_static};
use xen_eventfd_lab_runs::Tally;
use xen_eventfd_lab_runs::boots::Boots;
use xen_eventfd_lab_runs::devices;
use xen_eventfd_lab_runs::kmod;
use xen_eventfd_lab_runs::lab::Scenarios;
use xen_eventfd_lab_runs::vhost;

/// What stages leave for those that come after them.
pub(super) struct Stages {
    /// With what only repeats.
    long: bool,
    scenarios: Option<Arc<Scenarios>>,
    /// What the tests reached, if that can be measured; `None`: they have not run.
    tested: Option<Option<attacks::Coverage>>,
}

impl Stages {
    pub(super) fn new(long: bool) -> Self {
        Self { long, scenarios: None, tested: None }
    }

    /// Runs stages that play in no machine, one after the other.
    pub(super) fn run_all(&mut self, stages: &[Stage]) -> Vec<Verdict> {
        let verdict = |stage: &Stage| {
            let (stage, name) = (*stage, stage.name());
            println!("{name}: {}", stage.about());
            let since = Instant::now();
            let tally = self.run(stage).unwrap_or_else(|error| {
                println!("  FAILED {error:#}");
                Tally::failed(format!("{name}: {error:#}"))
            });
            let time = since.elapsed();
            println!("{name}: {tally}, {}\n", clock(time));
            Verdict { stage, tally, time }
        };
        stages.iter().map(verdict).collect()
    }

    fn run(&mut self, stage: Stage) -> Result<Tally> {
        match stage {
            Stage::Format => all([
                Step::cargo("fmt --all --check"),
                guest("fmt --check"),
                Step::cargo("fmt --check").folder("fuzz"),
            ]),
            Stage::RepoRules => repo_rules::check(),
            Stage::Lints => lints(),
            Stage::Tests => {
                let (tally, coverage) = attacks::tests()?;
                self.tested = Some(coverage);
                Ok(tally)
            }
            Stage::Coverage => match &self.tested {
                Some(coverage) => attacks::reached(coverage.as_ref()),
                None => attacks::coverage(),
            },
            Stage::Loom => attacks::loom(),
            Stage::Fuzz => attacks::fuzz_a_little(),
            Stage::Docs => {
                all([Step::cargo("doc --no-deps --workspace").env("RUSTDOCFLAGS", "-D warnings")])
            }
            Stage::Deny => deny::check(),
            Stage::Crates => packaged::check(),
            Stage::Demo => demo(),
            Stage::Kmod => kmod::check(),
            Stage::Model => Ok(self.scenarios()?.model_tally()),
            Stage::Userspace
            | Stage::Kernel
            | Stage::Privcmd
            | Stage::Module
            | Stage::Vhost
            | Stage::Devices
            | Stage::Packages => bail!("it plays in machines"),
        }
    }

    fn scenarios(&mut self) -> Result<Arc<Scenarios>> {
        Ok(match &mut self.scenarios {
            Some(scenarios) => Arc::clone(scenarios),
            none => Arc::clone(none.insert(Arc::new(Scenarios::prepare()?))),
        })
    }

    /// Runs stages that play in emulated machines, as many machines at once as there are CPUs for,
    /// and those `beside` on half of the CPUs.
    pub(super) fn boot(&mut self, stages: &[Stage], beside: &[Stage]) -> Vec<Verdict> {
        if stages.is_empty() {
            return self.run_all(beside);
        }
        let long = self.long;
        let prepared: Vec<(Stage, Result<Job>)> = stages
            .iter()
            .map(|stage| {
                println!("{}: {}", stage.name(), stage.about());
                (*stage, self.job(*stage))
            })
            .collect();
        let on_host = Mutex::new((self, Vec::new()));
        let mut boots = Boots::default();
        for (stage, job) in &prepared {
            match job {
                Ok(Job::Scenarios(scenarios)) => scenarios.add(&mut boots, *stage, long),
                Ok(Job::Module(tests)) => tests.add_all(&mut boots, *stage, long),
                Ok(Job::Vhost(tests)) => tests.add(&mut boots, *stage),
                Ok(Job::Devices(tests)) => tests.add(&mut boots, *stage),
                Ok(Job::Packages) => {
                    boots.add(*stage, "packages", (Platform::X86Pvh, 1), kmod::test_packages);
                }
                Err(error) => println!("{}: FAILED {error:#}", stage.name()),
            }
        }
        if let Some(stage) = beside.first() {
            let half = (thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1);
            step::limit(half);
            let on_host = &on_host;
            boots.add_beside(*stage, "what needs no machine", half, move || {
                let mut on_host = on_host.lock().unwrap_or_else(PoisonError::into_inner);
                let (stages, verdicts) = &mut *on_host;
                *verdicts = stages.run_all(beside);
                Ok(Tally::default())
            });
        }
        let done = boots.run();
        let (_, verdicts) = on_host.into_inner().unwrap_or_else(PoisonError::into_inner);
        let verdict = |(stage, job): &(Stage, Result<Job>)| {
            let mut verdict =
                Verdict { stage: *stage, tally: Tally::default(), time: Duration::ZERO };
            if let Err(error) = job {
                verdict.tally += Tally::failed(format!("{}: {error:#}", stage.name()));
            }
            for done in done.iter().filter(|done| done.group == *stage) {
                verdict.tally += done.tally.clone();
                verdict.time += done.time;
            }
            verdict
        };
        verdicts.into_iter().chain(prepared.iter().map(verdict)).collect()
    }

    fn job(&mut self, stage: Stage) -> Result<Job> {
        Ok(match stage {
            Stage::Kernel => Job::Scenarios(Arc::new(self.scenarios()?.with_kernel()?)),
            Stage::Privcmd => Job::Scenarios(Arc::new(self.scenarios()?.with_privcmd()?)),
            Stage::Module => Job::Module(Box::new(kmod::Tests::all()?)),
            Stage::Vhost => Job::Vhost(Box::new(vhost::Tests::prepare()?)),
            Stage::Devices => Job::Devices(Box::new(devices::Tests::prepare(self.long)?)),
            Stage::Packages => Job::Packages,
            _ => Job::Scenarios(self.scenarios()?),
        })
    }
}

/// What plays in machines.
enum Job {
    Scenarios(Arc<Scenarios>),
    Module(Box<kmod::Tests>),
    Vhost(Box<vhost::Tests>),
    Devices(Box<devices::Tests>),
    Packages,
}

/// Runs all steps, whatever becomes of each.
fn all(steps: impl IntoIterator<Item = Step>) -> Result<Tally> {
    let mut tally = Tally::default();
    for step in steps {
        tally += step.check()?;
    }
    Ok(tally)
}

/// Cargo in the guest's own workspace, whose flags are in its `.cargo` folder.
fn guest(words: &str) -> Step {
    Step::cargo(words).env_remove("RUSTFLAGS").folder("guest/metal")
}

fn lints() -> Result<Tally> {
    let mut tally = all([
        Step::cargo("clippy --locked --workspace --all-targets -- -D warnings"),
        guest("clippy --locked --release --target-dir")
            .arg(target().join("lab-guest"))
            .words("-- -D warnings"),
    ])?;
    match tool::toolchain(CORE_RUST) {
        Some(toolchain) => {
            let metadata = target().join("core-msrv.rmeta");
            let step = Step::new("rustup")
                .words("run")
                .arg(&toolchain)
                .words("rustc --edition 2021 --crate-type lib --crate-name core_msrv -D warnings")
                .arg(format!("--emit=metadata={}", metadata.display()))
                .arg("core/src/lib.rs");
            tally += all([step])?;
        }
        None => println!(
            "  skipped: the core with Rust {CORE_RUST} itself, which is not installed; \
             edition 2021 and clippy's incompatible_msrv were checked"
        ),
    }
    Ok(tally)
}

/// The compiler that the kernel module is built with.
const CORE_RUST: &str = "1.85";

/// Both demonstrations, by the programs that go into the lab; they run here as well.
fn demo() -> Result<Tally> {
    let mut tally = one_demo("xen-eventfd-cli", "xen-eventfd", judge_demo)?;
    tally += one_demo("xen-virtio", "xen-virtio", judge_disk)?;
    Ok(tally)
}

fn one_demo(package: &str, program: &str, judge: fn(&str) -> Result<String>) -> Result<Tally> {
    let done = Step::new(build_static(package, program)?).words("demo --json").run()?;
    if done.ok {
        println!("         {program}: {}", judge(&done.stdout)?);
    }
    Ok(Tally::one(&format!("{program} demo"), done.ok))
}

/// Everything that was sent arrived, and the VMM slept.
fn judge_demo(json: &str) -> Result<String> {
    let demo: Value = serde_json::from_str(json).context("the demo's JSON cannot be read")?;
    let number = |name: &str| demo[name].as_u64().with_context(|| format!("no {name} in {demo}"));
    let (kicks, delivered, lost) = (number("sent")?, number("delivered")?, number("lost")?);
    let wakeups = number("vmm_wakeups")?;
    let said = format!("{kicks} kicks, {delivered} delivered, {lost} lost, {wakeups} VMM wake-ups");
    if kicks == 0 || delivered != kicks || lost != 0 {
        bail!("the demo: {said}");
    }
    Ok(said)
}

/// Every request came back, every block as it was, and `xen-virtio` slept.
fn judge_disk(json: &str) -> Result<String> {
    let demo: Value = serde_json::from_str(json).context("the demo's JSON cannot be read")?;
    let number = |name: &str| demo[name].as_u64().with_context(|| format!("no {name} in {demo}"));
    let (requests, lost, different) = (number("requests")?, number("lost")?, number("different")?);
    let (kicks, interrupts, wakeups) =
        (number("kicks")?, number("interrupts")?, number("wakeups")?);
    let said = format!(
        "{requests} requests, {lost} lost, {different} different, {kicks} kicks, {interrupts} interrupts, \
         {wakeups} wake-ups"
    );
    if requests == 0 || kicks == 0 || interrupts == 0 || [lost, different, wakeups] != [0; 3] {
        bail!("the demo: {said}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_changes_or_loses_something_or_wakes_its_server_fails() {
        let json = |lost: u32, different: u32, wakeups: u32| {
            format!(
                r#"{{"requests":4,"lost":{lost},"different":{different},"kicks":4,"interrupts":4,"wakeups":{wakeups}}}"#
            )
        };
        assert!(judge_disk(&json(0, 0, 0)).is_ok());
        assert!([(1, 0, 0), (0, 1, 0), (0, 0, 1)].iter().all(|(lost, different, wakeups)| {
            judge_disk(&json(*lost, *different, *wakeups)).is_err()
        }));
        assert!(judge_disk("{}").is_err());
    }

    #[test]
    fn a_demo_that_loses_something_fails() {
        let json = |delivered: u32, lost: u32| {
            format!(r#"{{"sent":9,"delivered":{delivered},"lost":{lost},"vmm_wakeups":2}}"#)
        };
        assert!(judge_demo(&json(9, 0)).is_ok());
        assert!(judge_demo(&json(8, 1)).is_err());
        assert!(judge_demo("{}").is_err());
        assert!(judge_demo("Doorbells as eventfds").is_err());
    }
}
