//! How guests share the CPUs of dom0: the ports of their doorbells, and when an event ends.

use super::common::{DOORBELL, Notifier};
use super::trace::{self, On, traced};
use crate::device::GuestFile;
use crate::device::structs::Doorbell;
use anyhow::{Result, ensure};
use std::fs;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::report_lines::{Flood, Neighbour};
use xen_eventfd_scenarios::test_context::{Guest, await_count, new_eventfd, take_count};

/// Kicks of the neighbour in each measurement.
const KICKS: u64 = 200;

/// Kicks of each vCPU where four of them kick at once.
const WRITES: u64 = 500;

/// More events than one upcall has where each port is handled once in it, and a quarter of those after which
/// Linux begins to think of deferring ends (`handle_irq_for_port` of `drivers/xen/events/events_base.c`).
const LONG_UPCALL: u64 = 64;

/// Makes one CPU of dom0 handle all of the module's events.
fn on_one_cpu() -> Result<()> {
    irqs()?.iter().try_for_each(|irq| handle_on(irq, 0))
}

/// Makes all CPUs of dom0 handle the module's events, each those of some vCPUs.
fn on_all_cpus() -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > 1, "domain 0 has one CPU");
    irqs()?.iter().zip((0..cpus).cycle()).try_for_each(|(irq, cpu)| handle_on(irq, cpu))
}

/// Linux's numbers of the module's ports.
fn irqs() -> Result<Vec<String>> {
    let interrupts = fs::read_to_string("/proc/interrupts")?;
    let ours = interrupts.lines().filter(|line| line.ends_with("xen-eventfd"));
    Ok(ours.filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

fn handle_on(irq: &str, cpu: usize) -> Result<()> {
    Ok(fs::write(format!("/proc/irq/{irq}/smp_affinity_list"), cpu.to_string())?)
}

/// Makes the neighbour kick, and returns how often Linux deferred the end of an event meanwhile, and how many
/// events its longest upcall had.
fn deferred(neighbour: &mut Guest, go: &Notifier, when: &str) -> Result<(u64, u64)> {
    trace::probe_upcalls()?;
    let on = On::switch(&["workqueue/workqueue_execute_start", "kprobes/upcall_event"])?;
    go.notify()?;
    let ticks = neighbour.measured()?;
    drop(on);
    let (when, min, median, max) = (when.to_owned(), ticks.min, ticks.median, ticks.max);
    println!("{}", Neighbour { when, min, median, max });
    let started = traced("workqueue_execute_start")?;
    let ended = started.iter().filter(|line| line.contains("xen_irq_lateeoi_worker"));
    Ok((u64::try_from(ended.count())?, trace::longest_upcall()?))
}

pub(super) fn flood(test: &mut TestContext<'_>) -> Result<()> {
    if !trace::is_there() {
        return Ok(());
    }
    let vcpu = |stop| {
        format!(
            "listen evtchn stop{stop}; meet; until stop{stop}; write mmio:{DOORBELL:#x} 4 i; end"
        )
    };
    let vcpus: Vec<String> = (0..8).map(vcpu).collect();
    let mut attacker = test.guest(&vcpus.join(" | "))?;
    let kicks = format!("wait go; time write mmio:{DOORBELL:#x} 4 0 {KICKS}");
    let mut neighbour = test.guest(&format!("listen evtchn go; say ready; {kicks}; {kicks}"))?;
    let (attacked, served) = (GuestFile::of(attacker.dom())?, GuestFile::of(neighbour.dom())?);
    let (queue, kick) = (new_eventfd()?, new_eventfd()?);
    attacked.assign(&Doorbell::value(DOORBELL, 4, u64::from(u32::MAX), &queue))?;
    served.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    neighbour.start()?;
    neighbour.await_message(0, "ready")?;
    let go = Notifier::to(test, &mut neighbour, "go")?;
    on_one_cpu()?;
    let (alone, _) = deferred(&mut neighbour, &go, "alone")?;
    attacker.start()?;
    let stops = (0..8)
        .map(|vcpu| Notifier::to(test, &mut attacker, &format!("stop{vcpu}")))
        .collect::<Result<Vec<_>>>()?;
    let before = attacked.stats()?.held;
    let (beside, longest) = deferred(&mut neighbour, &go, "beside a flood of 8 vCPUs")?;
    let kicks = attacked.stats()?.held - before;
    println!("{}", Flood { kicks, deferred: beside, longest });
    stops.iter().try_for_each(Notifier::notify)?;
    attacker.finish()?;
    neighbour.finish()?;
    ensure!(await_count(&kick, 2 * KICKS)? == 2 * KICKS && take_count(&queue)? == 0);
    ensure!((alone, beside) == (0, 0), "the end of {alone} and {beside} events was deferred");
    ensure!(longest > 0, "no event was traced");
    ensure!(longest < LONG_UPCALL, "the flood keeps an upcall going for {longest} events");
    Ok(())
}

pub(super) fn no_waits(test: &mut TestContext<'_>) -> Result<()> {
    if !trace::is_there() {
        return Ok(());
    }
    let writes = |vcpu| format!("repeat {WRITES}; write mmio:{DOORBELL:#x} 4 {vcpu}; end");
    let others: Vec<String> = (1..4).map(|vcpu| format!("meet; {}", writes(vcpu))).collect();
    let first = format!("listen evtchn go; say ready; wait go; meet; {}", writes(0));
    let mut guest = test.guest(&format!("{first} | {}", others.join(" | ")))?;
    let file = GuestFile::of(guest.dom())?;
    let kicks = (0..4).map(|_| new_eventfd()).collect::<Result<Vec<_>>>()?;
    for (queue, kick) in (0..).zip(&kicks) {
        file.assign(&Doorbell::value(DOORBELL, 4, queue, kick))?;
    }
    guest.start()?;
    guest.await_message(0, "ready")?;
    let go = Notifier::to(test, &mut guest, "go")?;
    on_all_cpus()?;
    let Some(waits) = trace::Waits::trace()? else { return Ok(()) };
    go.notify()?;
    guest.finish()?;
    for kick in &kicks {
        ensure!(await_count(kick, WRITES)? == WRITES);
    }
    let waited = waits.of_handlers()?;
    println!(
        "4 vCPUs wrote {WRITES} times each; handlers waited for a lock {} times",
        waited.len()
    );
    ensure!(waited.is_empty(), "of {} waits the first: {:#?}", waited.len(), waited[0]);
    Ok(())
}
