//! Kicks wake no process, by the kernel's own counts.

use super::common::{BASE, DOORBELL, Notifier, until};
use crate::device::GuestFile;
use crate::device::structs::Doorbell;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::roles::vmm::Place;
use xen_eventfd_scenarios::test_context::{new_eventfd, take_count};

/// The lab's watchdog over what it runs.
const WATCH: &str = "timeout";

/// The number of context switches of each thread of each other process, by its name and number.
/// Kernel threads are left out: they have no memory of their own. The lab's watchdog over
/// this test is left out too, as it wakes every second.
fn switches() -> Result<BTreeMap<String, u64>> {
    let own = std::process::id().to_string();
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let number = process.file_name().to_string_lossy().into_owned();
        if number == own || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ends meanwhile is not counted.
        let Ok(threads) = fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            if let Some((name, count)) = counted(&status) {
                found.insert(format!("{name} {}", thread.file_name().to_string_lossy()), count);
            }
        }
    }
    Ok(found)
}

/// The name of a thread of a process, and its number of context switches.
fn counted(status: &str) -> Option<(&str, u64)> {
    let value = |key| Some(status.lines().find_map(|line| line.strip_prefix(key))?.trim());
    value("VmSize:")?;
    let name = value("Name:").filter(|name| *name != WATCH)?;
    let number = |key| value(key)?.parse::<u64>().ok();
    let count = number("voluntary_ctxt_switches:")? + number("nonvoluntary_ctxt_switches:")?;
    Some((name, count))
}

pub(super) fn none(test: &mut TestContext<'_>) -> Result<()> {
    // Between the two handshakes the guest reports nothing, as its console would wake other processes.
    let mut guest = test.guest(&format!(
        "listen evtchn go; listen evtchn on; wait go; \
         repeat 1000; write mmio:{DOORBELL:#x} 4 0; end; wait on; read mmio:{BASE:#x} 4"
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    let go = Notifier::to(test, &mut guest, "go")?;
    let on = Notifier::to(test, &mut guest, "on")?;
    quiet()?;
    let before = switches()?;
    go.notify()?;
    until("all kicks have arrived", || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Ok(file.stats()?.delivered == 1000)
    })?;
    let after = switches()?;
    on.notify()?;
    guest.finish()?;
    let moved: Vec<String> = after
        .iter()
        .filter_map(|(who, count)| {
            let more = count - before.get(who).copied().unwrap_or(0);
            (more > 0).then(|| format!("{who}: {more}"))
        })
        .collect();
    let woken: u64 = after.values().sum::<u64>() - before.values().sum::<u64>();
    println!("wakeups: {woken} of other processes for 1000 kicks");
    ensure!(moved.is_empty(), "woken by kicks that no process reads: {moved:?}");
    ensure!(before.len() >= 3, "too few threads: {before:?}");
    let (kicks, seen) = (take_count(&kick)?, vmm.seen()?);
    ensure!(kicks == 1000, "{kicks} kicks");
    ensure!(seen.writes_to(DOORBELL) == 0 && seen.wakeups == 1, "{seen:?}");
    vmm.stop()
}

/// Waits until the processes that read the guest's console are idle.
fn quiet() -> Result<()> {
    let mut last = switches()?;
    until("the other processes are idle", || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let next = switches().context("reading the processes")?;
        Ok(std::mem::replace(&mut last, next.clone()) == next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_threads_are_not_counted() {
        let process = "Name:\txenstored\nVmSize:\t  1234 kB\nvoluntary_ctxt_switches:\t7\n\
                       nonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(counted(process), Some(("xenstored", 9)));
        let kernels = "Name:\tkworker/0:1\nvoluntary_ctxt_switches:\t7\n\
                       nonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(counted(kernels), None);
        assert_eq!(counted(&process.replace("xenstored", WATCH)), None);
    }
}
