//! What the project promises of devices, and whether it keeps it.

use super::figures::Figures;
use super::page::title;
use super::sets::{self, Set};
use crate::bench::svg::grouped;
use crate::bench::targets::{Target, at_most};
use xen_eventfd_bench::devices::{Disk, Load, REQUESTS, Server};
use xen_eventfd_lab::Platform;

/// What `xen-virtio` may have in memory, in KiB.
const MEMORY: u64 = 8 << 10;
/// How long it may have run until its guest runs, in nanoseconds.
const START: u64 = 50_000_000;

/// Why a target is missed, as far as that is known.
fn why(platform: Platform, server: Server, load: Load) -> Option<&'static str> {
    match (server, load) {
        _ if platform == Platform::Arm64 => Some(ARM),
        (Server::Kernel, Load::ToGuest | Load::FromGuest) => Some(STREAM),
        (Server::Kernel, Load::Disk(_)) => Some(DISK),
        (Server::Scsi, _) => Some(SCSI),
        _ => None,
    }
}

const STREAM: &str = "A kick is an access that stops the vCPU until dom0 has answered, and on one CPU dom0 then carries \
    the packet before the guest goes on. So packets come one by one, each with exits, a wake-up of vhost and often an \
    interrupt. A notification of Xen's own drivers does not stop the vCPU, and many packets are found at once. The \
    module's own part is less than a hundredth. What was tried is at the end of this page.";
const DISK: &str = "Nearly all is what Xen does for exits of the guest, and of a PVH dom0, most of which read the clock, \
    and what dom0 does to run a process once for each request. The module's own part is 600 instructions. A backend in \
    dom0's kernel, as Xen's own is, would save the process.";

const ARM: &str = "virtio-mmio has the guest's driver read InterruptStatus and write InterruptACK for each interrupt, so a request \
    makes three accesses with its kick, and each stops the vCPU until the engine in dom0 has answered: these are the guest's \
    three exits. On x86 an MSI-X vector needs no such access. A notification of Xen's own drivers is an event in either \
    direction, and an exit costs Xen little on Arm, so that they lose little by theirs. For a disk a process is woken \
    besides, where Xen's own backend is in dom0's kernel.";
const SCSI: &str = "It is Linux's own way: for each request vhost's thread is woken twice, for the kick and for the \
    answer, and in between a kernel thread that ends it (LIO's work queue), where blkback wakes one thread once. A PVH dom0 \
    reads the clock for each of these switches, each time by an exit. The module's own part is 700 instructions, and \
    xen-virtio is not woken.";

const ROOT: &str = "Each folder, file, module and program of the guest is a request to virtiofsd, a process that is woken for \
    it, where an initramfs is in memory when the guest begins.";

/// How many thousandths of what the base of its set takes.
fn limit(platform: Platform, server: Server, load: Load) -> u64 {
    if platform == Platform::Arm64 {
        return 1000;
    }
    let [pv, pvh] = match (server, load) {
        (Server::Hvm, _) => [500, 500],
        (Server::Scsi, _) => [1000, 1000],
        (Server::Eight | Server::SixtyFour, _) => [1050, 1050],
        (_, Load::Ping) => [580, 700],
        (_, Load::ToGuest | Load::FromGuest) => [1000, 900],
        (_, Load::Disk(Disk { bytes: 4096, depth: 1, .. })) => [850, 1100],
        (_, Load::Disk(_)) => [800, 1000],
    };
    if platform == Platform::X86Pvh { pvh } else { pv }
}

/// What a set's servers promise. Compared are medians.
fn of_set(platform: Platform, figures: &Figures, set: &Set) -> Vec<Target> {
    let (base, of) = set.base;
    let cases = set.held.iter().flat_map(|held| set.loads().iter().map(move |load| (*held, *load)));
    let median = |server, load| Some(figures.of(server, load)?.0.ticks.each.median());
    let target = |(server, load): (Server, Load)| {
        let (ours, other) = median(server, load).zip(median(base, load))?;
        let limit = limit(platform, server, load);
        let whose = match server {
            Server::Kernel => String::new(),
            _ => format!("{}: ", title(server)),
        };
        let promise = format!(
            "{whose}{}: at most {}.{:02} of {of}",
            load.title(),
            limit / 1000,
            limit / 10 % 100
        );
        Some(Target { why: why(platform, server, load), ..at_most(promise, ours, other, limit) })
    };
    cases.filter_map(target).collect()
}

/// All that these figures can be held to, with the kernel engine.
pub(super) fn all(platform: Platform, figures: &Figures) -> Vec<Target> {
    let sets = sets::of(platform);
    let mut targets: Vec<_> = sets.flat_map(|set| of_set(platform, figures, set)).collect();
    targets.extend(wakeups(figures));
    if let Some(started) = figures.started(Server::Kernel) {
        let memory = started.memory.get("VmHWM").copied().unwrap_or(u64::MAX);
        targets.push(Target {
            promise: "xen-virtio: less than 8 MiB in memory".to_owned(),
            measured: format!("{} KiB", grouped(memory)),
            kept: memory < MEMORY,
            why: None,
        });
        targets.push(Target {
            promise: "xen-virtio: less than 50 ms of processor time until its guest runs"
                .to_owned(),
            measured: format!("{} instructions, a nanosecond each", grouped(started.until_it_runs)),
            kept: started.until_it_runs < START,
            why: None,
        });
    }
    let until_read = |server| Some(figures.started(server)?.until_first_read);
    if let (Some(root), Some(xens)) = (until_read(Server::Root), until_read(Server::Pv)) {
        let promise =
            "a start with the root on virtiofs: at most 1.00 of Xen's own disk and an initramfs";
        targets.push(Target { why: Some(ROOT), ..at_most(promise, root, xens, 1000) });
    }
    targets
}

/// Who is woken while data flows.
fn wakeups(figures: &Figures) -> Vec<Target> {
    let woken = |load, counts: fn(&str) -> bool| {
        let processes = &figures.of(Server::Kernel, load)?.0.processes;
        let counted = processes.iter().filter(|(name, _)| counts(name));
        Some(counted.map(|(_, process)| process.woken).sum::<u64>())
    };
    let requests = u64::from(REQUESTS);
    let target = |promise: &str, woken: u64| Target {
        promise: promise.to_owned(),
        measured: format!("{} in {} requests", grouped(woken), grouped(requests)),
        kept: woken * 100 < requests,
        why: None,
    };
    let mut targets = Vec::new();
    let loads = Load::ALL.into_iter();
    // Something wakes up by a timer now and then, and when the guest writes its answer.
    if let Some(most) = loads.filter_map(|load| woken(load, |name| name == "xen-virtio")).max() {
        let promise = "no request of the guest wakes xen-virtio, whichever it is";
        targets.push(target(promise, most));
    }
    let process = |name: &str| !matches!(name, "vhost" | "kernel threads");
    if let Some(all) = woken(Load::Ping, process) {
        targets.push(target("ping: no process of dom0 is woken", all));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_load_has_its_limit_in_either_dom0() {
        let limits = |platform| Load::ALL.map(|load| limit(platform, Server::Kernel, load));
        let pv = [580, 1000, 1000, 850, 850, 800, 800, 800, 800];
        let pvh = [700, 900, 900, 1100, 1100, 1000, 1000, 1000, 1000];
        assert_eq!((limits(Platform::X86Pv), limits(Platform::X86Pvh)), (pv, pvh));
        assert_eq!(limits(Platform::Arm64), [1000; 9]);
        let others = [Server::Hvm, Server::Scsi, Server::KernelQueues, Server::SixtyFour];
        let first = |server: Server| limit(Platform::X86Pvh, server, server.loads()[0]);
        assert_eq!(others.map(first), [500, 1000, 1000, 1050]);
    }
}
