//! InterruptStatus and InterruptACK, answered by the module.

use super::common::{BASE, DOORBELL, IDLE, refused};
use super::fdinfo::fdinfo;
use crate::device::GuestFile;
use crate::device::structs::{Doorbell, Irq, Status};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use xen_eventfd::Arch;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal, take_count};

const STATUS: u64 = BASE + 0x60;
const ACK: u64 = STATUS + 4;

pub(super) fn driver(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u64 = 200;
    let mut guest = test.guest(&format!(
        "listen evtchn call; say ready; repeat {TIMES}; wait call; peek mmio:{STATUS:#x} 4; \
         write mmio:{ACK:#x} 4 1; write mmio:{DOORBELL:#x} 4 0; end; wait call; \
         read mmio:{STATUS:#x} 4; write mmio:{ACK:#x} 2 2; write mmio:{STATUS:#x} 4 2; \
         read mmio:{ACK:#x} 4; read mmio:{STATUS:#x} 1; say done; wait call"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let port = guest.port("call")?;
    let status = Status::new(STATUS, &Irq::channel(port, &call));
    file.assign_status(&status)?;
    let irq = Irq::status(STATUS, 1, &call);
    file.assign_irq(&irq)?;
    for nth in 1..=TIMES {
        signal(&call)?;
        await_count(&kick, 1)?;
        let now = file.change_status(STATUS, 0, 0)?;
        ensure!((now.bits, now.reads, now.acks, now.raised) == (0, nth, nth, nth), "{now:?}");
    }
    ensure!(take_count(&call)? == 0, "a signal that is passed on is consumed");
    let now = file.change_status(STATUS, 0, 2)?;
    ensure!((now.bits, now.raised) == (2, TIMES + 1), "{now:?}");
    guest.await_message(0, "done")?;
    let now = file.change_status(STATUS, 0, 0)?;
    ensure!((now.bits, now.acks, now.odd, now.failed) == (2, TIMES, 2, 0), "{now:?}");
    let line = format!(
        "irq:\tstatus 0xfe000060 0x1 raised {TIMES} failed 0\n\
         status:\t0xfe000060 channel {} bits 0x2 reads {} acks {TIMES} raised {} failed 0 odd 2\n",
        port.0,
        now.reads,
        TIMES + 1
    );
    let shown = fdinfo(&file)?;
    ensure!(shown.ends_with(&line), "fdinfo shows\n{shown}and not at its end\n{line}");
    let stats = file.stats()?;
    ensure!((stats.reads, stats.held, stats.odd, stats.doorbells) == (0, 0, 0, 1), "{stats:?}");
    // What is cleared is raised again when it is set.
    file.change_status(STATUS, 2, 2)?;
    guest.finish()
}

pub(super) fn collisions(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = GuestFile::of(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    let msi = Irq::of_vector(0x41, &call);
    let good = Status::new(STATUS, &msi);
    refused(
        file.assign_irq(&Irq::status(STATUS, 1, &call)),
        Errno::INVAL,
        "without the registers",
    )?;
    refused(file.change_status(STATUS, 0, 1), Errno::NOENT, "without the registers")?;
    file.assign_status(&good)?;
    for addr in [STATUS, ACK, STATUS - 4] {
        refused(file.assign_status(&Status::new(addr, &msi)), Errno::EXIST, "over it")?;
    }
    refused(file.assign(&Doorbell::value(ACK, 4, 1, &kick)), Errno::EXIST, "a doorbell in it")?;
    refused(file.assign(&Doorbell::value(STATUS - 4, 8, 1, &kick)), Errno::EXIST, "one over it")?;
    file.assign(&Doorbell::value(STATUS - 4, 4, 1, &kick))?;
    file.assign(&Doorbell::value(STATUS + 8, 4, 1, &kick))?;
    refused(file.assign_status(&Status::new(STATUS - 8, &msi)), Errno::EXIST, "over a doorbell")?;
    refused(file.deassign_status(&Status::new(ACK, &msi)), Errno::NOENT, "another address")?;
    let other = Status::new(STATUS, &Irq::of_vector(0x42, &call));
    refused(file.deassign_status(&other), Errno::NOENT, "another interrupt")?;
    let foreign = match Arch::NATIVE {
        Arch::X86 => Irq::spi(33, &call),
        Arch::Arm => Irq::msi(0x41, &call),
    };
    for irq in [Irq::isa(5, &call), foreign] {
        let status = Status::new(STATUS + 0x100, &irq);
        refused(
            file.assign_status(&status),
            Errno::OPNOTSUPP,
            "an interrupt that the guest does not have",
        )?;
    }
    // As many as there may be, and their places are free again at once.
    for round in 0..2 {
        for nth in 1..256 {
            file.assign_status(&Status::new(STATUS + 0x1000 * nth, &msi))?;
        }
        let last = Status::new(STATUS + 0x1000 * 256, &msi);
        refused(file.assign_status(&last), Errno::NOSPC, format!("the 257th, round {round}"))?;
        for nth in 1..256 {
            ensure!(file.deassign_status(&Status::new(STATUS + 0x1000 * nth, &msi))? == 0);
        }
    }
    ensure!(file.deassign_status(&good)? == 0);
    refused(file.deassign_status(&good), Errno::NOENT, "not assigned any more")?;
    Ok(())
}

pub(super) fn ended(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 500;
    let mut guest = test.guest(&format!(
        "listen evtchn stop; meet; until stop; peek mmio:{STATUS:#x} 4; write mmio:{ACK:#x} 4 1; end | \
         listen evtchn call; meet; wait call"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (call, stop) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let [port, ending] = [guest.port("call")?, guest.port("stop")?];
    let (irq, set) = (Irq::channel(port, &call), Irq::status(STATUS, 1, &call));
    let mut left = 0;
    // One vCPU reads and acknowledges all the time, so accesses are under way at each end.
    for nth in 0..TIMES {
        file.assign_status(&Status::new(STATUS, &irq))?;
        file.assign_irq(&set)?;
        signal(&call)?;
        let bits = file.deassign_status(&Status::new(STATUS, &irq))?;
        ensure!(bits <= 1, "{bits:#x} after round {nth}");
        left += bits;
        ensure!(take_count(&call)? == 0, "a signal before the end was not passed on");
        signal(&call)?;
        ensure!(take_count(&call)? == 1, "the irqfd has ended with the registers");
        refused(file.irq_stats(&set), Errno::NOENT, "an irqfd of a device that has ended")?;
    }
    println!("{left} of {TIMES} signals were not acknowledged");
    // A bit that is set at the end is returned, and nothing of the device is shown any more.
    file.assign_status(&Status::new(STATUS, &irq))?;
    file.change_status(STATUS, 0, 2)?;
    ensure!(file.deassign_status(&Status::new(STATUS, &irq))? == 2, "the bits at the end");
    let shown = fdinfo(&file)?;
    ensure!(
        !shown.lines().any(|line| line.starts_with("status:")),
        "a device that has ended is shown: {shown}"
    );
    file.assign_irq(&Irq::channel(ending, &stop))?;
    signal(&stop)?;
    guest.finish()?;
    Ok(())
}
