//! This machine's Xen, as far as devices need more of it than an engine.

use crate::acpi::{self, BIOS_PAGE, Extent, Patch, TABLES};
use crate::confinement::{Capabilities, Confinement, confine, give_up_capabilities};
use crate::daemon::store;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::memory::Open;
use crate::resume::{ForeignRings, Rings};
use core::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xen_eventfd::{Arch, Builder, Devices, Domain, KnownGuest, Xen};
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::{LinuxHost, XenstoreClient, confined_privcmd};
use xen_eventfd_host::memory::{FRAME, ForeignMemory, GuestMemory};

/// Pages from [`TABLES`] on in which libxl's tables can be: one before them, 16 of them, one with the RSDP.
const TABLE_PAGES: u64 = 18;

/// This machine's Xen.
#[derive(Debug)]
pub(crate) struct Machine {
    xen: Xen,
    foreign: Arc<LinuxHost>,
    /// What it is reached by, if that can be confined to one guest.
    devices: Option<Devices>,
}

impl Machine {
    /// For any guest.
    pub(crate) fn open(xen: Xen) -> Result<Self> {
        Ok(Self { xen, foreign: Arc::new(LinuxHost::open()?), devices: None })
    }

    /// For the guest with this name or number, which is looked for in xenstore. The connection to it is closed before
    /// this returns, and no other outlives a call.
    pub(crate) fn open_for(builder: Builder, guest: &str) -> Result<(Self, Domain)> {
        let kind = builder.probe().engine()?;
        let host = LinuxHost::open()?;
        let domain = xen_eventfd::find(&host, guest)?;
        let known = KnownGuest::ask(&host, domain.id)?;
        // The registers have event channels of their own.
        let devices = Devices::open()?.with_another_evtchn()?;
        let foreign = Arc::new(LinuxHost::handed(devices.try_clone()?.privcmd, [], []));
        let builder = builder.on_thread_start(|_| give_up_capabilities(Capabilities::None));
        let xen = builder.engine(kind).open_with(devices.try_clone()?, [known])?;
        Ok((Self { xen, foreign, devices: Some(devices) }, domain))
    }

    /// Gives up, in this thread and those that it starts, what only root may do, if the process serves one guest. The engine's
    /// threads have none of it from their start on.
    pub(crate) fn give_up_capabilities(&self, sockets: &[PathBuf]) -> Result<()> {
        let kept = match sockets {
            [] => Capabilities::None,
            _ => Capabilities::Connect,
        };
        if self.devices.is_none() {
            return Ok(());
        }
        give_up_capabilities(kept).map_err(|error| Error::Confinement(error.to_string()))
    }

    /// Gives up, for good, all that the process does not need to serve this guest. `None` if it serves several.
    pub(crate) fn confine(
        &self,
        dom: DomId,
        run_dir: &Path,
        sockets: &[PathBuf],
    ) -> Result<Option<Confinement>> {
        let Some(devices) = &self.devices else { return Ok(None) };
        devices.confine(dom)?;
        confine(run_dir, sockets).map(Some).map_err(Error::Confinement)
    }

    pub(crate) fn xen(&self) -> &Xen {
        &self.xen
    }

    pub(crate) fn foreign(&self) -> &dyn ForeignMemory {
        &*self.foreign
    }

    /// The queues of a guest, for as long as they are needed.
    pub(crate) fn rings(&self, dom: DomId) -> Arc<dyn Rings> {
        Arc::new(ForeignRings(Arc::<LinuxHost>::clone(&self.foreign), dom))
    }

    /// Where a guest's devices are: on Arm where libxl has put them, and elsewhere as `of_x86` says.
    pub(crate) fn layout(&self, dom: DomId, of_x86: Layout) -> Result<Layout> {
        match self.xen.host().arch() {
            Arch::X86 => Ok(of_x86),
            Arch::Arm => {
                let mut xenstore = XenstoreClient::open()?;
                Ok(Layout::DeviceTree(store::places(&mut xenstore, dom)?))
            }
        }
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
