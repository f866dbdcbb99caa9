//! Serves the devices of one guest: their registers by an ioreq server of its own.

use crate::device::Device;
use crate::devices::Devices;
use crate::error::Result;
use crate::layout::Layout;
use crate::memory::Regions;
use crate::spec::DeviceSpec;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use xen_eventfd::{Guest, Host, Xen};
use xen_eventfd_core::DomId;
use xen_eventfd_ioreq::{
    Claim, EventLoop, GuestServer, Handler, Reserve, Role, RunDir, ThreadNames, Threads,
};
use xen_eventfd_vhost::Backend;

const NAMES: ThreadNames =
    ThreadNames { ports: "xen-virtio", fds: "xen-virtio-fds", watch: "xen-virtio-end" };
/// To those who ask for the holder of the guest.
pub(crate) const SERVES: &str = "xen-virtio";

/// A guest whose devices are served until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Dropped first, while the threads still answer the guest.
    registers: GuestServer,
    doorbells: Guest,
    devices: Arc<Devices>,
    #[expect(dead_code, reason = "held")]
    threads: Threads,
}

/// A device whose backend is connected.
pub(crate) type Connected = (DeviceSpec, Box<dyn Backend>);

/// The backend of a device whose guest was let go of: as at the start, or of no more use.
pub(crate) type Released = Result<Box<dyn Backend>>;

impl Server {
    /// Takes the guest's registers and answers for its devices.
    pub(crate) fn start(
        xen: &Xen,
        run_dir: &Path,
        dom: DomId,
        layout: Layout,
        connected: Vec<Connected>,
        memory: &mut dyn Regions,
    ) -> Result<Self> {
        let host = xen.host();
        let doorbells = xen.guest(dom)?;
        let devices = Arc::new(Devices::new(Arc::clone(host), dom, layout.bus()));
        for ((spec, backend), place) in connected.into_iter().zip(layout.places()) {
            let regions = memory.regions_for(&*backend)?;
            let (device, function) =
                Device::new(&**host, &doorbells, backend, &spec.kind, place, &regions)?;
            devices.add(place.function, device, function);
        }
        Self::serve(host, run_dir, doorbells, devices)
    }

    /// The same for devices that are there.
    pub(crate) fn serve(
        host: &Arc<dyn Host>,
        run_dir: &Path,
        doorbells: Guest,
        devices: Arc<Devices>,
    ) -> Result<Self> {
        let run_dir = RunDir::open(run_dir, Role::Registers)?;
        let event_loop = EventLoop::new(Arc::clone(host), run_dir)?;
        let threads = Threads::start(&event_loop, NAMES, None)?;
        let claim = Claim { role: Role::Registers, serves: SERVES, reserve: &Reserve::No };
        let handler: Arc<dyn Handler> = Arc::<Devices>::clone(&devices);
        let registers = GuestServer::take(&event_loop, doorbells.dom(), &claim, handler)?;
        devices.route(&registers.ranges())?;
        devices.watch_backends(&event_loop)?;
        Ok(Self { registers, doorbells, devices, threads })
    }

    /// The guest's devices.
    pub(crate) fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// The guest, as the engine has it.
    pub(crate) fn guest(&self) -> &Guest {
        &self.doorbells
    }

    /// Readable once the guest is gone.
    pub(crate) fn gone(&self) -> BorrowedFd<'_> {
        self.registers.gone()
    }

    /// Lets go of the guest. Returns the backends in the order of the devices.
    pub(crate) fn stop(self) -> Result<Vec<Released>> {
        self.registers.let_go()?;
        let backends = self.devices.take_backends();
        self.doorbells.close()?;
        Ok(backends)
    }
}
