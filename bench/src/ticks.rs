//! The time stamp counter, and where the guest's stands against ours.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use xen_eventfd::DomId;

/// Now, in ticks.
pub(crate) fn now() -> u64 {
    // SAFETY: the instruction reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Tells a profiler that follows the emulator that it may begin to count.
pub(crate) fn begin_mark() {
    // SAFETY: a no-operation; the number in it is what the profiler looks for.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464501]", options(nomem, nostack)) };
}

/// Tells it that it is over.
pub(crate) fn end_mark() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464502]", options(nomem, nostack)) };
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
    while !dump.contains(END) {
        dump.push_str(&xl(&["dmesg", "-c"])?);
    }
    let guest = offset_of(&dump, dom).with_context(|| format!("no offset of {dom} in {dump}"))?;
    // A PV dom0 has the processor's own counter.
    Ok(offset_of(&dump, DomId(0)).unwrap_or(0).wrapping_sub(guest))
}

/// The last line of the dump.
const END: &str = "**************************************";

fn xl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("xl").args(arguments).output().context("xl")?;
    ensure!(output.status.success(), "xl {arguments:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What Xen adds for a domain's first vCPU, by such a dump.
fn offset_of(dump: &str, dom: DomId) -> Option<i64> {
    let (_, rest) = dump.split_once(&format!(">>> Domain {} <<<", dom.0))?;
    let section = rest.split(">>>").next()?;
    let (_, offset) = section.split_once("tsc_offset = ")?;
    // Xen prints a zero without the prefix.
    let digits = offset.split_whitespace().next()?.trim_start_matches("0x");
    Some(u64::from_str_radix(digits, 16).ok()?.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_found_in_its_domains_section() {
        let dump = "(XEN) *********** VMCB Areas **************\n\
                    (XEN) >>> Domain 3 <<<\n(XEN) \tVCPU 0\n\
                    (XEN) iopm_base_pa = 0x1 msrpm_base_pa = 0x2 tsc_offset = 0xfffffffffffffff0\n\
                    (XEN) \tVCPU 1\n(XEN) tsc_offset = 0x5\n\
                    (XEN) >>> Domain 4 <<<\n(XEN) \tVCPU 0\n(XEN) tsc_offset = 0\n\
                    (XEN) >>> Domain 5 <<<\n\
                    (XEN) >>> Domain 13 <<<\n(XEN) \tVCPU 0\n(XEN) tsc_offset = 0x10\n";
        assert_eq!(offset_of(dump, DomId(3)), Some(-16));
        assert_eq!(offset_of(dump, DomId(13)), Some(16));
        assert_eq!(offset_of(dump, DomId(4)), Some(0));
        assert_eq!(offset_of(dump, DomId(5)), None);
        assert_eq!(offset_of(dump, DomId(0)), None);
    }
}
