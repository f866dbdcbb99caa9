//! Runs one scenario and judges it.

use crate::environment::Environment;
use crate::{Scenario, TestContext, Trace, privcmd_abi};
use anyhow::{Context, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use xen_eventfd_core::irq::Arch;

/// The result of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The recorded trace.
    pub trace: Trace,
    /// What failed, if anything.
    pub failure: Option<String>,
    /// What the engine does not support, if the scenario needs it. Then nothing was judged.
    pub skipped: Option<String>,
}

/// What an environment or its engine cannot do: as an error of a scenario, it skips that.
#[derive(Debug, thiserror::Error)]
#[error("there is no {0} here")]
pub struct Unsupported(pub &'static str);

fn unsupported(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref() {
        Some(Unsupported(what)) => Some(what),
        None => privcmd_abi::missing(error.downcast_ref()?),
    }
}

/// Runs a scenario, and then checks that no zombie is left behind.
pub fn run(scenario: &Scenario, environment: &dyn Environment) -> Outcome {
    run_on(scenario, environment, environment.host().arch())
}

fn run_on(scenario: &Scenario, environment: &dyn Environment, arch: Arch) -> Outcome {
    let mut test = TestContext::new(environment);
    if let Some(need) = scenario.unmet(arch) {
        let skipped = Some(format!("{need:?}, which no guest of this architecture has"));
        return Outcome { trace: test.trace, failure: None, skipped };
    }
    let played = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        (scenario.body)(&mut test)?;
        test.no_zombies().context("after the scenario")
    }));
    let (mut failure, mut skipped) = (None, None);
    match played {
        Ok(Ok(())) => {}
        Ok(Err(error)) => match unsupported(&error) {
            Some(what) => skipped = Some(what.to_owned()),
            None => failure = Some(format!("{error:#}")),
        },
        Err(panic) => {
            failure = Some(
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "a panic".to_owned()),
            );
        }
    }
    Outcome { trace: test.trace, failure, skipped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Need;
    use crate::environment::model::ModelEnvironment;
    use xen_eventfd::Error;

    fn outcome(body: fn(&mut TestContext<'_>) -> Result<()>) -> Outcome {
        let scenario = Scenario { name: "one", about: "one", needs: &[], body };
        run(&scenario, &ModelEnvironment::new().unwrap())
    }

    #[test]
    fn an_unsupported_operation_is_skipped() {
        let skips = |body| {
            let outcome = outcome(body);
            assert_eq!((outcome.failure, outcome.skipped), (None, Some("pulses".to_owned())));
        };
        skips(|_| Err(Unsupported("pulses")).context("in the scenario"));
        skips(|_| Err(privcmd_abi::unsupported("pulses")).context("in the scenario"));
    }

    #[test]
    fn what_needs_more_than_an_architecture_has_is_skipped() {
        let body = |_: &mut TestContext<'_>| panic!("it is not run");
        let scenario =
            Scenario { name: "one", about: "one", needs: &[Need::Race, Need::Pio], body };
        let outcome = run_on(&scenario, &ModelEnvironment::new().unwrap(), Arch::Arm);
        assert_eq!(outcome.failure, None);
        assert!(outcome.skipped.unwrap().contains("Pio"));
    }

    #[test]
    fn an_error_and_a_panic_are_failures() {
        let failed = outcome(|_| Err(Error::UnknownDomain("web".to_owned()).into()));
        assert!(failed.failure.unwrap().contains("web") && failed.skipped.is_none());
        let panicked = outcome(|_| panic!("on purpose"));
        assert_eq!((panicked.failure, panicked.skipped), (Some("on purpose".to_owned()), None));
    }
}
