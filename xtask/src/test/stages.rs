//! What each stage does.

use super::{Stage, deny, house};
use crate::counts;
use crate::lab::Scenarios;
use crate::step::{Step, target};
use crate::tally::{Tally, one};
use crate::{attacks, tool};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xen_eventfd_lab::Dom0;

/// What stages leave for those that come after them.
#[derive(Default)]
pub(super) struct Workshop {
    scenarios: Option<Scenarios>,
}

impl Workshop {
    pub(super) fn run(&mut self, stage: Stage) -> Result<Tally> {
        match stage {
            Stage::Format => all([
                Step::cargo("fmt --all --check"),
                guest("fmt --check"),
                Step::cargo("fmt --check").folder("fuzz"),
            ]),
            Stage::House => house::check(),
            Stage::Lints => lints(),
            Stage::Tests => tests(),
            Stage::Loom => attacks::loom(),
            Stage::Fuzz => attacks::fuzz_a_little(),
            Stage::Docs => {
                all([Step::cargo("doc --no-deps --workspace").env("RUSTDOCFLAGS", "-D warnings")])
            }
            Stage::Deny => deny::check(),
            Stage::Demo => demo(),
            Stage::Model => {
                let scenarios = Scenarios::prepare()?;
                let tally = scenarios.model_tally();
                self.scenarios = Some(scenarios);
                Ok(tally)
            }
            Stage::Pv => self.on_xen(Dom0::Pv),
            Stage::Pvh => self.on_xen(Dom0::Pvh),
        }
    }

    fn on_xen(&mut self, dom0: Dom0) -> Result<Tally> {
        let scenarios = match &mut self.scenarios {
            Some(scenarios) => scenarios,
            none => none.insert(Scenarios::prepare()?),
        };
        Ok(scenarios.play(dom0))
    }
}

/// Runs all steps, whatever becomes of each.
fn all(steps: impl IntoIterator<Item = Step>) -> Result<Tally> {
    let mut tally = Tally::default();
    for step in steps {
        tally += one(step.run()?.ok);
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

/// With nextest if it is installed, for its speed; the same tests either way.
fn tests() -> Result<Tally> {
    let nextest = Step::cargo("nextest --version").quietly()?.ok;
    let steps = if nextest {
        vec![
            Step::cargo("nextest run --locked --workspace --no-fail-fast --color never")
                .words("--status-level slow --final-status-level fail"),
            Step::cargo("test --locked --workspace --doc --no-fail-fast"),
        ]
    } else {
        vec![Step::cargo("test --locked --workspace --no-fail-fast")]
    };
    let mut tally = Tally::default();
    for step in steps {
        let done = step.run()?;
        let mut counted = counts::count(&done.all);
        // Something did not build, or a test ended its program.
        if !done.ok && counted.failed == 0 {
            counted.failed = 1;
        }
        println!("         {counted}");
        tally += counted;
    }
    ensure!(tally != Tally::default(), "no test ran");
    Ok(tally)
}

fn demo() -> Result<Tally> {
    let done = Step::cargo("run --locked --release -- demo --json").run()?;
    if !done.ok {
        return Ok(one(false));
    }
    let said = judge_demo(&done.stdout)?;
    println!("         {said}");
    Ok(one(true))
}

/// Everything that was sent arrived, and the VMM slept.
fn judge_demo(json: &str) -> Result<String> {
    let demo: Value = serde_json::from_str(json).context("the demo's JSON cannot be read")?;
    let number = |name: &str| demo[name].as_u64().with_context(|| format!("no {name} in {demo}"));
    let (kicks, delivered, lost) = (number("kicks")?, number("delivered")?, number("lost")?);
    let wakeups = number("vmm_wakeups")?;
    let said = format!("{kicks} kicks, {delivered} delivered, {lost} lost, {wakeups} VMM wake-ups");
    if kicks == 0 || delivered != kicks || lost != 0 {
        bail!("the demo: {said}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_that_loses_something_fails() {
        let json = |delivered: u32, lost: u32| {
            format!(r#"{{"kicks":9,"delivered":{delivered},"lost":{lost},"vmm_wakeups":2}}"#)
        };
        assert!(judge_demo(&json(9, 0)).is_ok());
        assert!(judge_demo(&json(8, 1)).is_err());
        assert!(judge_demo("{}").is_err());
        assert!(judge_demo("Doorbells as eventfds").is_err());
    }
}
