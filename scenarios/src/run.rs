//! Playing one scenario and judging it.

use crate::stage::Stage;
use crate::{Play, Scenario, Trace};
use anyhow::{Context, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a scenario went.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub trace: Trace,
    /// What did not hold, if anything.
    pub failure: Option<String>,
}

/// Plays a scenario, and then looks for what must never be left behind.
pub fn run(scenario: &Scenario, stage: &dyn Stage) -> Outcome {
    let mut play = Play::new(stage);
    let played = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        (scenario.play)(&mut play)?;
        play.no_zombies().context("after the scenario")
    }));
    let failure = match played {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic".to_owned()),
        ),
    };
    Outcome { trace: play.trace, failure }
}
