//! Event channels that signal eventfds.

use super::common::{DOORBELL, refused};
use super::leftovers;
use super::module::with_parameter;
use crate::device::GuestFile;
use crate::device::structs::{Channel, Doorbell, Irq};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use xen_eventfd::Port;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal, take_count};

pub(super) fn received(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u64 = 200;
    let mut guest = test.guest(&format!(
        "listen evtchn both; wait both; repeat {TIMES}; send both; wait both; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (received, call) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let port = guest.port("both")?;
    file.assign_channel(&Channel::new(port, &received))?;
    // Xen notifies every newly bound channel.
    ensure!(await_count(&received, 1)? == 1);
    file.assign_irq(&Irq::channel(port, &call))?;
    signal(&call)?;
    let mut count = 0;
    for _ in 0..TIMES {
        count += await_count(&received, 1)?;
        signal(&call)?;
    }
    guest.finish()?;
    count += take_count(&received)?;
    ensure!(count == TIMES, "{count} of {TIMES} notifications");
    Ok(())
}

pub(super) fn one_each(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest("listen evtchn call; wait call")?;
    let file = GuestFile::of(guest.dom())?;
    guest.start()?;
    let (port, bound) = (guest.port("call")?, leftovers::interrupts()?);
    let (received, other, call) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let channel = Channel::new(port, &received);
    refused(file.deassign_channel(&channel), Errno::NOENT, "not assigned")?;
    file.assign_channel(&channel)?;
    refused(file.assign_channel(&channel), Errno::BUSY, "the same again")?;
    let others = Channel::new(port, &other);
    refused(file.assign_channel(&others), Errno::BUSY, "for another eventfd")?;
    refused(file.deassign_channel(&others), Errno::NOENT, "another eventfd")?;
    let elsewhere = Channel::new(Port(port.0 + 1), &received);
    refused(file.deassign_channel(&elsewhere), Errno::NOENT, "another port")?;
    // The port has an irqfd as well, on the one binding, whichever of the two ends first.
    let irq = Irq::channel(port, &call);
    file.assign_irq(&irq)?;
    ensure!(leftovers::interrupts()? == bound + 1);
    file.deassign_channel(&channel)?;
    refused(file.deassign_channel(&channel), Errno::NOENT, "not assigned any more")?;
    ensure!(leftovers::interrupts()? == bound + 1);
    file.assign_channel(&others)?;
    file.deassign_irq(&irq)?;
    ensure!(leftovers::interrupts()? == bound + 1);
    file.deassign_channel(&others)?;
    ensure!(leftovers::interrupts()? == bound);
    file.assign_irq(&irq)?;
    signal(&call)?;
    guest.finish()
}

pub(super) fn pending(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(
        "listen evtchn both; wait both; send both; say sent; wait both; send both; wait both; \
         send both",
    )?;
    let file = GuestFile::of(guest.dom())?;
    let (received, call) = (new_eventfd()?, new_eventfd()?);
    guest.start()?;
    let port = guest.port("both")?;
    file.assign_irq(&Irq::channel(port, &call))?;
    signal(&call)?;
    guest.await_message(0, "sent")?;
    let channel = Channel::new(port, &received);
    file.assign_channel(&channel)?;
    await_count(&received, 1)?;
    signal(&call)?;
    await_count(&received, 1)?;
    file.deassign_channel(&channel)?;
    signal(&call)?;
    // The guest has sent once more by then.
    guest.finish()?;
    ensure!(take_count(&received)? == 0, "signalled after deassign returned");
    Ok(())
}

pub(super) fn limit(test: &mut TestContext<'_>) -> Result<()> {
    let mut guests = [(), ()].map(|()| {
        test.guest("listen evtchn one; listen evtchn two; listen evtchn end; say ready; wait end")
    });
    let ports = guests.each_mut().map(|guest| -> Result<_> {
        let guest = guest.as_mut().map_err(|error| anyhow!("{error:#}"))?;
        guest.start()?;
        guest.await_message(0, "ready")?;
        Ok((guest.dom(), guest.port("one")?, guest.port("two")?))
    });
    let [first, second] = ports;
    let ((dom, one, two), (other_dom, third, _)) = (first?, second?);
    with_parameter("max_channels=2", || {
        let (file, other, call) = (GuestFile::of(dom)?, GuestFile::of(other_dom)?, new_eventfd()?);
        let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?];
        let channel = Channel::new(one, &kicks[0]);
        file.assign_channel(&channel)?;
        file.assign_channel(&Channel::new(two, &kicks[1]))?;
        let bound = leftovers::interrupts()?;
        let more = Channel::new(third, &kicks[2]);
        refused(
            other.assign_channel(&more),
            Errno::NOSPC,
            "one more than the limit of all guests",
        )?;
        refused(other.assign_irq(&Irq::channel(third, &call)), Errno::NOSPC, "as an irqfd")?;
        ensure!(leftovers::interrupts()? == bound, "a refused port is bound");
        // Both directions of a port use one channel.
        file.assign_irq(&Irq::channel(one, &call))?;
        file.deassign_channel(&channel)?;
        refused(other.assign_channel(&more), Errno::NOSPC, "while the port has an irqfd")?;
        file.deassign_irq(&Irq::channel(one, &call))?;
        other.assign_channel(&more).context("the place of a channel that has ended")?;
        refused(file.assign_channel(&channel), Errno::NOSPC, "the limit is reached")?;
        drop(other);
        Ok(file.assign_channel(&channel)?)
    })
}

pub(super) fn flood(test: &mut TestContext<'_>) -> Result<()> {
    let mut flooding = test.guest(
        "listen evtchn stop; listen evtchn flood; meet; until stop; send flood 10; end; \
         send flood 10 | \
         listen evtchn halt; meet; until halt; send flood 10; end; send flood 10",
    )?;
    let mut kicking = test.guest(&format!("repeat 300; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let (flooded, kicked) = (GuestFile::of(flooding.dom())?, GuestFile::of(kicking.dom())?);
    let (flood, kick) = (new_eventfd()?, new_eventfd()?);
    kicked.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    flooding.start()?;
    let mut stops = Vec::new();
    for name in ["stop", "halt"] {
        let stop = new_eventfd()?;
        flooded.assign_irq(&Irq::channel(flooding.port(name)?, &stop))?;
        stops.push(stop);
    }
    let channel = Channel::new(flooding.port("flood")?, &flood);
    flooded.assign_channel(&channel)?;
    // Not read from here on.
    await_count(&flood, 2)?;
    kicking.start()?;
    kicking.finish()?;
    ensure!(await_count(&kick, 300)? == 300);
    flooded.deassign_channel(&channel)?;
    take_count(&flood)?;
    stops.iter().try_for_each(signal)?;
    // Once they are stopped, both kick once more.
    flooding.finish()?;
    ensure!(take_count(&flood)? == 0, "signalled after deassign returned");
    Ok(())
}
