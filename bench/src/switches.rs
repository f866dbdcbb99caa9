//! Wakeups: the kernel's count of voluntary context switches, of every task.

use anyhow::Result;
use std::collections::BTreeMap;
use xen_eventfd_bench::Wakeups;
use xen_eventfd_bench::tasks::{self, Id, Task};

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

/// All tasks at one time.
#[derive(Debug)]
pub(crate) struct Switches(BTreeMap<Id, Task>);

impl Switches {
    /// The current counts.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self(tasks::all()?))
    }

    /// The increase since then.
    pub(crate) fn until(&self, later: &Self, processes: &Processes) -> Wakeups {
        let mut wakeups = Wakeups::default();
        for ((process, thread), after) in &later.0 {
            let before = self.0.get(&(*process, *thread)).map_or(0, |task| task.woken);
            let role = processes.0.iter().find(|(pid, _)| pid == process).map(|(_, role)| *role);
            let count = match role {
                Some(Role::Bench) => continue,
                Some(Role::Vmm) => &mut wakeups.vmm,
                Some(Role::Engine) => &mut wakeups.engine,
                Some(Role::Backend) => &mut wakeups.backend,
                None if after.user => &mut wakeups.others,
                None => &mut wakeups.kernel,
            };
            *count += after.woken.saturating_sub(before);
        }
        wakeups
    }
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
}
