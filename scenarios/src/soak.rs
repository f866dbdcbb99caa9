//! A long run: guests, engines and registrations are created and removed while guests kick, and each round
//! must leave as many resources as there were before it.
//!
//! The program in domain 0 runs the rounds and prints a [`Sample`] after each, as a line of JSON.
//! The reader of the samples judges whether they stay flat.

mod round;
mod sample;
mod watchdog;

pub use round::Done;
pub use sample::{Counts, Memory, Sample};

use crate::TestContext;
use crate::environment::Environment;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Rounds in which caches fill: after them, counts must not change.
pub const WARM_UP: u64 = 4;

/// Fewer rounds than this, the first ones included, are too few to judge memory.
pub const LEAST: u64 = WARM_UP + 12;

/// The time limit of what ends by itself, such as daemons that close a dead guest's files.
const SETTLE: Duration = Duration::from_secs(20);

/// Runs rounds for this long, at least [`LEAST`] of them, and prints a sample after each.
///
/// # Errors
/// A round failed; the error names it.
pub fn soak(environment: &dyn Environment, time: Duration) -> Result<()> {
    let (began, mut done, mut base) = (Instant::now(), Done::default(), None);
    let mut nth = 0;
    let watchdog = watchdog::Watchdog::start();
    while nth < LEAST || began.elapsed() < time {
        nth += 1;
        let test = TestContext::new(environment);
        let done_now = round::run(&test, nth).with_context(|| format!("in round {nth}"));
        // The thread that blocked the round is still blocked.
        done += done_now.inspect_err(|_| watchdog::say_where())?;
        test.no_zombies()?;
        let counts = settled(base.as_ref())?;
        watchdog.feed();
        println!("{}", Sample { round: nth, done, counts, memory: Memory::look()? });
        if nth == WARM_UP {
            base = Some(counts);
        }
    }
    Ok(())
}

/// The counts, once they equal the base's or the time limit is over.
fn settled(base: Option<&Counts>) -> Result<Counts> {
    let since = Instant::now();
    loop {
        let counts = Counts::look()?;
        let as_before = base.is_some_and(|base| *base == counts);
        // Before there is a base, what ends by itself gets a short time.
        let patience = if base.is_some() { SETTLE } else { SETTLE / 20 };
        if as_before || since.elapsed() > patience {
            return Ok(counts);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
