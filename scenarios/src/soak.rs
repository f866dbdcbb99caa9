//! A long run: guests, engines and registrations come and go while guests kick, and after each round
//! the same is there as before it.
//!
//! The program in domain 0 plays the rounds and prints a [`Sample`] after each, as a line of JSON.
//! Whether they are flat is judged by who reads them.

mod round;
mod sample;
mod watchdog;

pub use round::Done;
pub use sample::{Counts, Memory, Sample};

use crate::TestContext;
use crate::environment::Environment;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Rounds in which caches fill: after them, counts are to stay as they are.
pub const WARM_UP: u64 = 4;

/// Fewer rounds than this, the first ones included, tell nothing of memory.
pub const LEAST: u64 = WARM_UP + 12;

/// How long what ends by itself, as daemons let go of a dead guest, may take.
const SETTLE: Duration = Duration::from_secs(20);

/// Plays rounds for so long, and [`LEAST`] of them, and prints a sample after each.
///
/// # Errors
/// A round failed; which one is said.
pub fn soak(environment: &dyn Environment, time: Duration) -> Result<()> {
    let (began, mut done, mut base) = (Instant::now(), Done::default(), None);
    let mut nth = 0;
    let watchdog = watchdog::Watchdog::start();
    while nth < LEAST || began.elapsed() < time {
        nth += 1;
        let test = TestContext::new(environment);
        let played = round::run(&test, nth).with_context(|| format!("in round {nth}"));
        // Whoever kept it waiting is still at it.
        done += played.inspect_err(|_| watchdog::say_where())?;
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

/// What there is, once it is as at the base, or does not become so.
fn settled(base: Option<&Counts>) -> Result<Counts> {
    let since = Instant::now();
    loop {
        let counts = Counts::look()?;
        let as_before = base.is_some_and(|base| *base == counts);
        // Before there is a base, whatever ends by itself has a while for it.
        let patience = if base.is_some() { SETTLE } else { SETTLE / 20 };
        if as_before || since.elapsed() > patience {
            return Ok(counts);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
