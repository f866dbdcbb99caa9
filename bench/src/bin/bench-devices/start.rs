//! How a guest came up, and what `xen-virtio` took for it.

use crate::guest::Guest;
use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
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
    process: Option<(u32, u64)>,
) -> Result<Measured> {
    guest.read_disk()?;
    let until_first_read = now() - since;
    let (mut until_it_runs, mut ran, mut memory) = (0, 0, BTreeMap::new());
    if let Some((process, before)) = process {
        (until_it_runs, ran) = (before, self::ran(process)?);
        memory = sizes(&fs::read_to_string(format!("/proc/{process}/status"))?);
    }
    Ok(Measured::Started(Started { server, until_first_read, ran, until_it_runs, memory }))
}

/// How long the threads of a process have run.
fn ran(process: u32) -> Result<u64> {
    let tasks = tasks::all()?;
    let own = tasks.iter().filter(|((of, _), _)| *of == process);
    Ok(own.map(|(_, task)| task.ran).sum())
}

/// How long `xen-virtio` has run when it says that its guest runs.
pub(crate) fn until_it_runs(process: u32, said: &Path) -> Result<u64> {
    wait(said, |text| text.contains(" runs"))?;
    ran(process)
}

/// How often a file is looked at: seldom enough to cost nothing beside what is measured.
const INTERVAL: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(300);

/// Waits until what is in a file satisfies a condition; returns it.
pub(crate) fn wait(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let begin = now();
    loop {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if wanted(&text) {
            return Ok(text);
        }
        let late = Duration::from_nanos(now() - begin) > LIMIT;
        ensure!(!late, "{}: what is waited for is not there", path.display());
        std::thread::sleep(INTERVAL);
    }
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
