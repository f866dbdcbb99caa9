//! Which server gets the kicks, and which engine may serve.

use super::{BASE, DOORBELL};
use crate::Play;
use crate::play::{Guest, new_eventfd, taken};
use crate::roles::vmm::Place;
use anyhow::{Result, ensure};
use std::os::fd::OwnedFd;
use xen_eventfd::Error;
use xen_eventfd::IoEventAddress::Mmio;

const PAGE: [(Place, u64, u64); 1] = [(Place::Mmio, BASE, 0x200)];

fn guest(play: &Play<'_>) -> Result<Guest> {
    play.guest(&format!("repeat 100; write mmio:{DOORBELL:#x} 4 0; end; read mmio:{BASE:#x} 4"))
}

fn count(play: &mut Play<'_>, guest: &mut Guest, kick: &OwnedFd) -> Result<()> {
    guest.start()?;
    guest.finish()?;
    guest.tell(play);
    play.note("queue", format!("{} kicks", taken(kick)?));
    Ok(())
}

pub(super) fn vmm_first(play: &mut Play<'_>) -> Result<()> {
    let mut guest = guest(play)?;
    let vmm = play.vmm(guest.dom(), &PAGE)?;
    let (xen, kick) = (play.xen()?, new_eventfd()?);
    let ours = xen.guest(guest.dom())?;
    let _queue = ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    play.note("ids", format!("vmm {}, engine {}", vmm.server, ours.server().0));
    count(play, &mut guest, &kick)?;
    play.note("vmm", format!("{} kicks", vmm.seen()?.writes_to(DOORBELL)));
    vmm.stop()
}

pub(super) fn vmm_after(play: &mut Play<'_>) -> Result<()> {
    let mut guest = guest(play)?;
    let (xen, kick) = (play.xen()?, new_eventfd()?);
    let ours = xen.guest(guest.dom())?;
    let _queue = ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    play.vmm(guest.dom(), &PAGE)?.stop()?;
    let vmm = play.vmm(guest.dom(), &PAGE)?;
    play.note("ids", format!("vmm {}, engine {}", vmm.server, ours.server().0));
    count(play, &mut guest, &kick)?;
    play.note("vmm", format!("{} kicks", vmm.seen()?.writes_to(DOORBELL)));
    vmm.stop()
}

pub(super) fn hole_in_the_ids(play: &mut Play<'_>) -> Result<()> {
    let mut guest = guest(play)?;
    let beside = |n: u64| [(Place::Mmio, BASE + n * 0x1000, 0x200)];
    let first = play.vmm(guest.dom(), &beside(1))?;
    let second = play.vmm(guest.dom(), &beside(2))?;
    let third = play.vmm(guest.dom(), &beside(3))?;
    second.stop()?;
    let (xen, kick) = (play.xen()?, new_eventfd()?);
    let ours = xen.guest(guest.dom())?;
    let _queue = ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    // This one gets the hole, and would outrank an engine that had taken the next free id.
    let vmm = play.vmm(guest.dom(), &PAGE)?;
    let ids = format!("vmms {}, {}, {}", first.server, vmm.server, third.server);
    play.note("ids", format!("{ids}, engine {}", ours.server().0));
    play.note("servers", format!("{:?}", play.stage().servers(guest.dom())?));
    count(play, &mut guest, &kick)?;
    [first, third, vmm].into_iter().try_for_each(crate::play::Vmm::stop)
}

pub(super) fn all_taken(play: &mut Play<'_>) -> Result<()> {
    let guest = guest(play)?;
    let vmms: Result<Vec<_>> =
        (0..8).map(|n| play.vmm(guest.dom(), &[(Place::Mmio, BASE + n * 0x1000, 0x200)])).collect();
    let vmms = vmms?;
    let xen = play.xen()?;
    let refused = xen.guest(guest.dom()).err().map(|error| error.errno());
    play.note("engine", format!("{refused:?}"));
    vmms.into_iter().try_for_each(crate::play::Vmm::stop)?;
    let ours = xen.guest(guest.dom())?;
    play.note("ids", format!("engine {}", ours.server().0));
    Ok(())
}

pub(super) fn second_engine(play: &mut Play<'_>) -> Result<()> {
    let mut guest = guest(play)?;
    let (xen, kick) = (play.xen()?, new_eventfd()?);
    let ours = xen.guest(guest.dom())?;
    let _queue = ours.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    let refused = xen.guest(guest.dom());
    ensure!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    let refused = play.engine(guest.dom(), &[], None).err().map(|error| error.to_string());
    let holder = format!("process {}", std::process::id());
    let named = refused.as_ref().is_some_and(|text| text.contains(&holder));
    ensure!(named, "the second engine says {refused:?} instead of naming {holder}");
    count(play, &mut guest, &kick)?;
    drop(_queue);
    ours.close()?;
    play.engine(guest.dom(), &[], None)?.stop()?;
    play.note("engine", "served by another one afterwards");
    Ok(())
}
