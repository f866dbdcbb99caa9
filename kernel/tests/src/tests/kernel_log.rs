//! What the kernel has said in all this time.

use anyhow::{Result, ensure};
use std::process::Command;
use xen_eventfd_scenarios::TestContext;

/// `cargo xtask` looks for the same.
const TROUBLE: &str = include_str!("../../trouble.txt");

/// What the watchdog of the clock says every few seconds where time is emulated, whatever is tested.
const CLOCK: [&str; 2] = ["clocksource: Watchdog", "watchdog_print_freq_timeout"];

/// Lines that any number of bad calls may add to the kernel's log.
const BOUND: usize = 50;

/// How much the kernel's log has told, but for the clock.
pub(super) struct Told(usize);

impl Told {
    /// Until now.
    pub(super) fn look() -> Result<Self> {
        let about_the_clock = |line: &String| CLOCK.iter().any(|mark| line.contains(mark));
        Ok(Self(lines()?.iter().filter(|line| !about_the_clock(line)).count()))
    }

    /// Little has come since.
    pub(super) fn stayed_short(self) -> Result<()> {
        let logged = Self::look()?.0 - self.0;
        ensure!(logged < BOUND, "{logged} lines in the kernel's log");
        Ok(())
    }
}

/// The lines of the kernel's log.
fn lines() -> Result<Vec<String>> {
    let log = Command::new("dmesg").output()?.stdout;
    Ok(String::from_utf8_lossy(&log).lines().map(str::to_owned).collect())
}

pub(super) fn clean(_play: &mut TestContext<'_>) -> Result<()> {
    let trouble = |line: &&String| TROUBLE.lines().any(|mark| line.contains(mark));
    let log = lines()?;
    let found: Vec<&String> = log.iter().filter(trouble).collect();
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
