//! Wakeups: the kernel's count of voluntary context switches, of every task.

use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use xen_eventfd_bench::Wakeups;

/// The role of a process; a process without a role counts as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Vmm,
    Engine,
    Backend,
    /// The bench itself.
    Bench,
}

/// The processes with a role.
#[derive(Debug, Default)]
pub(crate) struct Processes(pub(crate) Vec<(u32, Role)>);

/// The count of each task, and whether it is a task of a process.
#[derive(Debug)]
pub(crate) struct Switches(BTreeMap<(u32, u32), (u64, bool)>);

impl Switches {
    /// The current counts. A task that ends meanwhile counts nothing.
    pub(crate) fn now() -> Result<Self> {
        let mut tasks = BTreeMap::new();
        for process in numbers("/proc")? {
            for thread in numbers(&format!("/proc/{process}/task")).unwrap_or_default() {
                let path = format!("/proc/{process}/task/{thread}/status");
                let Ok(status) = fs::read_to_string(path) else { continue };
                // A kernel thread has no memory of its own.
                let user = status.contains("\nVmSize:");
                if let Some(count) = field(&status, "voluntary_ctxt_switches:") {
                    tasks.insert((process, thread), (count, user));
                }
            }
        }
        Ok(Self(tasks))
    }

    /// The increase since then.
    pub(crate) fn until(&self, later: &Self, processes: &Processes) -> Wakeups {
        let mut wakeups = Wakeups::default();
        for ((process, thread), (after, user)) in &later.0 {
            let before = self.0.get(&(*process, *thread)).map_or(0, |(count, _)| *count);
            let role = processes.0.iter().find(|(pid, _)| pid == process).map(|(_, role)| *role);
            let count = match role {
                Some(Role::Bench) => continue,
                Some(Role::Vmm) => &mut wakeups.vmm,
                Some(Role::Engine) => &mut wakeups.engine,
                Some(Role::Backend) => &mut wakeups.backend,
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
        let processes = Processes(vec![(std::process::id(), Role::Backend)]);
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
