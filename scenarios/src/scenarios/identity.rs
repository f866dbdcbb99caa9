//! Which server gets the kicks, and which engine serves a guest.

use super::{BASE, DOORBELL};
use crate::TestContext;
use crate::roles::vmm::Place;
use crate::test_context::{Guest, new_eventfd, take_count};
use anyhow::{Result, ensure};
use std::os::fd::OwnedFd;
use xen_eventfd::Error;
use xen_eventfd::IoEventAddress::Mmio;

const PAGE: [(Place, u64, u64); 1] = [(Place::Mmio, BASE, 0x200)];

fn guest(test: &TestContext<'_>) -> Result<Guest> {
    test.guest(&format!("repeat 100; write mmio:{DOORBELL:#x} 4 0; end; read mmio:{BASE:#x} 4"))
}

fn count(test: &mut TestContext<'_>, guest: &mut Guest, kick: &OwnedFd) -> Result<()> {
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    test.note("queue", format!("{} kicks", take_count(kick)?));
    Ok(())
}

pub(super) fn vmm_first(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = guest(test)?;
    let vmm = test.vmm(guest.dom(), &PAGE)?;
    let (xen, kick) = (test.xen()?, new_eventfd()?);
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    test.note("ids", format!("vmm {}, engine {}", vmm.server, served.server().0));
    count(test, &mut guest, &kick)?;
    test.note("vmm", format!("{} kicks", vmm.seen()?.writes_to(DOORBELL)));
    vmm.stop()
}

pub(super) fn vmm_after(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = guest(test)?;
    let (xen, kick) = (test.xen()?, new_eventfd()?);
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    test.vmm(guest.dom(), &PAGE)?.stop()?;
    let vmm = test.vmm(guest.dom(), &PAGE)?;
    test.note("ids", format!("vmm {}, engine {}", vmm.server, served.server().0));
    count(test, &mut guest, &kick)?;
    test.note("vmm", format!("{} kicks", vmm.seen()?.writes_to(DOORBELL)));
    vmm.stop()
}

pub(super) fn hole_in_the_ids(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = guest(test)?;
    let beside = |n: u64| [(Place::Mmio, BASE + n * 0x1000, 0x200)];
    let first = test.vmm(guest.dom(), &beside(1))?;
    let second = test.vmm(guest.dom(), &beside(2))?;
    let third = test.vmm(guest.dom(), &beside(3))?;
    second.stop()?;
    let (xen, kick) = (test.xen()?, new_eventfd()?);
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    // This server gets the hole, and would rank above an engine that had taken the next free id.
    let vmm = test.vmm(guest.dom(), &PAGE)?;
    let ids = format!("vmms {}, {}, {}", first.server, vmm.server, third.server);
    test.note("ids", format!("{ids}, engine {}", served.server().0));
    test.note("servers", format!("{:?}", test.environment().servers(guest.dom())?));
    count(test, &mut guest, &kick)?;
    [first, third, vmm].into_iter().try_for_each(crate::test_context::Vmm::stop)
}

pub(super) fn all_taken(test: &mut TestContext<'_>) -> Result<()> {
    let guest = guest(test)?;
    let vmms: Result<Vec<_>> =
        (0..8).map(|n| test.vmm(guest.dom(), &[(Place::Mmio, BASE + n * 0x1000, 0x200)])).collect();
    let vmms = vmms?;
    let xen = test.xen()?;
    let refused = xen.guest(guest.dom()).err().map(|error| error.errno());
    test.note("engine", format!("{refused:?}"));
    vmms.into_iter().try_for_each(crate::test_context::Vmm::stop)?;
    let served = xen.guest(guest.dom())?;
    test.note("ids", format!("engine {}", served.server().0));
    Ok(())
}

pub(super) fn second_engine(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = guest(test)?;
    let (xen, kick) = (test.xen()?, new_eventfd()?);
    let served = xen.guest(guest.dom())?;
    let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
    let refused = xen.guest(guest.dom());
    ensure!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    let refused = test.engine(guest.dom(), &[], None).err().map(|error| error.to_string());
    let holder = format!("process {}", std::process::id());
    let named = refused.as_ref().is_some_and(|text| text.contains(&holder));
    ensure!(named, "the second engine fails with {refused:?}, which does not name {holder}");
    count(test, &mut guest, &kick)?;
    drop(_queue);
    served.close()?;
    test.engine(guest.dom(), &[], None)?.stop()?;
    test.note("engine", "another engine serves it afterwards");
    Ok(())
}
