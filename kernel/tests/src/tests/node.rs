//! The device node, and its QUERY.

use super::common::{IDLE, refused};
use crate::device::request::{
    OF_CONTROL, OF_GUEST, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD, QUERY, RESTRICT,
};
use crate::device::structs::Query;
use crate::device::{Control, GuestFile, NODE, issue};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use xen_eventfd_scenarios::TestContext;

pub(super) fn root_alone(_play: &mut TestContext<'_>) -> Result<()> {
    let node = std::fs::metadata(NODE)?;
    ensure!((node.mode() & 0o777, node.uid(), node.gid()) == (0o600, 0, 0), "{node:?}");
    Ok(())
}

pub(super) fn query(_play: &mut TestContext<'_>) -> Result<()> {
    let control = Control::open()?;
    let found = control.query()?;
    ensure!(found.abi == 1 && found.features == 0b1_1111_1111, "{found:?}");
    let limits = (found.max_doorbells, found.max_held, found.max_missed, found.max_irqs);
    ensure!(limits == (4096, 64, 32, 1024), "{found:?}");
    // A later version's struct: the tail is zero, and stays zero.
    let mut longer = vec![0; 4096];
    longer[..4].copy_from_slice(&4096_u32.to_ne_bytes());
    issue(&control, QUERY, &mut longer)?;
    let (known, tail) = longer.split_at(Query::SIZE as usize);
    ensure!(Query::from_bytes(known) == found && tail.iter().all(|byte| *byte == 0));
    ensure!(known[..4] == 4096_u32.to_ne_bytes(), "the size is the caller's");
    Ok(())
}

pub(super) fn requests(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let (control, file) = (Control::open()?, GuestFile::of(guest.dom())?);
    let others_are_refused = |file: &dyn Fn(u32) -> Result<(), Errno>, own: &[u32]| -> Result<()> {
        let numbers = 0xEF00..=0xEFFF;
        for request in numbers.filter(|request| !own.contains(request)) {
            refused(file(request), Errno::NOTTY, format!("{request:#x}"))?;
        }
        // A request number with a size or a direction is another request.
        let more = [1 << 30, 2 << 30, 3 << 30, 8 << 16];
        for request in own.iter().flat_map(|own| more.map(|bits| own | bits)) {
            refused(file(request), Errno::NOTTY, format!("{request:#x}"))?;
        }
        Ok(())
    };
    others_are_refused(&|request| issue(&control, request, &mut [0; 128]).map(drop), &OF_CONTROL)?;
    others_are_refused(&|request| issue(&file, request, &mut [0; 128]).map(drop), &OF_GUEST)?;
    for request in [RESTRICT, PRIVCMD_IRQFD, PRIVCMD_IOEVENTFD] {
        refused(issue(&file, request, &mut [0; 64]), Errno::NOTTY, "a request of the privcmd ABI")?;
    }
    // The other requests of /dev/xen/privcmd, such as IOCTL_PRIVCMD_HYPERCALL and IOCTL_PRIVCMD_DM_OP,
    // do not exist here.
    for request in (0x5000..=0x50FF).chain([0x0030_5000, 0x0010_5005]) {
        refused(
            issue(&control, request, &mut [0; 64]),
            Errno::NOTTY,
            "another request of /dev/xen/privcmd",
        )?;
    }
    for file in [control.as_fd(), file.as_fd()] {
        refused(rustix::io::read(file, &mut [0_u8; 8][..]), Errno::INVAL, "read")?;
        refused(rustix::io::write(file, &[0; 8]), Errno::INVAL, "write")?;
    }
    Ok(())
}
