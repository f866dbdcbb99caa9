//! Which requests allocate memory, and which must not.

use super::common::{BASE, DOORBELL, Notifier};
use super::trace::{self, ForThread, On, traced};
use crate::device::structs::{Channel, Doorbell, Irq, PrivcmdIoEventFd};
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, ensure};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, take_count};

/// Adjacent doorbells, each with a range of its own.
const MANY: u64 = 1000;

/// The allocations that this thread causes in the module while it runs `what`: those that are charged to it, and
/// any others that the module makes itself. The flags of a large one are not `GFP_KERNEL_ACCOUNT`.
fn allocated(what: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    let (thread, on) = (ForThread::this()?, On::switch(&["kmem/kmalloc"])?);
    let done = what();
    drop((on, thread));
    done?;
    let allocated = traced("kmalloc")?;
    let ours = |line: &String| line.contains("accounted=true") || line.contains("[xen_eventfd]");
    Ok(allocated.into_iter().filter(ours).collect())
}

pub(super) fn undo(test: &mut TestContext<'_>) -> Result<()> {
    if !trace::is_there() {
        return Ok(());
    }
    let mut guest = test.guest(&format!(
        "listen evtchn call; listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    guest.start()?;
    let (kick, call, received) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let file = GuestFile::of(guest.dom())?;
    let queue = Doorbell::value(DOORBELL, 4, 0, &kick);
    let apart = |nth| Doorbell::value(BASE + 0x1000 + nth, 1, 0, &kick);
    let (channel, irq) =
        (Channel::new(guest.port("call")?, &received), Irq::channel(guest.port("call")?, &call));
    let assign = || -> Result<()> {
        (0..MANY).try_for_each(|nth| file.assign(&apart(nth)).with_context(|| format!("{nth}")))?;
        file.assign(&queue)?;
        file.assign_channel(&channel)?;
        Ok(file.assign_irq(&irq)?)
    };
    let needed = allocated(assign)?;
    ensure!(!needed.is_empty(), "no allocation of an assignment is seen");
    await_count(&kick, 1)?;
    let needed = allocated(|| {
        file.deassign(&queue)?;
        // In the middle of one of Xen's ranges, and at its end.
        file.deassign(&apart(MANY / 2))?;
        file.deassign(&apart(MANY - 1))?;
        file.deassign_irq(&irq)?;
        Ok(file.deassign_channel(&channel)?)
    })?;
    ensure!(needed.is_empty(), "deassign allocates: {needed:#?}");
    take_count(&kick)?;
    let needed = allocated(|| {
        drop(file);
        Ok(())
    })?;
    ensure!(needed.is_empty(), "close allocates: {needed:#?}");
    ensure!(take_count(&kick)? == 0, "signalled after deassign returned");

    let control = Control::open()?;
    let request = PrivcmdIoEventFd::of(guest.dom(), BASE, 0, &kick);
    control.ioeventfd(&request)?;
    await_count(&kick, 1)?;
    let needed = allocated(|| Ok(control.ioeventfd(&request.deassign())?))?;
    ensure!(needed.is_empty(), "deassign through the privcmd ABI allocates: {needed:#?}");
    control.ioeventfd(&request).context("after deassign")?;
    Notifier::to(test, &mut guest, "stop")?.notify()?;
    guest.finish()
}
