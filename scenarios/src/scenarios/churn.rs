//! Registrations come and go while the guest kicks.

use super::{BASE, DOORBELL, msi};
use crate::TestContext;
use crate::roles::vmm::Place;
use crate::test_context::{await_count, new_eventfd, rung_again, signal, taken};
use anyhow::{Result, ensure};
use xen_eventfd::IoEventAddress::Mmio;

/// How often each registration comes and goes.
const ROUNDS: u32 = 60;

/// Two queues behind one doorbell: one stays, the other comes and goes. Its bytes stay claimed, so
/// what it misses is held.
pub(super) fn assign_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; until stop; write mmio:{DOORBELL:#x} 4 0; \
         write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let xen = test.xen()?;
    let ours = xen.guest(guest.dom())?;
    let (steady, fleeting, stop) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _steady = ours.register_ioevent(&steady, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    let _stop = ours.register_irqfd(&stop, msi(0, 0x41))?;
    let mut steady_count = 0;
    for _ in 0..ROUNDS {
        let registered = ours.register_ioevent(&fleeting, &Mmio(DOORBELL), 1_u32)?;
        await_count(&fleeting, 1)?;
        registered.end()?;
        taken(&fleeting)?;
        // The guest rings both in turn: from now on, three of one are two of the other at least.
        steady_count += taken(&steady)?;
        steady_count += await_count(&steady, 3)?;
        ensure!(taken(&fleeting)? == 0, "signalled after deassign returned");
    }
    signal(&stop)?;
    guest.finish()?;
    guest.tell(test);
    steady_count += taken(&steady)?;
    let rounds = guest.rounds("stop");
    ensure!(steady_count == rounds, "{steady_count} of {rounds} kicks on the steady queue");
    let counters = ours.counters();
    ensure!(counters.late == 0, "{counters:?}");
    ensure!(counters.delivered + counters.held == 2 * rounds, "{counters:?} for {rounds} rounds");
    test.note("queues", "every kick delivered or held");
    Ok(())
}

/// Two doorbells: one stays, the other's bytes are claimed and given back. Without a VMM its kicks
/// vanish meanwhile; the other's never do. Whoever rings it rings a third one after it, so that one
/// can tell that it was rung.
pub(super) fn claim_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let (other, third) = (DOORBELL + 0x1000, DOORBELL + 0x2000);
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end; meet; say over | \
         listen msi 0x42 halt; meet; until halt; write mmio:{other:#x} 4 0; \
         write mmio:{third:#x} 4 0; end; meet"
    ))?;
    let xen = test.xen()?;
    let ours = xen.guest(guest.dom())?;
    let (steady, fleeting, beat) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let (stop, halt) = (new_eventfd()?, new_eventfd()?);
    let _steady = ours.register_ioevent(&steady, &Mmio(DOORBELL), 0_u32)?;
    let _beat = ours.register_ioevent(&beat, &Mmio(third), 0_u32)?;
    guest.start()?;
    let _stop = ours.register_irqfd(&stop, msi(0, 0x41))?;
    let _halt = ours.register_irqfd(&halt, msi(1, 0x42))?;
    for _ in 0..ROUNDS {
        let registered = ours.register_ioevent(&fleeting, &Mmio(other), 0_u32)?;
        await_count(&fleeting, 1)?;
        registered.end()?;
        taken(&fleeting)?;
        rung_again(&beat)?;
        ensure!(taken(&fleeting)? == 0, "signalled after deassign returned");
    }
    signal(&stop)?;
    signal(&halt)?;
    guest.finish()?;
    guest.tell(test);
    let (count, rounds) = (taken(&steady)?, guest.rounds("stop"));
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    test.note("queues", "every kick of the steady queue delivered");
    Ok(())
}

/// A queue changes hands between the engine and the VMM. Every kick is the engine's, the VMM's, or
/// late; a VMM that takes a queue back looks at it once, which is for those.
pub(super) fn hand_over(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test
        .guest(&format!("listen msi 0x41 stop; until stop; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let ours = xen.guest(guest.dom())?;
    let (kick, stop) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let _stop = ours.register_irqfd(&stop, msi(0, 0x41))?;
    let mut count = 0;
    for _ in 0..ROUNDS / 4 {
        let registered = ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
        count += await_count(&kick, 1)?;
        registered.end()?;
        count += taken(&kick)?;
        let before = vmm.seen()?.writes_to(DOORBELL);
        while vmm.seen()?.writes_to(DOORBELL) == before {}
    }
    signal(&stop)?;
    guest.finish()?;
    guest.tell(test);
    let (rounds, counters) = (guest.rounds("stop"), ours.counters());
    let by_vmm = vmm.seen()?.writes_to(DOORBELL);
    let answered = by_vmm + counters.delivered + counters.held + counters.late;
    ensure!(answered == rounds, "{rounds} kicks, {by_vmm} by the VMM, {counters:?}");
    ensure!(count == counters.delivered + counters.redelivered, "{count} signals, {counters:?}");
    test.note("queue", "every kick answered by one of them");
    vmm.stop()
}

/// A guest changes hands: the engine takes it, and lets go of it with the doorbell registered and kicks in
/// flight. Every kick is the engine's, also one that waited when it let go, or the VMM's.
pub(super) fn close_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen msi 0x42 halt; meet; until halt; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let kick = new_eventfd()?;
    let mut count = 0;
    guest.start()?;
    for _ in 0..ROUNDS / 4 {
        let ours = xen.guest(guest.dom())?;
        ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?.keep();
        count += await_count(&kick, 3)?;
        ours.close()?;
        count += taken(&kick)?;
        let before = vmm.seen()?.writes_to(DOORBELL);
        while vmm.seen()?.writes_to(DOORBELL) == before {}
        ensure!(taken(&kick)? == 0, "signalled after close returned");
    }
    let ours = xen.guest(guest.dom())?;
    for irq in [msi(0, 0x41), msi(1, 0x42)] {
        let stop = new_eventfd()?;
        signal(&stop)?;
        ours.register_irqfd(&stop, irq)?.keep();
    }
    guest.finish()?;
    guest.tell(test);
    let (rounds, by_vmm) =
        (guest.rounds("stop") + guest.rounds("halt"), vmm.seen()?.writes_to(DOORBELL));
    ensure!(count + by_vmm == rounds, "{rounds} kicks, {count} delivered, {by_vmm} by the VMM");
    test.note("queue", "every kick delivered or the VMM's");
    vmm.stop()
}
