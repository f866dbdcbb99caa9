//! One round: everything is created, used, and removed, in each of the possible ways.

use crate::TestContext;
use crate::roles::vmm::Place;
use crate::scenarios::call_irq;
use crate::test_context::{Guest, await_count, new_eventfd, signal};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::time::Instant;
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::{DomId, Irq, Xen};
use xen_eventfd_core::irq::Arch;

/// A device's registers.
const BASE: u64 = 0xFE00_0000;
/// Its doorbell.
const DOORBELL: u64 = BASE + 0x50;
/// Engines of one guest in a round, one after the other.
const ENGINES: u64 = 4;
/// Of each engine.
const REGISTRATIONS: u64 = 50;
/// Of each engine.
const IRQFDS: u64 = 20;
/// Of each queue, for each engine.
const KICKS: u64 = 20;

/// Counts of what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Guests that were created and destroyed.
    pub guests: u64,
    /// Engines that served a guest.
    pub engines: u64,
    /// Engines of those that were killed.
    pub killed: u64,
    /// Doorbells that were registered.
    pub registrations: u64,
    /// Interrupts that were registered.
    pub irqfds: u64,
    /// Kicks that were delivered, at least.
    pub kicks: u64,
}

impl Done {
    /// Each count with its name.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("guests", self.guests),
            ("engines", self.engines),
            ("of them killed", self.killed),
            ("doorbells", self.registrations),
            ("irqfds", self.irqfds),
            ("kicks", self.kicks),
        ]
    }
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.guests += other.guests;
        self.engines += other.engines;
        self.killed += other.killed;
        self.registrations += other.registrations;
        self.irqfds += other.irqfds;
        self.kicks += other.kicks;
    }
}

/// The vector of an interrupt that no vCPU waits for.
const CALL: u32 = 0x40;
/// Those of the interrupts that end the two vCPUs.
const STOPS: [(u64, u32); 2] = [(0, 0x41), (1, 0x42)];

pub(super) fn run(test: &TestContext<'_>, nth: u64) -> Result<Done> {
    let mut done = Done { guests: 1, ..Done::default() };
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen msi 0x42 halt; meet; until halt; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    guest.start()?;
    let dom = guest.dom();
    let xen = test.xen()?;
    for _ in 0..ENGINES {
        done += serve(&xen, dom, call_irq(test.arch(), 0, CALL))?;
    }
    done += killed(test, dom)?;
    emulate(test, dom)?;
    // Stopped cleanly, or destroyed while it kicks and is served.
    if nth.is_multiple_of(2) {
        stop(&xen, test.arch(), &mut guest)?;
        guest.destroy()?;
    } else {
        let served = xen.guest(dom)?;
        let queues = queues()?;
        let _zero = served.register_ioevent(&queues[0], &Mmio(DOORBELL), 0_u32)?;
        await_count(&queues[0], KICKS)?;
        guest.destroy()?;
        ensure!(test.notices_death(&served)?, "the engine did not notice that the guest died");
        done += Done { engines: 1, registrations: 1, kicks: KICKS, ..Done::default() };
    }
    Ok(done)
}

fn queues() -> Result<[OwnedFd; 2]> {
    Ok([new_eventfd()?, new_eventfd()?])
}

/// Creates and removes an engine, its doorbells and its interrupts during kicks.
fn serve(xen: &Xen, dom: DomId, call: Irq) -> Result<Done> {
    let served = xen.guest(dom)?;
    let (queues, transient) = (queues()?, new_eventfd()?);
    let _zero = served.register_ioevent(&queues[0], &Mmio(DOORBELL), 0_u32)?;
    let _one = served.register_ioevent(&queues[1], &Mmio(DOORBELL), 1_u32)?;
    for nth in 0..REGISTRATIONS {
        // Beside the others, and at bytes of its own.
        let addr = DOORBELL + 0x1000 * (nth % 8);
        served.register_ioevent(&transient, &Mmio(addr), 7_u32)?.end()?;
    }
    for _ in 0..IRQFDS {
        let eventfd = new_eventfd()?;
        let irqfd = served.register_irqfd(&eventfd, call)?;
        signal(&eventfd)?;
        drop(irqfd);
    }
    queues.iter().try_for_each(|queue| await_count(queue, KICKS).map(drop))?;
    let kicks = served.counters().delivered;
    served.close()?;
    Ok(Done {
        engines: 1,
        registrations: 2 + REGISTRATIONS,
        irqfds: IRQFDS,
        kicks,
        ..Done::default()
    })
}

/// Kills an engine in a process of its own during kicks.
fn killed(test: &TestContext<'_>, dom: DomId) -> Result<Done> {
    let queues = queues()?;
    let engine = test.engine(dom, &[(DOORBELL, 0, &queues[0]), (DOORBELL, 1, &queues[1])], None)?;
    queues.iter().try_for_each(|queue| await_count(queue, KICKS).map(drop))?;
    engine.kill()?;
    test.environment().after_death()?;
    test.environment().guarded(dom)?;
    Ok(Done { engines: 1, killed: 1, registrations: 2, kicks: 2 * KICKS, ..Done::default() })
}

/// Starts and stops a device model. It gets the kicks while there is no engine.
fn emulate(test: &TestContext<'_>, dom: DomId) -> Result<()> {
    let vmm = test.vmm(dom, &[(Place::Mmio, BASE, 0x200)])?;
    let since = Instant::now();
    while vmm.seen()?.writes_to(DOORBELL) < KICKS {
        ensure!(since.elapsed() < crate::PATIENCE, "the VMM gets no kicks");
    }
    vmm.stop()
}

fn stop(xen: &Xen, arch: Arch, guest: &mut Guest) -> Result<()> {
    let served = xen.guest(guest.dom())?;
    for irq in STOPS.map(|(vcpu, vector)| call_irq(arch, vcpu, vector)) {
        let stop = new_eventfd()?;
        signal(&stop)?;
        served.register_irqfd(&stop, irq)?.keep();
    }
    guest.finish()?;
    served.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::environment::model::ModelEnvironment;

    #[test]
    fn rounds_of_both_kinds_leave_no_guest_behind() {
        let environment = ModelEnvironment::new().unwrap();
        for nth in 1..=2 {
            let done = run(&TestContext::new(&environment), nth).unwrap();
            assert_eq!((done.guests, done.killed), (1, 1));
            assert_eq!(environment.zombies().unwrap(), []);
        }
    }
}
