//! Serves the devices of one guest: their registers by an ioreq server of its own.

use crate::device::Device;
use crate::devices::Devices;
use crate::error::Result;
use crate::layout::Layout;
use crate::record::{Kept, Record, Whose};
use crate::registers::Registers;
use crate::resume::{Again, Connector, KeptSession, Notebook, OwnedRegions, Rings};
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
    event_loop: Arc<EventLoop>,
    #[expect(dead_code, reason = "held")]
    threads: Threads,
}

/// An ioreq server and what serves it.
struct Serving {
    registers: GuestServer,
    event_loop: Arc<EventLoop>,
    threads: Threads,
}

/// [`GuestServer::take`] or [`GuestServer::take_over`].
type Take = fn(
    &Arc<EventLoop>,
    DomId,
    &Claim<'_>,
    Arc<dyn Handler>,
) -> xen_eventfd_ioreq::Result<GuestServer>;

impl Serving {
    fn begin(
        host: &Arc<dyn Host>,
        run_dir: &Path,
        dom: DomId,
        devices: &Arc<Devices>,
        take: Take,
    ) -> Result<Self> {
        let run_dir = RunDir::open(run_dir, Role::Registers)?;
        let event_loop = EventLoop::new(Arc::clone(host), run_dir)?;
        let threads = Threads::start(&event_loop, NAMES, None)?;
        let claim = Claim { role: Role::Registers, serves: SERVES, reserve: &Reserve::No };
        let registers = take(&event_loop, dom, &claim, Arc::<Devices>::clone(devices))?;
        Ok(Self { registers, event_loop, threads })
    }

    fn of(self, doorbells: Guest, devices: Arc<Devices>) -> Server {
        let Self { registers, event_loop, threads } = self;
        Server { registers, doorbells, devices, event_loop, threads }
    }
}

/// What it takes that another process can go on with a guest's devices, and that they go on with backends that were
/// started again.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) whose: Whose,
    /// Of each device, in their order.
    pub(crate) connectors: Vec<Connector>,
    pub(crate) rings: Arc<dyn Rings>,
    /// Of the registers.
    pub(crate) run_dir: RunDir,
    /// The connection of each device, if that is kept.
    pub(crate) sessions: Vec<Option<KeptSession>>,
}

impl Keep {
    fn again(&self, number: usize, memory: &Arc<OwnedRegions>) -> Option<Again> {
        let connector = self.connectors.get(number)?.clone();
        let (run_dir, dom) = (self.run_dir.clone(), DomId(self.whose.domid));
        let notebook = Notebook { run_dir, dom, number };
        let (memory, rings) = (Arc::clone(memory), Arc::clone(&self.rings));
        let session = self.sessions.get(number).cloned().flatten();
        Some(Again { notebook, connector, memory, rings, session })
    }
}

/// A device whose backend is connected.
pub(crate) type Connected = (DeviceSpec, Box<dyn Backend>);

/// The backend of a device whose guest was let go of: as at the start, or of no more use.
pub(crate) type Released = Result<Box<dyn Backend>>;

impl Server {
    /// Takes the guest's registers. It has no devices yet, and no backend has sent anything.
    pub(crate) fn take(xen: &Xen, run_dir: &Path, dom: DomId, layout: &Layout) -> Result<Self> {
        let (host, doorbells) = (xen.host(), xen.guest(dom)?);
        let devices = Arc::new(Devices::new(Arc::clone(host), dom, Registers::new(layout)));
        let serving = Serving::begin(host, run_dir, dom, &devices, GuestServer::take)?;
        Ok(serving.of(doorbells, devices))
    }

    /// Answers for these devices of a guest that was taken, in the places that `layout` has.
    pub(crate) fn with_devices(
        self,
        layout: &Layout,
        connected: Vec<Connected>,
        mut memory: OwnedRegions,
        keep: Option<&Keep>,
    ) -> Result<Self> {
        let Self { doorbells, devices, .. } = &self;
        let (host, dom) = (devices.host(), doorbells.dom());
        for (_, backend) in &connected {
            memory.require(backend.maps_guests())?;
        }
        let memory = Arc::new(memory);
        for (number, ((spec, backend), place)) in
            connected.into_iter().zip(layout.places()).enumerate()
        {
            let regions = memory.regions(backend.maps_guests());
            let (device, registers) =
                Device::new(host, doorbells, backend, &spec.kind, place, &regions)?;
            let again = keep.and_then(|keep| keep.again(number, &memory));
            devices.add(place, device.with_again(again), registers);
        }
        self.answer()?;
        if let Some(keep) = keep {
            let record = Record::new(&keep.run_dir, dom)?;
            self.devices.keep(record, &keep.whose);
        }
        Ok(self)
    }

    /// Routes the guest's accesses to this server, and watches the backends.
    fn answer(&self) -> Result<()> {
        self.devices.route(&self.registers.ranges(), &[])?;
        self.devices.watch_backends(&self.event_loop)
    }

    /// Goes on with the devices of a guest whose process was killed. Its vCPUs that wait for a register are answered; its
    /// backends are connected to as they come.
    pub(crate) fn take_over(
        xen: &Xen,
        run_dir: &Path,
        dom: DomId,
        specs: &[DeviceSpec],
        memory: OwnedRegions,
        keep: &Keep,
        kept: Kept,
    ) -> Result<Self> {
        let host = xen.host();
        let doorbells = xen.guest(dom)?;
        let memory = Arc::new(memory);
        let states = kept.devices.iter().map(|record| &record.registers);
        let registers = Registers::restore(&kept.bus, states)?;
        let devices = Arc::new(Devices::new(Arc::clone(host), dom, registers));
        for (number, (spec, record)) in specs.iter().zip(&kept.devices).enumerate() {
            let again = keep.again(number, &memory);
            let (device, registers) =
                Device::restore(&**host, &doorbells, &spec.kind, again, record)?;
            devices.add(record.registers.place(), device, registers);
        }
        devices.keep(kept.record, &keep.whose);
        let stale: Vec<u64> =
            kept.devices.iter().filter_map(|record| record.registers_before).collect();
        devices.route_first(stale);
        let serving =
            Serving::begin(host, run_dir, doorbells.dom(), &devices, GuestServer::take_over)?;
        devices.routed()?;
        devices.watch_backends(&serving.event_loop)?;
        devices.notify_again();
        Ok(serving.of(doorbells, devices))
    }

    /// Takes a guest and answers for devices that are there.
    #[cfg(test)]
    pub(crate) fn serve(
        host: &Arc<dyn Host>,
        run_dir: &Path,
        doorbells: Guest,
        devices: Arc<Devices>,
    ) -> Result<Self> {
        let serving = Serving::begin(host, run_dir, doorbells.dom(), &devices, GuestServer::take)?;
        let server = serving.of(doorbells, devices);
        server.answer()?;
        Ok(server)
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

#[cfg(test)]
mod tests;
