//! How a guest came up, and what `xen-virtio` took for it.

use crate::guest::Guest;
use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs;
use xen_eventfd_bench::devices::{Measured, Server, Started};
use xen_eventfd_bench::tasks;

/// In nanoseconds since this domain has started.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let parts = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    parts[0] * 1_000_000_000 + parts[1]
}

/// Waits until the guest has read its disk.
pub(crate) fn started(
    guest: &Guest,
    server: Server,
    since: u64,
    process: Option<u32>,
) -> Result<Measured> {
    guest.read_disk()?;
    let until_first_read = now() - since;
    let (mut ran, mut memory) = (0, BTreeMap::new());
    if let Some(process) = process {
        let tasks = tasks::all()?;
        let own = tasks.iter().filter(|((of, _), _)| *of == process);
        ran = own.map(|(_, task)| task.ran).sum();
        memory = sizes(&fs::read_to_string(format!("/proc/{process}/status"))?);
    }
    Ok(Measured::Started(Started { server, until_first_read, ran, memory }))
}

/// What a process has in memory: the most that it had, and what it has, by kind; in KiB.
fn sizes(status: &str) -> BTreeMap<String, u64> {
    let names = ["VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"];
    let size = |line: &str| -> Option<(String, u64)> {
        let (name, value) = line.split_once(':')?;
        let value = value.trim().strip_suffix("kB")?;
        names.contains(&name).then_some((name.to_owned(), value.trim().parse().ok()?))
    };
    status.lines().filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_in_memory() {
        let status =
            "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    80 kB\nVmRSS:\t    70 kB\nThreads:\t1\n";
        let wanted = [("VmHWM".to_owned(), 80), ("VmRSS".to_owned(), 70)];
        assert_eq!(sizes(status), BTreeMap::from(wanted));
    }
}
