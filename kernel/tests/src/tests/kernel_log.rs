//! What the kernel has said in all this time.

use anyhow::{Result, ensure};
use std::process::Command;
use xen_eventfd_scenarios::Play;

/// `cargo xtask` looks for the same.
const TROUBLE: &str = include_str!("../../trouble.txt");

/// The lines of the kernel's log.
pub(super) fn lines() -> Result<Vec<String>> {
    let log = Command::new("dmesg").output()?.stdout;
    Ok(String::from_utf8_lossy(&log).lines().map(str::to_owned).collect())
}

pub(super) fn clean(_play: &mut Play<'_>) -> Result<()> {
    let trouble = |line: &&String| TROUBLE.lines().any(|mark| line.contains(mark));
    let log = lines()?;
    let found: Vec<&String> = log.iter().filter(trouble).collect();
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
