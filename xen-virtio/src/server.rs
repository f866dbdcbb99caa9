//! Serves the devices of one guest: their registers by an ioreq server of its own.

use crate::devices::Devices;
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;
use xen_eventfd::Host;
use xen_eventfd_core::DomId;
use xen_eventfd_ioreq::{
    Claim, EventLoop, GuestServer, Handler, Reserve, Role, RunDir, ThreadNames, Threads,
};

const NAMES: ThreadNames =
    ThreadNames { ports: "xen-virtio", fds: "xen-virtio-fds", watch: "xen-virtio-end" };

/// A guest whose devices are served until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Dropped first, while the threads still answer the guest.
    guest: GuestServer,
    #[expect(dead_code, reason = "held")]
    threads: Threads,
}

impl Server {
    /// Takes the guest's registers and answers for its devices.
    pub(crate) fn start(
        host: &Arc<dyn Host>,
        run_dir: &Path,
        dom: DomId,
        devices: &Arc<Devices>,
    ) -> Result<Self> {
        let run_dir = RunDir::open(run_dir, Role::Registers)?;
        let event_loop = EventLoop::new(Arc::clone(host), run_dir)?;
        let threads = Threads::start(&event_loop, NAMES, None)?;
        let claim = Claim { role: Role::Registers, serves: "xen-virtio", reserve: &Reserve::No };
        let handler: Arc<dyn Handler> = Arc::<Devices>::clone(devices);
        let guest = GuestServer::take(&event_loop, dom, &claim, handler)?;
        devices.route(&guest.ranges())?;
        devices.watch_backends(&event_loop)?;
        Ok(Self { guest, threads })
    }

    /// Lets go of the guest.
    pub(crate) fn stop(self) -> Result<()> {
        Ok(self.guest.let_go()?)
    }
}
