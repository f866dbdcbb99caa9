//! A guest that several files hold together: files with requests of the privcmd ABI, and guests' files that
//! were created to share it.

use super::common::{BASE, DOORBELL, IDLE, refused};
use super::leftovers::Before;
use crate::device::request::CREATE_SHARE;
use crate::device::structs::{Channel, Create, Doorbell, Irq, PrivcmdIoEventFd};
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use std::thread;
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal, take_count};

fn shared(control: &Control, dom: DomId) -> Result<GuestFile, Errno> {
    control.create(&Create { flags: CREATE_SHARE, ..Create::of(dom) })
}

pub(super) fn interrupts_beside(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen evtchn call; say ready; wait call; write mmio:{DOORBELL:#x} 4 1; send call 1; say sent"
    ))?;
    let before = Before::look(test, guest.dom())?;
    let (control, second) = (Control::open()?, Control::open()?);
    let (kick, call, received) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let notifier = PrivcmdIoEventFd::of(guest.dom(), BASE, 1, &kick);
    control.ioeventfd(&notifier)?;
    refused(control.create(&Create::of(guest.dom())), Errno::BUSY, "a shared guest alone")?;
    // Any file that may serve the guest: the first one, and another.
    let [calls, channels] = [&control, &second]
        .map(|file| shared(file, guest.dom()).context("a guest's file beside the privcmd ABI"));
    let (calls, channels) = (calls?, channels?);
    guest.start()?;
    let port = guest.port("call")?;
    let (irq, channel) = (Irq::channel(port, &call), Channel::new(port, &received));
    calls.assign_irq(&irq)?;
    channels.assign_channel(&channel)?;
    // Each file has its own assignments.
    refused(channels.deassign_irq(&irq), Errno::NOENT, "another file's interrupt")?;
    refused(channels.irq_stats(&irq), Errno::NOENT, "another file's interrupt")?;
    refused(calls.deassign_channel(&channel), Errno::NOENT, "another file's channel")?;
    refused(channels.assign_irq(&irq), Errno::BUSY, "an eventfd that raises an interrupt already")?;
    refused(calls.assign_channel(&channel), Errno::BUSY, "a channel that has an eventfd")?;
    let doorbell = Doorbell::value(DOORBELL, 4, 9, &kick);
    refused(calls.assign(&doorbell), Errno::OPNOTSUPP, "a doorbell")?;
    refused(calls.deassign(&doorbell), Errno::OPNOTSUPP, "a doorbell's end")?;
    guest.await_message(0, "ready")?;
    take_count(&received)?;
    signal(&call)?;
    guest.await_message(0, "sent")?;
    await_count(&kick, 1)?;
    await_count(&received, 1)?;
    // The assignments through a file end with it; those of others stay.
    drop(calls);
    signal(&call)?;
    ensure!(take_count(&call)? == 1, "the eventfd counts again");
    ensure!(channels.stats()?.doorbells == 1);
    control.ioeventfd(&notifier.deassign())?;
    ensure!(channels.stats()?.doorbells == 0, "the doorbell is still assigned");
    refused(GuestFile::of(guest.dom()), Errno::BUSY, "a guest that a file shares")?;
    drop(channels);
    before.nothing_is_left(test)?;
    GuestFile::of(guest.dom())?;
    Ok(())
}

pub(super) fn any_order(test: &mut TestContext<'_>) -> Result<()> {
    let (mut guest, other) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let (control, gone, others) = (Control::open()?, new_eventfd()?, new_eventfd()?);
    let kick = new_eventfd()?;
    let notifier = PrivcmdIoEventFd::of(guest.dom(), BASE, 1, &kick);
    let share = |gone| Create { flags: CREATE_SHARE, ..Create::of(guest.dom()).notify_gone(gone) };
    let first = control.create(&share(&gone))?;
    control.ioeventfd(&notifier)?;
    let second = control.create(&share(&others)).context("a second file of a shared guest")?;
    // Confined files share the guest that they may serve, and no other.
    let confined = Control::open()?;
    confined.restrict(other.dom())?;
    refused(shared(&confined, guest.dom()), Errno::PERM, "another's guest")?;
    drop(shared(&confined, other.dom())?);
    // A guest that is not shared cannot be joined.
    let file = GuestFile::of(other.dom())?;
    refused(shared(&control, other.dom()), Errno::BUSY, "a guest that one file holds alone")?;
    drop(file);
    guest.destroy()?;
    ensure!(await_count(&gone, 1)? == 1 && await_count(&others, 1)? == 1, "each is signalled once");
    test.no_zombies()?;
    for file in [first, second] {
        refused(file.stats(), Errno::NODEV, "a dead guest")?;
    }
    ensure!(take_count(&gone)? == 0 && take_count(&others)? == 0, "signalled at the end");
    Ok(())
}

pub(super) fn joined_during_close(test: &mut TestContext<'_>) -> Result<()> {
    const ROUNDS: u32 = 150;
    let guest = test.guest(IDLE)?;
    let before = Before::look(test, guest.dom())?;
    let dom = guest.dom();
    let comes_and_goes = |value: u32| -> Result<()> {
        let (control, kick) = (Control::open()?, new_eventfd()?);
        let notifier = PrivcmdIoEventFd::of(dom, BASE, value, &kick);
        for _ in 0..ROUNDS {
            control.ioeventfd(&notifier).context("a file that joins")?;
            control.ioeventfd(&notifier.deassign()).context("a file that leaves")?;
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let all: Vec<_> = (0..3).map(|value| scope.spawn(move || comes_and_goes(value))).collect();
        for one in all {
            one.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    before.nothing_is_left(test)
}
