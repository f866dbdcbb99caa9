//! What the kernel has said in all this time.

use anyhow::{Result, ensure};
use std::process::Command;
use xen_eventfd_scenarios::Play;

/// `cargo xtask` looks for the same.
const TROUBLE: &str = include_str!("../../trouble.txt");

/// What the watchdog of the clock says every few seconds where time is emulated, whatever is tested.
const CLOCK: [&str; 2] = ["clocksource: Watchdog", "watchdog_print_freq_timeout"];

/// The lines of the kernel's log, but for those about the clock.
pub(super) fn lines() -> Result<Vec<String>> {
    let log = Command::new("dmesg").output()?.stdout;
    let log = String::from_utf8_lossy(&log);
    let told = log.lines().filter(|line| !CLOCK.iter().any(|mark| line.contains(mark)));
    Ok(told.map(str::to_owned).collect())
}

pub(super) fn clean(_play: &mut Play<'_>) -> Result<()> {
    let trouble = |line: &&String| TROUBLE.lines().any(|mark| line.contains(mark));
    let log = lines()?;
    let found: Vec<&String> = log.iter().filter(trouble).collect();
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
