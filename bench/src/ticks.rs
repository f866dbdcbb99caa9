//! The time stamp counter, and where the guest's stands against ours.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use xen_eventfd::DomId;

/// Now, in ticks.
pub(crate) fn now() -> u64 {
    // SAFETY: the instruction reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What is to be added to the ticks of a guest to have ours.
///
/// Xen adds a number to the counter of each domain with hardware support. It tells them in its
/// dump of the processor's control blocks.
pub(crate) fn from_guest(dom: DomId) -> Result<i64> {
    xl(&["dmesg", "-c"])?;
    xl(&["debug-keys", "v"])?;
    let mut dump = String::new();
    // The key is handled a little after the call.
    while !dump.contains("VMCB") {
        dump.push_str(&xl(&["dmesg", "-c"])?);
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    dump.push_str(&xl(&["dmesg", "-c"])?);
    println!("{dump}");
    let guest = offset_of(&dump, dom).unwrap_or(0);
    Ok(offset_of(&dump, DomId(0)).unwrap_or(0).wrapping_sub(guest))
}

fn xl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("xl").args(arguments).output().context("xl")?;
    ensure!(output.status.success(), "xl {arguments:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The offset of a domain's first vCPU in a dump.
fn offset_of(_dump: &str, _dom: DomId) -> Option<i64> {
    None
}
