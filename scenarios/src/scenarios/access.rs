//! Every kind of access to a doorbell.

use super::{BASE, DOORBELL, call_irq};
use crate::TestContext;
use crate::roles::vmm::Place;
use crate::test_context::{Guest, await_count, new_eventfd, signal, take_count};
use anyhow::{Result, ensure};
use xen_eventfd::IoEventAddress::{Mmio, Pio};
use xen_eventfd::{AnyValue, Counters, Masked, NoDatamatch, Width};
use xen_eventfd_core::irq::Arch;

pub(super) fn widths(test: &mut TestContext<'_>) -> Result<()> {
    let writes: String = [1, 2, 4, 8]
        .iter()
        .map(|w| format!("repeat {w}; write mmio:{DOORBELL:#x} {w} 1; end; "))
        .collect();
    let mut guest = test.guest(writes.trim_end_matches("; "))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?, new_eventfd()?];
    let at = Mmio(DOORBELL);
    let _byte = served.register_ioevent(&kicks[0], &at, 1_u8)?;
    let _half = served.register_ioevent(&kicks[1], &at, 1_u16)?;
    let _word = served.register_ioevent(&kicks[2], &at, 1_u32)?;
    let _long = served.register_ioevent(&kicks[3], &at, 1_u64)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    for (kick, width) in kicks.iter().zip([1, 2, 4, 8]) {
        test.note("queues", format!("width {width}: {} kicks", take_count(kick)?));
    }
    Ok(())
}

pub(super) fn notification_data(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 0x80010003; write mmio:{DOORBELL:#x} 4 3; \
         write mmio:{DOORBELL:#x} 4 0x30004"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (three, four) = (new_eventfd()?, new_eventfd()?);
    let queue = |value| Masked { width: Width::Four, value, mask: 0xFFFF };
    let _three = served.register_ioevent(&three, &Mmio(DOORBELL), queue(3))?;
    let _four = served.register_ioevent(&four, &Mmio(DOORBELL), queue(4))?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queues", format!("3: {}, 4: {}", take_count(&three)?, take_count(&four)?));
    Ok(())
}

pub(super) fn doorbell_read(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "read mmio:{DOORBELL:#x} 4; read mmio:{DOORBELL:#x} 2; write mmio:{DOORBELL:#x} 4 0"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let kick = new_eventfd()?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks, {} reads", take_count(&kick)?, served.counters().reads));
    Ok(())
}

pub(super) fn wildcard_beside(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 i; end; write mmio:{DOORBELL:#x} 2 1"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (one, rest, other) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _one = served.register_ioevent(&one, &Mmio(DOORBELL), 1_u32)?;
    let _rest = served.register_ioevent(&rest, &Mmio(DOORBELL), AnyValue(Width::Four))?;
    let _other = served.register_ioevent(&other, &Mmio(DOORBELL), AnyValue(Width::Two))?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let counts = format!(
        "1: {}, rest: {}, halves: {}",
        take_count(&one)?,
        take_count(&rest)?,
        take_count(&other)?
    );
    test.note("queues", counts);
    Ok(())
}

pub(super) fn fallback(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 1; repeat 3; write mmio:{DOORBELL:#x} 4 9; end; \
         write mmio:{DOORBELL:#x} 1 7; write mmio:{:#x} 2 1",
        DOORBELL + 2
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (one, rest) = (new_eventfd()?, new_eventfd()?);
    let _one = served.register_ioevent(&one, &Mmio(DOORBELL), 1_u32)?;
    let missed = served.register_fallback(&rest, &Mmio(DOORBELL), 4)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queues", format!("1: {}, fallback: {}", take_count(&one)?, take_count(&rest)?));
    let missed = missed.take();
    for (kick, count) in missed.kicks {
        let width = kick.access.width.bytes();
        test.note("missed", format!("{} as {width} bytes, {count} times", kick.value));
    }
    // A write that begins inside the doorbell, not at it, has no other receiver.
    test.note("held", format!("{}", served.counters().held));
    ensure!(missed.overflowed == 0);
    Ok(())
}

pub(super) fn held(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 9; end; write mmio:{DOORBELL:#x} 4 8"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (one, nine, seven) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _one = served.register_ioevent(&one, &Mmio(DOORBELL), 1_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let values: Vec<u64> = served.held().iter().map(|kick| kick.value).collect();
    test.note("held", format!("{values:?}"));
    let _nine = served.register_ioevent(&nine, &Mmio(DOORBELL), 9_u32)?;
    let _seven = served.register_ioevent(&seven, &Mmio(DOORBELL), 7_u32)?;
    let rest = new_eventfd()?;
    let fallback = served.register_fallback(&rest, &Mmio(DOORBELL), 4)?;
    let values: Vec<u64> = fallback.take().kicks.iter().map(|(kick, _)| kick.value).collect();
    test.note("fallback", format!("{values:?}, {} signals", take_count(&rest)?));
    let counts =
        format!("1: {}, 9: {}, 7: {}", take_count(&one)?, take_count(&nine)?, take_count(&seven)?);
    test.note("queues", counts);
    let values: Vec<u64> = served.held().iter().map(|kick| kick.value).collect();
    test.note("held", format!("{values:?}"));
    Ok(())
}

pub(super) fn before_the_claim(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen msi 0x41 go; write mmio:{DOORBELL:#x} 4 0; say early; wait go; \
         write mmio:{DOORBELL:#x} 4 0; say served; wait go; write mmio:{DOORBELL:#x} 4 0"
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (kick, go) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let _go = served.register_irqfd(&go, call_irq(test.arch(), 0, 0x41))?;
    guest.await_message(0, "early")?;
    test.note("vmm", format!("{} kicks before", vmm.seen()?.writes_to(DOORBELL)));
    let queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    signal(&go)?;
    guest.await_message(0, "served")?;
    test.note("queue", format!("{} kicks", await_count(&kick, 1)?));
    test.note("vmm", format!("{} kicks meanwhile", vmm.seen()?.writes_to(DOORBELL)));
    drop(queue);
    signal(&go)?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("vmm", format!("{} kicks after", vmm.seen()?.writes_to(DOORBELL)));
    test.note("queue", format!("{} kicks more", take_count(&kick)?));
    vmm.stop()
}

pub(super) fn claimed_by_a_wildcard(test: &mut TestContext<'_>) -> Result<()> {
    let write = format!("write mmio:{DOORBELL:#x} 4 0");
    let mut guest = test.guest(&format!(
        "listen msi 0x41 go; {write}; say served; wait go; {write}; say without; wait go; {write}; say again; \
         wait go; {write}; read mmio:{DOORBELL:#x} 4"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (kick, all, go) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _go = served.register_irqfd(&go, call_irq(test.arch(), 0, 0x41))?;
    let wildcard = served.register_ioevent(&all, &Mmio(DOORBELL), NoDatamatch(4))?;
    let queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.await_message(0, "served")?;
    drop(queue);
    signal(&go)?;
    guest.await_message(0, "without")?;
    ensure!(await_count(&all, 1)? == 1, "the wildcard has one kick");
    let queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    signal(&go)?;
    guest.await_message(0, "again")?;
    ensure!(await_count(&kick, 2)? == 2, "the queue has the others");
    // An Arm guest reports the first of its accesses that nothing claims.
    let aborts =
        |guest: &Guest| guest.reports(0).iter().filter(|line| line.starts_with("abort")).count();
    ensure!(aborts(&guest) == 0, "{:?}", guest.reports(0));
    drop((queue, wildcard));
    signal(&go)?;
    guest.finish()?;
    ensure!(aborts(&guest) == usize::from(test.arch() == Arch::Arm), "{:?}", guest.reports(0));
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks more", take_count(&kick)?));
    test.note("wildcard", format!("{} kicks more", take_count(&all)?));
    Ok(())
}

pub(super) fn string_writes(test: &mut TestContext<'_>) -> Result<()> {
    let port = 0xC050;
    let mut guest = test.guest(&format!(
        "rep mmio:{DOORBELL:#x} 4 7 1; rep mmio:{DOORBELL:#x} 2 7 2; say memory; \
         rep pio:{port:#x} 2 3 8; rep pio:{port:#x} 4 3 1; say ports; write mmio:{DOORBELL:#x} 4 7"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (memory, ports) = (new_eventfd()?, new_eventfd()?);
    let _memory = served.register_ioevent(&memory, &Mmio(DOORBELL), NoDatamatch(4))?;
    let _ports = served.register_ioevent(&ports, &Pio(port), NoDatamatch(4))?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let Counters { delivered, odd, held, late, .. } = served.counters();
    test.note("engine", format!("{delivered} delivered, {odd} odd, {held} held, {late} late"));
    test.note(
        "queues",
        format!("memory: {}, ports: {}", take_count(&memory)?, take_count(&ports)?),
    );
    Ok(())
}

pub(super) fn ports(test: &mut TestContext<'_>) -> Result<()> {
    let port = 0xC050;
    let mut guest = test.guest(&format!(
        "repeat 10; write pio:{port:#x} 2 1; end; write pio:{port:#x} 4 1; \
         write pio:{port:#x} 1 1; read pio:{port:#x} 2"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (half, word, byte) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let _half = served.register_ioevent(&half, &Pio(port), 1_u16)?;
    let _word = served.register_ioevent(&word, &Pio(port), 1_u32)?;
    let _byte = served.register_ioevent(&byte, &Pio(port), 1_u8)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let counts =
        format!("2: {}, 4: {}, 1: {}", take_count(&half)?, take_count(&word)?, take_count(&byte)?);
    test.note("queues", counts);
    Ok(())
}

pub(super) fn memory_given_back(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 10; write mmio:{DOORBELL:#x} 4 0; balloon 1; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let kick = new_eventfd()?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks", take_count(&kick)?));
    test.note("engine", format!("{} broadcasts", served.counters().broadcasts));
    test.note("vmm", format!("{} broadcasts", vmm.seen()?.broadcasts));
    vmm.stop()
}
