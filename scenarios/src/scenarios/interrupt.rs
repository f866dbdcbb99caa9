//! Eventfds to interrupts, and event channels to eventfds.

use super::{BASE, DOORBELL};
use crate::roles::vmm::Place;
use crate::test_context::{Guest, await_count, new_eventfd, signal, take_count};
use crate::{PATIENCE, TestContext};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::{InterruptStatus, Irq, IrqFd, Line, Trigger};

/// Waits until the engine has counted this many: the guest may be faster than the counter.
fn settled(irqfd: &IrqFd, count: u64) -> Result<()> {
    let since = Instant::now();
    while irqfd.raised() + irqfd.failed() < count {
        ensure!(since.elapsed() < PATIENCE, "{} of {count} raised", irqfd.raised());
        std::thread::yield_now();
    }
    Ok(())
}

/// Interrupts the guest `times` times; it acknowledges each by a kick.
fn ping_pong(test: &mut TestContext<'_>, listen: &str, times: u32, irq: Option<Irq>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen {listen} call; say ready; repeat {times}; wait call; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = call_of(&mut guest, irq)?;
    let irqfd = served.register_irqfd(&call, irq)?;
    for _ in 0..times {
        signal(&call)?;
        await_count(&kick, 1)?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, times.into())?;
    test.note("irqfd", format!("{} raised, {} failed", irqfd.raised(), irqfd.failed()));
    Ok(())
}

pub(super) fn event_channel(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "evtchn", 1000, None)
}

pub(super) fn msi(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "msi 0x41", 1000, Some(super::msi(0, 0x41)))
}

pub(super) fn isa_line(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "isa 5", 1000, Some(Irq::Line(Line::Isa(5), Trigger::Pulse)))
}

pub(super) fn spi(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "spi 40 edge", 1000, Some(Irq::Line(Line::Spi(40), Trigger::Pulse)))
}

pub(super) fn spi_level(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 100;
    let mut guest = test.guest(&format!(
        "listen spi 255 level call; say ready; repeat {TIMES}; wait call; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let _kick = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irqfd = served.register_irqfd(&call, Irq::Line(Line::Spi(255), Trigger::Level))?;
    for _ in 0..TIMES {
        signal(&call)?;
        await_count(&kick, 1)?;
        irqfd.lower()?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, TIMES.into())?;
    test.note("irqfd", format!("{} raised, {} failed", irqfd.raised(), irqfd.failed()));
    Ok(())
}

/// The driver of a virtio-mmio device, which reads InterruptStatus and acknowledges it for each interrupt,
/// beside a VMM that has all other registers of the device.
fn status(test: &mut TestContext<'_>, listen: &str, irq: Option<Irq>) -> Result<()> {
    const TIMES: u32 = 100;
    const STATUS: u64 = BASE + 0x60;
    const ACK: u64 = BASE + 0x64;
    let acknowledge =
        |bits| format!("wait call; read mmio:{STATUS:#x} 4; write mmio:{ACK:#x} 4 {bits}; ");
    let mut guest = test.guest(&format!(
        "listen {listen} call; say ready; repeat {TIMES}; {}write mmio:{DOORBELL:#x} 4 0; end; \
         {}read mmio:{STATUS:#x} 4; read mmio:{BASE:#x} 4",
        acknowledge(1),
        acknowledge(2),
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = call_of(&mut guest, irq)?;
    let device = served.register_interrupt_status(STATUS, irq)?;
    let irqfd = served.register_irqfd(&call, device.irq(InterruptStatus::USED_BUFFER))?;
    if matches!(irq, Irq::Line(_, Trigger::Level)) {
        let shared = served.register_irqfd(&new_eventfd()?, irq).err();
        let busy = shared.is_some_and(|refused| refused.errno() == Errno::BUSY);
        ensure!(busy, "another has the level-triggered line of a device");
    }
    for _ in 0..TIMES {
        signal(&call)?;
        await_count(&kick, 1)?;
    }
    device.set(InterruptStatus::CONFIG_CHANGE)?;
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, TIMES.into())?;
    let now = device.status()?;
    test.note("status", format!("{} reads, {} acknowledgements", now.reads, now.acks));
    test.note(
        "status",
        format!("{} raised, {} failed, bits {:#x}", now.raised, now.failed, now.bits),
    );
    let seen = vmm.seen()?;
    test.note("vmm", format!("{} reads", seen.reads));
    // The last read alone was for a register of the VMM's.
    ensure!(seen.wakeups == 1, "the VMM was woken {} times for 1 access", seen.wakeups);
    vmm.stop()
}

pub(super) fn status_event_channel(test: &mut TestContext<'_>) -> Result<()> {
    status(test, "evtchn", None)
}

pub(super) fn status_msi(test: &mut TestContext<'_>) -> Result<()> {
    status(test, "msi 0x41", Some(super::msi(0, 0x41)))
}

/// As libxl describes a virtio-mmio device to an Arm guest.
pub(super) fn status_spi(test: &mut TestContext<'_>) -> Result<()> {
    status(test, "spi 33 edge", Some(Irq::Line(Line::Spi(33), Trigger::Pulse)))
}

/// The line is up until the guest has acknowledged.
pub(super) fn status_spi_level(test: &mut TestContext<'_>) -> Result<()> {
    status(test, "spi 34 level", Some(Irq::Line(Line::Spi(34), Trigger::Level)))
}

/// An edge for each, as the line falls with each acknowledgement.
pub(super) fn status_isa_line(test: &mut TestContext<'_>) -> Result<()> {
    status(test, "isa 5", Some(Irq::Line(Line::Isa(5), Trigger::Level)))
}

pub(super) fn pci_line(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 100;
    // One of its interrupts is the signal's. The others come because the line is up; the last
    // of them may have been raised already when the line goes down.
    let mut guest = test.guest(&format!(
        "listen intx 3 1 call; listen evtchn lowered; say ready; repeat {TIMES}; \
         wait call 3; write mmio:{DOORBELL:#x} 4 0; wait lowered; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let (lowered, seen) = (new_eventfd()?, new_eventfd()?);
    let _kick = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    let _seen = served.register_ioevent(&seen, &Mmio(DOORBELL), 1_u32)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let line = Irq::Line(Line::PciIntx { device: 3, pin: 1 }, Trigger::Level);
    let irqfd = served.register_irqfd(&call, line)?;
    let _lowered = served.register_irqfd(&lowered, Irq::EventChannel(guest.port("lowered")?))?;
    for _ in 0..TIMES {
        // The guest would wait shorter if it were interrupted.
        std::thread::sleep(Duration::from_millis(5));
        ensure!(take_count(&kick)? == 0, "interrupted after the line was lowered");
        signal(&call)?;
        await_count(&kick, 1)?;
        irqfd.lower()?;
        signal(&lowered)?;
        await_count(&seen, 1)?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, TIMES.into())?;
    test.note("irqfd", format!("{} raised, {} failed", irqfd.raised(), irqfd.failed()));
    Ok(())
}

/// The guest listens for a `call` of this kind: an MSI is known, a port is reported by the guest.
fn call_of(guest: &mut Guest, irq: Option<Irq>) -> Result<Irq> {
    match irq {
        Some(irq) => Ok(irq),
        None => Ok(Irq::EventChannel(guest.port("call")?)),
    }
}

pub(super) fn pending_at_assign(test: &mut TestContext<'_>) -> Result<()> {
    pending(test, "evtchn", None)
}

pub(super) fn pending_msi(test: &mut TestContext<'_>) -> Result<()> {
    pending(test, "msi 0x41", Some(super::msi(0, 0x41)))
}

fn pending(test: &mut TestContext<'_>, listen: &str, irq: Option<Irq>) -> Result<()> {
    let mut guest = test.guest(&format!("listen {listen} call; say ready; wait call"))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let call = new_eventfd()?;
    (0..3).try_for_each(|_| signal(&call))?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = call_of(&mut guest, irq)?;
    let irqfd = served.register_irqfd(&call, irq)?;
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, 1)?;
    test.note("irqfd", format!("{} raised for 3 signals", irqfd.raised()));
    Ok(())
}

pub(super) fn last_signal(test: &mut TestContext<'_>) -> Result<()> {
    last(test, "evtchn", None)
}

pub(super) fn last_msi(test: &mut TestContext<'_>) -> Result<()> {
    last(test, "msi 0x41", Some(super::msi(0, 0x41)))
}

fn last(test: &mut TestContext<'_>, listen: &str, irq: Option<Irq>) -> Result<()> {
    const TIMES: u32 = 50;
    let mut guest = test.guest(&format!(
        "listen {listen} call; say ready; repeat {TIMES}; wait call; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = call_of(&mut guest, irq)?;
    for _ in 0..TIMES {
        let irqfd = served.register_irqfd(&call, irq)?;
        signal(&call)?;
        drop(irqfd);
        await_count(&kick, 1)?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    Ok(())
}

/// One vCPU takes the first vector and another the second; each acknowledges by a kick of its own.
pub(super) fn moved_vector(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u64 = 200;
    let mut guest = test.guest(&format!(
        "listen msi 0x41 one; listen evtchn stop; meet; say ready; until stop; wait one; \
         write mmio:{DOORBELL:#x} 4 0; end; say stopped | \
         listen msi 0x42 other; listen evtchn halt; meet; say ready; until halt; wait other; \
         write mmio:{DOORBELL:#x} 4 1; end; say stopped"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (call, kicks) = (new_eventfd()?, [new_eventfd()?, new_eventfd()?]);
    let _one = served.register_ioevent(&kicks[0], &Mmio(DOORBELL), 0_u32)?;
    let _other = served.register_ioevent(&kicks[1], &Mmio(DOORBELL), 1_u32)?;
    let (stop, halt) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    guest.await_message(0, "ready")?;
    guest.await_message(1, "ready")?;
    let stopping = served.register_irqfd(&stop, Irq::EventChannel(guest.port("stop")?))?;
    let halting = served.register_irqfd(&halt, Irq::EventChannel(guest.port("halt")?))?;
    let vectors = [super::msi(0, 0x41), super::msi(1, 0x42)];
    let irqfd = served.register_irqfd(&call, vectors[0])?;

    // Each vector in turn, with a signal while it is masked.
    for turn in 0..20 {
        irqfd.mask()?;
        ensure!(!irqfd.is_pending()?, "nothing was signalled");
        signal(&call)?;
        ensure!(irqfd.is_pending()?, "what was signalled is pending");
        irqfd.set_irq(vectors[turn % 2])?;
        irqfd.unmask()?;
        await_count(&kicks[turn % 2], 1)?;
        ensure!(
            take_count(&kicks[(turn + 1) % 2])? == 0,
            "raised as the old vector, or while it was masked"
        );
    }
    test.note("irqfd", format!("{} raised in turns", irqfd.raised()));

    // One thread signals, each time after the guest has answered; another changes the vector.
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| -> Result<u64> {
        let moving = scope.spawn(|| -> Result<()> {
            for turn in 0.. {
                irqfd.mask()?;
                irqfd.set_irq(vectors[turn % 2])?;
                irqfd.unmask()?;
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        });
        let signalled = answers(&call, &kicks, TIMES);
        done.store(true, Ordering::SeqCst);
        moving.join().map_err(|_| anyhow::anyhow!("the moving thread panicked"))??;
        signalled
    })?;
    test.note("irqfd", format!("{answered} answers to {TIMES} signals"));

    // Each vCPU is stopped; it handles one more signal if it was waiting already.
    let ends = [(&stop, &stopping), (&halt, &halting)];
    for (vcpu, (vector, (end, ending))) in vectors.into_iter().zip(ends).enumerate() {
        irqfd.set_irq(vector)?;
        signal(end)?;
        settled(ending, 1)?;
        signal(&call)?;
        guest.await_message(vcpu, "stopped")?;
        ensure!(take_count(&kicks[vcpu])? <= 1, "one signal interrupted vCPU {vcpu} twice");
    }
    guest.finish()?;
    guest.trace_reports(test);
    settled(&irqfd, 20 + TIMES + 2)?;
    let left = kicks.iter().map(take_count).sum::<Result<u64>>()?;
    test.note(
        "irqfd",
        format!("{} raised, {} failed, {left} too many", irqfd.raised(), irqfd.failed()),
    );
    Ok(())
}

/// Signals `times` times, and waits for one kick of either kind each time. Returns the number of kicks.
fn answers(call: &OwnedFd, kicks: &[OwnedFd; 2], times: u64) -> Result<u64> {
    let mut all = 0;
    for nth in 0..times {
        signal(call)?;
        let since = Instant::now();
        let mut came = 0;
        while came == 0 {
            came = take_count(&kicks[0])? + take_count(&kicks[1])?;
            ensure!(since.elapsed() < PATIENCE, "signal {nth} was lost");
            std::thread::yield_now();
        }
        all += came;
    }
    Ok(all)
}

pub(super) fn channel_to_eventfd(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 200;
    let mut guest = test.guest(&format!(
        "listen evtchn both; wait both; repeat {TIMES}; send both; wait both; end"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (received, call) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let port = guest.port("both")?;
    let _channel = served.register_channel(&received, port)?;
    // Xen notifies every newly bound channel.
    test.note("channel", format!("{} at the beginning", await_count(&received, 1)?));
    let _call = served.register_irqfd(&call, Irq::EventChannel(port))?;
    signal(&call)?;
    let mut count = 0;
    for _ in 0..TIMES {
        count += await_count(&received, 1)?;
        signal(&call)?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    test.note("channel", format!("{} then", count + take_count(&received)?));
    Ok(())
}

pub(super) fn channel_flood(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen evtchn stop; listen evtchn flood; meet; until stop; send flood 10; end; \
         send flood 10 | \
         listen evtchn go; meet; wait go; repeat 300; write mmio:{DOORBELL:#x} 4 0; end; say kicked"
    ))?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let (kick, flood) = (new_eventfd()?, new_eventfd()?);
    let (stop, go) = (new_eventfd()?, new_eventfd()?);
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    guest.start()?;
    let _stop = served.register_irqfd(&stop, Irq::EventChannel(guest.port("stop")?))?;
    let _go = served.register_irqfd(&go, Irq::EventChannel(guest.port("go")?))?;
    let flooded = served.register_channel(&flood, guest.port("flood")?)?;
    await_count(&flood, 2)?;
    signal(&go)?;
    guest.await_message(1, "kicked")?;
    test.note("queue", format!("{} kicks during the flood", await_count(&kick, 300)?));
    drop(flooded);
    take_count(&flood)?;
    signal(&stop)?;
    // Once it is stopped, it sends once more.
    guest.finish()?;
    ensure!(take_count(&flood)? == 0, "signalled after the end of the registration");
    guest.trace_reports(test);
    Ok(())
}
