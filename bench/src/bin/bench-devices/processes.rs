//! Which processes of dom0 were woken, and how long they ran.

use std::collections::BTreeMap;
use xen_eventfd_bench::devices::Process;
use xen_eventfd_bench::tasks::{Id, Task};

/// What became more from `before` to `after`, by the names of processes. A thread of vhost is the kernel's, though it
/// counts as one of the process that has opened it. `own` is left out.
pub(crate) fn between(
    before: &BTreeMap<Id, Task>,
    after: &BTreeMap<Id, Task>,
    own: u32,
) -> BTreeMap<String, Process> {
    let mut processes: BTreeMap<String, Process> = BTreeMap::new();
    for (id @ (process, _), task) in after.iter().filter(|((process, _), _)| *process != own) {
        let (woken, ran) = before.get(id).map_or((0, 0), |task| (task.woken, task.ran));
        let leader = after.get(&(*process, *process)).unwrap_or(task);
        let name = name(task, leader);
        let sum = processes.entry(name.to_owned()).or_default();
        sum.woken += task.woken.saturating_sub(woken);
        sum.ran += task.ran.saturating_sub(ran);
    }
    processes.retain(|_, process| process.woken > 0);
    processes
}

fn name<'a>(task: &Task, leader: &'a Task) -> &'a str {
    let is = |begin: &str, part: &str| task.name.starts_with(begin) && task.name.contains(part);
    match task.user {
        _ if is("vhost-", "") => "vhost",
        true => &leader.name,
        false if is("vif", "-") => "netback",
        // Its number is the guest's.
        false if is("", ".xvda") => "blkback",
        false => "kernel threads",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_for_their_process_and_those_of_backends_in_the_kernel_for_themselves() {
        let task =
            |name: &str, user, woken| Task { name: name.to_owned(), user, woken, ran: 10 * woken };
        let all = |times| {
            BTreeMap::from([
                ((7, 7), task("xen-virtio", true, 3 * times)),
                ((7, 8), task("kicks", true, 2 * times)),
                ((7, 9), task("vhost-7", true, 5 * times)),
                ((20, 20), task("vif1.0-q0-guest", false, 4 * times)),
                ((21, 21), task("1.xvda-0", false, times)),
                ((22, 22), task("kworker/0:1", false, times)),
                ((23, 23), task("sh", true, 9)),
                ((24, 24), task("bench-devices", true, times)),
            ])
        };
        let found = between(&all(1), &all(2), 24);
        let woken: Vec<_> = found.iter().map(|(name, one)| (name.as_str(), one.woken)).collect();
        assert_eq!(
            woken,
            [
                ("blkback", 1),
                ("kernel threads", 1),
                ("netback", 4),
                ("vhost", 5),
                ("xen-virtio", 5)
            ]
        );
        assert_eq!(found["xen-virtio"].ran, 50);
    }
}
