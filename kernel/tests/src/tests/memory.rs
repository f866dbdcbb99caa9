//! What needs memory, and what must not.

use super::common::{BASE, DOORBELL, Notifier};
use super::trace::{self, ForThread, On, traced};
use crate::device::structs::{Channel, Doorbell, Irq, PrivcmdIoEventFd};
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, ensure};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, take_count};

/// Doorbells that stand side by side, each with a claim of its own.
const MANY: u64 = 1000;

/// The memory that this thread had the module allocate for it meanwhile.
fn allocated(what: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    let (thread, on) = (ForThread::this()?, On::switch(&["kmem/kmalloc"])?);
    let done = what();
    drop((on, thread));
    done?;
    let allocated = traced("kmalloc")?;
    Ok(allocated.into_iter().filter(|line| line.contains("GFP_KERNEL_ACCOUNT")).collect())
}

pub(super) fn undo(test: &mut TestContext<'_>) -> Result<()> {
    if !trace::is_there() {
        return Ok(());
    }
    let mut guest = test.guest(&format!(
        "listen evtchn call; listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    guest.start()?;
    let (kick, call, heard) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let file = GuestFile::of(guest.dom())?;
    let queue = Doorbell::value(DOORBELL, 4, 0, &kick);
    let apart = |nth| Doorbell::value(BASE + 0x1000 + nth, 1, 0, &kick);
    let (channel, irq) =
        (Channel::new(guest.port("call")?, &heard), Irq::channel(guest.port("call")?, &call));
    let assign = || -> Result<()> {
        (0..MANY).try_for_each(|nth| file.assign(&apart(nth)).with_context(|| format!("{nth}")))?;
        file.assign(&queue)?;
        file.assign_channel(&channel)?;
        Ok(file.assign_irq(&irq)?)
    };
    let needed = allocated(assign)?;
    ensure!(!needed.is_empty(), "nothing is seen of what an assignment allocates");
    await_count(&kick, 1)?;
    let needed = allocated(|| {
        file.deassign(&queue)?;
        // In the middle of a range of Xen's, and at its end.
        file.deassign(&apart(MANY / 2))?;
        file.deassign(&apart(MANY - 1))?;
        file.deassign_irq(&irq)?;
        Ok(file.deassign_channel(&channel)?)
    })?;
    ensure!(needed.is_empty(), "to take assignments back: {needed:#?}");
    take_count(&kick)?;
    let needed = allocated(|| {
        drop(file);
        Ok(())
    })?;
    ensure!(needed.is_empty(), "to close: {needed:#?}");
    ensure!(take_count(&kick)? == 0, "signalled after deassign returned");

    let control = Control::open()?;
    let request = PrivcmdIoEventFd::of(guest.dom(), BASE, 0, &kick);
    control.ioeventfd(&request)?;
    await_count(&kick, 1)?;
    let needed = allocated(|| Ok(control.ioeventfd(&request.undone())?))?;
    ensure!(needed.is_empty(), "to take back by privcmd's request: {needed:#?}");
    control.ioeventfd(&request).context("once it is taken back")?;
    Notifier::to(test, &mut guest, "stop")?.notify()?;
    guest.finish()
}
