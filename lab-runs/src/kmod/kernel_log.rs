//! What dom0's kernel says while something is tested, and which of it means trouble.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xen_eventfd_lab::{Machine, Voice};

/// A kernel that says what is in one of these lines has found a mistake of ours. The tests in dom0
/// look for the same.
pub(crate) const TROUBLE: &str = include_str!("../../../kernel/tests/trouble.txt");

/// Where a test begins in the kernel's log. A test that has the kernel say what means trouble otherwise sets it anew.
pub(crate) const MARK: &str = "xtask: a test begins";

/// The kernel's log from the last mark on.
#[derive(Debug)]
pub(crate) struct Log;

impl Log {
    /// Sets the mark.
    pub(crate) fn begin(machine: &mut Machine) -> Result<Self> {
        machine.check(&format!("echo '<6>{MARK}' >/dev/kmsg"), Duration::from_secs(10))?;
        Ok(Self)
    }

    /// The lines since then; fails if one of them means trouble.
    pub(crate) fn end(self, machine: &mut Machine) -> Result<Vec<String>> {
        let log = machine.check("dmesg", Duration::from_secs(30))?.lines;
        let begin = log.iter().rposition(|line| line.ends_with(MARK));
        let begin = begin.context("dom0's kernel said so much that the beginning of it is lost")?;
        let lines = log.get(begin + 1..).unwrap_or_default();
        let trouble = lines.iter().find(|line| is_trouble(line));
        ensure!(
            trouble.is_none(),
            "dom0's kernel found a mistake: {}\n{}",
            trouble.map_or("", String::as_str),
            lines.join("\n")
        );
        Ok(lines.to_vec())
    }
}

/// Fails if one of the lines, the kernel's or Xen's, means trouble.
pub(crate) fn check<'a>(mut lines: impl Iterator<Item = &'a str>) -> Result<()> {
    match lines.find(|line| is_trouble(line)) {
        Some(line) => bail!("{line}"),
        None => Ok(()),
    }
}

/// What Xen has said since it came up.
pub(crate) fn of_xen(machine: &Machine) -> Result<()> {
    let lines = machine.console();
    let said = lines.iter().filter(|line| line.voice == Voice::Xen);
    check(said.map(|line| line.text.as_str()))
}

/// Whether the kernel says in this line that something is wrong.
pub(crate) fn is_trouble(line: &str) -> bool {
    TROUBLE.lines().any(|mark| line.contains(mark))
}

/// Whether the emulator broke dom0, or one of its programs, off in the middle of an instruction, or
/// stood still before dom0 answered, when nothing of ours has run, or computed wrongly, as a guest's kernel finds when
/// it tests its cryptography at boot. QEMU without KVM does that now and then, whatever runs; it says nothing of ours.
pub(crate) fn emulator_broke(text: &str) -> bool {
    [
        "] traps: ",
        " segfault at ",
        "d0v0 Triple fault",
        "d0v1 Triple fault",
        "did not come up: it said nothing more",
        " at alg_test",
    ]
    .iter()
    .any(|mark| text.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_complaints_are_trouble_and_its_notes_are_not() {
        assert!(is_trouble("[ 1.0] WARNING: CPU: 0 PID: 1 at kernel/irq/manage.c:1"));
        assert!(is_trouble("[ 1.0] BUG: scheduling while atomic: xl/77/0x2"));
        let broken = "[ 2.6] traps: xl[499] general protection fault ip:7f1a sp:7ffe error:0";
        assert!(emulator_broke(broken) && is_trouble(broken));
        assert!(!emulator_broke("[ 1.0] general protection fault, probably for non-canonical"));
        assert!(emulator_broke(
            "dom0 (pv) did not come up: it said nothing more (the time was over)"
        ));
        assert!(!emulator_broke("dom0 (pv) did not come up: no xenfs: is this a dom0?"));
        assert!(emulator_broke("WARNING: crypto/testmgr.c:5680 at alg_test.cold+0x59/0x6e, CPU#1"));
        assert!(!emulator_broke("WARNING: kernel/irq/manage.c:1 at free_irq+0x59/0x6e, CPU#1"));
        assert!(!is_trouble("[ 9.7] xen_eventfd: loading out-of-tree module taints kernel."));
        assert!(!is_trouble(
            "[ 9.7] xen_eventfd: module verification failed: signature and/or required key missing"
        ));
    }
}
