//! Kicks reach their eventfd, and none is lost.

use super::common::{BASE, DOORBELL, Notifier, refused};
use crate::device::GuestFile;
use crate::device::structs::Doorbell;
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::roles::vmm::Place;
use xen_eventfd_scenarios::test_context::{new_eventfd, take_count};

pub(super) fn one_queue(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!("repeat 1000; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    let (kicks, stats) = (take_count(&kick)?, file.stats()?);
    ensure!(kicks == 1000 && stats.delivered == 1000, "{kicks} kicks, {stats:?}");
    ensure!((stats.held, stats.late, stats.odd, stats.reads) == (0, 0, 0, 0), "{stats:?}");
    Ok(())
}

pub(super) fn many_queues(test: &mut TestContext<'_>) -> Result<()> {
    const ROUNDS: u64 = 50;
    let devices: Vec<u64> = (0..3).map(|file| DOORBELL + file * 0x200).collect();
    let writes: String =
        devices.iter().map(|at| format!("repeat 4; write mmio:{at:#x} 4 i; end; ")).collect();
    let vcpu = format!("meet; repeat {ROUNDS}; {writes}end");
    let mut guest = test.guest(&format!("{vcpu} | {vcpu}"))?;
    let file = GuestFile::of(guest.dom())?;
    let mut queues = Vec::new();
    for at in &devices {
        for queue in 0..4 {
            let kick = new_eventfd()?;
            file.assign(&Doorbell::value(*at, 4, queue, &kick))?;
            queues.push(kick);
        }
    }
    guest.start()?;
    guest.finish()?;
    for kick in &queues {
        let kicks = take_count(kick)?;
        ensure!(kicks == 2 * ROUNDS, "{kicks} kicks");
    }
    ensure!(file.stats()?.delivered == 2 * ROUNDS * 12);
    Ok(())
}

pub(super) fn vmm_beside(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "read mmio:{BASE:#x} 4; repeat 1000; write mmio:{DOORBELL:#x} 4 0; end; read mmio:{:#x} 4",
        BASE + 4
    ))?;
    let vmm = test.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    let (kicks, seen) = (take_count(&kick)?, vmm.seen()?);
    ensure!(kicks == 1000, "{kicks} kicks");
    ensure!(seen.writes_to(DOORBELL) == 0 && seen.reads == 2 && seen.wakeups <= 2, "{seen:?}");
    vmm.stop()
}

pub(super) fn full_eventfd(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 10; write mmio:{DOORBELL:#x} 4 0; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (full, other) = (new_eventfd()?, new_eventfd()?);
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes())?;
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &full))?;
    file.assign(&Doorbell::value(DOORBELL, 4, 1, &other))?;
    guest.start()?;
    guest.finish()?;
    ensure!(take_count(&other)? == 10);
    Ok(())
}

pub(super) fn held(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 9; end; write mmio:{DOORBELL:#x} 4 8; say first; \
         listen evtchn go; wait go; repeat 100; write mmio:{DOORBELL:#x} 4 i+100; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (one, nine, seven) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let queue = |value, kick: &OwnedFd| Doorbell::value(DOORBELL, 4, value, kick);
    file.assign(&queue(1, &one))?;
    guest.start()?;
    guest.await_message(0, "first")?;
    ensure!(file.stats()?.held == 6, "{:?}", file.stats());
    file.assign(&queue(9, &nine))?;
    file.assign(&queue(7, &seven))?;
    let found = [take_count(&one)?, take_count(&nine)?, take_count(&seven)?];
    ensure!(found == [0, 1, 0] && file.stats()?.redelivered == 1, "{found:?}");
    // More distinct kicks than there is room for: from then on every new registration is signalled once.
    Notifier::to(test, &mut guest, "go")?.notify()?;
    guest.finish()?;
    let late = new_eventfd()?;
    file.assign(&queue(199, &late))?;
    ensure!(take_count(&late)? == 1, "a kick was lost in the overflow");
    Ok(())
}

pub(super) fn limit(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 0; write mmio:{DOORBELL:#x} 4 4095; \
         write mmio:{DOORBELL:#x} 4 4096"
    ))?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    let queue = |value| Doorbell::value(DOORBELL, 4, value, &kick);
    for value in 0..4096 {
        file.assign(&queue(value)).with_context(|| format!("the {value}th"))?;
    }
    refused(file.assign(&queue(4096)), Errno::NOSPC, "one too many")?;
    guest.start()?;
    guest.finish()?;
    ensure!(take_count(&kick)? == 2 && file.stats()?.held == 1);
    for value in (0..4096).step_by(3) {
        file.deassign(&queue(value)).with_context(|| format!("the {value}th"))?;
    }
    ensure!(file.stats()?.doorbells == 4096 - 1366, "{:?}", file.stats());
    // Xen has 256 ranges of a type; separate bytes take one each.
    let apart = |nth: u64| Doorbell::value(BASE + 0x1000 + 16 * nth, 4, 0, &kick);
    let refused_at = (0..300).find(|nth| file.assign(&apart(*nth)) == Err(Errno::NOMEM));
    ensure!(refused_at == Some(255), "refused at {refused_at:?}");
    ensure!(usize::from(file.stats()?.doorbells) == 4096 - 1366 + 255);
    file.deassign(&apart(7))?;
    file.assign(&apart(300))?;
    Ok(())
}
