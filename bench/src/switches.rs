//! Who is woken: the kernel's own count of voluntary context switches, of every task.

use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use xen_eventfd_bench::Wakeups;

/// Whose a process is; a process that is not named here is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Vmm,
    Engine,
    Backend,
    /// The measurement's own.
    Ours,
}

/// The processes that are known.
#[derive(Debug, Default)]
pub(crate) struct Processes(pub(crate) Vec<(u32, Whose)>);

/// The count of each task, and whose it is.
#[derive(Debug)]
pub(crate) struct Switches(BTreeMap<(u32, u32), (u64, bool)>);

impl Switches {
    /// As it is now. A task that ends meanwhile counts nothing.
    pub(crate) fn now() -> Result<Self> {
        let mut tasks = BTreeMap::new();
        for process in numbers("/proc")? {
            for thread in numbers(&format!("/proc/{process}/task")).unwrap_or_default() {
                let path = format!("/proc/{process}/task/{thread}/status");
                let Ok(status) = fs::read_to_string(path) else { continue };
                // A thread of the kernel has no memory of its own.
                let user = status.contains("\nVmSize:");
                if let Some(count) = field(&status, "voluntary_ctxt_switches:") {
                    tasks.insert((process, thread), (count, user));
                }
            }
        }
        Ok(Self(tasks))
    }

    /// What came since.
    pub(crate) fn until(&self, later: &Self, processes: &Processes) -> Wakeups {
        let mut wakeups = Wakeups::default();
        for ((process, thread), (after, user)) in &later.0 {
            let before = self.0.get(&(*process, *thread)).map_or(0, |(count, _)| *count);
            let whose = processes.0.iter().find(|(pid, _)| pid == process).map(|(_, whose)| *whose);
            let count = match whose {
                Some(Whose::Ours) => continue,
                Some(Whose::Vmm) => &mut wakeups.vmm,
                Some(Whose::Engine) => &mut wakeups.engine,
                Some(Whose::Backend) => &mut wakeups.backend,
                None if *user => &mut wakeups.others,
                None => &mut wakeups.kernel,
            };
            *count += after.saturating_sub(before);
        }
        wakeups
    }
}

fn numbers(folder: &str) -> Result<Vec<u32>> {
    let names = fs::read_dir(folder)?.flatten();
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_sleeps_has_switched() {
        let processes = Processes(vec![(std::process::id(), Whose::Backend)]);
        let before = Switches::now().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let wakeups = before.until(&Switches::now().unwrap(), &processes);
        assert!(wakeups.backend >= 1, "{wakeups:?}");
    }

    #[test]
    fn only_its_own_field_is_read() {
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(17));
    }
}
