//! Registrations are added and removed while the guest kicks.

use super::{BASE, DOORBELL, call_irq};
use crate::TestContext;
use crate::roles::vmm::Place;
use crate::test_context::{await_count, await_next_beat, new_eventfd, signal, take_count};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::Irq;

/// How often each registration is added and removed.
const ROUNDS: u32 = 60;

/// Two queues behind one doorbell: one stays, the other is added and removed. Its bytes stay claimed, so
/// the kicks that it misses are held.
pub(super) fn assign_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; until stop; write mmio:{DOORBELL:#x} 4 0; \
         write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (steady, transient, stop) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _steady = served.register_ioevent(&steady, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    let _stop = served.register_irqfd(&stop, call_irq(test.arch(), 0, 0x41))?;
    let mut steady_count = 0;
    for _ in 0..ROUNDS {
        let registered = served.register_ioevent(&transient, &Mmio(DOORBELL), 1_u32)?;
        await_count(&transient, 1)?;
        registered.end()?;
        take_count(&transient)?;
        // The guest kicks both in turn: from now on, three kicks of one are at least two of the other.
        steady_count += take_count(&steady)?;
        steady_count += await_count(&steady, 3)?;
        ensure!(take_count(&transient)? == 0, "signalled after deassign returned");
    }
    signal(&stop)?;
    guest.finish()?;
    guest.trace_reports(test);
    steady_count += take_count(&steady)?;
    let rounds = guest.rounds("stop");
    ensure!(steady_count == rounds, "{steady_count} of {rounds} kicks on the steady queue");
    let counters = served.counters();
    ensure!(counters.late == 0, "{counters:?}");
    ensure!(counters.delivered + counters.held == 2 * rounds, "{counters:?} for {rounds} rounds");
    test.note("queues", "every kick delivered or held");
    Ok(())
}

/// Two doorbells: one stays, the other's bytes are claimed and released. Without a VMM its kicks are
/// dropped in between; the steady one's never are. The vCPU that kicks the transient doorbell kicks a
/// third one after it, so that the test sees that it kicked.
pub(super) fn claim_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let (other, third) = (DOORBELL + 0x1000, DOORBELL + 0x2000);
    let mut guest = test.guest(&format!(
        "listen msi 0x41 stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end; meet; say over | \
         listen msi 0x42 halt; meet; until halt; write mmio:{other:#x} 4 0; \
         write mmio:{third:#x} 4 0; end; meet"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (steady, transient, beat) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let (stop, halt) = (new_eventfd()?, new_eventfd()?);
    let _steady = served.register_ioevent(&steady, &Mmio(DOORBELL), 0_u32)?;
    let _beat = served.register_ioevent(&beat, &Mmio(third), 0_u32)?;
    guest.start()?;
    let _stop = served.register_irqfd(&stop, call_irq(test.arch(), 0, 0x41))?;
    let _halt = served.register_irqfd(&halt, call_irq(test.arch(), 1, 0x42))?;
    for _ in 0..ROUNDS {
        let registered = served.register_ioevent(&transient, &Mmio(other), 0_u32)?;
        await_count(&transient, 1)?;
        registered.end()?;
        take_count(&transient)?;
        await_next_beat(&beat)?;
        ensure!(take_count(&transient)? == 0, "signalled after deassign returned");
    }
    signal(&stop)?;
    signal(&halt)?;
    guest.finish()?;
    guest.trace_reports(test);
    let (count, rounds) = (take_count(&steady)?, guest.rounds("stop"));
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    test.note("queues", "every kick of the steady queue delivered");
    Ok(())
}

/// A queue moves between the engine and the VMM. Every kick is the engine's, the VMM's, or
/// late; a VMM that takes a queue back checks it once, for the late kicks.
pub(super) fn hand_over(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test
        .guest(&format!("listen msi 0x41 stop; until stop; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (kick, stop) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let _stop = served.register_irqfd(&stop, call_irq(test.arch(), 0, 0x41))?;
    let mut count = 0;
    for _ in 0..ROUNDS / 4 {
        let registered = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
        count += await_count(&kick, 1)?;
        registered.end()?;
        count += take_count(&kick)?;
        let before = vmm.seen()?.writes_to(DOORBELL);
        while vmm.seen()?.writes_to(DOORBELL) == before {}
    }
    signal(&stop)?;
    guest.finish()?;
    guest.trace_reports(test);
    let (rounds, counters) = (guest.rounds("stop"), served.counters());
    let by_vmm = vmm.seen()?.writes_to(DOORBELL);
    let answered = by_vmm + counters.delivered + counters.held + counters.late;
    ensure!(answered == rounds, "{rounds} kicks, {by_vmm} by the VMM, {counters:?}");
    ensure!(count == counters.delivered + counters.redelivered, "{count} signals, {counters:?}");
    test.note("queue", "every kick answered by one of them");
    vmm.stop()
}

/// The engine takes a guest and closes it with the doorbell registered and kicks in
/// flight. Every kick reaches the engine, also one in flight at the close, or the VMM.
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
        let served = xen.guest(guest.dom())?;
        served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?.keep();
        count += await_count(&kick, 3)?;
        // Kicks of both vCPUs that came between the claim and the registration are one signal.
        let counters = served.counters();
        count += counters.held - counters.redelivered;
        served.close()?;
        count += take_count(&kick)?;
        let before = vmm.seen()?.writes_to(DOORBELL);
        while vmm.seen()?.writes_to(DOORBELL) == before {}
        ensure!(take_count(&kick)? == 0, "signalled after close returned");
    }
    let served = xen.guest(guest.dom())?;
    for irq in [call_irq(test.arch(), 0, 0x41), call_irq(test.arch(), 1, 0x42)] {
        let stop = new_eventfd()?;
        signal(&stop)?;
        served.register_irqfd(&stop, irq)?.keep();
    }
    guest.finish()?;
    guest.trace_reports(test);
    let (rounds, by_vmm) =
        (guest.rounds("stop") + guest.rounds("halt"), vmm.seen()?.writes_to(DOORBELL));
    ensure!(count + by_vmm == rounds, "{rounds} kicks, {count} delivered, {by_vmm} by the VMM");
    test.note("queue", "every kick delivered or answered by the VMM");
    vmm.stop()
}

/// A vCPU that is paused does not take the answer to its kick. Where it waits with pointers to the server, as on Arm, the
/// server stays, disabled, and what would serve the guest next does not wait for it.
pub(super) fn closed_while_paused(test: &mut TestContext<'_>) -> Result<()> {
    /// On Arm until a vCPU was amid a kick.
    const MOST: u32 = 5;
    let mut guest =
        test.guest(&format!("listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let dom = guest.dom();
    let vmm = test.vmm(dom, &[(Place::Mmio, BASE, 0x200)])?;
    let stays = test.arch().waits_at_server();
    let servers = test.environment().servers(dom)?.len();
    let xen = test.xen()?;
    let kick = new_eventfd()?;
    let (mut count, mut stayed) = (0, false);
    guest.start()?;
    for _ in 0..MOST {
        let served = xen.guest(dom)?;
        served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?.keep();
        count += await_count(&kick, 3)?;
        guest.pause()?;
        let counters = served.counters();
        count += counters.held - counters.redelivered;
        let closed = served.close();
        count += take_count(&kick)?;
        stayed = test.environment().servers(dom)?.len() > servers;
        guest.unpause()?;
        match closed {
            // The module says it in the kernel's log.
            Ok(()) => {}
            Err(error) if stays && error.errno() == Errno::BUSY => {
                ensure!(stayed && error.to_string().contains("xl unpause"), "{error}");
            }
            Err(error) => return Err(error.into()),
        }
        let before = vmm.seen()?.writes_to(DOORBELL);
        while vmm.seen()?.writes_to(DOORBELL) == before {}
        ensure!(take_count(&kick)? == 0, "signalled after close returned");
        if stayed {
            break;
        }
    }
    ensure!(stayed == stays, "a server stayed: {stayed}");
    let served = xen.guest(dom)?;
    let stop = new_eventfd()?;
    signal(&stop)?;
    served.register_irqfd(&stop, Irq::EventChannel(guest.port("stop")?))?.keep();
    guest.finish()?;
    guest.trace_reports(test);
    let (rounds, by_vmm) = (guest.rounds("stop"), vmm.seen()?.writes_to(DOORBELL));
    ensure!(count + by_vmm == rounds, "{rounds} kicks, {count} delivered, {by_vmm} by the VMM");
    test.note("queue", "every kick delivered or answered by the VMM");
    vmm.stop()
}
