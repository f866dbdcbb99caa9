//! The kernel's log since the start of the tests.

use anyhow::{Result, ensure};
use std::process::Command;
use xen_eventfd_scenarios::TestContext;

/// `cargo xtask` searches for the same.
const TROUBLE: &str = include_str!("../../trouble.txt");

/// The clock watchdog logs this every few seconds where time is emulated, in any test.
const CLOCK: [&str; 2] = ["clocksource: Watchdog", "watchdog_print_freq_timeout"];

/// The most lines that any number of invalid calls may add to the kernel's log.
const BOUND: usize = 50;

/// The number of lines in the kernel's log, without those of the clock watchdog.
pub(super) struct LogLength(usize);

impl LogLength {
    /// Until now.
    pub(super) fn now() -> Result<Self> {
        let about_the_clock = |line: &String| CLOCK.iter().any(|mark| line.contains(mark));
        Ok(Self(lines()?.iter().filter(|line| !about_the_clock(line)).count()))
    }

    /// Checks that few lines were added since.
    pub(super) fn stayed_short(self) -> Result<()> {
        let logged = Self::now()?.0 - self.0;
        ensure!(logged < BOUND, "{logged} lines in the kernel's log");
        Ok(())
    }
}

/// The lines of the kernel's log.
fn lines() -> Result<Vec<String>> {
    let log = Command::new("dmesg").output()?.stdout;
    Ok(String::from_utf8_lossy(&log).lines().map(str::to_owned).collect())
}

pub(super) fn clean(_test: &mut TestContext<'_>) -> Result<()> {
    let trouble = |line: &&String| TROUBLE.lines().any(|mark| line.contains(mark));
    let log = lines()?;
    let found: Vec<&String> = log.iter().filter(trouble).collect();
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
