//! Checks of the privcmd ABI that C programs cannot make: `kernel/tests/privcmd` has the rest.

use super::common::{BASE, IDLE};
use crate::device::Control;
use crate::device::structs::PrivcmdIoEventFd;
use anyhow::{Result, ensure};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::new_eventfd;

const PAGE: usize = 4096;

/// Memory of which no page has been touched, except possibly the first and the last.
struct Untouched(Vec<u8>);

impl Untouched {
    /// How many pages are checked.
    const PAGES: usize = 256;
    /// More than an allocator takes from memory that it has: the largest threshold of glibc is 32 MiB.
    const SIZE: usize = 33 << 20;

    fn new() -> Self {
        Self(vec![0; Self::SIZE])
    }

    /// The address of the first whole page.
    fn address(&self) -> usize {
        self.0.as_ptr().expose_provenance().next_multiple_of(PAGE)
    }

    /// How many of its first whole pages have been touched.
    fn touched(&self) -> Result<usize> {
        let mut entries = vec![0; Self::PAGES * 8];
        let first = u64::try_from(self.address() / PAGE)?;
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, first * 8)?;
        // The highest bit of an entry is set if a page is present.
        Ok(entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count())
    }
}

pub(super) fn reads_ports(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let (control, eventfd) = (Control::open()?, new_eventfd()?);
    let ports_read = |vcpus: u32, deassign: bool, verdict: Errno| -> Result<usize> {
        let ports = Untouched::new();
        ensure!(ports.touched()? == 0, "memory that is touched already");
        let request = PrivcmdIoEventFd::of(guest.dom(), BASE, 0, &eventfd)
            .with_ports(ports.address() as u64, vcpus);
        let answer = control.ioeventfd(&if deassign { request.deassign() } else { request });
        ensure!(answer == Err(verdict), "{vcpus} vCPUs, deassign {deassign}: {answer:?}");
        ports.touched()
    };
    // The most that Linux's patch accepts: 4 bytes for each. The first touch may map a huge page.
    ensure!(ports_read(4096, false, Errno::INVAL)? >= 4096 * 4 / PAGE);
    for vcpus in [0, 4097, 1 << 16, u32::MAX] {
        let pages = ports_read(vcpus, false, Errno::INVAL)?;
        ensure!(pages == 0, "{pages} pages are read for {vcpus} vCPUs, which are refused");
    }
    for vcpus in [1, 4096, 4097, u32::MAX] {
        let pages = ports_read(vcpus, true, Errno::NODEV)?;
        ensure!(pages == 0, "{pages} pages are read to deassign a doorbell of {vcpus} vCPUs");
    }
    Ok(())
}
