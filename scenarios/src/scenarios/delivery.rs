//! Kicks are delivered.

use super::{BASE, DOORBELL, NOTIFY, msi};
use crate::TestContext;
use crate::roles::vmm::Place;
use crate::test_context::{await_count, new_eventfd, signal, take_count};
use anyhow::{Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::hint::black_box;
use xen_eventfd::IoEventAddress::Mmio;

pub(super) fn one_queue(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!("repeat 1000; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let kick = new_eventfd()?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks", take_count(&kick)?));
    let counters = served.counters();
    ensure!(counters.delivered == 1000 && counters.held == 0 && counters.late == 0, "{counters:?}");
    Ok(())
}

pub(super) fn many_queues(test: &mut TestContext<'_>) -> Result<()> {
    const DEVICES: u64 = 3;
    const QUEUES: u32 = 4;
    const ROUNDS: u32 = 50;
    let doorbells: Vec<(u64, u32)> = (0..DEVICES)
        .flat_map(|device| (0..QUEUES).map(move |queue| (DOORBELL + device * 0x1000, queue)))
        .collect();
    let write = |(addr, queue): &(u64, u32)| format!("write mmio:{addr:#x} 4 {queue}; ");
    let there: String = doorbells.iter().map(write).collect();
    let back: String = doorbells.iter().rev().map(write).collect();
    let script = format!("meet; repeat {ROUNDS}; {there}end | meet; repeat {ROUNDS}; {back}end");
    let mut guest = test.guest(&script)?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let mut queues = Vec::new();
    for (addr, queue) in &doorbells {
        let kick = new_eventfd()?;
        let registered = served.register_ioevent(&kick, &Mmio(*addr), *queue)?;
        queues.push((kick, registered));
    }
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    for ((addr, queue), (kick, _)) in doorbells.iter().zip(&queues) {
        test.note("queues", format!("{addr:#x} {queue}: {} kicks", take_count(kick)?));
    }
    let delivered = served.counters().delivered;
    ensure!(delivered == 2 * u64::from(ROUNDS) * doorbells.len() as u64, "{delivered} delivered");
    Ok(())
}

pub(super) fn vmm_beside(test: &mut TestContext<'_>) -> Result<()> {
    let (magic, status) = (BASE, BASE + 0x70);
    let script = format!(
        "read mmio:{magic:#x} 4; write mmio:{status:#x} 4 15; \
         repeat 1000; write mmio:{DOORBELL:#x} 4 1; end; read mmio:{:#x} 4",
        BASE + NOTIFY + 4
    );
    let mut guest = test.guest(&script)?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let kick = new_eventfd()?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 1_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let seen = vmm.seen()?;
    test.note("queue", format!("{} kicks", take_count(&kick)?));
    test.note("vmm", format!("{} reads", seen.reads));
    test.note("vmm", format!("{} writes of its status", seen.writes_to(status)));
    test.note("vmm", format!("{} kicks", seen.writes_to(DOORBELL)));
    // One vCPU waits for each answer, so each access that reached the VMM woke it once.
    test.note("vmm", format!("{} wakeups for kicks", seen.wakeups - seen.reads - 1));
    ensure!(seen.wakeups == 3, "the VMM was woken {} times for 3 accesses", seen.wakeups);
    vmm.stop()
}

pub(super) fn full_eventfd(test: &mut TestContext<'_>) -> Result<()> {
    let script =
        format!("repeat 100; write mmio:{DOORBELL:#x} 4 0; write mmio:{DOORBELL:#x} 4 1; end");
    let mut guest = test.guest(&script)?;
    // Blocking, and as full as a writer can make it: a plain write would sleep here.
    let hostile = eventfd(0, EventfdFlags::CLOEXEC)?;
    rustix::io::write(&hostile, &(u64::MAX - 1).to_ne_bytes())?;
    let kick = new_eventfd()?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let _full = served.register_ioevent(&hostile, &Mmio(DOORBELL), 0_u32)?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 1_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks", await_count(&kick, 100)?));
    Ok(())
}

/// A guest and threads of domain 0 compete for the CPU, and the guest uses vector registers too: a
/// string instruction of 16 bits fills its source with them. The engine's thread or interrupt handler,
/// Xen and the kernel must preserve the registers of an interrupted thread.
pub(super) fn vector_registers(test: &mut TestContext<'_>) -> Result<()> {
    const THREADS: usize = 3;
    const RESULTS: usize = 8;
    const UNCLAIMED: u16 = 0xC100;
    let script = format!(
        "listen msi 0x41 stop; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen msi 0x42 halt; until halt; rep pio:{UNCLAIMED:#x} 2 1 8; end"
    );
    let mut guest = test.guest(&script)?;
    let (kick, stop, halt) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    let _stop = served.register_irqfd(&stop, msi(0, 0x41))?;
    let _halt = served.register_irqfd(&halt, msi(1, 0x42))?;
    guest.start()?;
    await_count(&kick, 1)?;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| [(); RESULTS].map(|()| (sum(), hash())))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect::<Vec<_>>()
    });
    signal(&stop)?;
    signal(&halt)?;
    guest.finish()?;
    guest.trace_reports(test);
    ensure!(results.len() == THREADS * RESULTS, "a thread panicked");
    let (sums, hashes): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let (sums, hashes) = (distinct(sums), distinct(hashes));
    ensure!(sums == 1, "the same sum had {sums} results");
    ensure!(hashes == 1, "the same hash had {hashes} results");
    Ok(())
}

/// A sum, bit by bit. All of its state is in vector registers until its end.
fn sum() -> [u64; 8] {
    let mut lanes = black_box([1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    for step in 0..100_000_u32 {
        for lane in &mut lanes {
            // Not below 1: a register that was lost early would have no effect on the sum.
            *lane = *lane * 1.000_001 + f64::from(step);
        }
    }
    lanes.map(f64::to_bits)
}

/// The SHA-256 of a MiB. Where a CPU has instructions for it, its state is in vector registers, and the instructions are others
/// than those of a sum.
fn hash() -> [u8; 32] {
    let mut hash = Sha256::new();
    for block in 0..256_u16 {
        hash.update(black_box([block.to_le_bytes()[0]; 4096]));
    }
    hash.finalize().into()
}

/// How many values are among these.
fn distinct<T: Ord>(values: impl IntoIterator<Item = T>) -> usize {
    values.into_iter().collect::<BTreeSet<_>>().len()
}
