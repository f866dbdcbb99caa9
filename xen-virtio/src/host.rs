//! This machine's Xen, as far as devices need more of it than an engine.

use crate::acpi::{self, BIOS_PAGE, Extent, Patch, TABLES};
use crate::error::{Error, Result};
use crate::memory::Open;
use crate::resume::{ForeignRings, Rings};
use core::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use xen_eventfd::Xen;
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::{LinuxHost, confined_privcmd};
use xen_eventfd_host::memory::{FRAME, ForeignMemory, GuestMemory};

/// Pages from [`TABLES`] on in which libxl's tables can be: one before them, 16 of them, one with the RSDP.
const TABLE_PAGES: u64 = 18;

/// This machine's Xen.
#[derive(Debug)]
pub(crate) struct Machine {
    xen: Xen,
    foreign: LinuxHost,
}

impl Machine {
    pub(crate) fn open(xen: Xen) -> Result<Self> {
        Ok(Self { xen, foreign: LinuxHost::open()? })
    }

    pub(crate) fn xen(&self) -> &Xen {
        &self.xen
    }

    pub(crate) fn foreign(&self) -> &dyn ForeignMemory {
        &self.foreign
    }

    /// The queues of a guest, for as long as they are needed.
    pub(crate) fn rings(&self, dom: DomId) -> Result<Arc<dyn Rings>> {
        Ok(Arc::new(ForeignRings(LinuxHost::open()?, dom)))
    }

    /// Puts a PCI root into the ACPI tables of a guest that has not run yet.
    pub(crate) fn add_pci_root(&self, dom: DomId) -> Result<()> {
        let first = TABLES / FRAME as u64;
        let pages: Vec<u64> = (first..first + TABLE_PAGES)
            .take_while(|frame| self.foreign.map(dom, &[*frame]).is_ok())
            .collect();
        let none = || Error::Acpi(acpi::AcpiError::NotFound("no page of them is there"));
        let tables = self.foreign.map(dom, &pages).map_err(|_| none())?;
        let bios = self.foreign.map(dom, &[BIOS_PAGE / FRAME as u64]).ok();
        let tables_copy = copy(TABLES, &*tables);
        let bios_copy = bios.as_ref().map(|bios| copy(BIOS_PAGE, &**bios));
        for Patch { at, bytes } in acpi::add_root(&tables_copy, bios_copy.as_ref())? {
            let (base, memory) = match &bios {
                Some(bios) if at < TABLES => (BIOS_PAGE, bios),
                _ => (TABLES, &tables),
            };
            // They are in what was read.
            memory.write(usize::try_from(at - base).unwrap_or(0), &bytes);
        }
        Ok(())
    }
}

impl Open for Machine {
    fn memory(&self, dom: DomId, range: Range<u64>) -> Result<OwnedFd> {
        Ok(self.xen.guest_memory(dom, range.start, range.end - range.start)?)
    }

    fn privcmd(&self, dom: DomId) -> Result<OwnedFd> {
        Ok(confined_privcmd(dom)?)
    }
}

fn copy(base: u64, memory: &dyn GuestMemory) -> Extent {
    let mut bytes = vec![0; memory.bytes().len()];
    memory.read(0, &mut bytes);
    Extent { base, bytes }
}
