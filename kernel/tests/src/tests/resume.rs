//! A guest of Xen that serves another guest, and is itself suspended and resumed: what `suspend.sh` of
//! `cargo xtask kmod test` runs.

use super::common::two_queues;
use super::mapped::{is_dead, is_sigbus, part_of};
use crate::device::mapped::Mapped;
use crate::device::structs::Create;
use crate::device::{Control, GuestFile};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use std::io::{Write, stdin, stdout};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::control;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, take_count};

/// Runs in domain 0: lets a guest control another one, as a stub domain does.
pub(crate) fn aim(dom: DomId, target: DomId) -> Result<()> {
    control::Control::open()?.set_target(dom, target)
}

/// Runs in the guest: serves two queues of another and maps memory of it, waits for a line of input, which comes when it was resumed,
/// and serves that one no longer.
pub(crate) fn serve_and_resume(dom: DomId) -> Result<()> {
    let gone = new_eventfd()?;
    let file = Control::open()?.create(&Create::of(dom).notify_gone(&gone))?;
    let queues = two_queues(&file)?;
    let (memory, length) = part_of(dom)?;
    let shown = Mapped::of(&memory, 0, length)?;
    shown.write(0, 1);
    writeln!(stdout(), "says serving")?;
    queues.iter().try_for_each(|queue| await_count(queue, 2).map(drop))?;
    ensure!(take_count(&gone)? == 0, "gone, and it kicks");
    writeln!(stdout(), "says kicked")?;
    stdin().read_line(&mut String::new())?;
    ensure!(await_count(&gone, 1)? == 1, "gone more than once");
    ensure!(file.stats().err() == Some(Errno::NODEV), "what is gone has counters");
    ensure!(is_dead(&memory)? && is_sigbus(&memory, 0)?, "memory of what is gone");
    drop((file, shown, memory));
    // Where it resumed it has no target, so this guest is not its to control.
    let again = GuestFile::of(dom).map(drop).err();
    ensure!(again == Some(Errno::PERM), "to serve it again: {again:?}");
    let again = part_of(dom).err().and_then(|error| error.downcast().ok());
    ensure!(again == Some(Errno::PERM), "to map it again: {again:?}");
    writeln!(stdout(), "says closed")?;
    Ok(())
}
